"""Which classes a model takes for one another: confusion, neighbours among features, gradients that agree."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from landscape_lab.analysis.batches import Batches, Loss, batches_of, per_sample
from landscape_lab.errors import InputError
from landscape_lab.parameters import ParameterSpace, eval_mode

__all__ = ["class_gradient_cosines", "class_neighbours", "confusion_rates"]

CHUNK = 1024  # samples compared with all others, and thousands of parameters multiplied, at a time


def confusion_rates(predictions: Tensor, targets: Tensor, num_classes: int) -> Tensor:
    """How often a sample of one class is taken for another.

    Args:
        predictions: ``(N,)`` class numbers.
        targets: ``(N,)`` class numbers.
        num_classes: ``C``.

    Returns:
        ``(C, C)``, float64, on the CPU: row = true class, column = prediction; each row sums to 1, and is ``nan`` for
        a class without samples.

    Example:
        >>> confusion_rates(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), 2)
        tensor([[0.5000, 0.5000],
                [0.0000, 1.0000]], dtype=torch.float64)
    """
    places = targets * num_classes + predictions.to(targets.device)
    counts = torch.bincount(places, minlength=num_classes**2).reshape(num_classes, num_classes).double().cpu()
    return counts / counts.sum(1, keepdim=True)


def class_neighbours(features: Tensor, targets: Tensor, num_classes: int, k: int = 10) -> Tensor:
    r"""Which classes lie next to which: the classes of each sample's ``k`` nearest samples of *other* classes.

    A class that has many samples is near to everything. Each neighbour therefore counts :math:`1 / n_{c'}`, and each
    sample's neighbours then count 1 together.

    Args:
        features: ``(N, D)``, any floating dtype and device; distances are Euclidean.
        targets: ``(N,)`` class numbers.
        num_classes: ``C``.
        k: neighbours of each sample.

    Returns:
        ``(C, C)``, float64, on the CPU: the mean over the row's samples of what share of their neighbours is of the
        column's class; rows sum to 1, the diagonal is 0; ``nan`` in rows and columns of classes without samples.

    Raises:
        InputError: there are fewer than two classes.
    """
    counts = torch.bincount(targets, minlength=num_classes).double()
    if int((counts > 0).sum()) < 2:
        raise InputError("neighbours of other classes need samples of two classes at least")
    result = torch.zeros(num_classes, num_classes, dtype=torch.float64, device=features.device)
    for rows, own in zip(features.split(CHUNK), targets.split(CHUNK), strict=True):
        distances = torch.cdist(rows, features)
        distances.masked_fill_(own[:, None] == targets[None], torch.inf)
        near = distances.topk(min(k, len(features) - 1), largest=False)
        classes = targets[near.indices]
        weights = torch.where(near.values.isfinite(), 1 / counts[classes], 0.0)
        weights /= weights.sum(1, keepdim=True)
        places = own[:, None] * num_classes + classes
        result.view(-1).index_add_(0, places.reshape(-1), weights.reshape(-1))
    result /= counts[:, None]
    result[:, counts == 0] = torch.nan
    return result.cpu()


def class_gradient_cosines(
    model: nn.Module,
    loss: Loss,
    batches: Batches,
    num_classes: int,
    *,
    parameters: ParameterSpace | None = None,
    batch_size: int = 256,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    r"""The cosine between the gradients of two classes' mean losses over all their samples, in evaluation mode.

    Samples are independent there, so each class takes passes over its own samples only: together one forward and one
    backward pass over the data. The gradients take ``4 C P`` bytes.

    Args:
        model: any classifier, left as it was.
        loss: ``(output, target) -> (B,)``.
        batches: batches, or a pair of tensors.
        num_classes: ``C``.
        parameters: whose gradient (``None``: all trainable ones).
        batch_size: samples in a batch, for a pair of tensors.
        progress: called with the number of samples after each batch.

    Returns:
        ``(C, C)``, float64, on the CPU; ``nan`` for a class without samples or whose gradient is zero.
    """
    space = parameters or ParameterSpace(model)
    sums = torch.zeros(num_classes, space.size, dtype=space.dtype, device=space.device)
    with eval_mode(model), torch.enable_grad():
        for inputs, targets in batches_of(batches, batch_size):
            targets = targets.to(space.device)
            for label in targets.unique().tolist():
                member = targets == label
                some = inputs.to(space.device)[member]
                total = per_sample(loss, model(some), targets[member]).sum()
                sums[label] += space.flatten(torch.autograd.grad(total, space.parameters, allow_unused=True))
            if progress:
                progress(len(targets))
    products = torch.zeros(num_classes, num_classes, dtype=torch.float64, device=space.device)
    for part in sums.split(1000 * CHUNK, dim=1):
        part = part.double()
        products += part @ part.T
    lengths = products.diagonal().sqrt()
    cosines = products / lengths[:, None] / lengths[None]
    return cosines.clamp(-1, 1).cpu()
