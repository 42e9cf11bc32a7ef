"""The loss along a line or over a plane in parameter space, for many groups of classes at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from landscape_lab.analysis.batches import Batches, Loss
from landscape_lab.analysis.sweep import ACCURACY, LOSS, VARIANCE, Measured, Points, Sweep
from landscape_lab.errors import InputError, nearest
from landscape_lab.parameters import BatchNormPolicy, ParameterSpace
from landscape_lab.tabular import Tabular

__all__ = ["Line", "Plane", "Surface", "axes_of", "evaluate", "points_of", "surface_of"]


@dataclass(frozen=True, eq=False)
class Line:
    """The points ``origin + a * direction``; both tensors ``(P,)``."""

    origin: Tensor
    direction: Tensor

    def point(self, a: float) -> Tensor:
        """The parameter vector ``(P,)`` at coordinate ``a``."""
        return self.origin + a * self.direction


@dataclass(frozen=True, eq=False)
class Plane:
    """The points ``origin + a * x + b * y``; all tensors ``(P,)``, the axes not necessarily orthonormal."""

    origin: Tensor
    x: Tensor
    y: Tensor

    def point(self, a: float, b: float) -> Tensor:
        """The parameter vector ``(P,)`` at coordinates ``(a, b)``."""
        return self.origin + a * self.x + b * self.y

    def coordinates(self, points: Tensor) -> Tensor:
        """The coordinates ``(T, 2)``, float64, of the plane's points nearest to ``points`` ``(T, P)``.

        Raises:
            InputError: the axes are parallel or zero.
        """
        return self.nearest(points)[0]

    def residual(self, points: Tensor) -> Tensor:
        """The Euclidean distances ``(T,)``, float64, from ``points`` ``(T, P)`` to the plane."""
        return self.nearest(points)[1]

    def nearest(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates and residuals together, for the price of one."""
        axes = torch.stack([self.x, self.y]).double().cpu()
        Q, R = torch.linalg.qr(axes.T)
        lengths = R.diagonal().abs()
        if float(lengths.min()) <= 1e-12 * float(axes.norm()):
            raise InputError("the plane's axes are parallel or zero: choose two independent directions")
        origin = self.origin.double().cpu()
        coordinates, residuals = [], []
        for point in points:  # one float64 copy at a time
            difference = point.double().cpu() - origin
            inside = Q.T @ difference
            coordinates.append(torch.linalg.solve_triangular(R, inside[:, None], upper=True)[:, 0])
            rest = difference - Q @ inside
            residuals.append((rest - Q @ (Q.T @ rest)).norm())
        return torch.stack(coordinates), torch.stack(residuals)


@dataclass(frozen=True, eq=False)
class Surface(Tabular):
    """Mean losses and accuracies of ``S`` subsets on a grid.

    Attributes:
        x: ``(nx,)``, float64, first coordinates.
        y: ``(ny,)``, second coordinates; ``[0.]`` along a line.
        losses: ``(S, ny, nx)``, float64; infinite or ``nan`` where the model is.
        accuracies: ``(S, ny, nx)``, the fraction of the subset's samples classified correctly.
        subsets: the names, in the order of the first axis.
        counts: the number of samples of each subset.
        batch_norm: how BatchNorm normalised: ``"running"``, ``"batch"`` or ``"reestimated"``.
        stderr: ``(S, ny, nx)``, the standard errors of the mean losses, for samples drawn independently: how far the
            loss of other images of these classes may be. ``nan`` for a single sample.
        evaluated: ``(ny, nx)``, bool: where the model was evaluated; elsewhere losses, accuracies and standard errors
            are interpolated. ``None``: everywhere.
        errors: ``(S, ny, nx)``, estimates of the losses' interpolation errors, 0 where the model was evaluated;
            ``None`` where nothing is interpolated.
        names: of the two axes.
        marks: points to mark, ``(name, x, y)``.
    """

    x: Tensor
    y: Tensor
    losses: Tensor
    accuracies: Tensor
    subsets: tuple[str, ...]
    counts: tuple[int, ...]
    batch_norm: str
    stderr: Tensor | None = None
    evaluated: Tensor | None = None
    errors: Tensor | None = None
    names: tuple[str, str] = ("direction 1", "direction 2")
    marks: tuple[tuple[str, float, float], ...] = ()

    def of(self, subset: str) -> Tensor:
        """The losses ``(ny, nx)`` of one subset.

        Raises:
            InputError: there is no such subset.
        """
        if subset not in self.subsets:
            raise InputError(f"no subset {subset!r} in this surface{nearest(subset, self.subsets)}")
        return self.losses[self.subsets.index(subset)]


