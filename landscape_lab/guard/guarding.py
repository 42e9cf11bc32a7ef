"""A model against the file of its baseline: measured with its settings, and with more probes where that may help."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from landscape_lab.errors import InputError
from landscape_lab.guard.baseline import check_same, read_baseline
from landscape_lab.guard.compare import Comparison, compare
from landscape_lab.guard.measure import Wanted
from landscape_lab.guard.measured import Measurement
from landscape_lab.guard.settings import GuardSettings, MetricName, Tolerance

__all__ = ["Measure", "against_baseline", "settings_for"]

Measure = Callable[[GuardSettings, Mapping[str, Sequence[int]] | None, Wanted | None, int], Measurement]
"""Measures with settings, subsets (``None``: the usual ones), the wanted numbers (``None``: all) and so many times the
probes."""

_GAIN = ("trace", "average", "epsilon", "similarity")  # metrics that more probes make more certain


def settings_for(path: Path, chosen: Mapping[str, object]) -> tuple[GuardSettings, Measurement]:
    """The baseline, and its settings; what is chosen besides must be the same.

    Raises:
        InputError: no baseline, or settings that are not its.
    """
    before = read_baseline(path)
    for name, value in chosen.items():
        known = getattr(before.settings, name)
        if known != value:
            raise InputError(
                f"{path} was measured with {name} {known}, not {value}: leave the option out, or write a new baseline "
                "with --update"
            )
    return before.settings, before


def against_baseline(
    path: Path,
    measure: Measure,
    tolerances: Mapping[MetricName, Tolerance],
    *,
    subsets: Sequence[str] | None = None,
    chosen: Mapping[str, object] | None = None,
    spend: int = 1,
) -> tuple[Comparison, Measurement, Measurement]:
    """Compare a model with the baseline in a file.

    Where the answer is inconclusive, the numbers that more probes can make certain are measured again with twice as
    many, until it is not or ``spend`` times as many are spent. Each of these looks has its part of the 5 %.

    Args:
        path: of the baseline.
        measure: see :data:`Measure`.
        tolerances: how much worse each metric may be.
        subsets: only these of the baseline's; ``None``: all.
        chosen: settings that the user names; refused if they are not the baseline's.
        spend: so many times the baseline's probes at most.

    Returns:
        The comparison, the baseline and the model's numbers.

    Raises:
        InputError: what :func:`~landscape_lab.guard.baseline.read_baseline` and ``check_same`` refuse.
    """
    settings, before = settings_for(path, chosen or {})
    unknown = [name for name in subsets or () if name not in before.subsets]
    if unknown:
        raise InputError(
            f"{path} has no classes {unknown[0]!r}, only {', '.join(before.subsets)}: "
            "write a new baseline with --update"
        )
    names = before.subsets if subsets is None else {name: before.subsets[name] for name in subsets}
    looks = 1 + max(0, spend - 1).bit_length()
    wanted: Wanted = [(one.metric, one.subset) for one in before.metrics if one.subset in names]
    now = measure(settings, names, wanted, 1)
    check_same(path, before, now)
    notes = _notes(before, now)
    comparison = compare(before, now, tolerances, looks=looks, notes=notes)
    factor = 1
    while factor < spend:
        unsure: Wanted = [
            (one.metric, one.subset)
            for one in comparison.verdicts
            if one.outcome == "inconclusive" and one.metric in _GAIN
        ]
        if comparison.outcome != "inconclusive" or not unsure:
            break
        factor = min(2 * factor, spend)
        again = measure(settings, names, unsure, factor)
        better = {(one.metric, one.subset): one for one in again.metrics}
        now = replace(now, metrics=tuple(better.get((one.metric, one.subset), one) for one in now.metrics))
        notes = (*_notes(before, now), f"{factor} times the baseline's probes were spent on what was uncertain")
        comparison = compare(before, now, tolerances, looks=looks, notes=notes)
    return comparison, before, now


def _notes(before: Measurement, now: Measurement) -> tuple[str, ...]:
    notes = []
    for name in ("versions", "device"):
        old, new = before.origin.get(name), now.origin.get(name)
        if old != new:
            notes.append(f"the baseline was measured with other {name}: {_told(old)} instead of {_told(new)}")
    have = {(one.metric, one.subset) for one in now.metrics}
    missing = [one for one in before.metrics if (one.metric, one.subset) not in have and one.subset in now.subsets]
    if missing:
        notes.append("not measured on this model: " + ", ".join(dict.fromkeys(one.metric for one in missing)))
    return tuple(notes)


def _told(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)
