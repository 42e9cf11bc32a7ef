"""Which device to work on: said aloud, never changed in silence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from landscape_lab.errors import InputError

__all__ = ["describe", "resolve_device", "tf32"]


def resolve_device(name: str = "auto") -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:1`` into a device.

    ``auto`` takes CUDA where there is one. On CUDA, torch is told to use deterministic algorithms and full
    float32 (no TF32), so that a seed and a device give the same run.

    Raises:
        InputError: CUDA was asked for and there is none, or the name is unknown.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"unknown device {name!r}; use auto, cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device {name!r} is not supported; use auto, cpu or cuda")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise InputError("--device cuda: this PyTorch finds no CUDA device; use --device cpu or auto")
        if (device.index or 0) >= torch.cuda.device_count():
            raise InputError(f"--device {name}: there are only {torch.cuda.device_count()} CUDA devices")
        # cuBLAS reads this when CUDA starts; sums by class (index_add_) need the second to be repeatable.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False
    return device


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Within the block, CUDA convolutions and matrix products may round their inputs to TF32, or may not."""
    kept = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = kept


def describe(device: torch.device) -> str:
    """A device's name for people: ``cpu``, or the GPU's model."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
