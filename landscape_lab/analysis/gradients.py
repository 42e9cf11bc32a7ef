"""Which classes the gradient of a batch serves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from landscape_lab.analysis.batches import Batches, Loss, batches_of, per_sample
from landscape_lab.errors import InputError
from landscape_lab.parameters import ParameterSpace, eval_mode

__all__ = ["GradientSimilarity", "gradient_similarity"]


@dataclass(frozen=True, eq=False)
class GradientSimilarity:
    """The cosine between a class's gradient and the batch's, over the batches that hold the class.

    Attributes:
        classes: ``K`` class numbers.
        mean: ``(K,)``, float64, over the batches with the class; ``nan`` if there are none.
        std: ``(K,)``, their standard deviation (divisor ``present - 1``); ``nan`` for fewer than two.
        stderr: ``(K,)``, ``std / sqrt(present)``.
        present: ``(K,)``, int64, the number of batches with the class.
        batches: the number of batches in all.
    """

    classes: tuple[int, ...]
    mean: Tensor
    std: Tensor
    stderr: Tensor
    present: Tensor
    batches: int


def gradient_similarity(
    model: nn.Module,
    loss: Loss,
    batches: Batches,
    classes: Sequence[int] | None = None,
    *,
    parameters: ParameterSpace | None = None,
    batch_size: int = 256,
    progress: Callable[[int], None] | None = None,
) -> GradientSimilarity:
    r"""Measure how each class's gradient agrees with the gradient of the whole batch, in evaluation mode.

    .. math:: s_c = \frac{1}{|\{b : n_{cb} > 0\}|} \sum_{b : n_{cb} > 0} \cos(g_{cb}, g_b)

    where :math:`g_{cb}` is the gradient of the mean loss of the class's :math:`n_{cb}` samples in batch ``b``
    and :math:`g_b` that of the batch's mean loss. Each batch takes one forward pass and one backward pass a
    class; the batch's own gradient is their weighted sum if all its classes are asked for, and one more pass
    otherwise. A cosine with a gradient that is exactly zero counts as 0.

    Args:
        model: any classifier, left as it was.
        loss: ``(output, target) -> (B,)``.
        batches: batches as in training; the batch size matters, since the batch's gradient is half of the
            measure.
        classes: the classes to score (``None``: all that occur, ascending).
        parameters: the gradient's parameters (``None``: all trainable ones), e.g. the encoder's.
        batch_size: samples in a batch, for a pair of tensors.
        progress: called with 1 after each batch.

    Raises:
        InputError: no batches, no classes, or a loss that gives one number for a batch.
    """
    if classes is not None and not len(classes):
        raise InputError("no classes to compare: name one at least")
    space = parameters or ParameterSpace(model)
    asked = None if classes is None else set(classes)
    found: dict[int, list[float]] = {label: [] for label in classes or ()}
    count = 0
    with eval_mode(model), torch.enable_grad():
        for inputs, targets in batches_of(batches, batch_size):
            targets = targets.to(space.device)
            losses = per_sample(loss, model(inputs.to(space.device)), targets)
            present = targets.unique().tolist()
            wanted = [label for label in present if asked is None or label in asked]
            for label, cosine in zip(wanted, _cosines(losses, targets, wanted, present, space), strict=True):
                found.setdefault(label, []).append(cosine)
            count += 1
            if progress:
                progress(1)
    if not count:
        raise InputError("the subset holds no samples: choose classes that the data contain")
    labels = tuple(int(label) for label in (found if classes is not None else sorted(found)))
    columns = [torch.tensor(found[label], dtype=torch.float64) for label in labels]
    present_in = torch.tensor([len(column) for column in columns])
    nan = torch.tensor(torch.nan, dtype=torch.float64)
    std = torch.stack([column.std() if len(column) > 1 else nan for column in columns])
    return GradientSimilarity(
        classes=labels,
        mean=torch.stack([column.mean() for column in columns]),
        std=std,
        stderr=std / present_in.sqrt(),
        present=present_in,
        batches=count,
    )


def _cosines(
    losses: Tensor, targets: Tensor, wanted: list[int], present: list[int], space: ParameterSpace
) -> list[float]:
    """The cosine of each wanted class's gradient with the batch's."""
    if not wanted:
        return []

    def gradient(value: Tensor, last: bool) -> Tensor:
        parts = torch.autograd.grad(value, space.parameters, retain_graph=not last, allow_unused=True)
        return space.flatten(parts)

    members = [targets == label for label in wanted]
    whole = len(wanted) == len(present)
    gradients = torch.stack(
        [gradient(losses[member].mean(), whole and k + 1 == len(members)) for k, member in enumerate(members)]
    )
    if whole:
        shares = torch.stack([member.sum() for member in members]).to(gradients.dtype) / len(targets)
        batch = shares @ gradients
    else:
        batch = gradient(losses.mean(), last=True)
    # Row by row: a float64 copy of all gradients would not fit beside them for many classes.
    other = batch.double()
    dots = torch.stack([row.double() @ other for row in gradients])
    lengths = torch.stack([row.double().norm() for row in gradients]) * other.norm()
    cosines: list[float] = torch.where(lengths > 0, dots / lengths, 0.0).tolist()
    return cosines
