"""A model's parameters as one flat vector: the space in which every landscape is drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Literal

import torch
from torch import Tensor, nn

from landscape_lab.errors import InputError, nearest

__all__ = [
    "BatchNormPolicy",
    "ParameterSpace",
    "eval_mode",
    "frozen_batch_statistics",
    "matching",
    "reestimated_statistics",
    "swapped_statistics",
]

BatchNormPolicy = Literal["running", "batch", "reestimated"]


class ParameterSpace:
    """The names, shapes and slices of a model's trainable parameters within one vector of shape ``(P,)``.

    Args:
        model: any module; parameters with ``requires_grad=False`` are left out, a parameter shared between
            modules counts once, under its first name.
        where: keep only the parameters whose name it accepts (``None``: all).

    Raises:
        ValueError: no parameter is left, or the parameters differ in dtype or device.

    Example:
        >>> space = ParameterSpace(nn.Linear(3, 2))
        >>> space.size, space.names
        (8, ('weight', 'bias'))
        >>> space.slice_of("bias")
        slice(6, 8, None)
    """

    def __init__(self, model: nn.Module, where: Callable[[str], bool] | None = None) -> None:
        self._parameters = {
            name: parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and (where is None or where(name))
        }
        if not self._parameters:
            raise ValueError("the model has no trainable parameters among those selected")
        kinds = {(parameter.dtype, parameter.device) for parameter in self._parameters.values()}
        if len(kinds) > 1:
            found = sorted(map(str, kinds))
            raise ValueError(f"all parameters must have one dtype and one device, got {found}")
        ((self.dtype, self.device),) = kinds
        self.names = tuple(self._parameters)
        self.shapes = tuple(parameter.shape for parameter in self._parameters.values())
        self.sizes = tuple(parameter.numel() for parameter in self._parameters.values())
        self.size = sum(self.sizes)
        ends = torch.tensor(self.sizes).cumsum(0).tolist()
        self._slices = {
            name: slice(end - size, end) for name, size, end in zip(self.names, self.sizes, ends, strict=True)
        }

    @property
    def parameters(self) -> tuple[nn.Parameter, ...]:
        """The model's own parameters, in the order of :attr:`names`."""
        return tuple(self._parameters.values())

    def slice_of(self, name: str) -> slice:
        """The place of one parameter in the vector."""
        return self._slices[name]

    def range_of(self, prefix: str) -> slice:
        """The place of the module ``prefix`` in the vector.

        Raises:
            ValueError: the module's parameters do not lie side by side, or there are none.
        """
        inside = [name.startswith(f"{prefix}.") for name in self.names]
        if not any(inside):
            raise ValueError(f"no parameter lies in {prefix!r}")
        first, last = inside.index(True), len(inside) - 1 - inside[::-1].index(True)
        if not all(inside[first : last + 1]):
            raise ValueError(f"the parameters of {prefix!r} do not lie side by side")
        return slice(self._slices[self.names[first]].start, self._slices[self.names[last]].stop)

    def vector(self, dtype: torch.dtype | None = None) -> Tensor:
        """A copy of the current parameters, of shape ``(P,)``."""
        return self.flatten([parameter.detach() for parameter in self.parameters]).to(dtype or self.dtype)

    def flatten(self, tensors: Sequence[Tensor | None]) -> Tensor:
        """Tensors in parameter order to one ``(P,)`` vector; ``None`` (an unused parameter) becomes zeros."""
        parts = [
            torch.zeros(size, dtype=self.dtype, device=self.device) if tensor is None else tensor.reshape(-1)
            for size, tensor in zip(self.sizes, tensors, strict=True)
        ]
        return torch.cat(parts)

    def views(self, vector: Tensor) -> dict[str, Tensor]:
        """A ``(P,)`` vector as named views with the parameters' shapes, sharing its memory."""
        parts = torch.split(vector, list(self.sizes))
        return {name: part.view(shape) for name, part, shape in zip(self.names, parts, self.shapes, strict=True)}

    def adopt(self) -> tuple[Tensor, Tensor]:
        """Move the parameters into one buffer, for good, and give them gradients in another.

        Returns:
            The ``(P,)`` parameter buffer and the ``(P,)`` gradient buffer (zero). Writing to the first moves
            the model; ``backward`` adds into the second. From then on a perturbation, a penalty or an
            optimiser step is one operation on a vector instead of one for each tensor.
        """
        flat = self.vector()
        gradient = torch.zeros_like(flat)
        for name, view in self.views(flat).items():
            self._parameters[name].data = view
        for name, view in self.views(gradient).items():
            self._parameters[name].grad = view
        return flat, gradient

    @contextmanager
    def bound_to(self, vector: Tensor) -> Iterator[None]:
        """Within the block the model's parameters *are* ``vector``; writing to it moves the model.

        The caller's tensors are put back at the end, untouched, also after an exception.
        """
        kept = {name: parameter.data for name, parameter in self._parameters.items()}
        try:
            for name, view in self.views(vector).items():
                self._parameters[name].data = view
            yield
        finally:
            for name, data in kept.items():
                self._parameters[name].data = data


