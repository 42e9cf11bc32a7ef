"""The loss over a plane, or along a line, one picture for all subsets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscape_lab.analysis.surface import Surface
from landscape_lab.figures.arrays import Array, as_array
from landscape_lab.figures.loss_scale import Kind, loss_scale, missing_note
from landscape_lab.figures.style import LOSS_MAP, colours_of, in_paper_style
from landscape_lab.figures.text import capital, caption, letter, plain, plural, size_of, wrapped

__all__ = ["surfaces"]

LINES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))


@in_paper_style
def surfaces(
    surface: Surface,
    *,
    quantity: Literal["loss", "accuracy"] = "loss",
    title: str = "",
    names: tuple[str, str] | None = None,
    scale: Kind = "auto",
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Draw a surface: filled contours, one panel for each subset, or curves of loss and accuracy along a line.

    All panels have the same axes, colours and iso-lines. The cross marks the centre, or circles the checkpoints; fine
    dots, where some of the grid is interpolated, the points at which the model was evaluated.

    Args:
        surface: what to draw; a line if it has one y only.
        quantity: what the panels of a plane show (a line shows both).
        title: above everything.
        names: of the axes; ``None``: the surface's own.
        scale: of the loss: of the colours, or of a line's y axis.
        limits: the losses at which the colours end.

    Raises:
        ValueError: the grid is a single point, or its only column is not its only row.
    """
    if len(surface.x) < 2:
        raise ValueError(f"a picture needs at least two points along x, got {len(surface.x)}")
    names = names or (capital(surface.names[0]), capital(surface.names[1]))
    if len(surface.y) == 1:
        return _line(surface, title, names[0], scale, limits)
    return _plane(surface, quantity, title, names, scale, limits)


def _plane(
    surface: Surface,
    quantity: Literal["loss", "accuracy"],
    title: str,
    names: tuple[str, str],
    scale: Kind,
    limits: tuple[float, float] | None,
) -> Figure:
    x, y, subsets = as_array(surface.x), as_array(surface.y), surface.subsets
    values = list(as_array(surface.losses if quantity == "loss" else surface.accuracies))
    if quantity == "accuracy":
        colours = loss_scale(values, kind="linear", limits=limits or (0.0, 1.0), lines=11)
    else:
        colours = loss_scale(values, kind=scale, limits=limits)
    # Dark is where the model is good, also for accuracies.
    cmap = LOSS_MAP if quantity == "loss" else LOSS_MAP.reversed()
    columns = min(len(subsets), 3 if len(subsets) != 4 else 2)
    rows = -(-len(subsets) // columns)
    ratio = float((y[-1] - y[0]) / (x[-1] - x[0]))
    aspect = ratio if 0.4 <= ratio <= 2.0 else 1.0
    size = 2.75 if columns < 3 else 2.3  # of a panel, in inches
    width = max((size + 0.15) * columns + 1.55, 4.6)
    height = (size * aspect + 0.45) * rows + 0.6 + 0.75 * (rows > 1) + 0.3 * bool(title)
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(subsets) :]:
        axes.remove()
    panels: list[Axes] = list(grid.flat[: len(subsets)])
    for k, (axes, array, name, count) in enumerate(zip(panels, values, subsets, surface.counts, strict=True)):
        colours.fill(axes, x, y, array, cmap=cmap)
        _dots(axes, surface)
        _marks(axes, surface)
        axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
        axes.set_box_aspect(aspect)
        prefix = f"{letter(k)} " if len(subsets) > 1 else ""
        heading = f"{prefix}{capital(plain(name))}: {plural(count, 'sample')}"
        axes.set_title(wrapped(heading, size, 10), fontsize=10, linespacing=1.05)
        if k + columns >= len(subsets):
            axes.set_xlabel(plain(names[0]))
            axes.tick_params(labelbottom=True)
        if k % columns == 0:
            axes.set_ylabel(plain(names[1]))
    label = r"$L(\theta)$" if quantity == "loss" else "Accuracy"
    colours.bar(figure, panels if rows > 1 else panels[-1:], label, cmap=cmap)
    if title:
        figure.suptitle(wrapped(plain(title), figure.get_figwidth() - 0.4, 11), fontsize=11, linespacing=1.05)
    caption(
        figure,
        [
            f"BatchNorm statistics: {surface.batch_norm}.",
            _words_on_marks(surface),
            _words_on_dots(surface),
            "" if aspect == ratio else "The two axes are not drawn to the same scale.",
            missing_note(values),
        ],
    )
    return figure


