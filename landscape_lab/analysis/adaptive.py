r"""A grid that spends its points where the loss bends.

Grids of doubling resolution are nested. From each to the next the new points are predicted by interpolation, and where
the prediction was bad one level up, the model is evaluated; elsewhere the prediction stays. The differences between
evaluated and predicted losses are the coefficients of an interpolating wavelet basis, which decay with the level where
the loss is smooth.

References: A. Harten, *Adaptive multiresolution schemes for shock computations*, J. Comput. Phys. 115 (1994);
G. Deslauriers, S. Dubuc, *Symmetric iterative interpolation processes*, Constr. Approx. 5 (1989), for the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from landscape_lab.analysis.batches import Batches, Loss
from landscape_lab.analysis.surface import Line, Plane, Surface, axes_of, points_of, surface_of
from landscape_lab.analysis.sweep import ACCURACY, LOSS, VARIANCE, Measured, Sweep
from landscape_lab.errors import InputError
from landscape_lab.parameters import BatchNormPolicy, ParameterSpace

__all__ = ["FLOOR", "TOLERANCE", "evaluate_adaptively", "nested_axis", "nested_size"]

TOLERANCE = 0.05
FLOOR = 1e-3  # losses below it are told apart no better than this
_FIRST = 9  # points on each axis that are always evaluated
_WIDE = 20.0  # as in pictures: a wider range is seen on a logarithmic scale
# From one level to the next the error of cubic interpolation falls by 16 where the loss is smooth, by 2 at a ReLU's
# kink. Measured on the tails of two of the digits' networks: with 1/2 nine in ten true errors are smaller than their
# estimate, half of them than a quarter of it.
_DECAY = 0.5


def nested_size(steps: int) -> int:
    """The least number of points of a nested axis that is not below ``steps``: 9, 17, 33, 65 …"""
    size = _FIRST
    while size < steps:
        size = 2 * size - 1
    return size


def nested_axis(low: float, high: float, steps: int) -> Tensor:
    """At least ``steps`` evenly spaced coordinates, float64, as many as nested grids need."""
    return torch.linspace(low, high, nested_size(steps), dtype=torch.float64)


def evaluate_adaptively(
    model: nn.Module,
    loss: Loss,
    batches: Batches,
    where: Plane | Line,
    *,
    x: Tensor,
    y: Tensor | None = None,
    subsets: Mapping[str, Sequence[int]],
    num_classes: int,
    tolerance: float = TOLERANCE,
    parameters: ParameterSpace | None = None,
    batch_norm: BatchNormPolicy = "running",
    batch_size: int | None = None,
    class_counts: Mapping[int, float] | None = None,
    statistics: Sequence[Tensor] | None = None,
    known: Measured | None = None,
    keep: Callable[[Measured], None] | None = None,
    keep_every: float = 5.0,
    progress: Callable[[int], None] | None = None,
) -> Surface:
    r"""As :func:`~landscape_lab.analysis.evaluate`, with the model evaluated only where some subset's loss bends.

    A point is evaluated if for any subset the error that interpolation would make is estimated to be more than
    ``tolerance`` times the loss. Interpolation is cubic in both directions, of :math:`\log(L + 10^{-3})` for a subset
    whose losses on the first grid are not negative and span a factor of 20 or more, as pictures then show it, and of
    :math:`L` otherwise; there "the loss" is the mean of its magnitude on the first grid. Accuracies and variances of
    the mean are interpolated linearly. The last grid is as fine as ``x`` and ``y`` allow, whatever the tolerance.

    Args:
        model: as there, like all that is not listed here.
        x: ``(nx,)``, evenly spaced: see :func:`nested_axis`.
        y: ``(ny,)``, likewise; ``None`` for a line.
        tolerance: the relative error to be content with.

    Returns:
        The surface on the finest grid, with ``evaluated`` and ``errors``.

    Raises:
        InputError: the tolerance is not positive, or the axes cannot be nested.
    """
    if not tolerance > 0:
        raise InputError(f"the tolerance must be positive, got {tolerance:g}")
    space = parameters or ParameterSpace(model)
    x, y = axes_of(where, x, y, space)
    for axis in (x, y):
        if len(axis) > 1 and nested_size(len(axis)) != len(axis):
            raise InputError(f"an adaptive axis needs 9, 17, 33, 65 … points, got {len(axis)}: use nested_axis")
    sweep = Sweep(
        model,
        loss,
        batches,
        space,
        subsets=subsets,
        num_classes=num_classes,
        batch_norm=batch_norm,
        batch_size=batch_size,
        class_counts=class_counts,
        statistics=statistics,
    )
    points = points_of(sweep, where, x, y, known=known, keep=keep, every=keep_every, progress=progress)

    def measured(wanted: Tensor) -> Tensor:
        points.measure(wanted)
        return points.measured.values.permute(2, 3, 0, 1)

    filled = _refined(measured, len(x), len(y), tolerance)
    values = filled.values.permute(2, 3, 0, 1)
    return replace(surface_of(sweep, x, y, values), evaluated=filled.evaluated, errors=filled.errors)


@dataclass(frozen=True, eq=False)
class _Filled:
    """Values ``(3, S, ny, nx)``, where they were evaluated ``(ny, nx)``, and errors of the losses ``(S, ny, nx)``."""

    values: Tensor
    evaluated: Tensor
    errors: Tensor


def _refined(measured: Callable[[Tensor], Tensor], nx: int, ny: int, tolerance: float) -> _Filled:
    """Go from the coarsest grid to the finest.

    Args:
        measured: evaluates the points of a mask ``(ny, nx)`` and gives all values ``(3, S, ny, nx)``.
        nx: points along x.
        ny: points along y; 1 for a line.
        tolerance: see :func:`evaluate_adaptively`.
    """
    strides = [max(1, (n - 1) // (_FIRST - 1)) for n in (ny, nx)]
    evaluated = torch.zeros(ny, nx, dtype=torch.bool)
    evaluated[:: strides[0], :: strides[1]] = True
    coarse = _on(measured(evaluated), strides)
    scale = _Scale.of(coarse[LOSS])
    values = scale.there(coarse)
    detail = _detail(values, [n > 1 for n in (ny, nx)])
    errors = torch.zeros_like(values[LOSS])
    while max(strides) > 1:
        steps = [stride > 1 for stride in strides]
        strides = [max(1, stride // 2) for stride in strides]
        expected = _spread(_neighbours(detail), steps) * _DECAY
        predicted = _predicted(values, steps)
        old = _spread_mask(values.shape[-2:], steps)
        wanted = torch.zeros(ny, nx, dtype=torch.bool)
        new = (expected > tolerance).any(0) & ~old
        wanted[:: strides[0], :: strides[1]] = new
        true = scale.there(_on(measured(wanted), strides)) if bool(new.any()) else predicted
        evaluated |= wanted
        # Old points keep what they have: the value, and no detail of this level.
        kept = torch.zeros_like(predicted)
        kept[..., :: 1 + steps[0], :: 1 + steps[1]] = values
        values = torch.where(old, kept, torch.where(new, true, predicted))
        error = torch.zeros_like(expected)
        error[..., :: 1 + steps[0], :: 1 + steps[1]] = errors
        errors = torch.where(old, error, torch.where(new, 0.0, expected))
        detail = torch.where(old, 0.0, torch.where(new, _distance(true[LOSS], predicted[LOSS]), expected))
    return _Filled(scale.back(values), evaluated, scale.error(errors, values[LOSS]))


@dataclass(frozen=True, eq=False)
class _Scale:
    """What is interpolated: ``log(L + floor)`` or ``L`` over its usual size, so that errors are relative ones."""

    log: Tensor  # (S, 1, 1), bool
    unit: Tensor  # (S, 1, 1)
    lowest: Tensor  # (S, 1, 1)

    @classmethod
    def of(cls, losses: Tensor) -> _Scale:
        """Choose for losses ``(S, ny, nx)``."""
        finite = losses.isfinite()
        low = torch.where(finite, losses, torch.inf).amin((1, 2), keepdim=True)
        high = torch.where(finite, losses, -torch.inf).amax((1, 2), keepdim=True)
        mean = torch.where(finite, losses.abs(), 0.0).sum((1, 2), keepdim=True) / finite.sum((1, 2), keepdim=True)
        unit = torch.where(mean > 0, mean, 1.0)  # also where nothing is finite
        return cls((low >= 0) & (high > _WIDE * low.clamp(min=FLOOR)), unit, torch.where(low >= 0, 0.0, -torch.inf))

    def there(self, values: Tensor) -> Tensor:
        """Values ``(3, S, ny, nx)`` with the losses on the scale."""
        losses = values[LOSS]
        scaled = torch.where(self.log, (losses.clamp(min=0) + FLOOR).log(), losses / self.unit)
        return torch.stack([scaled, values[VARIANCE], values[ACCURACY]])

    def back(self, values: Tensor) -> Tensor:
        """The inverse; interpolation does not leave the range of variances, accuracies and non-negative losses."""
        z = values[LOSS]
        losses = torch.where(self.log, z.exp() - FLOOR, z * self.unit).maximum(self.lowest)
        return torch.stack([losses, values[VARIANCE].clamp(min=0), values[ACCURACY].clamp(0, 1)])

    def error(self, errors: Tensor, scaled: Tensor) -> Tensor:
        """Errors on the scale in units of the loss."""
        return errors * torch.where(self.log, scaled.exp(), self.unit)


def _on(values: Tensor, strides: Sequence[int]) -> Tensor:
    return values[..., :: strides[0], :: strides[1]].clone()


def _detail(values: Tensor, steps: Sequence[bool]) -> Tensor:
    """How badly every second point of a grid predicts the others' losses, ``(S, ny, nx)``."""
    half = values[..., :: 1 + steps[0], :: 1 + steps[1]]
    return _distance(values[LOSS], _predicted(half, steps)[LOSS])


