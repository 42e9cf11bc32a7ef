"""Paths of training in a plane, and how far they run outside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from landscape_lab.analysis.surface import Surface
from landscape_lab.analysis.trajectory import Trajectory
from landscape_lab.figures.arrays import Array, as_array
from landscape_lab.figures.loss_scale import Kind, loss_scale, missing_note
from landscape_lab.figures.paths import PointName, draw_path, name_points
from landscape_lab.figures.style import CYCLE, OURS, STANDARD, in_paper_style
from landscape_lab.figures.text import capital, caption, plain, plural, size_of, wrapped

__all__ = ["trajectories"]


@in_paper_style
def trajectories(
    paths: Mapping[str, Trajectory],
    *,
    surface: Surface | None = None,
    subset: str | None = None,
    title: str = "",
    unit: str = "epoch",
    scale: Kind = "auto",
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Draw paths in one plane, on the loss over that plane if it is given, above their distances to the plane.

    Where the losses along a path were measured, a third panel has them beside the losses at its projection.

    Args:
        paths: run → path; all in the same plane.
        surface: losses over that plane.
        subset: whose loss (``None``: the surface's first).
        title: above everything.
        unit: of the paths' steps.
        scale: of the colours.
        limits: the losses at which the colours end.

    Raises:
        ValueError: there is no path, or a path without points.
    """
    if not paths or not all(len(path.coordinates) for path in paths.values()):
        raise ValueError("at least one path, and in each at least one point, is needed")
    # Black is seen best on the blue ground, and red next.
    ring = CYCLE if surface is None else (STANDARD, OURS, *CYCLE[2:6])
    colors = [ring[k % len(ring)] for k in range(len(paths))]
    measured = any(path.losses is not None for path in paths.values())
    figure = Figure(figsize=(5.8, 6.2 + 0.3 * bool(title) + 1.5 * measured), layout="constrained")
    plane, strip, *below = figure.subplots(2 + measured, 1, height_ratios=[3.4, 1, 1.1][: 2 + measured])
    where = "middle" if measured else "lower"
    notes = [f"Dots: checkpoints, labelled by {plain(unit)}; the {where} panel: distance off the plane."]
    if surface is not None:
        notes += _ground(figure, plane, surface, subset or surface.subsets[0], scale, limits)
    points = {run: as_array(path.coordinates) for run, path in paths.items()}
    for k, ((run, path), color) in enumerate(zip(paths.items(), colors, strict=True)):
        label = wrapped(plain(run), 3.6, 8.5)
        # Later paths are thinner, so that an earlier one below them is still seen.
        draw_path(plane, points[run], color, width=max(2.8 - 0.5 * k, 1.4), label=label)
        strip.plot(path.steps, as_array(path.residuals), "o-", color=color, markersize=2.8, linewidth=1.2)
    _labels(plane, strip, paths, unit)
    if below:
        strip.set_xlabel("")
        notes += _losses(below[0], paths, colors, unit)
    if surface is None:
        plane.margins(0.16)
        plane.set_aspect("equal", adjustable="datalim")
    labels = [wrapped(plain(run), 3.6, 8.5) for run in paths]
    beside = "\n" not in "".join(labels) and sum(size_of(label, 8.5)[0] + 0.6 for label in labels) < 5.4
    # As the legend's title: matplotlib lays a figure's title over a legend outside the panels.
    figure.legend(
        loc="outside upper center",
        ncols=len(paths) if beside else 1,
        frameon=False,
        title=wrapped(plain(title), 5.4, 11),
        title_fontsize=11,
    )
    caption(figure, notes)
    names: dict[tuple[float, float, str], PointName] = {}
    for (run, path), color in zip(paths.items(), colors, strict=True):
        for at in _chosen(points[run]):
            name = PointName.at(points[run][at], str(path.steps[at]), color)
            # Runs from one initialisation share its name.
            names.setdefault((name.x, name.y, name.text), name)
    name_points(figure, plane, list(names.values()), list(points.values()), size=8.5)
    return figure


def _ground(
    figure: Figure, axes: Axes, surface: Surface, subset: str, scale: Kind, limits: tuple[float, float] | None
) -> list[str]:
    """Draw the loss below the paths; returns sentences for the caption."""
    x, y, losses = as_array(surface.x), as_array(surface.y), as_array(surface.of(subset))
    colours = loss_scale([losses], kind=scale, limits=limits)
    colours.fill(axes, x, y, losses)
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    ratio = float((y[-1] - y[0]) / (x[-1] - x[0]))
    true_to_scale = 0.4 <= ratio <= 2.0
    axes.set_box_aspect(ratio if true_to_scale else 0.8)
    colours.bar(figure, [axes], r"$L(\theta)$")
    count = surface.counts[surface.subsets.index(subset)]
    return [
        f"Loss over {plural(count, 'sample')} ({plain(subset)}), BatchNorm statistics: {surface.batch_norm}.",
        "" if true_to_scale else "The two axes are not drawn to the same scale.",
        missing_note([losses]),
    ]


def _losses(axes: Axes, paths: Mapping[str, Trajectory], colors: Sequence[str], unit: str) -> list[str]:
    """Draw the true losses and those of the plane; returns sentences for the caption."""
    values = []
    for path, color in zip(paths.values(), colors, strict=True):
        if path.losses is not None and path.plane_losses is not None:
            true, shown = as_array(path.losses), as_array(path.plane_losses)
            axes.plot(path.steps, true, "-", color=color, linewidth=1.4)
            axes.plot(path.steps, shown, "--", color=color, linewidth=1.2)
            values += [true, shown]
    positive = np.concatenate(values)
    positive = positive[np.isfinite(positive) & (positive > 0)]
    if len(positive) and positive.max() > 50 * positive.min():
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set(xlabel=capital(plain(unit)), ylabel=r"$L(\theta)$")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True, steps=[1, 2, 5, 10]))
    axes.grid(True)
    whose = "; ".join(dict.fromkeys(plain(path.subset) for path in paths.values() if path.subset))
    return [
        "Lowest panel: solid, the loss at the checkpoint; dashed, at its projection, which is what the plane shows"
        + (f" ({whose})." if whose else ".")
    ]


def _labels(plane: Axes, strip: Axes, paths: Mapping[str, Trajectory], unit: str) -> None:
    ratios = {path.explained_variance_ratio for path in paths.values()}
    ratio = ratios.pop() if len(ratios) == 1 else None
    shares = [f"distance; {100 * part:.1f} % of the variance" for part in ratio or ()] or ["distance"] * 2
    plane.set(xlabel=rf"$\theta_1$  ({shares[0]})", ylabel=rf"$\theta_2$  ({shares[1]})")
    strip.set_xlabel(capital(plain(unit)))
    strip.set_ylabel("Distance\noff the plane", linespacing=1.05)
    strip.set_ylim(bottom=0)
    strip.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True, steps=[1, 2, 5, 10]))
    strip.grid(True)


def _chosen(points: Array, most: int = 4) -> list[int]:
    """The first, the last and up to two checkpoints between them, evenly spaced along the path."""
    if len(points) < 2:
        return [0]
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    wanted = np.linspace(0, length[-1], most)
    return sorted({int(np.abs(length - at).argmin()) for at in wanted} | {0, len(points) - 1})
