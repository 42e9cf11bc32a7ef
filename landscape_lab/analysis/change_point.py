"""From when on a curve falls: a test, not an eye."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.signal import lfilter
from torch import Tensor

from landscape_lab.analysis.monotone import Array, BrokenFit, broken_fit, rising_fit
from landscape_lab.tabular import Tabular

__all__ = ["FEWEST", "Onset", "onset_of_decline"]

FEWEST = 12
"""With fewer points there is no verdict."""
MOST = 128  # more are averaged in neighbours
LEVEL = 0.05
DOUBT = 0.05  # the chance that the noise is more correlated than allowed for
DRAWS = 599
LENGTHS = (12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128)  # each takes draws of its own
TINY = float(np.finfo(float).tiny)
CORRELATIONS = (0.0, 0.15, 0.3, 0.45, 0.6, 0.7, 0.8, 0.9, 0.95)

Verdict = Literal["declines", "no decline", "cannot tell"]


@dataclass(frozen=True)
class Onset(Tabular):
    """Whether a curve falls in the end, from when on, and by how much.

    Attributes:
        verdict: ``"declines"``: a curve that never falls is rejected at the 5 % level. ``"no decline"``: it is not, and
            a decline as large as ``least`` is outside the 95 % interval. Else ``"cannot tell"``.
        epoch: the last one before the fall; ``None`` unless the verdict is ``"declines"``.
        low: where the epoch's 95 % interval begins; ``nan`` without an epoch. For slow declines in strongly correlated
            noise it covers less often (``docs/quality.md``).
        high: where it ends.
        p_value: of the test that the curve never falls.
        decline: from before the fall to the end, in the curve's unit; ``nan`` for too few points.
        decline_low: where its 95 % interval begins.
        decline_high: where it ends.
        least: the smallest decline that matters.
        correlation: of the noise of neighbouring epochs, as estimated.
        noise: the noise's standard deviation.
        points: how many epochs were looked at, those of the first rise left out.
    """

    verdict: Verdict
    epoch: float | None
    low: float
    high: float
    p_value: float
    decline: float
    decline_low: float
    decline_high: float
    least: float
    correlation: float
    noise: float
    points: int


def onset_of_decline(
    epochs: Sequence[int], values: Tensor | Sequence[float], *, least: float | None = None, seed: int = 0
) -> Onset:
    r"""Test whether a curve falls in the end, and find from when on.

    The hypothesis is a curve that never falls, whatever its shape, plus noise; the alternative a line that does not
    fall up to an epoch :math:`\tau`, and after it a drop, a falling line or a fall that levels off. The statistic is
    what the two leave,

    .. math:: \min_{m \uparrow} \sum_t (Q_t - m_t)^2 \Big/ \min_{\tau, \, m \nearrow \tau \searrow} \sum_t (Q_t - m_t)^2

    Its distribution is drawn for a flat curve, where a false alarm is likeliest, with noise
    :math:`e_t = \varphi e_{t-1} + u_t`. The p-value is that of the largest :math:`\varphi` that the residuals'
    correlation allows at 95 %: the estimate itself would give false alarms when it happens to be small. The first,
    steep part of a curve says nothing about its end and hides its noise: only the part from four standard deviations
    of the noise below the peak on is looked at, or the last dozen points.

    The interval of the epoch holds all breaks whose sum of squares is within what draws around the fitted lines leave
    between the true break and the best one in 95 % of cases; that of the decline is
    what the bootstrap's percentiles and its basic interval cover together.

    Args:
        epochs: ``T`` of them, ascending, about evenly spaced.
        values: ``(T,)``, or ``(T, C)`` for the mean of ``C`` classes; values that are not finite are left out.
        least: the smallest decline that matters; ``None``: a tenth of the fitted curve's range.
        seed: of the draws.

    Raises:
        ValueError: lengths differ, or the epochs do not ascend.
    """
    series = torch.as_tensor(values).detach().cpu().double()
    if series.dim() == 2:
        series = series.nanmean(1)
    if series.dim() != 1 or len(series) != len(epochs):
        raise ValueError(f"expected a value for each of {len(epochs)} epochs, got {tuple(series.shape)}")
    if any(later <= sooner for sooner, later in itertools.pairwise(epochs)):
        raise ValueError("the epochs must ascend")
    y, x = series.numpy(), np.asarray(epochs, dtype=np.float64)
    y, x = y[np.isfinite(y)], x[np.isfinite(y)]
    points = len(y)
    if points < FEWEST or float(np.ptp(y)) == 0:
        steady = points >= FEWEST  # constant to the last digit
        nan = math.nan
        numbers = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0) if steady else (nan,) * 7
        return Onset("no decline" if steady else "cannot tell", None, nan, nan, *numbers, points)
    y, x = _thinned(y, x)
    least = 0.1 * float(np.ptp(_smooth(y))) if least is None else least
    start = _end_of_rise(y)
    y, x = y[start:], x[start:]
    fit, table = broken_fit(y[None]), _null(len(y))
    middle, upper = table.correlation(_lag_one(y[None] - fit.values)[0])
    p_value = table.p_value(float(_statistic(y[None], fit)[0]), upper)
    noise = _noise(fit, table, middle)
    # What the same procedure finds in curves drawn around the fitted one.
    drawn = broken_fit(fit.values + noise * _correlated(middle, DRAWS, len(y), seed + 1))
    where = int(fit.last[0])
    beyond = drawn.broken[:, where] / np.maximum(drawn.least, TINY)
    inside = np.flatnonzero(fit.broken[0] <= fit.least[0] * np.quantile(beyond, 1 - LEVEL))
    decline = float(fit.decline[0])
    few, many = (float(np.quantile(drawn.decline, q)) for q in (LEVEL / 2, 1 - LEVEL / 2))
    # Both kinds of bootstrap intervals are too short for correlated noise; what they cover together is less so.
    below, above = min(few, 2 * decline - many), max(many, 2 * decline - few)
    # A curve that dips and ends higher is no fall, whatever the dip.
    falls = p_value <= LEVEL and decline > 0
    flat = p_value > LEVEL and above < least
    verdict: Verdict = "declines" if falls else "no decline" if flat else "cannot tell"
    return Onset(
        verdict=verdict,
        epoch=float(x[where]) if falls else None,
        low=float(x[inside[0]]) if falls else math.nan,
        high=float(x[inside[-1]]) if falls else math.nan,
        p_value=p_value,
        decline=decline,
        decline_low=below,
        decline_high=above,
        least=least,
        correlation=middle,
        noise=noise,
        points=len(y),
    )


def _statistic(y: Array, fit: BrokenFit) -> Array:
    return np.asarray(rising_fit(y)[0] / np.maximum(fit.least, TINY))


def _noise(fit: BrokenFit, table: _Null, correlation: float) -> float:
    """The noise's standard deviation: fits swallow some of it."""
    return math.sqrt(float(fit.least[0]) / fit.values.shape[1] / table.swallowed(correlation))


