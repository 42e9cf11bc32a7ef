"""The sharpness's tab: the loss against the size of random noise on the parameters, and sharpness numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from landscape_lab.analysis.noise import NoiseCurve
from landscape_lab.analysis.sharpness import Sharpness
from landscape_lab.figures import Table
from landscape_lab.figures.text import capital
from landscape_lab.numbers import number
from landscape_lab.report.parts import Chart, Control, Section, axes, band, colour_of, line
from landscape_lab.report.results import Results, Stored

__all__ = ["noise"]

LOCAL = 0.1  # the second range of CC-SAM's Fig. 1

KINDS = {
    "epsilon": "ε-sharpness, % (Keskar et al. 2017)",
    "average": "average rise under noise",
    "adaptive-worst": "adaptive worst case (Kwon et al. 2021)",
}


def noise(found: Sequence[Results]) -> Section:
    """Noise curves of all runs in one axis for each subset, and the sharpness numbers with their intervals."""
    curves = [(results, stored) for results in found for stored in results.of(NoiseCurve)]
    numbers = [
        (results, stored)
        for results in found
        for stored in results.of(tuple[Sharpness, ...], "sharpness", named="tuple")
    ]
    missing = []
    paths = " ".join(results.run.path.name for results in found)
    if not curves or not numbers:
        what = (
            "noise curve or sharpness number"
            if not curves and not numbers
            else "noise curve"
            if not curves
            else "sharpness"
        )
        missing.append((f"No {what} is stored:", f"landscape-lab sharpness {paths}"))
    if not curves and not numbers:
        return Section("noise", "Sharpness", missing=missing)
    ends = [float(stored.result.ratios[-1]) for _, stored in curves]
    local = any(end > LOCAL and int((stored.result.ratios <= LOCAL).sum()) > 2
                for end, (_, stored) in zip(ends, curves, strict=True))  # fmt: skip
    limits = [*dict.fromkeys(sorted(ends, reverse=True)), *([LOCAL] if local and LOCAL not in ends else [])]
    charts = [_chart(curves, subset, limit) for limit in limits for subset in _subsets(curves)]
    return Section(
        key="noise",
        title="Sharpness",
        lead=(
            "How fast the loss rises when random noise is put on the parameters, as in Fig. 1 of CC-SAM: over the "
            "whole "
            "range of relative sizes, and close to the solution. A flat curve is a flat minimum, in random directions."
        ),
        controls=[Control("range", "Noise up to", {f"{limit:g}": f"‖ε‖/‖θ‖ = {limit:g}" for limit in limits})],
        charts=charts,
        tables=[(_table(numbers), {})] if numbers else [],
        missing=missing,
    )


def _subsets(curves: Sequence[tuple[Results, Stored[NoiseCurve]]]) -> list[str]:
    return list(dict.fromkeys(name for _, stored in curves for name in stored.result.subsets))


def _chart(curves: Sequence[tuple[Results, Stored[NoiseCurve]]], subset: str, limit: float) -> Chart:
    traces: list[dict[str, Any]] = []
    words = set[str]()
    title = subset
    for place, (results, stored) in enumerate(curves):
        one = stored.result
        inside = one.ratios <= limit * (1 + 1e-9)
        # A curve that ends before this range does would look flat where it was not measured.
        if subset not in one.subsets or float(one.ratios[-1]) < limit:
            continue
        title = results.title(subset)
        k = one.subsets.index(subset)
        mean, low, high = one.band(subset)[:, inside]
        when = f", epoch {stored.epoch}" if stored.epoch is not None else ""
        name, colour = f"{results.label}{when}", colour_of("", place)
        if one.losses.shape[1] > 1:
            traces += band(name, one.ratios[inside], low, high, colour)
        traces.append(line(name, one.ratios[inside], mean, colour=colour, place=place, mode="lines"))
        words.add(f"{one.counts[k]:,} samples, {one.losses.shape[1]} random directions ({one.normalisation} noise), "
                  f"BatchNorm: {one.batch_norm} statistics")  # fmt: skip
    return Chart(
        f"{title}: loss against noise up to {limit:g} of the parameters’ norm",
        traces,
        axes("‖ε‖ / ‖θ‖", "loss", zero=True),
        f"Mean over random directions and its 95 % interval. {'; '.join(sorted(words))}. The interval is for the "
        "draw of "
        "the directions; it does not cover another seed of training.",
        {"range": f"{limit:g}"},
    )


def _table(numbers: Sequence[tuple[Results, Stored[tuple[Sharpness, ...]]]]) -> Table:
    rows = [
        (
            results.label,
            str(stored.epoch),
            results.title(one.subset),
            KINDS.get(one.kind, one.kind),
            number(one.radius),
            number(one.value),
            f"[{number(one.low)}, {number(one.high)}]",
            number(one.loss),
        )
        for results, stored in numbers
        for one in stored.result
    ]
    notes: dict[str, list[str]] = {}
    for _, stored in numbers:
        for one in stored.result:
            notes.setdefault(KINDS.get(one.kind, one.kind), []).append(one.note)
    return Table(
        "Sharpness",
        ("run", "epoch", "classes", "kind", "radius", "value", "95 % interval", "loss there"),
        tuple(rows),
        " ".join(f"{capital(kind)}: {_together(of)}." for kind, of in notes.items())
        + " Sharpness at unequal losses compares badly.",
    )


def _together(notes: Sequence[str]) -> str:
    """Notes that differ in the number of samples alone, as one: ``14 and 212 samples``."""
    counted = re.compile(r"([\d,]+) samples")
    bare = list(dict.fromkeys(counted.sub("# samples", note) for note in notes))
    counts = sorted({int(count.replace(",", "")) for note in notes for count in counted.findall(note)})
    return "; ".join(bare).replace("#", " and ".join(f"{count:,}" for count in counts[-2:]) if len(counts) < 3
                                   else f"{counts[0]:,} to {counts[-1]:,}")  # fmt: skip
