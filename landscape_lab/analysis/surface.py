"""The loss along a line or over a plane in parameter space, for many groups of classes at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from landscape_lab.analysis.batches import Batches, Loss, batches_of, per_sample
from landscape_lab.errors import InputError, nearest
from landscape_lab.parameters import BatchNormPolicy, ParameterSpace, eval_mode

__all__ = ["Line", "Plane", "Surface", "evaluate"]


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
class Surface:
    """Mean losses and accuracies of ``S`` subsets on a grid.

    Attributes:
        x: ``(nx,)``, float64, first coordinates.
        y: ``(ny,)``, second coordinates; ``[0.]`` along a line.
        losses: ``(S, ny, nx)``, float64; infinite or ``nan`` where the model is.
        accuracies: ``(S, ny, nx)``, the fraction of the subset's samples classified correctly.
        subsets: the names, in the order of the first axis.
        counts: the number of samples of each subset.
        batch_norm: how BatchNorm normalised: ``"running"`` or ``"batch"``.
    """

    x: Tensor
    y: Tensor
    losses: Tensor
    accuracies: Tensor
    subsets: tuple[str, ...]
    counts: tuple[int, ...]
    batch_norm: str

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
    batch_size: int = 512,
    progress: Callable[[int], None] | None = None,
) -> Surface:
    """Evaluate the loss of every subset on every point of a grid, from one forward pass of the data a point.

    The losses are kept per sample and summed by class in float64 on the model's device, so that each further
    subset is free. The data are read once and held on the device.

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
            the result.
        batch_size: samples in memory at a time, for a pair of tensors.
        progress: called with 1 after each point.

    Raises:
        InputError: a subset without samples or with unknown classes, targets out of range, an empty grid.
    """
    space = parameters or ParameterSpace(model)
    x, y = _grid(where, x, y, space)
    data = [(inputs.to(space.device), targets.to(space.device)) for inputs, targets in batches_of(batches, batch_size)]
    counts = _class_counts([targets for _, targets in data], num_classes)
    member, subset_of = _membership(subsets, counts)
    direction, *axis = (
        part.to(space.device, space.dtype)
        for part in ((where.x, where.y) if isinstance(where, Plane) else (where.direction,))
    )
    origin = where.origin.to(space.device, space.dtype)
    point = torch.empty_like(origin)
    # Of each subset the summed losses, and the number of correct answers.
    results = torch.empty(len(y), len(x), 2, len(subsets), dtype=torch.float64, device=space.device)
    with torch.no_grad(), space.bound_to(point), eval_mode(model, batch_norm):
        for j, b in enumerate(y.tolist()):
            row = torch.add(origin, axis[0], alpha=b) if axis else origin
            for i, a in enumerate(x.tolist()):
                torch.add(row, direction, alpha=a, out=point)
                sums = results.new_zeros(2, num_classes)
                for inputs, targets in data:
                    sums.index_add_(1, targets, _scores(loss, model(inputs), targets))
                # Gathered, not a matrix product: 0 * nan would carry one class's nan into every subset.
                results[j, i] = results.new_zeros(2, len(subsets)).index_add_(1, subset_of, sums[:, member])
                if progress:
                    progress(1)
    totals = torch.zeros(len(subsets), dtype=torch.int64).index_add_(0, subset_of.cpu(), counts[member].cpu())
    losses, accuracies = (results.cpu() / totals).permute(2, 3, 0, 1).contiguous()
    return Surface(x, y, losses, accuracies, tuple(subsets), tuple(totals.tolist()), batch_norm)


def _scores(loss: Loss, output: Tensor, targets: Tensor) -> Tensor:
    """The loss of each sample and whether it is classified correctly, ``(2, B)``."""
    losses = per_sample(loss, output, targets).double()
    # A nan would win the argmax, and count as correct for the first class.
    correct = (output.argmax(1) == targets) & ~losses.isnan()
    return torch.stack([losses, correct.double()])


def _grid(where: Plane | Line, x: Tensor, y: Tensor | None, space: ParameterSpace) -> tuple[Tensor, Tensor]:
    """The coordinates in float64, once they are known to fit."""
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


def _class_counts(targets: Sequence[Tensor], num_classes: int) -> Tensor:
    """The samples of each class, ``(C,)``."""
    if not targets:
        raise InputError("the subset holds no samples: choose classes that the data contain")
    labels = torch.cat([*targets])
    if labels.dim() != 1 or int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        raise InputError(f"targets must be class numbers (B,) in 0 .. {num_classes - 1}")
    return labels.bincount(minlength=num_classes)


def _membership(subsets: Mapping[str, Sequence[int]], counts: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs of a class and the position of a subset that it belongs to."""
    if not subsets:
        raise InputError("no subsets to evaluate: name one at least")
    pairs = []
    for position, (name, classes) in enumerate(subsets.items()):
        unknown = sorted(set(classes) - set(range(len(counts))))
        if unknown:
            raise InputError(f"subset {name!r} names class {unknown[0]}, but there are {len(counts)} classes")
        if not int(counts[list(set(classes))].sum()):
            raise InputError(f"the subset holds no samples: none of the data belong to a class of {name!r}")
        pairs += [(label, position) for label in sorted(set(classes))]
    member, subset_of = torch.tensor(pairs, device=counts.device).T
    return member, subset_of
