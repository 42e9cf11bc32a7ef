"""A number with what its error is made of: the random probes, the draw of the samples, a residual."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from landscape_lab.guard.settings import GuardSettings, MetricName
from landscape_lab.guard.variance import Spread, added, probe_spread, sample_spread

__all__ = ["Measured", "Measurement"]


def _none() -> Tensor:
    return torch.zeros(0, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Measured:
    """One metric of one subset.

    Attributes:
        metric: of :data:`~landscape_lab.guard.settings.METRICS`.
        subset: its name.
        value: the number.
        probes: ``(K,)``, float64, what each random probe says of it; their mean is the value. Empty if there are none.
        influences: ``(n,)``, float64: the number is, up to a constant and to first order, the sum over the classes of
            their means over the samples. Empty where the probes' spread holds the samples' too.
        residual: by how much an iteration may have missed the number, at most.
    """

    metric: MetricName
    subset: str
    value: float
    probes: Tensor = field(default_factory=_none)
    influences: Tensor = field(default_factory=_none)
    residual: float = 0.0


@dataclass(frozen=True, eq=False)
class Measurement:
    """All metrics of a model, and what they were measured on.

    Attributes:
        metrics: the numbers.
        labels: ``(n,)``, int64, the class of each sample.
        unseen: class → the share of its samples that were not drawn.
        subsets: name → classes.
        settings: as measured.
        network: what tells the parameters' names and shapes.
        data: see :func:`~landscape_lab.guard.samples.sketch`.
        origin: for people: run, epoch, versions, device.
    """

    metrics: tuple[Measured, ...]
    labels: Tensor
    unseen: Mapping[int, float]
    subsets: Mapping[str, tuple[int, ...]]
    settings: GuardSettings
    network: Mapping[str, Any]
    data: Mapping[str, Any]
    origin: Mapping[str, Any] = field(default_factory=dict)

    def spread(self, one: Measured) -> Spread:
        """The variance of one number's error, and its degrees of freedom."""
        return added(
            probe_spread([one.probes]) if len(one.probes) else Spread(0.0),
            sample_spread(one.influences, self.labels, self.unseen) if len(one.influences) else Spread(0.0),
            Spread(one.residual**2),
        )
