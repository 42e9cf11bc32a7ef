"""Is a model worse than its baseline by more than is tolerated, and by more than chance explains?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from landscape_lab.analysis.multiplicity import holm
from landscape_lab.guard.measured import Measured, Measurement
from landscape_lab.guard.settings import METRICS, MetricName, Tolerance
from landscape_lab.guard.variance import Spread, added, chance, probe_spread, quantile, sample_spread

__all__ = ["LEVEL", "Comparison", "Verdict", "compare"]

LEVEL = 0.05
"""How often at most a model that is no worse than tolerated fails, over all its numbers together."""

Outcome = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True)
class Verdict:
    """What became of one number.

    Attributes:
        metric: of :data:`~landscape_lab.guard.settings.METRICS`.
        subset: its name.
        before: the baseline's number.
        now: the model's.
        unit: of the change: ``"ratio"``: now over before; ``"difference"``: now less before.
        change: from the baseline to the model.
        low: where its 95 % interval begins.
        high: where it ends.
        tolerance: as text.
        p_worse: the chance of so bad a number, or a worse one, of a model that is just tolerated.
        p_corrected: the same for so many numbers, by Holm.
        p_within: the chance of so good a number, or a better one, of a model that is just not tolerated.
        outcome: ``"pass"``, ``"fail"`` or ``"inconclusive"``.
        reason: of an answer that is inconclusive: where the error comes from.
    """

    metric: MetricName
    subset: str
    before: float
    now: float
    unit: str
    change: float
    low: float
    high: float
    tolerance: str
    p_worse: float
    p_corrected: float
    p_within: float
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True)
class Comparison:
    """A model beside its baseline.

    Attributes:
        verdicts: of each number.
        notes: what to know when reading them.
    """

    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """``"fail"`` if any number fails, else ``"inconclusive"`` if any is, else ``"pass"``."""
        found = {one.outcome for one in self.verdicts}
        return "fail" if "fail" in found else "inconclusive" if "inconclusive" in found else "pass"

    def count(self, outcome: Outcome) -> int:
        """How many numbers came out so."""
        return sum(one.outcome == outcome for one in self.verdicts)


def compare(
    before: Measurement,
    now: Measurement,
    tolerances: Mapping[MetricName, Tolerance],
    *,
    looks: int = 1,
    notes: Sequence[str] = (),
) -> Comparison:
    r"""Compare all numbers that both have.

    A number fails where

    .. math:: D = \log x_{now} - \log x_{before} - \log(1 + \tau) > 0

    by Student's one-sided test of its error, at 5 % over all numbers together (Holm), and passes where ``D < 0`` by
    the same test at 5 %. Numbers that may be negative, and positive ones that are not for once, are compared by
    :math:`D = s \, (x_{now} - x_{before}) - \tau`, with :math:`s = -1` where less is worse, and :math:`\tau
    |x_{before}|`, taken as it is, for a relative tolerance.

    The error of ``D`` is that of differences: both models are measured on the same samples, whose parts of ``D`` are
    :math:`e_{now} / x_{now} - e_{before} / x_{before}`; a sample that is hard for both cancels out. So are the probes'
    where both had the same ones. This holds whether the two are alike or not: independent errors simply add up.

    Args:
        before: the baseline.
        now: the model, measured on the same samples with the same settings, perhaps with more probes.
        tolerances: how much worse each metric may be.
        looks: how often the question is asked with more probes each time; each look has its part of the 5 %.
        notes: to keep.
    """
    known = {(one.metric, one.subset): one for one in before.metrics}
    pairs = [(known[one.metric, one.subset], one) for one in now.metrics if (one.metric, one.subset) in known]
    excesses = [_excess(old, new, tolerances[new.metric], now) for old, new in pairs]
    worse = [chance(excess, spread) for excess, spread in excesses]
    corrections = holm(dict(enumerate(worse))).values()
    within = [chance(-excess, spread) if excess else float(spread.variance > 0) for excess, spread in excesses]
    verdicts = []
    for (old, new), (_, spread), p, corrected, q in zip(pairs, excesses, worse, corrections, within, strict=True):
        outcome: Outcome = "inconclusive"
        if corrected <= LEVEL / looks:
            outcome = "fail"
        elif q <= LEVEL / looks:
            outcome = "pass"
        unit, change, low, high = _change(old, new, now)
        tolerance = tolerances[new.metric]
        verdicts.append(
            Verdict(
                metric=new.metric,
                subset=new.subset,
                before=old.value,
                now=new.value,
                unit=unit,
                change=change,
                low=low,
                high=high,
                tolerance=str(tolerance),
                p_worse=p,
                p_corrected=corrected,
                p_within=q,
                outcome=outcome,
                reason=_reason(old, new, tolerance, now, spread) if outcome == "inconclusive" else "",
            )
        )
    return Comparison(tuple(verdicts), tuple(notes))


def _factors(old: Measured, new: Measured, tolerance: Tolerance) -> tuple[float, float, float]:
    """``D`` and its derivatives ``a`` and ``-b`` by the model's number and the baseline's."""
    if _by_ratio(old, new) and tolerance.relative:
        return math.log(new.value / old.value) - math.log1p(tolerance.amount), 1 / new.value, 1 / old.value
    sign = METRICS[old.metric].worse
    limit = tolerance.amount * (abs(old.value) if tolerance.relative else 1.0)
    return sign * (new.value - old.value) - limit, sign, sign


def _by_ratio(old: Measured, new: Measured) -> bool:
    return METRICS[new.metric].unit == "ratio" and old.value > 0 and new.value > 0


def _excess(old: Measured, new: Measured, tolerance: Tolerance, where: Measurement) -> tuple[float, Spread]:
    excess, a, b = _factors(old, new, tolerance)
    return excess, added(*_spreads(old, new, a, b, where))


def _spreads(old: Measured, new: Measured, a: float, b: float, where: Measurement) -> tuple[Spread, Spread, Spread]:
    """Of ``a now - b before``: from the probes, from the draw of the samples, from unfinished iterations."""
    probes = Spread(0.0)
    if len(new.probes):
        # The first probes are both models': there the differences count. What the model has more counts alone.
        shared = min(len(old.probes), len(new.probes))
        share = shared / len(new.probes)
        both = a * share * new.probes[:shared] - b * old.probes[:shared]
        probes = probe_spread([both, a * (1 - share) * new.probes[shared:]])
    samples = Spread(0.0)
    if len(new.influences):
        samples = sample_spread(a * new.influences - b * old.influences, where.labels, where.unseen)
    missed = 0.0 if new.value == old.value else (a * new.residual) ** 2 + (b * old.residual) ** 2
    return probes, samples, Spread(missed)


def _change(old: Measured, new: Measured, where: Measurement) -> tuple[str, float, float, float]:
    """The unit of the change, the change, and its 95 % interval."""
    ratio = _by_ratio(old, new)
    a, b = (1 / new.value, 1 / old.value) if ratio else (1.0, 1.0)
    spread = added(*_spreads(old, new, a, b, where))
    half = quantile(0.975, spread) * math.sqrt(spread.variance) if spread.variance else 0.0
    if ratio:
        change = new.value / old.value
        # Beyond this a factor says nothing but that nothing is known.
        return "ratio", change, change * math.exp(-half), change * math.exp(min(half, 100.0))
    change = new.value - old.value
    return "difference", change, change - half, change + half


def _reason(old: Measured, new: Measured, tolerance: Tolerance, where: Measurement, whole: Spread) -> str:
    _, a, b = _factors(old, new, tolerance)
    probes, samples, _ = _spreads(old, new, a, b, where)
    if whole.variance == math.inf:
        return "too few samples or batches to tell an error"
    if probes.variance >= samples.variance:
        more = "probes" if new.metric != "similarity" else "batches"
        return f"most of the error is that of the random {more}: spend more of them"
    return "most of the error is that of the draw of the samples: write a baseline with more samples"
