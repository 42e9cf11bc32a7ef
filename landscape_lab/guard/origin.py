"""Versions and device that numbers were measured with, to keep beside them."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
import torch

from landscape_lab.devices import describe
from landscape_lab.version import __version__

__all__ = ["origin_of"]


def origin_of(device: torch.device) -> dict[str, Any]:
    """Versions and device."""
    versions = {
        "landscape-lab": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    return {"versions": versions, "device": describe(device)}
