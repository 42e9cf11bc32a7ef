"""The samples that a study computes on: what enters the model, what the loss compares with, the class of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["SampleBatches", "Samples"]


def _as_it_is(inputs: Tensor) -> Tensor:
    return inputs


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples on one device.

    Args:
        inputs: ``(N, …)`` as they lie in memory, e.g. uint8 images.
        targets: ``(N, …)``, what the loss takes.
        labels: ``(N,)`` int64, the class of each sample; the targets themselves in classification.
        prepare: makes of stored inputs ``(B, …)`` what the model takes.
    """

    inputs: Tensor
    targets: Tensor
    labels: Tensor
    prepare: Callable[[Tensor], Tensor] = _as_it_is

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, places: Tensor | slice) -> Samples:
        """The samples at these places, in this order."""
        return Samples(self.inputs[places], self.targets[places], self.labels[places], self.prepare)

    def class_counts(self, num_classes: int) -> list[int]:
        """The number of samples of each class, length ``num_classes``; reads back from the device."""
        counts: list[int] = torch.bincount(self.labels, minlength=num_classes).tolist()
        return counts

    def of(self, classes: Sequence[int]) -> Samples:
        """The samples of these classes."""
        wanted = torch.tensor(sorted(set(classes)), dtype=torch.int64, device=self.labels.device)
        return self.take(torch.isin(self.labels, wanted).nonzero().squeeze(1))

    def tensors(self) -> tuple[Tensor, Tensor]:
        """All inputs as the model takes them, and the targets."""
        return self.prepare(self.inputs), self.targets

    def batches(self, batch_size: int) -> SampleBatches:
        """Batches in order, prepared as they are read; can be read again and again."""
        return SampleBatches(self, batch_size)


@dataclass(frozen=True, eq=False)
class SampleBatches:
    """``(inputs, targets)`` batches of :class:`Samples`."""

    samples: Samples
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.samples) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self.samples), self.batch_size):
            yield self.samples.take(slice(start, start + self.batch_size)).tensors()
