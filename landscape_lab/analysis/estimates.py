"""Numbers that carry their own error: Student's interval for means, ratios and smooth functions of means."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.special import stdtrit
from torch import Tensor

from landscape_lab.tabular import Tabular

__all__ = ["DataError", "Estimate", "clipped", "linearised_estimate", "mean_estimate", "ratio_estimate", "t_quantile"]


@dataclass(frozen=True)
class Estimate(Tabular):
    """A number and how far to trust it.

    Attributes:
        value: the estimate.
        stderr: its Monte-Carlo standard error over random probes; ``nan`` for a single probe.
        low: where the 95 % interval begins.
        high: where it ends.
    """

    value: float
    stderr: float
    low: float
    high: float


@dataclass(frozen=True)
class DataError(Tabular):
    """Standard errors from the draw of the samples, by bootstrap; the probes' errors are stated apart from them.

    Attributes:
        trace: of the trace.
        lambda_max: of the largest eigenvalue.
        lambda_min: of the smallest.
        resamples: how many times the samples were drawn anew.
    """

    trace: float
    lambda_max: float
    lambda_min: float
    resamples: int


def mean_estimate(samples: Tensor, level: float = 0.95) -> Estimate:
    r"""The mean of independent samples, :math:`\bar x \pm t_{m-1} \, s / \sqrt m`.

    Args:
        samples: ``(m,)``. With ``m = 1`` the error is ``nan``.
        level: of the interval.
    """
    samples = samples.double()
    return linearised_estimate(float(samples.mean()), samples, level)


def ratio_estimate(numerators: Tensor, denominators: Tensor, level: float = 0.95) -> Estimate:
    r"""The ratio of two means over the same probes, :math:`r = \bar x / \bar y`.

    Its error is that of the mean of :math:`(x_i - r y_i) / \bar y`, the ratio's change to first order: where
    numerator and denominator move together, their common part cancels.

    Args:
        numerators: ``(m,)``.
        denominators: ``(m,)``; where their mean is zero, the result is not finite.
        level: of the interval.
    """
    x, y = numerators.double(), denominators.double()
    ratio = x.mean() / y.mean()
    return linearised_estimate(float(ratio), (x - ratio * y) / y.mean(), level)


def linearised_estimate(
    value: float,
    influences: Tensor,
    level: float = 0.95,
    *,
    variance: float = 0.0,
    skewness: float = 0.0,
    weight: int = 0,
) -> Estimate:
    r"""A function of means, with Student's interval from what each sample adds to it in first order (delta method).

    Three samples tell their own variance badly. Where it is told from elsewhere, about as well as by :math:`\nu`
    further samples, the two are pooled. And where samples are skewed, mean and variance are too large together and
    too small together; an interval that knows the skewness is longer on the side where the mean and its error are
    both too small:

    .. math:: \hat\sigma^2 = \frac{(m - 1) \, s^2 + \nu \sigma^2}{m - 1 + \nu}, \qquad
              \Big[ x + \frac{\hat\sigma}{\sqrt m} \, \frac{e^{-a t} - 1}{a}, \;
                     x + \frac{\hat\sigma}{\sqrt m} \, \frac{e^{a t} - 1}{a} \Big], \qquad
              t = t_{m - 1 + \nu}, \quad a = \frac{\gamma}{3 \sqrt m} .

    This is the interval of a lognormal variable: with the standard deviation ``a`` of its logarithm, its skewness is
    ``3 a`` to first order.

    Args:
        value: the function of the means.
        influences: ``(m,)``, its derivative by each mean times that mean's sample, summed; a constant does not
            matter.
        level: of the interval.
        variance: of one influence, from elsewhere.
        skewness: of one influence, :math:`\gamma`, from elsewhere.
        weight: :math:`\nu`.

    Reference for pooling: G. Smyth, *Linear models and empirical Bayes methods for assessing differential expression
    in microarray experiments*, Stat. Appl. Genet. Mol. Biol. 3 (2004).
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    count = len(influences)
    if count < 2:
        return Estimate(value, math.nan, math.nan, math.nan)
    freedom = count - 1 + weight
    pooled = ((count - 1) * float(influences.double().var()) + weight * variance) / freedom
    stderr = math.sqrt(pooled / count)
    t = t_quantile(freedom + 1, level)
    tilt = max(-0.6, min(0.6, skewness / (3 * math.sqrt(count))))  # beyond, a lognormal is too skewed itself
    if abs(tilt) < 1e-6:
        return Estimate(value, stderr, value - t * stderr, value + t * stderr)
    low, high = (stderr * math.expm1(side * tilt * t) / tilt for side in (-1, 1))
    return Estimate(value, stderr, value + low, value + high)


def t_quantile(samples: int, level: float = 0.95) -> float:
    """How many standard errors the two-sided interval of a mean of so many samples reaches to each side."""
    return float(stdtrit(samples - 1, (1 + level) / 2))


def clipped(estimate: Estimate, low: float, high: float) -> Estimate:
    """The same with everything but the standard error moved into ``[low, high]``, where the truth is known to lie."""
    value, bottom, top = (
        float(torch.tensor(number, dtype=torch.float64).clamp(low, high))  # clamp keeps nan
        for number in (estimate.value, estimate.low, estimate.high)
    )
    return Estimate(value, estimate.stderr, bottom, top)
