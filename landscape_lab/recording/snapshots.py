"""Copies of a model's state in reusable memory of the CPU."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from landscape_lab.errors import InputError

__all__ = ["Snapshot", "SnapshotPool", "layout_of"]

_ALIGNED = 64


class Snapshot:
    """Named tensors that lie in one buffer; :meth:`tensors` waits until a copy from a GPU has arrived."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.layout = layout_of(state)
        ends = [0]
        for shape, dtype in self.layout.values():
            size = shape.numel() * dtype.itemsize
            ends.append(ends[-1] + -(-size // _ALIGNED) * _ALIGNED)
        # Pinned memory lets the copy from a GPU run beside the next epoch's kernels.
        pinned = any(tensor.is_cuda for tensor in state.values())
        self._buffer = torch.empty(ends[-1], dtype=torch.uint8, pin_memory=pinned)
        self._views = {
            name: self._buffer[start : start + shape.numel() * dtype.itemsize].view(dtype).view(shape)
            for (name, (shape, dtype)), start in zip(self.layout.items(), ends, strict=False)
        }
        self._arrived: list[torch.cuda.Event] = []

    @property
    def nbytes(self) -> int:
        """Size of the buffer."""
        return self._buffer.numel()

    def fill(self, state: Mapping[str, Tensor]) -> None:
        """Copy ``state`` into the buffer; from a GPU without waiting for it.

        The copy is in the order of the GPU's stream, so that the next optimiser step does not overtake it.
        """
        with torch.no_grad():
            for name, view in self._views.items():
                view.copy_(state[name], non_blocking=state[name].is_cuda)
        self._arrived = []
        for device in {tensor.device for tensor in state.values() if tensor.is_cuda}:
            with torch.cuda.device(device):
                event = torch.cuda.Event()
                event.record()
                self._arrived.append(event)

    def tensors(self) -> dict[str, Tensor]:
        """The copies, as views of the buffer."""
        for event in self._arrived:
            event.synchronize()
        return self._views


class SnapshotPool:
    """At most ``limit`` snapshots; who wants one more waits until one is given back.

    Args:
        limit: how many buffers there may ever be.
    """

    def __init__(self, limit: int = 2) -> None:
        self._limit, self._count = limit, 0
        self._free: list[Snapshot] = []
        self._returned = threading.Condition()

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers that lie ready."""
        return sum(snapshot.nbytes for snapshot in self._free)

    @property
    def count(self) -> int:
        """How many buffers there are, in use or ready."""
        return self._count

    def take(self, state: Mapping[str, Tensor]) -> Snapshot:
        """A copy of ``state``; give it back when it is not needed any more.

        Raises:
            InputError: a tensor has no values on this process alone (sharded, or on the meta device).
        """
        layout = layout_of(state)
        with self._returned:
            self._returned.wait_for(lambda: self._free or self._count < self._limit)
            snapshot = self._free.pop() if self._free else None
            self._count += snapshot is None
        try:
            if snapshot is None or snapshot.layout != layout:
                snapshot = Snapshot(state)
            snapshot.fill(state)
        except BaseException:  # also Ctrl-C: else the next epoch would wait for ever
            self.give_back(snapshot)
            raise
        return snapshot

    def give_back(self, snapshot: Snapshot | None) -> None:
        """Let a snapshot be used again; ``None``: it was never made."""
        with self._returned:
            if snapshot is None:
                self._count -= 1
            else:
                self._free.append(snapshot)
            self._returned.notify()


def layout_of(state: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape and type of each tensor.

    Raises:
        InputError: a tensor has no values on this process alone (sharded, or on the meta device).
    """
    for name, tensor in state.items():
        if tensor.is_meta or _is_sharded(tensor):
            what = "has no values (device meta)" if tensor.is_meta else "is one shard of a tensor (FSDP)"
            raise InputError(
                f"{name!r} {what}: gather the whole state dict yourself and give it, weights=lambda: state_dict"
            )
    return {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}


def _is_sharded(tensor: Any) -> bool:
    return hasattr(tensor, "placements") or hasattr(tensor, "local_shards")