def _end_of_rise(y: Array) -> int:
    """Where the curve comes within four standard deviations of the noise of its peak, but not among the last points."""
    smooth, latest = _smooth(y), len(y) - FEWEST
    below = 0.1 * float(np.ptp(smooth))
    for _ in range(3):
        start = min(int(np.argmax(smooth >= smooth.max() - below)), latest)
        start = len(y) - min(n for n in (*LENGTHS, len(y)) if n >= len(y) - start)
        rest = y[None, start:]
        fit, table = broken_fit(rest), _null(rest.shape[1])
        below = 4 * _noise(fit, table, table.correlation(_lag_one(rest - fit.values)[0])[0])
    return start


def _smooth(y: Array, width: int = 5) -> Array:
    """Running means, of fewer points at the ends."""
    ones = np.ones(width)
    return np.asarray(np.convolve(y, ones, "same") / np.convolve(np.ones(len(y)), ones, "same"))


def _thinned(y: Array, x: Array) -> tuple[Array, Array]:
    """Means of as many neighbours as leave at most ``MOST`` points; the last ones are all kept."""
    step = -(-len(y) // MOST)
    first = len(y) % step
    parts = [part[first:].reshape(-1, step) for part in (y, x)]
    return parts[0].mean(1), parts[1][:, -1]


def _lag_one(residuals: Array) -> Array:
    square = np.maximum((residuals**2).sum(1), TINY)
    return np.asarray((residuals[:, 1:] * residuals[:, :-1]).sum(1) / square)


def _correlated(correlation: float, rows: int, count: int, seed: int) -> Array:
    """Stationary AR(1) noise of variance 1, ``(rows, count)``; the same draws for every correlation."""
    drawn = np.random.default_rng(seed).standard_normal((rows, count))
    drawn[:, 1:] *= math.sqrt(1 - correlation**2)
    return np.asarray(lfilter([1.0], [1.0, -correlation], drawn, axis=1))


@dataclass(frozen=True, eq=False)
class _Null:
    """What fits to flat noise give, for each of :data:`CORRELATIONS`: ``(9, DRAWS)`` each."""

    statistics: Array
    raw: Array  # correlations of residuals
    left: Array  # mean squared residuals, of noise of variance 1

    def correlation(self, raw: float) -> tuple[float, float]:
        """The noise's correlation by the residuals': of which theirs is the median, and its upper limit."""
        grid = np.array(CORRELATIONS)
        found = []
        for quantile in (0.5, DOUBT):
            of = np.maximum.accumulate(np.quantile(self.raw, quantile, axis=1))
            found.append(float(np.interp(raw, of, grid)))
        return found[0], found[1]

    def p_value(self, statistic: float, correlation: float) -> float:
        """The share of flat curves with a statistic at least as large."""
        above = (1 + (self.statistics >= statistic).sum(1)) / (1 + self.statistics.shape[1])
        return float(np.interp(correlation, CORRELATIONS, np.maximum.accumulate(above)))

    def swallowed(self, correlation: float) -> float:
        """The share of the noise's variance that the fits leave."""
        return float(np.interp(correlation, CORRELATIONS, np.median(self.left, axis=1)))


@functools.lru_cache(maxsize=32)
def _null(count: int) -> _Null:
    statistics, raw, left = [], [], []
    for correlation in CORRELATIONS:
        noise = _correlated(correlation, DRAWS, count, seed=count)
        fit = broken_fit(noise)
        statistics.append(_statistic(noise, fit))
        raw.append(_lag_one(noise - fit.values))
        left.append(fit.least / count)
    return _Null(np.array(statistics), np.array(raw), np.array(left))
