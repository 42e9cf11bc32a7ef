"""Landscape Lab: loss landscapes and training dynamics of long-tailed classifiers, per class, with errors."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from landscape_lab.version import __version__

if TYPE_CHECKING:
    from landscape_lab.recipe import Recipe, load_recipe
    from landscape_lab.recorder import Recorder
    from landscape_lab.run import Run

__all__ = ["Recipe", "Recorder", "Run", "__version__", "load_recipe"]

_HOMES = {
    "Recipe": "landscape_lab.recipe",
    "Recorder": "landscape_lab.recorder",
    "Run": "landscape_lab.run",
    "load_recipe": "landscape_lab.recipe",
}


def __getattr__(name: str) -> Any:
    # Imported at first use: torch takes two seconds, which `landscape-lab --help` should not.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
