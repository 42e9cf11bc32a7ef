"""The losses of many subsets at many points of parameter space, from one forward pass of the data a point."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from landscape_lab.analysis.batches import Batches, Loss, batches_of, per_sample
from landscape_lab.analysis.layout import channels_last, has_convolutions
from landscape_lab.analysis.memory import graph_bytes
from landscape_lab.errors import InputError
from landscape_lab.parameters import (
    BatchNormPolicy,
    ParameterSpace,
    eval_mode,
    reestimated_statistics,
    swapped_statistics,
)

__all__ = ["Measured", "Points", "Sweep"]

# Bytes of activations that a part of the samples may make. Measured on one CPU thread: a ResNet-20 on 32 x 32 images is
# fastest in parts of 32 to 64 (by 1.4 against 256), a ResNet-8 on 8 x 8 images in parts of 256 and more.
_PART_BYTES = {"cpu": 64 << 20, "cuda": 4 << 30}
_MOST = {"cpu": 512, "cuda": 4096}
_WHOLE = 512  # samples in a batch whose own statistics matter, unless the caller says otherwise
LOSS, VARIANCE, ACCURACY = range(3)


@dataclass(frozen=True, eq=False)
class Measured:
    """What has been measured on a grid so far; kept while a sweep goes on, so that another one can finish it.

    Attributes:
        values: ``(ny, nx, 3, S)``, float64: each subset's mean loss, the variance of that mean, the accuracy.
        done: ``(ny, nx)``, bool: which points they are known at.
    """

    values: Tensor
    done: Tensor


class Sweep:
    """A model, its data on the device in the form that is fastest, and the subsets to score.

    The losses are kept per sample and summed by class in float64 on the model's device, so that each further subset is
    free. On a CPU images lie channels-last, if the model takes them so. The samples are taken in parts whose
    activations fit the processor's caches, unless BatchNorm uses the batch.

    Args:
        model: any classifier with outputs ``(B, C)``.
        loss: ``(output, target) -> (B,)``.
        batches: inputs and int64 targets ``(B,)``; read once.
        space: the parameters that are moved.
        subsets: name to class numbers.
        num_classes: targets lie in ``0 .. num_classes - 1``.
        batch_norm: ``"running"``, ``"batch"`` or ``"reestimated"``: see :func:`~landscape_lab.analysis.evaluate`.
        batch_size: samples in memory at a time, for a pair of tensors; ``None``: as many as are fast.
        class_counts: how many samples of a class each union counts, where the data hold only some of them;
            ``None``: as many as the data hold.
        statistics: batches of inputs for ``"reestimated"``; ``None``: those of ``batches``.

    Attributes:
        counts: the samples of each subset among the data.

    Raises:
        InputError: a subset without samples or with unknown classes, or targets out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        batches: Batches,
        space: ParameterSpace,
        *,
        subsets: Mapping[str, Sequence[int]],
        num_classes: int,
        batch_norm: BatchNormPolicy = "running",
        batch_size: int | None = None,
        class_counts: Mapping[int, float] | None = None,
        statistics: Sequence[Tensor] | None = None,
    ) -> None:
        self._model, self._loss, self.space = model, loss, space
        self.batch_norm, self.subsets, self.num_classes = batch_norm, tuple(subsets), num_classes
        given = batches_of(batches, batch_size or _WHOLE)
        self._batches = [(inputs.to(space.device), targets.to(space.device)) for inputs, targets in given]
        found = _class_counts([targets for _, targets in self._batches], num_classes)
        self._member, self._subset_of = _membership(subsets, found)
        totals = torch.zeros(len(subsets), dtype=torch.int64, device=space.device)
        totals.index_add_(0, self._subset_of, found[self._member])
        self.counts: tuple[int, ...] = tuple(totals.tolist())
        self._found, self._totals = found.double(), totals.double()
        self._shares = None if class_counts is None else self._shares_of(class_counts)
        self._channels_last = self._takes_channels_last()
        self._batches = [(self._laid(inputs), targets) for inputs, targets in self._batches]
        self._norm_inputs = [inputs for inputs, _ in self._batches]
        if statistics is not None:
            self._norm_inputs = [self._laid(inputs.to(space.device)) for inputs in statistics]
        self._parts = self._batches
        if batch_norm != "batch":
            size = batch_size or self._part_size()
            self._parts = [
                part
                for inputs, targets in self._batches
                for part in zip(inputs.split(size), targets.split(size), strict=True)
            ]

    @contextmanager
    def moving(self) -> Iterator[Tensor]:
        """Within the block the model's parameters are the vector ``(P,)`` that it yields; then the caller's again."""
        point = torch.empty(self.space.size, dtype=self.space.dtype, device=self.space.device)
        policy: BatchNormPolicy = "batch" if self.batch_norm == "batch" else "running"
        with torch.no_grad(), self.space.bound_to(point), eval_mode(self._model, policy):
            yield point

    def measure(self) -> Tensor:
        """Mean loss, variance of that mean, and accuracy of each subset where the model is now: ``(3, S)``, float64.

        Call it within :meth:`moving`. Nothing waits for the device.
        """
        sums = torch.zeros(3, self.num_classes, dtype=torch.float64, device=self.space.device)
        with self._statistics():
            for inputs, targets in self._parts:
                sums.index_add_(1, targets, self._scores(self._model(inputs), targets))
        return self._by_subset(sums) if self._shares is None else self._weighed(sums, self._shares)

    def _statistics(self) -> AbstractContextManager[None]:
        if self.batch_norm != "reestimated":
            return nullcontext()
        here = reestimated_statistics(self._model, self._norm_inputs)
        return swapped_statistics(self._model, here)

    def _scores(self, output: Tensor, targets: Tensor) -> Tensor:
        """The loss of each sample, its square, and whether it is classified correctly, ``(3, B)``."""
        losses = per_sample(self._loss, output, targets).double()
        # A nan would win the argmax, and count as correct for the first class.
        correct = (output.argmax(1) == targets) & ~losses.isnan()
        return torch.stack([losses, losses.square(), correct.double()])

    def _by_subset(self, sums: Tensor) -> Tensor:
        # Gathered, not a matrix product: 0 * nan would carry one class's nan into every subset.
        total, squares, correct = sums.new_zeros(3, len(self.subsets)).index_add_(
            1, self._subset_of, sums[:, self._member]
        )
        n = self._totals
        mean = total / n
        variance = ((squares - total * mean) / (n - 1)).clamp(min=0) / n  # 0 / 0 for one sample: unknown
        return torch.stack([mean, variance, correct / n])

    def _weighed(self, sums: Tensor, shares: Tensor) -> Tensor:
        """As :meth:`_by_subset` for stratified samples: the strata's means and variances, weighed."""
        n = self._found
        mean = sums[LOSS] / n
        variance = ((sums[1] - sums[0] * mean) / (n - 1)).clamp(min=0) / n
        classes = torch.stack([mean, variance, sums[2] / n])[:, self._member]
        weights = torch.stack([shares, shares.square(), shares])
        return sums.new_zeros(3, len(self.subsets)).index_add_(1, self._subset_of, classes * weights)

    def _shares_of(self, class_counts: Mapping[int, float]) -> Tensor:
        """Of each pair of class and subset the class's share in the subset."""
        held = [float(class_counts.get(c, 0.0)) if self._found[c] else 0.0 for c in range(self.num_classes)]
        counts = torch.tensor(held, dtype=torch.float64, device=self.space.device)[self._member]
        totals = counts.new_zeros(len(self.subsets)).index_add_(0, self._subset_of, counts)
        return counts / totals[self._subset_of]

    def _takes_channels_last(self) -> bool:
        if self.space.device.type != "cpu" or not has_convolutions(self._model):
            return False
        try:
            with torch.no_grad(), eval_mode(self._model):
                self._model(channels_last(self._batches[0][0][:2]))
        except RuntimeError:  # view() of an image needs the usual layout
            return False
        return True

    def _laid(self, inputs: Tensor) -> Tensor:
        return channels_last(inputs) if self._channels_last else inputs

    def _part_size(self) -> int:
        """How many samples' activations fit the caches, a power of two."""
        inputs = self._batches[0][0][:8].detach()
        if inputs.is_floating_point():
            inputs = inputs.clone().requires_grad_()  # parameters that are frozen would leave part of the graph out
        with torch.enable_grad(), eval_mode(self._model):
            each = graph_bytes(lambda: self._model(inputs)) // len(inputs)
        kind = self.space.device.type
        fast = _PART_BYTES.get(kind, 64 << 20) // max(each, 1)
        return min(_MOST.get(kind, 512), max(16, 1 << max(0, int(fast).bit_length() - 1)))


