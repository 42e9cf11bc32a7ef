"""The memory bank of GKP, by reference: a class remembers an epoch, not a copy of the encoder."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape_lab.errors import InputError
from landscape_lab.files import read_tensors, write_tensors

__all__ = ["MemoryBank", "Snapshot"]

Snapshot = tuple[Tensor, Tensor]
"""Parameters ``(P,)`` and BatchNorm statistics ``(S,)`` of one epoch's encoder."""

CHUNK = 1 << 20
"""Numbers that are turned into float64 at once."""


class MemoryBank:
    """For each class the encoder of the epoch at which its features were best (GKP+GSA, Eq. 1).

    θ^c is always *some* epoch's encoder, so the bank keeps ``class -> epoch`` and one snapshot for each epoch
    that is still referred to: ``T = min(C, epochs)`` vectors instead of C. With a folder they are files, of which
    the newest stay in memory; the others are read one at a time. A kill between any two of :meth:`update`,
    :meth:`save`, the writing of :meth:`state` and :meth:`prune`, in this order, does no harm.

    Args:
        num_classes: C.
        folder: where :meth:`save` puts the snapshots; ``None``: they stay in memory.
        limit: bytes of snapshots to keep in memory when they are in the folder, too; ``None``: all.
        statistics: count the BatchNorm statistics in :meth:`gram`.

    Attributes:
        epochs: the epoch of each class, -1 before the first update; length C.
        quality: Q at that epoch; length C.
    """

    def __init__(
        self, num_classes: int, folder: Path | None = None, limit: int | None = None, *, statistics: bool = False
    ) -> None:
        self.epochs = [-1] * num_classes
        self.quality = [-math.inf] * num_classes
        self.folder, self.limit, self.statistics = folder, limit, statistics
        self._held: dict[int, Snapshot] = {}
        self._saved: set[int] = set()
        self._device: torch.device | None = None
        self._gram: dict[tuple[int, int], float] = {}

    # -- what it holds ---------------------------------------------------------------------------------------

    @property
    def distinct(self) -> tuple[int, ...]:
        """The epochs that some class refers to, ascending; length T."""
        return tuple(sorted(set(self.epochs) - {-1}))

    @property
    def multiplicity(self) -> NDArray[np.int64]:
        """The number of classes that refer to each of :attr:`distinct`, ``(T,)``."""
        count = Counter(self.epochs)
        return np.array([count[epoch] for epoch in self.distinct], dtype=np.int64)

    @property
    def nbytes(self) -> int:
        """Memory held by snapshots, in bytes."""
        return sum(map(_size, self._held.values()))

    @property
    def bytes_on_disk(self) -> int:
        """Size of the files that the classes refer to, in bytes."""
        return sum(self._path(epoch).stat().st_size for epoch in self._saved.intersection(self.epochs))

    def snapshot(self, epoch: int) -> Snapshot:
        """The snapshot of one of :attr:`distinct`, on the device where it was taken.

        Raises:
            InputError: its file is missing or damaged.
        """
        return self._held[epoch] if epoch in self._held else self._read(epoch)

    # -- Eq. 1 -----------------------------------------------------------------------------------------------

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
        live = set(self.epochs)
        self._held = {old: held for old, held in self._held.items() if old in live}
        self._gram = {pair: dot for pair, dot in self._gram.items() if live.issuperset(pair)}
        if better:
            # Offered once more under the same number, it is another encoder.
            self._saved.discard(epoch)
            self._gram = {pair: dot for pair, dot in self._gram.items() if epoch not in pair}
            self._make_room(_size(snapshot))
            self._device = snapshot[0].device
            self._held[epoch] = (snapshot[0].detach().clone(), snapshot[1].detach().clone())
        return bool(better)

    # -- files -----------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the snapshots that are not in the folder yet, then drop the oldest beyond the limit from memory.

        Raises:
            OSError: the disk is full or the folder cannot be written.
        """
        if self.folder is None:
            return
        for epoch in sorted(set(self._held) - self._saved):
            parameters, statistics = self._held[epoch]
            write_tensors(self._path(epoch), {"parameters": parameters, "statistics": statistics})
            self._saved.add(epoch)
        self._make_room(0)

    def prune(self) -> None:
        """Delete the files of epochs that no class refers to; call it when :meth:`state` is on the disk."""
        if self.folder is None:
            return
        self._saved.intersection_update(self.epochs)
        for path in self.folder.glob("bank-*.safetensors"):
            if int(path.stem.removeprefix("bank-")) not in self._saved:
                path.unlink()

    def state(self) -> dict[str, Tensor]:
        """What :meth:`restore` needs besides the folder, on the CPU.

        Returns:
            ``epochs`` ``(C,)`` int64 and ``quality`` ``(C,)`` float64; ``distinct`` ``(T,)`` int64, which of these
            are in memory as ``held`` ``(T,)`` uint8, and ``gram`` ``(T, T)`` float64, NaN where not needed so far.
        """
        distinct = self.distinct
        gram = [[self._gram.get((min(a, b), max(a, b)), math.nan) for b in distinct] for a in distinct]
        return {
            "epochs": torch.tensor(self.epochs, dtype=torch.int64),
            "quality": torch.tensor(self.quality, dtype=torch.float64),
            "distinct": torch.tensor(distinct, dtype=torch.int64),
            "held": torch.tensor([epoch in self._held for epoch in distinct], dtype=torch.uint8),
            "gram": torch.tensor(gram, dtype=torch.float64).view(len(distinct), len(distinct)),
        }

    def restore(self, state: Mapping[str, Tensor], device: torch.device | str = "cpu") -> None:
        """Go back to a :meth:`state`, with snapshots on ``device``.

        Raises:
            InputError: the state is incomplete or of another number of classes, or a file is missing or damaged.
        """
        try:
            epochs, quality, distinct, held = (state[key].tolist() for key in ("epochs", "quality", "distinct", "held"))
            gram = state["gram"].double().cpu().numpy()
        except KeyError as error:
            raise InputError(f"the memory bank's state is damaged: {error} is missing") from None
        if len(epochs) != len(self.epochs) or len(quality) != len(epochs) or set(epochs) - {-1} != set(distinct):
            raise InputError(f"the memory bank's state does not fit {len(self.epochs)} classes")
        self.epochs, self.quality, self._device = epochs, quality, torch.device(device)
        self._saved = set(distinct)
        self._held = {epoch: self._read(epoch) for epoch, inside in zip(distinct, held, strict=True) if inside}
        for epoch in self._saved.difference(self._held):
            if not self._path(epoch).exists():
                raise InputError(f"{self._path(epoch)} does not exist")
        known = np.argwhere(~np.isnan(np.triu(gram)) & np.triu(np.ones(gram.shape, dtype=bool))).tolist()
        self._gram = {(distinct[i], distinct[j]): float(gram[i, j]) for i, j in known}

    # -- what is computed from it ----------------------------------------------------------------------------

    def gram(self) -> NDArray[np.float64]:
        """Inner products of the stored encoders, ``(T, T)`` float64, in the order of :attr:`distinct`.

        Each is computed once and kept. Files are read once a call for each encoder with a missing product, and
        again for what it misses, which is mostly new and thus in memory.
        """
        distinct = self.distinct
        for place, first in enumerate(distinct):
            missing = [second for second in distinct[place:] if (first, second) not in self._gram]
            if missing:
                one = self.snapshot(first)
                for second in missing:
                    self._gram[first, second] = self._product(one, one if second == first else self.snapshot(second))
        return np.array([[self._gram[min(a, b), max(a, b)] for b in distinct] for a in distinct])

    def mean(self, classes: Sequence[int]) -> Snapshot:
        """The shared encoder of a group, ``θ*_g = 1/|G_g| Σ_{c ∈ G_g} θ^c`` (Eq. 3), and its statistics."""
        count = Counter(self.epochs[c] for c in classes)
        totals: list[Tensor] = []
        dtypes: list[torch.dtype] = []

        def add(snapshot: Snapshot, share: float) -> None:
            if not totals:
                dtypes.extend(part.dtype for part in snapshot)
                totals.extend(torch.zeros_like(part, dtype=torch.float64) for part in snapshot)
            for whole, part in zip(totals, snapshot, strict=True):
                for total, own in zip(whole.split(CHUNK), part.split(CHUNK), strict=True):
                    total.add_(own, alpha=share)

        for epoch in sorted(count):
            add(self.snapshot(epoch), count[epoch] / len(classes))
        parameters, statistics = (total.to(dtype) for total, dtype in zip(totals, dtypes, strict=True))
        return parameters, statistics

    # -- within ----------------------------------------------------------------------------------------------

    def _product(self, one: Snapshot, other: Snapshot) -> float:
        # float64: late in training all encoders are nearly parallel, and NCut lives on what is left.
        total = torch.zeros((), dtype=torch.float64, device=one[0].device)
        for a, b in zip(one[: 1 + self.statistics], other, strict=False):
            for x, y in zip(a.split(CHUNK), b.split(CHUNK), strict=True):
                total += x.double() @ y.double()
        return float(total)

    def _make_room(self, extra: int) -> None:
        if self.limit is None:
            return
        for epoch in sorted(self._saved.intersection(self._held)):
            if self.nbytes + extra <= self.limit:
                return
            del self._held[epoch]

    def _path(self, epoch: int) -> Path:
        if self.folder is None:
            raise InputError(f"the memory bank has no folder, and its encoder of epoch {epoch} is not in memory")
        return self.folder / f"bank-{epoch:04d}.safetensors"

    def _read(self, epoch: int) -> Snapshot:
        tensors, _ = read_tensors(self._path(epoch))
        try:
            return tensors["parameters"].to(self._device), tensors["statistics"].to(self._device)
        except KeyError as error:
            raise InputError(f"{self._path(epoch)} is damaged: {error} is missing") from None


def _size(snapshot: Snapshot) -> int:
    return sum(tensor.nbytes for tensor in snapshot)
