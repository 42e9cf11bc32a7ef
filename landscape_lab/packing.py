"""Several inputs a sample as one tensor, so that whatever handles batches handles models of several inputs, too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from landscape_lab.errors import InputError
from landscape_lab.parameters import eval_mode

__all__ = ["Carried", "Inputs", "Packing", "packing_of"]

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


class Carried:
    """Targets that travel with the inputs through the model, so that class labels can stand where targets stand.

    The analyses sort samples by their targets; here these are sequences, or numbers. The model's output gets the
    target beside it, ``(B, O + T)``, with which the loss is then evaluated; no derivative changes.

    Args:
        model: gets two hooks.
        inputs: ``(n, …)``, one at least.
        targets: ``(n, …)``.
    """

    def __init__(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
        with torch.no_grad(), eval_mode(model):
            device = next(model.parameters()).device
            self._shape = model(inputs[:1].to(device)).shape[1:]
        self._packing = Packing(None, (inputs.shape[1:], targets.shape[1:]), (inputs.dtype, targets.dtype))
        passing: list[Tensor] = []

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            (own, target), _ = self._packing.unpack(args[0])
            passing[:] = [target]
            return (own,), {}

        def after(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            beside = passing.pop().reshape(len(output), -1)
            return torch.cat([output.reshape(len(output), -1), beside.to(output.dtype)], dim=1)

        model.register_forward_pre_hook(before, prepend=True, with_kwargs=True)
        model.register_forward_hook(after)

    def pack(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """What enters the model: ``(n, D)`` float64."""
        return self._packing.pack((inputs, targets))

    def loss(self, loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        """``loss`` on the model's output and the target beside it; what it is given as a target is not used."""
        shape, dtype = self._packing.shapes[1], self._packing.dtypes[1]

        def carried(output: Tensor, labels: Tensor) -> Tensor:
            own, beside = output.split([self._shape.numel(), shape.numel()], dim=1)
            target = beside.detach().reshape(len(output), *shape)
            whole = not dtype.is_floating_point
            return loss(own.reshape(len(output), *self._shape), (target.round() if whole else target).to(dtype))

        carried.own_outputs = self._shape.numel()  # type: ignore[attr-defined]
        return carried


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