def matching(model: nn.Module, pattern: str) -> Callable[[str], bool]:
    """A filter for :class:`ParameterSpace`: a module, a parameter, or a glob over parameter names.

    Args:
        model: whose parameters are meant.
        pattern: ``"encoder"`` (a module with all below it), ``"encoder.conv1.weight"``, ``"encoder.*"``, ``"*.bias"``.

    Raises:
        InputError: no trainable parameter matches.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
        >>> ParameterSpace(net, matching(net, "1")).names, ParameterSpace(net, matching(net, "*.bias")).names
        (('1.weight', '1.bias'), ('0.bias', '1.bias'))
    """

    def matches(name: str) -> bool:
        return name.startswith(f"{pattern}.") or fnmatchcase(name, pattern)

    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not any(map(matches, names)):
        modules = {name.rsplit(".", k)[0] for name in names for k in range(1, name.count(".") + 1)}
        raise InputError(f"no trainable parameter matches {pattern!r}{nearest(pattern, sorted({*names, *modules}))}")
    return matches


@contextmanager
def eval_mode(model: nn.Module, batch_norm: BatchNormPolicy = "running") -> Iterator[None]:
    """Put ``model`` into evaluation mode and give every module its own mode back afterwards.

    Args:
        model: any module.
        batch_norm: ``"running"`` normalises by the running statistics (plain evaluation); ``"batch"`` by the
            statistics of each batch, updating no buffer (dropout stays off); ``"reestimated"`` is ``"running"`` within
            :func:`swapped_statistics`.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        if batch_norm == "batch":
            for norm in _norms(model):
                norm.training = True
            with frozen_batch_statistics(model):
                yield
        else:
            yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def frozen_batch_statistics(model: nn.Module) -> Iterator[None]:
    """Within the block, BatchNorm in training mode uses the batch's statistics and updates no buffer."""
    # With track_running_stats False and buffers present, torch uses the batch's statistics in training mode.
    norms = _norms(model)
    kept = [norm.track_running_stats for norm in norms]
    try:
        for norm in norms:
            norm.track_running_stats = False
        yield
    finally:
        for norm, tracked in zip(norms, kept, strict=True):
            norm.track_running_stats = tracked


def _norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    # Not _NormBase: in training mode InstanceNorm updates its buffers, whatever track_running_stats says.
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def reestimated_statistics(model: nn.Module, inputs: Iterable[Tensor]) -> dict[str, Tensor]:
    """Means and variances of BatchNorm's inputs over all given samples, as buffers by name; the model stays as it is.

    As in stochastic weight averaging (Izmailov et al. 2018, arXiv:1803.05407): one pass in training mode, averaging
    over the batches, each weighted alike.

    Args:
        model: any module.
        inputs: batches of inputs on the model's device.
    """
    norms = {name: module for name, module in model.named_modules() if module in _norms(model)}
    kept = {name: (norm.momentum, _statistics(norm)) for name, norm in norms.items()}
    try:
        for name, norm in norms.items():
            norm.momentum = None  # the plain average over batches
            for buffer, value in kept[name][1].items():
                start = torch.ones_like if buffer == "running_var" else torch.zeros_like
                setattr(norm, buffer, start(value))
        with torch.no_grad(), eval_mode(model):
            for norm in norms.values():
                norm.training = True
            for some in inputs:
                model(some)
        return {f"{name}.{key}": value for name, norm in norms.items() for key, value in _statistics(norm).items()}
    finally:
        for name, norm in norms.items():
            norm.momentum, buffers = kept[name]
            for buffer, value in buffers.items():
                setattr(norm, buffer, value)


@contextmanager
def swapped_statistics(model: nn.Module, statistics: Mapping[str, Tensor]) -> Iterator[None]:
    """Within the block BatchNorm has the buffers of :func:`reestimated_statistics`; then the model's own again."""
    norms = {name: module for name, module in model.named_modules() if module in _norms(model)}
    kept = {name: _statistics(norm) for name, norm in norms.items()}
    try:
        for name, norm in norms.items():
            for buffer in kept[name]:
                setattr(norm, buffer, statistics[f"{name}.{buffer}"])
        yield
    finally:
        for name, norm in norms.items():
            for buffer, value in kept[name].items():
                setattr(norm, buffer, value)


def _statistics(norm: nn.modules.batchnorm._BatchNorm) -> dict[str, Tensor]:
    names = ("running_mean", "running_var", "num_batches_tracked")
    return {name: value for name in names if (value := getattr(norm, name)) is not None}
