"""Between solutions: distances in the whole space and by layer, and the loss along the straight line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from landscape_lab.analysis.batches import Batches, Loss, batches_of
from landscape_lab.analysis.sample_losses import sample_losses, subset_mean
from landscape_lab.errors import InputError, nearest
from landscape_lab.parameters import BatchNormPolicy, ParameterSpace
from landscape_lab.tabular import Tabular

__all__ = ["Barrier", "Distances", "barrier", "distances"]


@dataclass(frozen=True, eq=False)
class Distances(Tabular):
    r"""How far the checkpoints of a path are from a reference solution :math:`\theta'`.

    Attributes:
        names: of the layers (parameter tensors), in the order of the vector.
        full: ``(T,)``, float64, :math:`\|\theta_t - \theta'\|`.
        layers: ``(L, T)``, the same of each layer's part; the squares add up to those of ``full``.
        steps: the epoch or step of each checkpoint.
        reference_norms: ``(L,)``, the norms of the reference's layers.
        cosine: ``(T,)``, between the ways from the path's first checkpoint to this one and to the reference; ``nan``
            at the start.
        norms: ``(T,)``, :math:`\|\theta_t\|`.
        reference: what the reference is, in words.
    """

    names: tuple[str, ...]
    full: Tensor
    layers: Tensor
    steps: tuple[int, ...]
    reference_norms: Tensor
    cosine: Tensor
    norms: Tensor
    reference: str = ""

    @property
    def relative(self) -> Tensor:
        r""":math:`\|\theta_t - \theta'\| / \|\theta'\|`, ``(T,)``."""
        return torch.div(self.full, self.reference_norms.norm())

    @property
    def relative_layers(self) -> Tensor:
        """Each layer's distance over the reference's norm of that layer, ``(L, T)``; infinite where that is 0."""
        return torch.div(self.layers, self.reference_norms[:, None])


def distances(
    points: Tensor,
    reference: Tensor,
    sizes: Mapping[str, int],
    steps: Sequence[int] | None = None,
    *,
    name: str = "",
) -> Distances:
    """Measure the distances of checkpoints to a reference, whole and by layer.

    Two networks that differ by a permutation of units compute the same and lie far apart: between runs that do not
    share their initialisation, distances say little.

    Args:
        points: ``(T, P)``.
        reference: ``(P,)``.
        sizes: layer to number of entries, in the order of the vector.
        steps: of each checkpoint (``None``: 0, 1, 2, …).
        name: of the reference, to keep with the result.

    Raises:
        InputError: the sizes do not fit.
    """
    total = sum(sizes.values())
    if points.dim() != 2 or reference.shape != points.shape[1:] or total != len(reference):
        raise InputError(
            f"distances need checkpoints and a reference of one network of {total} parameters, "
            f"got {tuple(points.shape)} and {tuple(reference.shape)}"
        )
    steps = range(len(points)) if steps is None else steps
    if len(steps) != len(points):
        raise ValueError(f"expected {len(points)} steps, one for each point, got {len(steps)}")
    parts = list(sizes.values())
    goal = reference.double().cpu()
    start = points[0].double().cpu()
    layers, norms, cosine = [], [], []
    for point in points:  # one float64 copy at a time
        here = point.double().cpu()
        layers.append(torch.stack([part.norm() for part in (here - goal).split(parts)]))
        norms.append(here.norm())
        way, wanted = here - start, goal - start
        cosine.append((way @ wanted) / (way.norm() * wanted.norm()))
    by_layer = torch.stack(layers, dim=1)
    return Distances(
        names=tuple(sizes),
        full=by_layer.norm(dim=0),
        layers=by_layer,
        steps=tuple(int(step) for step in steps),
        reference_norms=torch.stack([part.norm() for part in goal.split(parts)]),
        cosine=torch.stack(cosine),
        norms=torch.stack(norms),
        reference=name,
    )


@dataclass(frozen=True, eq=False)
class Barrier(Tabular):
    r"""The loss of ``S`` subsets on the line :math:`(1 - t)\,\theta_a + t\,\theta_b`, and how high it rises.

    Attributes:
        subsets: names.
        counts: samples of each.
        coordinates: ``(R,)``, float64, from 0 to 1.
        losses: ``(S, R)``, mean over the subset's samples.
        accuracies: ``(S, R)``.
        barrier: ``(S,)``, :math:`\max_t L(t) - ((1-t) L(0) + t L(1))` over the coordinates; zero if the loss is nowhere
            above the straight line between its ends.
        stderr: ``(S,)``, its standard error from the draw of the samples at that :math:`t`; zero for a zero barrier,
            ``nan`` for a single sample.
        at: ``(S,)``, that :math:`t`.
        batch_norm: how BatchNorm normalised.
        ends: what the two ends are, in words.
    """

    subsets: tuple[str, ...]
    counts: tuple[int, ...]
    coordinates: Tensor
    losses: Tensor
    accuracies: Tensor
    barrier: Tensor
    stderr: Tensor
    at: Tensor
    batch_norm: str
    ends: tuple[str, str] = ("0", "1")

    def place(self, subset: str) -> int:
        """The position of a subset.

        Raises:
            InputError: there is no such subset.
        """
        if subset not in self.subsets:
            raise InputError(f"no subset {subset!r} in this barrier{nearest(subset, self.subsets)}")
        return self.subsets.index(subset)


def barrier(
    model: nn.Module,
    loss: Loss,
    batches: Batches,
    ends: tuple[Tensor, Tensor],
    *,
    subsets: Mapping[str, Sequence[int]],
    points: int = 25,
    class_counts: Sequence[int] | None = None,
    parameters: ParameterSpace | None = None,
    batch_norm: BatchNormPolicy = "reestimated",
    statistics: Sequence[Tensor] | None = None,
    batch_size: int = 256,
    names: tuple[str, str] = ("0", "1"),
    progress: Callable[[int], None] | None = None,
) -> Barrier:
    """Measure the loss barrier between two solutions, for every subset in one sweep.

    Between solutions BatchNorm's stored statistics are those of neither; with them a barrier would be an artefact.

    Args:
        model: any classifier with outputs ``(B, C)``; put back as it was.
        loss: ``(output, target) -> (B,)``.
        batches: inputs and int64 targets ``(B,)``.
        ends: two parameter vectors ``(P,)``.
        subsets: name to class numbers.
        points: coordinates, both ends among them; at least 3.
        class_counts: true samples of each class, if the batches hold only some of them: see :func:`subset_mean`.
        parameters: the space of the ends (``None``: all trainable parameters).
        batch_norm: see :func:`sample_losses`.
        statistics: batches of inputs to re-estimate BatchNorm's statistics over.
        batch_size: samples in memory at a time, for a pair of tensors.
        names: of the ends, to keep with the result.
        progress: called with 1 after each point.

    Raises:
        InputError: too few points, ends of another size, or a subset without samples.

    References: Frankle, Dziugaite, Roy, Carbin, *Linear mode connectivity and the lottery ticket hypothesis*, ICML
    2020, arXiv:1912.05671; with the line between the ends as the level, Entezari, Sedghi, Saukh, Neyshabur, *The role
    of permutation invariance in linear mode connectivity of neural networks*, ICLR 2022, arXiv:2110.06296.
    """
    if points < 3:
        raise InputError(f"a barrier needs three points or more, got {points}")
    if not subsets:
        raise InputError("no subsets to evaluate: name one at least")
    data = list(batches_of(batches, batch_size))
    at = torch.linspace(0, 1, points, dtype=torch.float64)
    a, b = ends
    if a.shape != b.shape:
        raise InputError(f"the two solutions are of different networks, of {a.numel()} and {b.numel()} parameters")
    values, correct = sample_losses(
        model, loss, data, (torch.lerp(a, b, float(t)) for t in at), parameters=parameters, batch_norm=batch_norm,
        statistics=statistics, progress=progress,
    )  # fmt: skip
    targets = torch.cat([some for _, some in data]).cpu()
    # How far each sample lies above the straight line between its own ends: the mean of it is the subset's, and its
    # spread is the error of a difference, in which what the points have in common cancels.
    above = values - torch.lerp(values[:1], values[-1:], at[:, None])
    losses, accuracies, heights, errors, where, counts = [], [], [], [], [], []
    for classes in subsets.values():
        losses.append(subset_mean(values, targets, classes, class_counts)[0])
        accuracies.append(subset_mean(correct, targets, classes, class_counts)[0])
        rise, error = subset_mean(above, targets, classes, class_counts)
        # A loss that is not finite on the way is a barrier, too; argmax takes a nan for the largest.
        top = int(rise.argmax())
        top = top if rise[top] > 0 or not bool(rise[top].isfinite()) else 0
        heights.append(rise[top])
        errors.append(error[top])
        where.append(at[top])
        counts.append(int(torch.isin(targets, torch.tensor(sorted(set(classes)))).sum()))
    return Barrier(
        tuple(subsets),
        tuple(counts),
        at,
        torch.stack(losses),
        torch.stack(accuracies),
        torch.stack(heights),
        torch.stack(errors),
        torch.stack(where),
        batch_norm,
        names,
    )