def _line(surface: Surface, title: str, name: str, scale: Kind, limits: tuple[float, float] | None) -> Figure:
    x, losses, accuracies = (as_array(part) for part in (surface.x, surface.losses, surface.accuracies))
    figure = Figure(figsize=(7.4, 3.3 + 0.3 * bool(title)), layout="constrained")
    left, right = figure.subplots(1, 2)
    range_of = loss_scale(list(losses), kind=scale, limits=limits)
    colors = colours_of(surface.subsets)
    for k, (subset, count, color) in enumerate(zip(surface.subsets, surface.counts, colors, strict=True)):
        line = LINES[k % len(LINES)] if len(surface.subsets) > 2 else "-"
        label = f"{capital(plain(subset))}: {plural(count, 'sample')}"
        for axes, values in ((left, losses), (right, accuracies)):
            axes.plot(x, _finite(values[k, 0]), linestyle=line, color=color, label=label)
    left.set(ylabel=r"$L(\theta)$" + ("  (log scale)" if range_of.kind == "log" else ""))
    right.set(ylabel="Accuracy", ylim=(-0.03, 1.03))
    if range_of.kind == "log":
        left.set_yscale("log")
    if limits is not None or range_of.clips_below or range_of.clips_above:
        left.set_ylim(range_of.low, range_of.high)
    _bands(left, surface, colors)
    for axes in (left, right):
        for at in [mark for _, mark, _ in surface.marks] or [0.0]:
            axes.axvline(at, color="#555555", linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
        if surface.evaluated is not None:
            seen = x[as_array(surface.evaluated)[0].astype(bool)]
            axes.plot(
                seen, [0.012] * len(seen), "|", color="#555555", markersize=4, transform=axes.get_xaxis_transform()
            )
        axes.set(xlabel=plain(name), xlim=(x[0], x[-1]))
        axes.grid(True)
    handles, labels = left.get_legend_handles_labels()
    widest = max(size_of(label, 8.5)[0] for label in labels) + 0.6
    ncols = max(1, min(len(labels), int(7.2 / widest)))
    # As the legend's title: matplotlib lays a figure's title over a legend outside the panels.
    heading = wrapped(plain(title), 7.0, 11)
    figure.legend(
        handles=handles, loc="outside upper center", ncols=ncols, frameon=False, title=heading, title_fontsize=11
    )
    missing = int((~np.isfinite(losses)).sum())
    caption(
        figure,
        [
            f"BatchNorm statistics: {surface.batch_norm}.",
            "The dotted line marks the centre." if not surface.marks else f"Dotted lines: {_marked(surface)}.",
            "Bands: two standard errors over the samples." if surface.stderr is not None else "",
            "" if surface.evaluated is None else "Ticks at the bottom: points evaluated; between them interpolated.",
            f"No finite loss at {missing:,} of {losses.size:,} points (gaps)." if missing else "",
            "The loss axis is cut off." if range_of.clips_below or range_of.clips_above else "",
        ],
    )
    return figure


def _bands(axes: Axes, surface: Surface, colors: Sequence[str]) -> None:
    """Two standard errors about each loss; the axis stays that of the losses."""
    if surface.stderr is None:
        return
    limits = axes.get_ylim()
    floor = limits[0] / 10 if axes.get_yscale() == "log" else -np.inf
    for losses, stderr, color in zip(as_array(surface.losses), as_array(surface.stderr), colors, strict=True):
        low, high = _finite(np.maximum(losses[0] - 2 * stderr[0], floor)), _finite(losses[0] + 2 * stderr[0])
        axes.fill_between(as_array(surface.x), low, high, color=color, alpha=0.15, linewidth=0, zorder=1)
    axes.set_ylim(limits)


def _dots(axes: Axes, surface: Surface) -> None:
    """Where the model was evaluated, so lightly that the surface is what one sees."""
    if surface.evaluated is None:
        return
    rows, columns = np.nonzero(as_array(surface.evaluated))
    x, y = as_array(surface.x)[columns], as_array(surface.y)[rows]
    axes.scatter(x, y, s=0.35, color="#111111", alpha=0.35, linewidths=0, rasterized=True, zorder=2)


def _marks(axes: Axes, surface: Surface) -> None:
    """A cross at the centre, or the checkpoints with a line through them, the last one filled."""
    if not surface.marks:
        for color, width in (("white", 3.2), ("#111111", 1.4)):
            axes.plot(0, 0, "+", color=color, markersize=9, markeredgewidth=width)
        return
    x, y = ([mark[k] for mark in surface.marks] for k in (1, 2))
    for color, width, size in (("white", 2.6, 4.6), ("#111111", 1.0, 3.0)):
        axes.plot(x, y, "o-", color=color, linewidth=width, markersize=size, zorder=3)
    axes.plot(x[:1], y[:1], "o", color="white", markeredgecolor="#111111", markersize=5, zorder=4)


def _words_on_marks(surface: Surface) -> str:
    return f"o marks {_marked(surface)}, the first one white." if surface.marks else "+ marks the centre."


def _marked(surface: Surface) -> str:
    """The marks' names: all of a few, the ends of many."""
    names = [plain(name) for name, _, _ in surface.marks]
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} to {names[-1].removeprefix('epoch ')}"


def _words_on_dots(surface: Surface) -> str:
    if surface.evaluated is None:
        return ""
    seen, points = int(surface.evaluated.sum()), surface.evaluated.numel()
    return f"Dots: the {seen:,} of {points:,} points that were evaluated; elsewhere interpolated."


def _finite(values: Array) -> Array:
    return np.where(np.isfinite(values), values, np.nan)
