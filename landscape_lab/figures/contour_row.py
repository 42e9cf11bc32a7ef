"""The lower row of Fig. 2: iso-lines of several surfaces, all at the same levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec

from landscape_lab.analysis.surface import Surface
from landscape_lab.figures.arrays import Array, as_array
from landscape_lab.figures.loss_scale import Kind, LossScale, hatch_missing, loss_scale, missing_note
from landscape_lab.figures.style import LEVEL_RAMP
from landscape_lab.figures.text import capital, maths, plain, plural, wrapped
from landscape_lab.numbers import number

__all__ = ["Contours", "contour_row"]

Contours = Literal["loss", "rise"]
# Around the plots of the first column, the second …; the first two are the paper's.
FRAMES = ("#e3909a", "#8ea9db", "#9fc59a", "#c9b58a")
SPACINGS = {
    "linear": "Iso-lines at equal steps.",
    "sqrt": "Iso-lines at equal steps of the square root: in a quadratic bowl they are evenly spaced.",
    "log": "Iso-lines at equal ratios: they show relative growth.",
}


def contour_row(
    figure: Figure,
    panels: Sequence[tuple[Surface | None, Mapping[str, str]]],
    spaces: Sequence[Sequence[SubplotSpec]],
    contours: Contours,
    scale: Kind,
    limits: tuple[float, float] | None,
) -> tuple[list[Axes], list[str]]:
    """Draw each panel's subsets as iso-lines, with the same axes and the same lines in all plots.

    Args:
        figure: where.
        panels: (surface, subset → what to write below its plot) for each run; ``None`` leaves its places empty.
        spaces: for each run the places of its plots.
        contours: ``"loss"`` or ``"rise"``, the loss less that at the centre.
        scale: of the iso-lines.
        limits: losses between which they lie.

    Returns:
        The plots, and sentences for the caption.
    """
    losses = {
        (k, name): _losses(surface, name, contours)
        for k, (surface, _) in enumerate(panels)
        if surface is not None
        for name in surface.subsets
    }
    if scale == "auto":
        scale = _spacing(list(losses.values()))
    lines = loss_scale(list(losses.values()), kind=scale, limits=limits, lines=20)
    drawn = []
    for k, (surface, notes) in enumerate(panels):
        if surface is None:
            continue
        for space, name in zip(spaces[k], surface.subsets, strict=True):
            axes = figure.add_subplot(space)
            _contour(axes, surface, losses[k, name], lines)
            count = surface.counts[surface.subsets.index(name)]
            axes.set_title(f"{capital(plain(name))}: {plural(count, 'sample')}", fontsize=9.5)
            axes.set_xlabel(wrapped(maths(notes.get(name, "")), 1.5, 8.5), fontsize=8.5)
            for spine in axes.spines.values():
                spine.set(color=FRAMES[k % len(FRAMES)], linewidth=2.5)
            drawn.append(axes)
    label = r"$L$" if contours == "loss" else r"$L$ less $L$ at the centre"
    lines.bar(figure, drawn, f"Iso-lines of {label}, the same in all plots", cmap=LEVEL_RAMP, filled=False)
    policies = sorted({surface.batch_norm for surface, _ in panels if surface is not None})
    return drawn, [
        "Contours: loss along two filter-normalised random directions around the last epoch (+).",
        SPACINGS[lines.kind],
        f"BatchNorm statistics: {' and '.join(policies)}.",
        missing_note(list(losses.values())),
    ]


def _spacing(losses: Sequence[Array]) -> Literal["sqrt", "log"]:
    """Equal steps of √L, unless a surface would then be left without a line."""
    tops = [float(array[np.isfinite(array)].max(initial=0)) for array in losses]
    lowest = min(float(array[np.isfinite(array)].min(initial=0)) for array in losses)
    return "sqrt" if lowest < 0 or min(tops) <= 0 or max(tops) < 200 * min(tops) else "log"


def _losses(surface: Surface, name: str, contours: Contours) -> Array:
    losses = as_array(surface.of(name))
    if contours == "loss":
        return losses
    row, column = (int(np.abs(as_array(ticks)).argmin()) for ticks in (surface.y, surface.x))
    return np.asarray(losses - losses[row, column], dtype=np.float64)


def _contour(axes: Axes, surface: Surface, losses: Array, lines: LossScale) -> None:
    x, y = as_array(surface.x), as_array(surface.y)
    mask = ~np.isfinite(losses)
    if mask.any():
        hatch_missing(axes, lines.height(losses))
        axes.contourf(x, y, np.ma.masked_array(np.zeros_like(losses), mask), levels=[-1, 1], colors=["white"])
    drawn = lines.lines(axes, x, y, losses, cmap=LEVEL_RAMP, norm=lines.norm, linewidths=1.1)
    if drawn is None:
        finite = losses[np.isfinite(losses)]
        words = f"between {number(finite.min())} and {number(finite.max())}" if finite.size else "not finite"
        axes.text(0.5, 0.8, f"no iso-line:\n{words}", transform=axes.transAxes, ha="center", va="center", fontsize=8.5)
    axes.plot(0, 0, "+", color="#222222", markersize=7, markeredgewidth=1.1)
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    axes.set_box_aspect(1)
    axes.locator_params(nbins=3)
    axes.tick_params(labelsize=7.5, length=2)
