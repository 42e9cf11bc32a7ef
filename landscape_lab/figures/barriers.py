"""The loss on the straight line between two solutions, and how high it rises for each subset."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscape_lab.analysis.paths import Barrier
from landscape_lab.figures.arrays import as_array
from landscape_lab.figures.style import SUBSETS, colours_of, in_paper_style
from landscape_lab.figures.text import caption, plain, size_of, wrapped

__all__ = ["barrier_curves"]


@in_paper_style
def barrier_curves(
    found: Barrier,
    subsets: Sequence[str] | None = None,
    *,
    labels: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """Draw the loss of a few subsets between two solutions, and beside it the barrier of every subset.

    Args:
        found: the result.
        subsets: drawn as curves (``None``: head, tail, all and the like, or else the first four).
        labels: what the bars are called, one for each of the result's subsets (``None``: the subsets' names).
        title: above everything.

    Raises:
        InputError: a subset is not in the result.
        ValueError: there is not one label for each subset.
    """
    if subsets is None:
        subsets = [name for name in found.subsets if name in SUBSETS] or found.subsets[:4]
    labels = found.subsets if labels is None else labels
    if len(labels) != len(found.subsets):
        raise ValueError(f"expected {len(found.subsets)} labels, one for each subset, got {len(labels)}")
    most = max(size_of(plain(label), 8.5)[0] for label in labels)
    figure = Figure(figsize=(7.8, max(3.4, 0.2 * len(labels) + 1.5)), layout="constrained")
    curves, bars = figure.subplots(1, 2, width_ratios=[1.25, 1])
    _curves(curves, found, subsets)
    _bars(bars, found, [wrapped(plain(label), min(most, 1.5), 8.5) for label in labels])
    if title:
        figure.suptitle(wrapped(plain(title), 7.2, 11), fontsize=11)
    caption(
        figure,
        [
            "Left: solid, the loss on the straight line; dashed, the line between the losses at its ends; dot, where "
            "the loss is furthest above it. Right: that height, ± its standard error from the draw of the samples "
            "(none for a single sample).",
            f"At 0: {plain(found.ends[0])}; at 1: {plain(found.ends[1])}.",
            f"BatchNorm statistics: {found.batch_norm}.",
        ],
    )
    return figure


def _curves(axes: Axes, found: Barrier, subsets: Sequence[str]) -> None:
    t = as_array(found.coordinates)
    for name, color in zip(subsets, colours_of(subsets), strict=True):
        k = found.place(name)
        losses = as_array(found.losses[k])
        chord = losses[0] + t * (losses[-1] - losses[0])
        axes.plot(t, losses, color=color, label=f"{plain(name)} ({found.counts[k]:,})")
        axes.plot(t, chord, "--", color=color, linewidth=0.9, alpha=0.8)
        top = int(np.abs(t - float(found.at[k])).argmin())
        if float(found.barrier[k]) > 0:
            axes.plot(t[top], losses[top], "o", color=color, markersize=5, markeredgecolor="white", zorder=5)
            axes.plot([t[top]] * 2, [chord[top], losses[top]], color=color, linewidth=0.7, linestyle=":")
    axes.set(xlim=(-0.02, 1.02), xlabel=r"$t$ on the line $(1-t)\,\theta_0 + t\,\theta_1$", ylabel="Loss")
    axes.set_ylim(bottom=0)
    axes.grid(True)
    axes.legend(title="classes (samples)", title_fontsize=8.5)


def _bars(axes: Axes, found: Barrier, labels: Sequence[str]) -> None:
    at = np.arange(len(labels))
    heights, errors = as_array(found.barrier), np.nan_to_num(as_array(found.stderr))
    finite = np.isfinite(heights)
    colors = [SUBSETS.get(name, "#8fa7bf") for name in found.subsets]
    axes.barh(
        at[finite], heights[finite], 0.72, xerr=errors[finite], color=[colors[k] for k in at[finite]],
        edgecolor="#1a1a1a", linewidth=0.7, error_kw={"elinewidth": 0.9, "capsize": 2, "ecolor": "#1a1a1a"},
    )  # fmt: skip
    for k in at[~finite]:
        axes.text(0, k, " not finite", va="center", fontsize=8.5)
    axes.set_yticks(at, labels)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("Barrier (loss)")
    axes.grid(True, axis="x")
