"""The loss under noise on the parameters against the noise's relative norm, globally and locally."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from landscape_lab.analysis.noise import NoiseCurve
from landscape_lab.figures.arrays import as_array
from landscape_lab.figures.style import CYCLE, in_paper_style
from landscape_lab.figures.text import capital, caption, letter, plain, size_of, wrapped

__all__ = ["noise_curves"]

Dash = Literal["-", "--", "-.", ":"]
DASHES: tuple[Dash, ...] = ("-", "--", "-.", ":")
PARTS = {"all": "all parameters"}
SPREAD = {
    "norm": "isotropic",
    "filter": "in proportion to each filter’s norm",
    "layer": "in proportion to each tensor’s norm",
}


@in_paper_style
def noise_curves(
    curves: Mapping[str, NoiseCurve],
    subsets: Sequence[str] | None = None,
    *,
    local: float = 0.1,
    rise: bool = False,
    title: str = "",
) -> Figure:
    """Draw the loss against the noise's relative norm: a row for each subset, all ratios left, small ones right.

    Lines are means over the directions, bands Student's 95 % interval of that mean.

    Args:
        curves: run → its curve.
        subsets: in this order (``None``: those of the first curve).
        local: the largest ratio of the right panels; they are left out if fewer than three ratios are as small, or all.
        rise: draw what the noise adds to the loss, so that runs of unequal losses can be compared.
        title: above everything.

    Raises:
        ValueError: there is no curve.
        InputError: a curve lacks a subset.

    References:
        Zhou et al., CVPR 2023 (CC-SAM), Fig. 1.
    """
    if not curves:
        raise ValueError("at least one noise curve is needed")
    first = next(iter(curves.values()))
    subsets = first.subsets if subsets is None else subsets
    largest = max(float(curve.ratios[-1]) for curve in curves.values())
    small = max(int((curve.ratios <= local * (1 + 1e-9)).sum()) for curve in curves.values())
    views = [largest, local] if small >= 3 and largest > local * 1.5 else [largest]
    figure = Figure(figsize=(3.6 * len(views) + 0.4, 2.5 * len(subsets) + 0.9), layout="constrained")
    grid = figure.subplots(len(subsets), len(views), squeeze=False)
    styles = [(CYCLE[k % len(CYCLE)], DASHES[k // len(CYCLE) % len(DASHES)]) for k in range(len(curves))]
    for row, subset in enumerate(subsets):
        for column, end in enumerate(views):
            axes = grid[row, column]
            for curve, (color, dash) in zip(curves.values(), styles, strict=True):
                _curve(axes, curve, subset, end, color, dash, rise)
            axes.set_xlim(0, end)
            if not rise and column == 0:
                axes.set_ylim(bottom=0)
            axes.grid(True)
            view = ("global", "local")[column] if len(views) > 1 else ""
            name = capital(plain(subset)) + (f", {view}" if view else "")
            axes.set_title(wrapped(f"{letter(row * len(views) + column)} {name}", 3.3, 10.5), linespacing=1.05)
            if row == len(subsets) - 1:
                axes.set_xlabel(r"$\Vert\varepsilon\Vert_2\,/\,\Vert\theta\Vert_2$")
        grid[row, 0].set_ylabel(r"$L(\theta+\varepsilon)" + (r" - L(\theta)$" if rise else "$"))
    _legend(figure, list(curves), styles, title)
    cut = "The local panels’ loss axes do not begin at zero." if len(views) > 1 and not rise else ""
    caption(figure, [*_notes(curves, subsets), cut])
    return figure


def _curve(axes: Axes, curve: NoiseCurve, subset: str, end: float, color: str, dash: Dash, rise: bool) -> None:
    """One run, as far as the panel reaches: a point beyond it would set the scale of what is seen."""
    ratios = as_array(curve.ratios)
    seen = ratios <= end * (1 + 1e-9)
    mean, low, high = as_array(curve.band(subset))
    if rise:
        start = curve.without_noise(subset)
        mean, low, high = mean - start, low - start, high - start
    else:
        low = np.maximum(low, 0)
    axes.plot(ratios[seen], mean[seen], dash, color=color, linewidth=1.6)
    there = seen & np.isfinite(low) & np.isfinite(high)
    axes.fill_between(ratios[there], low[there], high[there], color=color, alpha=0.18, linewidth=0)


def _legend(figure: Figure, names: Sequence[str], styles: Sequence[tuple[str, Dash]], title: str) -> None:
    width = float(figure.get_figwidth()) - 0.4
    labels = [wrapped(plain(name), width - 0.7, 8.5) for name in names]
    widest = max(size_of(line, 8.5)[0] for label in labels for line in label.split("\n")) + 0.6
    figure.legend(
        handles=[
            Line2D([], [], color=color, linestyle=dash, label=label)
            for label, (color, dash) in zip(labels, styles, strict=True)
        ],
        loc="outside upper center",
        ncols=max(1, min(len(labels), int(width / widest))),
        frameon=False,
        title=wrapped(plain(title), width, 11) if title else None,
        title_fontsize=11,
    )


def _notes(curves: Mapping[str, NoiseCurve], subsets: Sequence[str]) -> list[str]:
    def distinct(values: list[str]) -> str:
        return " and ".join(dict.fromkeys(values))

    all_curves = list(curves.values())
    which = distinct([plain(PARTS.get(curve.parameters, curve.parameters)) for curve in all_curves])
    spread = distinct([SPREAD.get(curve.normalisation, curve.normalisation) for curve in all_curves])
    directions = distinct([str(curve.losses.shape[1]) for curve in all_curves])
    policy = distinct([curve.batch_norm for curve in all_curves])
    counts = ", ".join(
        f"{plain(subset)}: {distinct([f'{curve.counts[curve.subsets.index(subset)]:,}' for curve in all_curves])}"
        for subset in subsets
    ).replace(" ", "\N{NO-BREAK SPACE}")
    return [
        f"Random noise ({spread}) on {which}; mean over {directions} directions, band: 95 % interval of that mean.",
        f"BatchNorm statistics: {policy}.",
        f"Samples – {counts}.",
    ]
