"""Which samples the guard measures on, what they stand for, and how their draw is told from another."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from landscape_lab.curvature import stratified
from landscape_lab.errors import InputError

__all__ = ["Drawn", "draw", "same_data", "sketch"]


@dataclass(frozen=True, eq=False)
class Drawn:
    r"""Samples of each class, a stratum each, and how many there are of it.

    A subset's mean weighs its classes by their true numbers, :math:`\sum_c \frac{N_c}{N} \frac{1}{n_c} \sum_i x_i`.

    Attributes:
        inputs: ``(n, …)``.
        targets: ``(n, …)``.
        labels: ``(n,)``, int64, on the CPU: each sample's class.
        population: class → ``N_c``, how many samples it stands for.
        finite: whether ``N_c`` is all that there is: a class of which every sample is here has no error from the draw.
            Otherwise the samples stand for endlessly many, in the proportions ``N_c``.
    """

    inputs: Tensor
    targets: Tensor
    labels: Tensor
    population: Mapping[int, float]
    finite: bool

    @cached_property
    def counts(self) -> dict[int, int]:
        """Class → how many of its samples are here."""
        values, counts = self.labels.unique(return_counts=True)
        return {int(c): int(count) for c, count in zip(values, counts, strict=True)}

    def members(self, classes: Sequence[int]) -> Tensor:
        """Places of the samples of these classes, ``(m,)``."""
        return torch.isin(self.labels, torch.tensor(sorted(set(classes)))).nonzero()[:, 0]

    def shares(self, classes: Sequence[int]) -> Tensor:
        """``(n,)``, float64: what each sample counts in the subset's mean; they add up to 1."""
        present = [c for c in sorted(set(classes)) if self.counts.get(c)]
        total = sum(self.population[c] for c in present)
        shares = torch.zeros(len(self.labels), dtype=torch.float64)
        for c in present:
            shares[self.labels == c] = self.population[c] / total / self.counts[c]
        return shares

    def influences(self, values: Tensor, classes: Sequence[int]) -> Tensor:
        """``(n,)`` values, of which the subset has the mean, as what they add to their stratum's mean."""
        sizes = torch.tensor([self.counts[int(c)] for c in self.labels], dtype=torch.float64)
        return values.double().cpu() * self.shares(classes) * sizes

    def unseen(self, label: int) -> float:
        """The share of a class that is not here."""
        return 1 - self.counts[label] / self.population[label] if self.finite else 1.0


def draw(
    inputs: Tensor,
    targets: Tensor,
    labels: Tensor,
    per_class: int | None = None,
    population: Mapping[int, float] | None = None,
) -> Drawn:
    """At most so many samples of each class, always the same ones.

    Args:
        inputs: ``(N, …)``, all that there are.
        targets: ``(N, …)``.
        labels: ``(N,)``, the classes.
        per_class: at most so many; ``None``: all.
        population: what the classes stand for; ``None``: the samples given are all that there is.

    Raises:
        InputError: no samples, or labels that do not fit them.
    """
    if not len(inputs) or len(inputs) != len(targets) or labels.shape != (len(inputs),):
        raise InputError(f"the guard needs samples with a target each, got {len(inputs)} and {len(targets)}")
    labels = labels.long().cpu()
    values, counts = labels.unique(return_counts=True)
    known = {int(c): float(count) for c, count in zip(values, counts, strict=True)}
    places = torch.arange(len(labels)) if per_class is None else stratified(labels, per_class).sort().values
    there = places.to(inputs.device)
    return Drawn(
        inputs[there],
        targets[places.to(targets.device)],
        labels[places],
        dict(population) if population is not None else known,
        finite=population is None,
    )


def sketch(drawn: Drawn) -> dict[str, Any]:
    """What tells the samples apart from others: exact for classes and shapes, up to rounding for the inputs.

    Inputs may differ in their last bits between devices; a digest would then call the same data others.
    """
    digest = hashlib.sha256()
    digest.update(drawn.labels.numpy().tobytes())
    targets = drawn.targets.detach().cpu()
    if not targets.is_floating_point():
        digest.update(targets.long().contiguous().numpy().tobytes())
    parts = [_sums(drawn.inputs)] + ([_sums(targets)] if targets.is_floating_point() else [])
    return {
        "samples": len(drawn.labels),
        "inputs": list(drawn.inputs.shape[1:]),
        "targets": digest.hexdigest(),
        "population": {str(c): float(count) for c, count in sorted(drawn.population.items())},
        "finite": drawn.finite,
        "sums": [value for part in parts for value in part],
    }


def same_data(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What differs between two sketches, in words; empty for the same samples."""
    words = {
        "samples": "the numbers of samples",
        "inputs": "the shapes of the inputs",
        "targets": "the targets",
        "population": "the classes' numbers of samples",
        "finite": "the populations that the samples stand for",
    }
    for key, word in words.items():
        if one.get(key) != other.get(key):
            return word
    sums, others = one.get("sums", []), other.get("sums", [])
    near = len(sums) == len(others) and all(
        math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6) for a, b in zip(sums, others, strict=True)
    )
    return "" if near else "the inputs"


def _sums(values: Tensor, pieces: int = 8) -> list[float]:
    """Weighted means over some pieces of the samples: a change of any sample, or of their order, moves them."""
    flat = values.detach().reshape(len(values), -1).double().cpu()
    columns = torch.arange(flat.shape[1], dtype=torch.float64).cos()
    rows = 1 + torch.arange(len(flat), dtype=torch.float64).sin() / 2
    return [float(part.mean()) for part in ((flat @ columns) * rows).chunk(pieces)]
