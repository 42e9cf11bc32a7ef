"""The loss of every sample at any points of parameter space: what differences and their errors are made from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from landscape_lab.analysis.batches import Batches, Loss, batches_of, per_sample
from landscape_lab.errors import InputError
from landscape_lab.parameters import (
    BatchNormPolicy,
    ParameterSpace,
    eval_mode,
    reestimated_statistics,
    swapped_statistics,
)

__all__ = ["sample_losses", "subset_mean"]


def sample_losses(
    model: nn.Module,
    loss: Loss,
    batches: Batches,
    points: Iterable[Tensor],
    *,
    parameters: ParameterSpace | None = None,
    batch_norm: BatchNormPolicy = "running",
    statistics: Sequence[Tensor] | None = None,
    batch_size: int = 256,
    progress: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Evaluate the loss of each sample at each point; the model is put back as it was.

    Args:
        model: any classifier with outputs ``(B, C)``.
        loss: ``(output, target) -> (B,)``.
        batches: inputs and int64 targets ``(B,)``.
        points: parameter vectors ``(P,)``, taken one at a time.
        parameters: the space that the points lie in (``None``: all trainable parameters).
        batch_norm: ``"running"``: the statistics stored with the model, at every point; ``"batch"``: each batch's own;
            ``"reestimated"``: means and variances over ``statistics``, estimated anew at every point, so that points
            far from any solution are normalised as training would have done there.
        statistics: batches of inputs for ``"reestimated"`` (``None``: those of ``batches``).
        batch_size: samples in memory at a time, for a pair of tensors.
        progress: called with 1 after each point.

    Returns:
        Losses ``(M, n)``, float64, and whether the class is right, ``(M, n)`` bool, both on the CPU.

    Raises:
        InputError: a point of another size, or no samples.
    """
    space = parameters or ParameterSpace(model)
    data = [(inputs.to(space.device), targets.to(space.device)) for inputs, targets in batches_of(batches, batch_size)]
    if not data:
        raise InputError("the subset holds no samples: choose classes that the data contain")
    inputs_for_norm = [some.to(space.device) for some in statistics or [inputs for inputs, _ in data]]
    place = torch.empty(space.size, dtype=space.dtype, device=space.device)
    losses, correct = [], []
    with torch.no_grad(), space.bound_to(place), eval_mode(model, batch_norm):
        for point in points:
            if point.shape != (space.size,):
                raise InputError(f"a point has {point.numel()} parameters, the model {space.size}: take those it has")
            place.copy_(point)
            again = batch_norm == "reestimated"
            statistic = reestimated_statistics(model, inputs_for_norm) if again else {}
            with swapped_statistics(model, statistic) if again else nullcontext():
                parts = []
                for inputs, targets in data:
                    output = model(inputs)
                    parts.append((per_sample(loss, output, targets), output.argmax(1) == targets))
            values = torch.cat([part.double() for part, _ in parts])
            losses.append(values)
            # A nan would win the argmax, and count as correct for the first class.
            correct.append(torch.cat([right for _, right in parts]) & ~values.isnan())
            if progress:
                progress(1)
    return torch.stack(losses).cpu(), torch.stack(correct).cpu()


def subset_mean(
    values: Tensor, targets: Tensor, classes: Sequence[int], class_counts: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    r"""The mean of a subset's samples at each point, and its standard error from the draw of the samples.

    Where each class has only some of its samples, the mean weighs the classes by their true counts,
    :math:`\sum_c (N_c / N) \bar x_c`, with the stratified error :math:`\sqrt{\sum_c (N_c / N)^2 s_c^2 / n_c}`.

    Args:
        values: ``(M, n)``.
        targets: ``(n,)`` class numbers.
        classes: of the subset.
        class_counts: the true number of samples of each class, ``(C,)``; ``None``: the samples are all alike.

    Returns:
        ``(M,)`` means and ``(M,)`` standard errors, float64; the errors are ``nan`` where a stratum has one sample.

    Raises:
        InputError: none of the samples is of these classes.
    """
    values, targets = values.double(), targets.cpu()
    member = torch.isin(targets, torch.tensor(sorted(set(classes))))
    if not bool(member.any()):
        raise InputError(f"the subset holds no samples: none of the data is of the classes {sorted(set(classes))}")
    if class_counts is None:
        inside = values[:, member]
        return inside.mean(1), _stderr(inside)
    present = [c for c in sorted(set(classes)) if bool((targets == c).any())]
    total = sum(class_counts[c] for c in present)
    mean, variance = values.new_zeros(len(values)), values.new_zeros(len(values))
    for c in present:
        inside, share = values[:, targets == c], class_counts[c] / total
        mean += share * inside.mean(1)
        variance += (share * _stderr(inside)).square()
    return mean, variance.sqrt()


def _stderr(values: Tensor) -> Tensor:
    count = values.shape[1]
    if count < 2:
        return torch.full_like(values[:, 0], math.nan)
    return values.std(1) / math.sqrt(count)
