"""Several inputs a sample as one tensor, so that whatever handles batches handles models of several inputs, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from landscape_lab.errors import InputError

__all__ = ["Inputs", "Packing", "packing_of"]

Inputs = Tensor | Sequence[Tensor] | Mapping[str, Tensor]


@dataclass(frozen=True)
class Packing:
    """Where each input of a model lies in one row of float64 numbers a sample.

    Whole numbers up to 2**53, float32 and bfloat16 survive the way there and back unchanged.

    Attributes:
        names: of keyword arguments; ``None``: the inputs are positional.
        shapes: of each input, without its first dimension.
        dtypes: of each input.
    """

    names: tuple[str, ...] | None
    shapes: tuple[torch.Size, ...]
    dtypes: tuple[torch.dtype, ...]

    def pack(self, inputs: Inputs) -> Tensor:
        """``(B, D)`` float64 from the inputs of one batch.

        Raises:
            InputError: they are not such as those that the packing was made for.
        """
        parts = _parts(inputs)[1]
        if tuple(part.shape[1:] for part in parts) != self.shapes or len({len(part) for part in parts}) > 1:
            found = ", ".join(str(tuple(part.shape)) for part in parts)
            raise InputError(f"the inputs of different batches have different shapes ({found}): pad them to one shape")
        return torch.cat([part.reshape(len(part), -1).double() for part in parts], dim=1)

    def unpack(self, packed: Tensor) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """The model's arguments, positional and by name, from ``(B, D)``."""
        sizes = [shape.numel() for shape in self.shapes]
        columns = zip(packed.split(sizes, dim=1), self.shapes, self.dtypes, strict=True)
        parts = tuple(part.reshape(len(part), *shape).to(dtype) for part, shape, dtype in columns)
        return (parts, {}) if self.names is None else ((), dict(zip(self.names, parts, strict=True)))

    def attach(self, model: nn.Module) -> None:
        """Make ``model`` take packed inputs from now on."""

        def unpacked(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return self.unpack(args[0])

        model.register_forward_pre_hook(unpacked, with_kwargs=True)


def packing_of(inputs: Inputs) -> Packing | None:
    """How to pack the inputs of this batch; ``None`` for a single tensor.

    Raises:
        InputError: there are no tensors, or other things among them.
    """
    if isinstance(inputs, Tensor):
        return None
    names, parts = _parts(inputs)
    return Packing(names, tuple(part.shape[1:] for part in parts), tuple(part.dtype for part in parts))


def _parts(inputs: Inputs) -> tuple[tuple[str, ...] | None, list[Tensor]]:
    named = isinstance(inputs, Mapping)
    parts = list(inputs.values()) if isinstance(inputs, Mapping) else list(inputs)
    wrong = next((part for part in parts if not isinstance(part, Tensor) or not part.dim() or part.is_complex()), None)
    if wrong is not None or not parts:
        raise InputError(f"the inputs must be real tensors (B, …), or tuples or mappings of them, got {wrong!r:.60}")
    return (tuple(map(str, inputs)) if named else None), parts
