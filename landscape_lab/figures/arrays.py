"""Results hold tensors, matplotlib draws arrays."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Array", "as_array"]

Array = NDArray[np.float64]


def as_array(tensor: torch.Tensor) -> Array:
    """A tensor of any dtype as a float64 array."""
    return np.asarray(tensor.detach().cpu().to(torch.float64).numpy(), dtype=np.float64)
