"""How much memory gradient graphs take, and how much they may."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from torch import Tensor

from landscape_lab.errors import InputError

__all__ = ["GraphBudget", "graph_bytes", "is_out_of_memory"]

_CGROUP = Path("/sys/fs/cgroup")


class GraphBudget:
    """Bytes that retained gradient graphs may take together, shared by several operators.

    Args:
        device: where the graphs live.
        limit: bytes; ``None``: half of what is free now.
    """

    def __init__(self, device: torch.device, limit: int | None = None) -> None:
        if limit is not None and limit < 0:
            raise InputError(f"memory_limit must not be negative, got {limit}")
        self.left = _available(device) // 2 if limit is None else limit

    def take(self, size: int) -> bool:
        """Reserve ``size`` bytes, if they are left."""
        if size > self.left:
            return False
        self.left -= size
        return True

    def give(self, size: int) -> None:
        """Give back what was taken."""
        self.left += size


def graph_bytes(build: Callable[[], object]) -> int:
    """Bytes of the distinct tensors that a graph saves while ``build`` makes it."""
    seen: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        # An output that a node saves with its history would hold on to that node, for ever.
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        kept = build()
    del kept
    return sum(seen.values())


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an allocation failed, on a GPU or in main memory."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _available(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    available = int(psutil.virtual_memory().available)
    try:  # a container may be allowed less than the machine has
        limit = (_CGROUP / "memory.max").read_text().strip()
        if limit != "max":
            available = min(available, int(limit) - int((_CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):
        pass
    return max(available, 0)
