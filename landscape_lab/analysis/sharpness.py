"""How much the loss rises near a solution: on average over noise, in a random subspace, and at its worst."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from landscape_lab.analysis.batches import Batches, Loss, batches_of, per_sample
from landscape_lab.analysis.estimates import Estimate, clipped, linearised_estimate, mean_estimate, t_quantile
from landscape_lab.analysis.noise import noise_directions
from landscape_lab.analysis.sample_losses import sample_losses
from landscape_lab.errors import InputError
from landscape_lab.parameters import ParameterSpace, eval_mode
from landscape_lab.tabular import Tabular

__all__ = ["Sharpness", "SharpnessKind", "highest_in_subspace", "passes", "sharpness", "two_way_mean"]

SharpnessKind = Literal["epsilon", "average", "adaptive-worst"]

_FOUND = (
    "the rise at the worst point that {steps} steps of ascent from two starts found: a lower bound of the maximum; "
    "the interval is for the draw of the samples at that point, chosen on the same samples, "
    "and says nothing of how far the maximum lies above"
)


@dataclass(frozen=True)
class Sharpness(Tabular):
    r"""One sharpness number of one subset, with its 95 % interval.

    Attributes:
        subset: whose loss.
        kind: ``"average"``: :math:`E_d\,L(\theta + r \|\theta\| d) - L(\theta)` over random unit vectors;
            ``"epsilon"``: :math:`100\,(\max_y L(\theta + A y) - L(\theta)) / (1 + L(\theta))` over the box
            :math:`|y_i| \le \epsilon\,(|(A^+ \theta)_i| + 1)` of a random subspace (Keskar et al. 2017), in per cent;
            ``"adaptive-worst"``: :math:`\max L(\theta + |\theta| \odot u) - L(\theta)` over
            :math:`\|u\|_2 \le \rho` (Kwon et al. 2021; Andriushchenko et al. 2023).
        value: the estimate.
        low: where its interval begins; ``nan`` if there are too few samples for one.
        high: where it ends.
        radius: :math:`r`, :math:`\epsilon` or :math:`\rho`.
        note: what the number and its interval do and do not cover.
        loss: :math:`L(\theta)` over the same samples: sharpness at unequal losses compares badly.
    """

    subset: str
    kind: str
    value: float
    low: float
    high: float
    radius: float
    note: str
    loss: float = math.nan


def sharpness(
    model: nn.Module,
    loss: Loss,
    batches: Batches,
    subset: str = "all",
    *,
    ratio: float = 0.1,
    epsilon: float = 1e-3,
    rho: float = 0.5,
    directions: int = 10,
    steps: int = 20,
    parameters: ParameterSpace | None = None,
    batch_size: int = 256,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> tuple[Sharpness, ...]:
    r"""Measure three kinds of sharpness over the samples given, BatchNorm with its running statistics.

    The random directions are the first ones of :func:`~landscape_lab.analysis.noise.noise_directions` with this seed:
    the average is that of the noise curve at ``ratio``, and ``"epsilon"`` looks in the subspace that they span.

    Args:
        model: any classifier with outputs ``(B, C)``; put back as it was.
        loss: ``(output, target) -> (B,)``.
        batches: the subset's inputs and targets.
        subset: its name, to keep with the result.
        ratio: :math:`r`, of the average.
        epsilon: of the random subspace. Its basis vectors have the length :math:`\sqrt P` of a standard normal vector.
        rho: of the adaptive worst case; 0.5 is the radius that adaptive SAM trains with.
        directions: random directions; also the dimension of the random subspace.
        steps: forward and backward passes of each of the two ascents of each worst case; 0 leaves the worst cases out.
        parameters: which may move (``None``: all that are trainable).
        batch_size: samples in memory at a time, for a pair of tensors.
        seed: of the directions.
        progress: called with the number of passes done; :func:`passes` tells how many there are.

    Returns:
        ``"average"``, ``"epsilon"`` and ``"adaptive-worst"``, in this order.

    Raises:
        InputError: a radius that is not positive, or no samples.

    References: Keskar et al., *On large-batch training for deep learning*, ICLR 2017, arXiv:1609.04836, metric 2.1.
    Kwon et al., *ASAM*, ICML 2021, arXiv:2102.11600. Andriushchenko et al., *A modern look at the relationship between
    sharpness and generalization*, ICML 2023, arXiv:2302.07011.
    """
    for name, radius in (("ratio", ratio), ("epsilon", epsilon), ("rho", rho)):
        if not 0 < radius < math.inf:
            raise InputError(f"{name} must be positive, got {radius:g}")
    space = parameters or ParameterSpace(model)
    data = [(inputs.to(space.device), targets.to(space.device)) for inputs, targets in batches_of(batches, batch_size)]
    origin = space.vector()
    axes = torch.stack(list(noise_directions(space, directions, seed=seed)))

    def losses_at(*points: Tensor) -> Tensor:
        return sample_losses(model, loss, data, points, parameters=space, progress=progress)[0]

    centre = losses_at(origin)[0]
    rises = losses_at(*(torch.add(origin, axis, alpha=ratio) for axis in axes)) - centre
    average = two_way_mean(rises)
    base = float(centre.mean())
    if len(centre) > 1:
        note = f"over {directions} directions and {len(centre)} samples; the interval is for the draw of both"
    else:
        note = f"over {directions} directions and a single sample, whose draw the interval does not cover"
    results = [Sharpness(subset, "average", average.value, average.low, average.high, ratio, note, base)]
    if not steps:
        return tuple(results)

    sampled = axes[int(rises.mean(1).nan_to_num(-math.inf).argmax())]
    climb = _Climb(model, loss, data, space, steps, progress)
    point = _highest_in_span(climb, axes, origin, sampled, epsilon)
    rise, scale = losses_at(point)[0] - centre, 1 + base
    # What each sample adds to 100 (mean rise) / (1 + mean loss), in first order.
    influences = 100 * (rise / scale - float(rise.mean()) * centre / scale**2)
    found = linearised_estimate(100 * float(rise.mean()) / scale, influences)
    where = f"in a subspace of {directions} random dimensions; "
    results.append(_lower_bound(subset, "epsilon", found, epsilon, where, steps, base))

    size = origin.abs()
    point = climb.highest(
        lambda u: origin + size * u,
        lambda gradient: _of_length(size * gradient, rho),
        lambda u: u * (rho / u.norm().clamp(min=rho)),
        starts=(torch.zeros_like(origin), _of_length(sampled, rho)),
    )
    rise = losses_at(point)[0] - centre
    results.append(_lower_bound(subset, "adaptive-worst", mean_estimate(rise), rho, "", steps, base))
    return tuple(results)


def highest_in_subspace(
    model: nn.Module,
    loss: Loss,
    batches: Batches,
    *,
    epsilon: float = 1e-3,
    directions: int = 10,
    steps: int = 20,
    parameters: ParameterSpace | None = None,
    batch_size: int = 256,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """The point ``(P,)`` of a random subspace's box where :func:`sharpness` finds its ``"epsilon"`` rise.

    It starts from the solution and from a corner of the box. The arguments are those of
    :func:`sharpness`; ``progress`` is called ``2 * (steps + 1)`` times.
    """
    space = parameters or ParameterSpace(model)
    data = [(inputs.to(space.device), targets.to(space.device)) for inputs, targets in batches_of(batches, batch_size)]
    origin = space.vector()
    axes = torch.stack(list(noise_directions(space, directions, seed=seed)))
    climb = _Climb(model, loss, data, space, steps, progress)
    return _highest_in_span(climb, axes, origin, axes[0], epsilon)


def passes(directions: int, steps: int) -> int:
    """How often :func:`sharpness` goes through the data."""
    return 1 + directions + (2 * (2 * (steps + 1) + 1) if steps else 0)


def two_way_mean(values: Tensor) -> Estimate:
    r"""The mean of ``(K, n)`` values over random rows and random columns, with an interval for the draw of both.

    The variance is :math:`s_K^2 / K + s_n^2 / n`, of the means over the rows and over the columns, with Satterthwaite's
    degrees of freedom; what is left in the cells counts twice, so that the interval is rather too long. One row or one
    column has no variance of its own, and the interval is that of the other.
    """
    values = values.double()
    parts = [(means.var() / len(means), len(means)) for means in (values.mean(1), values.mean(0)) if len(means) > 1]
    value = float(values.mean())
    if not parts:
        return Estimate(value, math.nan, math.nan, math.nan)
    variance = float(sum(part for part, _ in parts))
    below = float(sum(part.square() / (count - 1) for part, count in parts))
    freedom = max(1, math.floor(variance**2 / below)) if below > 0 else 1
    half = t_quantile(freedom + 1) * math.sqrt(variance)
    return Estimate(value, math.sqrt(variance), value - half, value + half)


def _lower_bound(
    subset: str, kind: SharpnessKind, found: Estimate, radius: float, where: str, steps: int, loss: float
) -> Sharpness:
    note = where + _FOUND.format(steps=steps)
    found = clipped(found, 0.0, math.inf)  # the solution itself is among the points: a maximum is no less
    return Sharpness(subset, kind, found.value, found.low, found.high, radius, note, loss)


def _highest_in_span(climb: _Climb, axes: Tensor, origin: Tensor, towards: Tensor, epsilon: float) -> Tensor:
    basis = axes * (math.sqrt(len(origin)) / axes.norm(dim=1, keepdim=True))
    box = epsilon * (_coordinates(basis, origin).abs() + 1)
    return climb.highest(
        lambda y: origin + y @ basis,
        lambda gradient: (basis @ gradient).sign() * box,
        lambda y: torch.maximum(torch.minimum(y, box), -box),
        starts=(torch.zeros_like(box), _coordinates(basis, towards).sign() * box),
    )


def _coordinates(basis: Tensor, point: Tensor) -> Tensor:
    """The coordinates ``(K,)`` of the point of the rows' span nearest to ``point``."""
    rows = basis.double()
    gram: Tensor = torch.linalg.pinv(rows @ rows.T, hermitian=True)
    return (gram @ (rows @ point.double())).to(basis.dtype)