def _distance(true: Tensor, predicted: Tensor) -> Tensor:
    """The error of a prediction; infinite at the border of what is not finite, 0 inside."""
    both = true.isfinite() & predicted.isfinite()
    apart = true.isfinite() ^ predicted.isfinite()
    return torch.where(both, (true - predicted).abs(), torch.where(apart, torch.inf, 0.0))


def _predicted(values: Tensor, steps: Sequence[bool]) -> Tensor:
    """Values ``(…, ny, nx)`` on the grid with twice the resolution, in the directions of ``steps``.

    Accuracies, which move in jumps, and variances are interpolated linearly.
    """
    for dim, step in zip((-2, -1), steps, strict=True):
        if step:
            parts = [_halved(values[LOSS], dim), *(_halved(other, dim, cubic=False) for other in values[1:])]
            values = torch.stack(parts)
    return values


def _halved(values: Tensor, dim: int, cubic: bool = True) -> Tensor:
    """Interpolation midway between evenly spaced points, cubic (at the ends by the last four points) or linear."""
    v = values.movedim(dim, -1)
    middle = (v[..., 1:] + v[..., :-1]) / 2
    if cubic:
        middle[..., 1:-1] = (9 * (v[..., 1:-2] + v[..., 2:-1]) - v[..., :-3] - v[..., 3:]) / 16
        for end, e in ((0, v), (-1, v.flip(-1))):
            middle[..., end] = (5 * e[..., 0] + 15 * e[..., 1] - 5 * e[..., 2] + e[..., 3]) / 16
    result = v.new_empty(*v.shape[:-1], 2 * v.shape[-1] - 1)
    result[..., ::2], result[..., 1::2] = v, middle
    return result.movedim(-1, dim)


def _neighbours(detail: Tensor) -> Tensor:
    """The largest detail of a point and those around it."""
    padding = tuple(int(n > 1) for n in detail.shape[-2:])
    return F.max_pool2d(detail, tuple(1 + 2 * p for p in padding), 1, padding)


def _spread(detail: Tensor, steps: Sequence[bool]) -> Tensor:
    """Of the points that a new point lies between the larger value, on the finer grid."""
    for dim, step in zip((-2, -1), steps, strict=True):
        if step:
            d = detail.movedim(dim, -1)
            result = d.new_empty(*d.shape[:-1], 2 * d.shape[-1] - 1)
            result[..., ::2] = d
            result[..., 1::2] = torch.maximum(d[..., 1:], d[..., :-1])
            detail = result.movedim(-1, dim)
    return detail


def _spread_mask(shape: Sequence[int], steps: Sequence[bool]) -> Tensor:
    """Where the points of a grid lie on the finer one."""
    mask = torch.zeros([2 * n - 1 if step else n for n, step in zip(shape, steps, strict=True)], dtype=torch.bool)
    mask[:: 1 + steps[0], :: 1 + steps[1]] = True
    return mask