def evaluate(
    model: nn.Module,
    loss: Loss,
    batches: Batches,
    where: Plane | Line,
    *,
    x: Tensor,
    y: Tensor | None = None,
    subsets: Mapping[str, Sequence[int]],
    num_classes: int,
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
    """Evaluate the loss of every subset on every point of a grid, from one forward pass of the data a point.

    The losses are kept per sample and summed by class in float64 on the model's device, so that each further
    subset is free. The data are read once and held on the device, in the layout and the parts that are fastest.

    Args:
        model: any classifier with outputs ``(B, C)``; moved about during the sweep, and put back as it was.
        loss: ``(output, target) -> (B,)``.
        batches: inputs and int64 targets ``(B,)``.
        where: a line or a plane in the space of the parameters.
        x: ``(nx,)`` coordinates along the line, or along the plane's first axis.
        y: ``(ny,)`` coordinates along the plane's second axis; ``None`` for a line.
        subsets: name to class numbers; a subset's loss is the mean over all samples of its classes.
        num_classes: targets lie in ``0 .. num_classes - 1``.
        parameters: the space that ``where`` lies in (``None``: all trainable parameters).
        batch_norm: ``"running"`` uses the statistics stored with the model at every point, as plain
            evaluation would; ``"batch"`` normalises by each batch's own, so that the batches then are part of
            the result; ``"reestimated"`` by means and variances over ``statistics``, measured anew at every point,
            which takes one more pass.
        batch_size: samples in memory at a time, for a pair of tensors; ``None``: as many as are fast, or 512 where
            BatchNorm looks at the batch.
        class_counts: how many samples of a class each union counts, where the data hold only some of them.
        statistics: batches of inputs over which ``"reestimated"`` statistics are measured; ``None``: those of
            ``batches``, which is right only if they are what the model was trained on.
        known: what an earlier sweep of the same grid, data and model has measured.
        keep: called every ``keep_every`` seconds with what has been measured, to be stored.
        keep_every: seconds.
        progress: called with 1 after each point, and at the beginning with the number of known ones.

    Raises:
        InputError: a subset without samples or with unknown classes, targets out of range, an empty grid.
    """
    space = parameters or ParameterSpace(model)
    x, y = axes_of(where, x, y, space)
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
    points.measure(torch.ones(len(y), len(x), dtype=torch.bool))
    return surface_of(sweep, x, y, points.measured.values)


def points_of(
    sweep: Sweep,
    where: Plane | Line,
    x: Tensor,
    y: Tensor,
    *,
    known: Measured | None = None,
    keep: Callable[[Measured], None] | None = None,
    every: float = 5.0,
    progress: Callable[[int], None] | None = None,
) -> Points:
    """The points of a grid on ``where``; see :class:`~landscape_lab.analysis.sweep.Points`."""
    axes = (where.x, where.y) if isinstance(where, Plane) else (where.direction,)
    return Points(sweep, where.origin, axes, x, y, known=known, keep=keep, every=every, progress=progress)


def surface_of(sweep: Sweep, x: Tensor, y: Tensor, values: Tensor) -> Surface:
    """What was measured, ``(ny, nx, 3, S)``, as a surface."""
    by_subset = values.permute(2, 3, 0, 1).contiguous()
    return Surface(
        x=x,
        y=y,
        losses=by_subset[LOSS],
        accuracies=by_subset[ACCURACY],
        subsets=sweep.subsets,
        counts=sweep.counts,
        batch_norm=sweep.batch_norm,
        stderr=by_subset[VARIANCE].sqrt(),
    )


def axes_of(where: Plane | Line, x: Tensor, y: Tensor | None, space: ParameterSpace) -> tuple[Tensor, Tensor]:
    """The coordinates in float64, once they are known to fit.

    Raises:
        InputError: they do not, or the grid is empty.
    """
    if where.origin.shape != (space.size,):
        raise InputError(
            f"the plane or line has {where.origin.numel()} parameters, the model {space.size}: "
            "pass the parameters that it was made for"
        )
    if isinstance(where, Plane) != (y is not None):
        raise InputError("a plane needs coordinates x and y, a line only x")
    x = x.detach().double().cpu()
    y = torch.zeros(1, dtype=torch.float64) if y is None else y.detach().double().cpu()
    if not (x.dim() == y.dim() == 1 and len(x) and len(y)):
        raise InputError("the grid is empty: x and y must be one-dimensional, with one coordinate at least")
    return x, y