def _of_length(vector: Tensor, length: float) -> Tensor:
    norm = vector.norm()
    return torch.where(norm > 0, vector * (length / norm), torch.zeros_like(vector))


class _Climb:
    """Projected steepest ascent on the mean loss; steps of the whole radius, halved where the loss does not rise."""

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        data: list[tuple[Tensor, Tensor]],
        space: ParameterSpace,
        steps: int,
        progress: Callable[[int], None] | None,
    ) -> None:
        self.model, self.loss, self.data, self.space = model, loss, data, space
        self.steps, self.progress = steps, progress
        self.count = sum(len(targets) for _, targets in data)

    def highest(
        self,
        place: Callable[[Tensor], Tensor],
        steepest: Callable[[Tensor], Tensor],
        inside: Callable[[Tensor], Tensor],
        starts: tuple[Tensor, ...],
    ) -> Tensor:
        """The point ``(P,)`` of the highest loss found.

        Args:
            place: coordinates to a point of parameter space.
            steepest: a gradient there to the step of full length, in coordinates.
            inside: coordinates to the nearest ones that are allowed.
            starts: coordinates to begin at.
        """
        best_value, best = -math.inf, place(starts[0])
        for start in starts:
            at, length = inside(start), 1.0
            value, gradient = self._at(place(at))
            for _ in range(self.steps):
                trial = inside(at + length * steepest(gradient))
                higher, there = self._at(place(trial))
                if higher > value:
                    at, value, gradient = trial, higher, there
                else:
                    length /= 2
            if value > best_value:
                best_value, best = value, place(at)
        return best

    def _at(self, point: Tensor) -> tuple[float, Tensor]:
        """The mean loss at a point, minus infinity where it is not finite, and its gradient ``(P,)``."""
        total = torch.zeros((), dtype=torch.float64, device=point.device)
        gradient = torch.zeros_like(point)
        with torch.enable_grad(), self.space.bound_to(point), eval_mode(self.model):
            for inputs, targets in self.data:
                part = per_sample(self.loss, self.model(inputs), targets).sum()
                slopes = torch.autograd.grad(part, self.space.parameters, allow_unused=True)
                gradient += self.space.flatten(slopes)
                total += part.detach().double()
        if self.progress:
            self.progress(1)
        value = float(total) / self.count
        if not math.isfinite(value) or not bool(gradient.isfinite().all()):
            return -math.inf, torch.zeros_like(gradient)
        return value, gradient / self.count
