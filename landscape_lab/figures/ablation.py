"""Fig. 5 and 8: accuracy against one quantity of the method, ours beside the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import AutoMinorLocator, FixedLocator, FuncFormatter, MaxNLocator

from landscape_lab.figures.style import OURS, STANDARD, in_paper_style
from landscape_lab.figures.text import caption, letter, plain
from landscape_lab.numbers import number

__all__ = ["AblationCurve", "ablation"]

LEAST_SPAN = 1.0
"""Per cent that the y axis spans at least: less is noise on any test set here."""


@dataclass(frozen=True)
class AblationCurve:
    """Accuracies in % over one quantity.

    Args:
        title: whose they are.
        x: (n,) places.
        value: (n,) accuracies, NaN where there is none.
        low: (n,) lower edge of the band around them.
        high: (n,) its upper edge.
        points: (n, any) single values at each place, to be drawn as dots.
        measured: ours, else the paper's: decides the colour.
    """

    title: str
    x: tuple[float, ...]
    value: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    points: tuple[tuple[float, ...], ...] = ()
    measured: bool = True


@in_paper_style
def ablation(curves: Sequence[AblationCurve], label: str, notes: Sequence[str] = ()) -> Figure:
    """Draw accuracies against one quantity, one panel for each curve.

    All panels have the same ticks and span the same number of per cent, each around its own values: slopes can be
    compared, levels are to be read off.

    Args:
        curves: ours, and the paper's where it has one; all over the same places, in the order in which they are drawn
            from left to right.
        label: of the x axis.
        notes: sentences below.

    Raises:
        ValueError: there is no curve or no value, or lengths or places differ.

    References:
        Chen et al., CVPR 2026 (GKP+GSA), Fig. 5 and 8.
    """
    if not curves:
        raise ValueError("at least one curve is needed, got none")
    for curve in curves:
        lengths = {len(curve.x), len(curve.value), len(curve.low), len(curve.high), len(curve.points or curve.x)}
        if len(lengths) > 1 or curve.x != curves[0].x:
            raise ValueError(f"curve {curve.title!r}: all parts must have the length and places of the first curve")
        if not np.isfinite(curve.value).any():
            raise ValueError(f"curve {curve.title!r} has no value")
    extents = [_extent(curve) for curve in curves]
    span = max(LEAST_SPAN, *(1.15 * (high - low) for low, high in extents))
    figure = Figure(figsize=(3.7 * len(curves), 3.3), layout="constrained")
    panels: list[Axes] = list(figure.subplots(1, len(curves), squeeze=False)[0])
    for k, (axes, curve, (low, high)) in enumerate(zip(panels, curves, extents, strict=True)):
        _curve(axes, curve)
        middle = (low + high) / 2
        axes.set_ylim(middle - span / 2, middle + span / 2)
        name = f"{letter(k)} " if len(curves) > 1 else ""
        axes.set(xlabel=label, ylabel="Accuracy (%)", title=f"{name}{plain(curve.title)}")
    caption(
        figure,
        [
            f"All panels span {number(span, 2)} per cent." if len(curves) > 1 else "",
            *(_missing(curve, letter(k) if len(curves) > 1 else "") for k, curve in enumerate(curves)),
            *notes,
        ],
    )
    return figure


def _curve(axes: Axes, curve: AblationCurve) -> None:
    place = np.arange(len(curve.x))
    color, marker = (OURS, "s") if curve.measured else (STANDARD, "o")
    value, low, high = (np.array(part, dtype=float) for part in (curve.value, curve.low, curve.high))
    known = np.isfinite(value)
    axes.fill_between(place, low, high, color=color, alpha=0.12, linewidth=0)
    for edge in (low, high):
        axes.plot(place, edge, color=color, alpha=0.35, linewidth=0.9)
    # A band of a single place is nothing to see, hence bars.
    axes.vlines(place[known], low[known], high[known], color=color, alpha=0.45, linewidth=1.2)
    for at, singles in zip(place, curve.points, strict=False):
        axes.plot([at] * len(singles), singles, ".", color=color, alpha=0.5, markersize=4, markeredgewidth=0)
    axes.plot(
        place, value, color=color, marker=marker, markersize=6, markerfacecolor="white", markeredgewidth=1.6, zorder=4
    )
    axes.xaxis.set_major_locator(FixedLocator(list(place)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: number(curve.x[round(at)])))
    axes.set_xlim(-0.5, len(place) - 0.5)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    axes.yaxis.set_minor_locator(AutoMinorLocator(2))
    axes.grid(True, axis="y", which="major", linestyle="-")
    axes.grid(True, axis="y", which="minor")


def _extent(curve: AblationCurve) -> tuple[float, float]:
    parts = [*curve.value, *curve.low, *curve.high, *(value for singles in curve.points for value in singles)]
    return float(np.nanmin(parts)), float(np.nanmax(parts))


def _missing(curve: AblationCurve, panel: str) -> str:
    places = [number(x) for x, value in zip(curve.x, curve.value, strict=True) if not np.isfinite(value)]
    where = f" in {panel}" if panel else ""
    return f"No value at {', '.join(places)}{where}." if places else ""
