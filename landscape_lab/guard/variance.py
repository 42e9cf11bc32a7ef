"""Variances of sums of independent means, with their degrees of freedom; a one-sided test; Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtr, stdtrit
from torch import Tensor

__all__ = ["Spread", "added", "chance", "probe_spread", "quantile", "sample_spread"]


@dataclass(frozen=True)
class Spread:
    """The variance of an error.

    Attributes:
        variance: infinite where there are too few values to tell.
        freedom: degrees of freedom; infinite for a variance that is known.
    """

    variance: float
    freedom: float = math.inf


def added(*parts: Spread) -> Spread:
    """The sum of independent errors, with the degrees of freedom of Welch and Satterthwaite."""
    variance = sum(part.variance for part in parts)
    if not 0 < variance < math.inf:
        return Spread(variance)
    below = sum(part.variance**2 / part.freedom for part in parts)
    return Spread(variance, variance**2 / below if below > 0 else math.inf)


def probe_spread(parts: Sequence[Tensor]) -> Spread:
    """Of the sum of means over independent sets of probes, ``(K,)`` each; a single probe tells no variance."""
    return added(
        *(
            Spread(float(values.double().var()) / len(values), len(values) - 1)
            if len(values) > 1
            else Spread(math.inf, 1)
            for values in parts
            if len(values)
        )
    )


def sample_spread(influences: Tensor, labels: Tensor, unseen: Mapping[int, float]) -> Spread:
    r"""Of a sum of the classes' means, from the draw: :math:`\sum_c u_c \, s_c^2 / n_c`.

    Samples are drawn class by class, so that only the spread within a class counts; and of a class that was drawn
    whole, :math:`u_c = 0`, none. Classes with one sample are put together, as there is no spread in one.

    Args:
        influences: ``(n,)``.
        labels: ``(n,)``, the class of each.
        unseen: class → the share of its samples that were not drawn.

    Reference: W. Cochran, *Sampling techniques*, Wiley 1977, sections 5.3 and 5A.12.
    """
    parts, alone = [], []
    for label, share in unseen.items():
        values = influences[labels == label].double()
        if not share or not bool(values.any()):
            continue
        if len(values) == 1:
            alone.append(float(values[0]))
            continue
        parts.append(Spread(share * float(values.var()) / len(values), len(values) - 1))
    if alone:
        mean = sum(alone) / len(alone)
        squares = sum((value - mean) ** 2 for value in alone)
        most = len(alone) - 1
        parts.append(Spread(squares * len(alone) / most, most) if most else Spread(math.inf, 1))
    return added(*parts)


def chance(excess: float, spread: Spread) -> float:
    """The chance of so large an excess, or a larger one, where there is none: Student's one-sided test."""
    if spread.variance == math.inf:
        return 1.0
    if not spread.variance:
        return 0.0 if excess > 0 else 1.0
    return _upper(excess / math.sqrt(spread.variance), spread.freedom)


def quantile(level: float, spread: Spread) -> float:
    """How many standard errors a one-sided limit of this level lies away."""
    freedom = min(spread.freedom, 1e8)
    return float(stdtrit(freedom, level))


def _upper(t: float, freedom: float) -> float:
    return float(stdtr(min(freedom, 1e8), -t))