class Points:
    """The points of a grid on a line or plane, each measured once.

    Args:
        sweep: what is measured.
        origin: ``(P,)``.
        axes: one or two directions ``(P,)``.
        x: ``(nx,)``, float64 coordinates along the first.
        y: ``(ny,)`` along the second.
        known: what an earlier sweep over the same grid has measured.
        keep: called now and then with what is there, to be stored.
        every: seconds between two such calls.
        progress: called with the number of points that have been added, known ones first.
    """

    def __init__(
        self,
        sweep: Sweep,
        origin: Tensor,
        axes: Sequence[Tensor],
        x: Tensor,
        y: Tensor,
        *,
        known: Measured | None = None,
        keep: Callable[[Measured], None] | None = None,
        every: float = 5.0,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._sweep, self._keep, self._every, self._progress = sweep, keep, every, progress
        self._x, self._y = x, y
        space = sweep.space
        self._origin, *self._axes = (part.to(space.device, space.dtype) for part in (origin, *axes))
        shape = len(y), len(x), 3, len(sweep.subsets)
        self._values = torch.full(shape, torch.nan, dtype=torch.float64, device=space.device)
        self.done = torch.zeros(len(y), len(x), dtype=torch.bool)
        if known is not None and known.values.shape == shape:
            self.done = known.done.clone()
            self._values.copy_(known.values)
            if progress and known.done.any():
                progress(int(known.done.sum()))

    def measure(self, wanted: Tensor) -> None:
        """Measure the points of ``wanted`` ``(ny, nx)`` that are not known yet."""
        missing = (wanted & ~self.done).nonzero().tolist()
        last, at, row = time.monotonic(), None, self._origin
        with self._sweep.moving() as point:
            for j, i in missing:
                if j != at and len(self._axes) > 1:
                    at, row = j, torch.add(self._origin, self._axes[1], alpha=float(self._y[j]))
                torch.add(row, self._axes[0], alpha=float(self._x[i]), out=point)
                self._values[j, i] = self._sweep.measure()
                self.done[j, i] = True
                if self._progress:
                    self._progress(1)
                if self._keep and time.monotonic() - last >= self._every:
                    self._keep(self.measured)
                    last = time.monotonic()

    @property
    def measured(self) -> Measured:
        """What is there now, on the CPU."""
        return Measured(self._values.to("cpu", copy=True), self.done.clone())


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
        pairs += [(label, position) for label in sorted(set(classes)) if int(counts[label])]
    member, subset_of = torch.tensor(pairs, device=counts.device).T
    return member, subset_of
