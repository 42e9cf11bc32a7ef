"""Sums over an epoch's steps, kept on the device and read back once."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["EpochLog"]


class EpochLog:
    """Accumulates what ``metrics.jsonl`` says of an epoch's steps."""

    FIELDS = ("loss", "hits", "samples", "loss_gradient", "penalty_gradient", "ratio", "steps")

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(len(self.FIELDS), dtype=torch.float64, device=device)

    def add(self, losses: Tensor, logits: Tensor, targets: Tensor, loss_norm: Tensor, penalty_norm: Tensor) -> None:
        """Add one step: ``(B,)`` losses, ``(B, C)`` logits, and the two gradients' norms."""
        one = torch.ones_like(loss_norm)
        ratio = penalty_norm / loss_norm.clamp_min(torch.finfo(loss_norm.dtype).tiny)
        hits = (logits.argmax(1) == targets).sum()
        row = [losses.sum(), hits, one * len(losses), loss_norm, penalty_norm, ratio, one]
        self._sums += torch.stack([value.double() for value in row])

    def means(self) -> dict[str, float]:
        """Means over samples (loss, accuracy) and over steps (norms, their ratio); reads back the sums."""
        sums = dict(zip(self.FIELDS, self._sums.tolist(), strict=True))
        return {
            "loss": sums["loss"] / sums["samples"],
            "accuracy": sums["hits"] / sums["samples"],
            "loss_gradient": sums["loss_gradient"] / sums["steps"],
            "penalty_gradient": sums["penalty_gradient"] / sums["steps"],
            "ratio": sums["ratio"] / sums["steps"],
        }
