"""The memory layout in which a CPU convolves images fastest."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["channels_last", "has_convolutions"]


def channels_last(inputs: Tensor) -> Tensor:
    """Images ``(B, C, H, W)`` with the channels side by side in memory; anything else as it is."""
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.dim() == 4 else inputs


def has_convolutions(model: nn.Module) -> bool:
    """Whether the layout of images matters to ``model``."""
    return any(isinstance(module, nn.Conv2d) for module in model.modules())
