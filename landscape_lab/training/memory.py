"""The memory bank of GKP, by reference: a class remembers an epoch, not a copy of the encoder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["MemoryBank", "Snapshot"]

Snapshot = tuple[Tensor, Tensor]
"""Parameters ``(P,)`` and BatchNorm statistics ``(S,)`` of one epoch's encoder."""


class MemoryBank:
    """For each class the encoder of the epoch at which its features were best (GKP+GSA, Eq. 1).

    θ^c is always *some* epoch's encoder, so the bank keeps ``class -> epoch`` and one snapshot for each epoch
    that is still referred to: ``min(C, T)`` vectors instead of C, and their Gram matrix, one row an epoch.

    Args:
        num_classes: C.

    Attributes:
        epochs: the epoch of each class, -1 before the first update; length C.
        quality: Q at that epoch; length C.
    """

    def __init__(self, num_classes: int) -> None:
        self.epochs = [-1] * num_classes
        self.quality = [-math.inf] * num_classes
        self._snapshots: dict[int, Snapshot] = {}
        self._gram: dict[tuple[int, int], float] = {}

    @property
    def snapshots(self) -> Mapping[int, Snapshot]:
        """The snapshots that some class refers to, by epoch."""
        return self._snapshots

    def update(self, epoch: int, quality: Sequence[float], snapshot: Snapshot) -> bool:
        """Offer one epoch's encoder to all classes (Eq. 1: kept where Q is strictly higher).

        Args:
            epoch: number of epochs completed.
            quality: Q of each class now, length C; NaN (a class without samples) never replaces.
            snapshot: is copied only where some class takes it.

        Returns:
            Whether some class took it.
        """
        better = [c for c, q in enumerate(quality) if self.epochs[c] < 0 or (not math.isnan(q) and q > self.quality[c])]
        for c in better:
            self.epochs[c] = epoch
            self.quality[c] = -math.inf if math.isnan(quality[c]) else quality[c]
        if better:
            self._insert(epoch, (snapshot[0].detach().clone(), snapshot[1].detach().clone()))
        for old in set(self._snapshots) - set(self.epochs):
            del self._snapshots[old]
            self._gram = {pair: dot for pair, dot in self._gram.items() if old not in pair}
        return bool(better)

    def restore(self, epochs: Sequence[int], quality: Sequence[float], snapshots: Mapping[int, Snapshot]) -> None:
        """Put back what :attr:`epochs`, :attr:`quality` and :attr:`snapshots` held."""
        self.epochs, self.quality = list(epochs), list(quality)
        self._snapshots, self._gram = {}, {}
        for epoch in sorted(snapshots):
            self._insert(epoch, snapshots[epoch])

    def _insert(self, epoch: int, snapshot: Snapshot) -> None:
        self._snapshots[epoch] = snapshot
        # float64: late in training all encoders are nearly parallel, and NCut lives on what is left.
        new = snapshot[0].double()
        for other, (parameters, _) in self._snapshots.items():
            self._gram[min(epoch, other), max(epoch, other)] = float(parameters.double() @ new)

    def gram(self) -> NDArray[np.float64]:
        """Inner products of the classes' stored parameters, ``(C, C)`` float64."""
        return np.array([[self._gram[min(a, b), max(a, b)] for b in self.epochs] for a in self.epochs])

    def mean(self, classes: Sequence[int]) -> Snapshot:
        """The shared encoder of a group, ``θ*_g = 1/|G_g| Σ_{c ∈ G_g} θ^c`` (Eq. 3), and its statistics."""
        chosen = [self.epochs[c] for c in classes]
        distinct = sorted(set(chosen))
        weights = [chosen.count(epoch) / len(chosen) for epoch in distinct]

        def average(part: int) -> Tensor:
            total = torch.zeros_like(self._snapshots[distinct[0]][part], dtype=torch.float64)
            for epoch, weight in zip(distinct, weights, strict=True):
                total.add_(self._snapshots[epoch][part], alpha=weight)
            return total.to(self._snapshots[distinct[0]][part].dtype)

        return average(0), average(1)

    @property
    def nbytes(self) -> int:
        """Memory held by the snapshots, in bytes."""
        return sum(tensor.nbytes for snapshot in self._snapshots.values() for tensor in snapshot)
