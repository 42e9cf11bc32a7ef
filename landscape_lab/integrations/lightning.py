"""A callback for Lightning imported as ``lightning.pytorch``; the module pytorch_lightning is for its other name."""

from __future__ import annotations

from landscape_lab.integrations.lightning_hooks import LightningHooks

try:
    from lightning.pytorch import Callback
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"landscape_lab.integrations.lightning needs {error.name}: pip install 'landscape-lab[lightning]'",
        name=error.name,
    ) from error

__all__ = ["LandscapeCallback"]


class LandscapeCallback(LightningHooks, Callback):
    """Records each epoch of ``fit`` as a run: see :class:`.LightningHooks`."""
