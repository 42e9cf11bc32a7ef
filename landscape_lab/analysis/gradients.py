"""Which classes the gradient of a batch serves, and which classes' gradients agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from landscape_lab.analysis.batches import Batches, Loss, batches_of, per_sample
from landscape_lab.analysis.memory import GraphBudget
from landscape_lab.errors import InputError
from landscape_lab.parameters import ParameterSpace, eval_mode
from landscape_lab.tabular import Tabular

__all__ = ["ClassSimilarity", "GradientSimilarity", "gradient_similarity"]

_COLUMNS = 1 << 16  # of a float64 copy of gradients
ROOM = 1 << 28  # bytes that are taken without asking how much memory is free
_TRIAL = 64  # samples on which it is looked at whether samples act on each other


@dataclass(frozen=True, eq=False)
class ClassSimilarity(Tabular):
    """The cosine between two classes' gradients, over the batches that hold both.

    Attributes:
        mean: ``(K, K)``, float64, symmetric; 1 on the diagonal, but 0 for a gradient of zero; ``nan`` where no batch
            holds both.
        std: ``(K, K)``, the standard deviation over batches (divisor ``present - 1``); ``nan`` for fewer than two.
        present: ``(K, K)``, int64, the number of batches that hold both.
    """

    mean: Tensor
    std: Tensor
    present: Tensor


@dataclass(frozen=True, eq=False)
class GradientSimilarity(Tabular):
    """The cosine between a class's gradient and the batch's, over the batches that hold the class.

    Attributes:
        classes: ``K`` class numbers.
        mean: ``(K,)``, float64, over the batches with the class; ``nan`` if there are none.
        std: ``(K,)``, their standard deviation (divisor ``present - 1``); ``nan`` for fewer than two.
        stderr: ``(K,)``, ``std / sqrt(present)``.
        present: ``(K,)``, int64, the number of batches with the class.
        batches: the number of batches in all; the class was absent from ``batches - present``.
        between: class against class, if asked for.
    """

    classes: tuple[int, ...]
    mean: Tensor
    std: Tensor
    stderr: Tensor
    present: Tensor
    batches: int
    between: ClassSimilarity | None = None


def gradient_similarity(
    model: nn.Module,
    loss: Loss,
    batches: Batches,
    classes: Sequence[int] | None = None,
    *,
    parameters: ParameterSpace | None = None,
    between: bool = False,
    batch_size: int = 256,
    progress: Callable[[int], None] | None = None,
) -> GradientSimilarity:
    r"""Measure how each class's gradient agrees with the gradient of the whole batch, in evaluation mode.

    .. math:: s_c = \frac{1}{|\{b : n_{cb} > 0\}|} \sum_{b : n_{cb} > 0} \cos(g_{cb}, g_b), \qquad
              s_{cd} = \frac{1}{|\{b : n_{cb} n_{db} > 0\}|} \sum_{b : n_{cb} n_{db} > 0} \cos(g_{cb}, g_{db})

    where :math:`g_{cb}` is the gradient of the mean loss of the class's :math:`n_{cb}` samples in batch ``b``
    and :math:`g_b` that of the batch's mean loss. A cosine with a gradient that is exactly zero counts as 0.

    In evaluation mode a sample's gradient depends on that sample alone. So each class's samples are passed forward and
    backward by themselves, and all classes together take one forward and one backward pass of the batch, where a
    backward pass of the whole batch for each class would take as many as there are classes. The batch's gradient is
    their sum weighted by :math:`n_{cb} / B`, and so all cosines follow from the classes' inner products, summed in
    float64. A model whose samples act on each other even so (BatchNorm without running statistics) is noticed on the
    first batch, and gets a backward pass for each class.

    Args:
        model: any classifier, left as it was.
        loss: ``(output, target) -> (B,)``.
        batches: batches as in training; the batch size matters, since the batch's gradient is half of the
            measure.
        classes: the classes to score (``None``: all that occur, ascending).
        parameters: the gradient's parameters (``None``: all trainable ones), e.g. the encoder's.
        between: compare the classes with each other, too.
        batch_size: samples in a batch, for a pair of tensors.
        progress: called with 1 after each batch.

    Raises:
        InputError: no batches, no classes, a loss that gives one number for a batch, or gradients of all classes of a
            batch that do not fit into half of the free memory.

    References:
        Chen et al., CVPR 2026 (GKP+GSA), Fig. 6.
    """
    if classes is not None and not len(classes):
        raise InputError("no classes to compare: name one at least")
    space = parameters or ParameterSpace(model)
    parts = batches_of(batches, batch_size)
    labels = _labels(parts) if classes is None else tuple(dict.fromkeys(int(label) for label in classes))
    place = {label: k for k, label in enumerate(labels)}
    moments = _Moments(len(labels), between, space.device)
    apart: bool | None = None
    count = 0
    with eval_mode(model), torch.enable_grad():
        for inputs, targets in parts:
            found, order, sizes = _sorted(targets, place)
            inputs = inputs[order.to(inputs.device)].to(space.device)
            targets = targets[order.to(targets.device)].to(space.device)
            if apart is None:
                apart = _independent(model, loss, inputs, targets)
            _check_memory(len(sizes), space)
            rows = (_apart if apart else _together)(model, loss, inputs, targets, sizes, space)
            moments.add(found, _cosines(rows, sizes)[: len(found)])
            count += 1
            if progress:
                progress(1)
    if not count:
        raise InputError("the subset holds no samples: choose classes that the data contain")
    return moments.result(labels, count)


def _labels(batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[int, ...]:
    return tuple(sorted({label for _, targets in batches for label in targets.unique().tolist()}))


def _sorted(targets: Tensor, place: dict[int, int]) -> tuple[list[int], Tensor, list[int]]:
    """The places of the classes asked for that are there, an order that sorts by part, and the parts' sizes.

    All other classes make up the last part together.
    """
    some = targets.tolist()  # the only transfer from the device
    part = [place.get(label, len(place)) for label in some]
    order = sorted(range(len(part)), key=part.__getitem__)
    sizes: dict[int, int] = {}
    for where in order:
        sizes[part[where]] = sizes.get(part[where], 0) + 1
    return [where for where in sizes if where < len(place)], torch.tensor(order), list(sizes.values())


def _independent(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> bool:
    """Whether samples get the same losses among all as by halves."""
    x, y = inputs[:_TRIAL], targets[:_TRIAL]
    half = (len(x) + 1) // 2
    with torch.no_grad():
        whole = per_sample(loss, model(x), y)
        halves = torch.cat([loss(model(u), v) for u, v in zip(x.split(half), y.split(half), strict=True)])
    tolerance = 10 * torch.finfo(whole.dtype).eps ** 0.5
    return bool(((whole - halves).abs() <= tolerance * whole.abs().max()).all())


def _check_memory(parts: int, space: ParameterSpace) -> None:
    size = parts * space.size * torch.finfo(space.dtype).bits // 8
    if size > ROOM and not GraphBudget(space.device).take(size):
        raise InputError(
            f"the gradients of the {parts} classes of a batch take {size / 1e9:.1f} GB, more than half of the free "
            "memory: ask for fewer classes, or for the gradient of fewer parameters"
        )


def _apart(
    model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor, sizes: list[int], space: ParameterSpace
) -> Tensor:
    """The gradient of each part's mean loss, ``(K, P)``, from a pass of the part's own samples."""
    pairs = zip(inputs.split(sizes), targets.split(sizes), strict=True)
    return torch.stack([_gradient(per_sample(loss, model(x), y).mean(), space) for x, y in pairs])


def _together(
    model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor, sizes: list[int], space: ParameterSpace
) -> Tensor:
    """The same from one forward pass of all samples and a backward pass for each part."""
    parts = per_sample(loss, model(inputs), targets).split(sizes)
    return torch.stack([_gradient(part.mean(), space, k + 1 < len(parts)) for k, part in enumerate(parts)])


def _gradient(value: Tensor, space: ParameterSpace, retain: bool = False) -> Tensor:
    return space.flatten(torch.autograd.grad(value, space.parameters, retain_graph=retain, allow_unused=True))


def _cosines(rows: Tensor, sizes: list[int]) -> Tensor:
    """Cosines ``(K, K + 1)`` of the parts' gradients with each other and, last, with the batch's."""
    shares = torch.tensor(sizes, dtype=torch.float64).to(rows.device) / sum(sizes)
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
    for part in rows.split(_COLUMNS, dim=1):
        wide = part.double()
        gram += wide @ wide.T
    with_batch = gram @ shares
    squares = torch.cat([gram.diagonal(), (shares @ with_batch)[None]]).clamp_min(0.0)
    products = torch.cat([gram, with_batch[:, None]], dim=1)
    lengths = squares[:-1, None].sqrt() * squares.sqrt()
    return torch.where(lengths > 0, products / lengths, 0.0).clamp(-1.0, 1.0)


class _Moments:
    """Mean and variance of cosines over batches (Welford's recurrence), on the device."""

    def __init__(self, classes: int, between: bool, device: torch.device) -> None:
        self.between = between
        shape = (classes, classes + 1 if between else 1)
        self.count, self.mean, self.squares = (torch.zeros(shape, dtype=torch.float64, device=device) for _ in range(3))

    def add(self, found: list[int], cosines: Tensor) -> None:
        """Add a batch: the places of its classes, and their cosines with each other and with the batch."""
        if not found:
            return
        here = torch.tensor(found, device=cosines.device)
        if self.between:
            last = torch.tensor([self.mean.shape[0]], device=here.device)
            block = here[:, None], torch.cat([here, last])[None, :]
            values = torch.cat([cosines[:, : len(found)], cosines[:, -1:]], dim=1)
        else:
            block, values = (here[:, None], torch.zeros_like(here)[:1, None]), cosines[:, -1:]
        self.count[block] += 1
        change = values - self.mean[block]
        self.mean[block] += change / self.count[block]
        self.squares[block] += change * (values - self.mean[block])

    def result(self, labels: tuple[int, ...], batches: int) -> GradientSimilarity:
        """All batches' mean and deviation, where there are enough of them."""
        count, mean, squares = self.count.cpu(), self.mean.cpu(), self.squares.cpu()
        mean = torch.where(count > 0, mean, torch.nan)
        std = torch.where(count > 1, (squares / (count - 1)).sqrt(), torch.nan)
        present = count.long()
        return GradientSimilarity(
            classes=labels,
            mean=mean[:, -1].clone(),
            std=std[:, -1].clone(),
            stderr=std[:, -1] / count[:, -1].sqrt(),
            present=present[:, -1].clone(),
            batches=batches,
            between=ClassSimilarity(mean[:, :-1].clone(), std[:, :-1].clone(), present[:, :-1].clone())
            if self.between
            else None,
        )
