"""What ``run.json`` says of every run, whoever trained it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from landscape_lab.data import head_tail, shot_groups
from landscape_lab.devices import describe
from landscape_lab.version import __version__

__all__ = ["described"]


def described(
    counts: Sequence[int], names: Sequence[str], device: torch.device, head_tail_fraction: float = 0.2
) -> dict[str, Any]:
    """Versions, device, class names, class counts and subsets of classes; no groups and no epochs yet.

    Args:
        counts: (C,) training samples of each class.
        names: (C,) what the classes are called.
        device: where it is trained.
        head_tail_fraction: of the classes, that are head, and that are tail.
    """
    subsets = {**shot_groups(counts), **head_tail(counts, head_tail_fraction)}
    return {
        "versions": {
            "landscape-lab": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "device": describe(device),
        "threads": torch.get_num_threads(),
        "class_names": list(names),
        "class_counts": list(counts),
        "subsets": {name: list(classes) for name, classes in subsets.items()},
        "groups": {},
        "epoch_seconds": [],
    }
