"""Projection heads of contrastive methods."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ProjectionHead"]


class ProjectionHead(nn.Sequential):
    """Linear, BatchNorm, ReLU, linear; then divided by its length (as in BCL, Zhu et al., CVPR 2022).

    ``forward`` maps ``(B, in_dim)`` to ``(B, out_dim)`` of unit length.

    Args:
        in_dim: length of an input vector.
        hidden_dim: width of the hidden layer.
        out_dim: length of an output vector.
    """

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int) -> None:
        layers = nn.Linear(in_dim, hidden_dim), nn.BatchNorm1d(hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, out_dim)
        super().__init__(*layers)
        for layer in (layers[0], layers[3]):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``(B, in_dim)`` to unit vectors ``(B, out_dim)``."""
        hidden: Tensor = super().forward(inputs)  # type: ignore[no-untyped-call]
        return F.normalize(hidden, dim=1)
