"""Paths of training in a plane: lines with checkpoints, arrows, and names that keep out of each other's way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from landscape_lab.figures.arrays import Array
from landscape_lab.figures.style import settle
from landscape_lab.figures.text import size_of

__all__ = ["PointName", "draw_path", "name_points"]

# A name gets a veil rather than a halo, which would cut into the neighbouring letters of a formula.
VEIL = {"boxstyle": "round,pad=0.12", "facecolor": "white", "alpha": 0.78, "linewidth": 0}
# The size of a marker in points; a star needs more to look as large as a disc.
SIZES = {"o": 6.5, "*": 13.0}


def draw_path(
    axes: Axes,
    points: Array,
    color: str,
    *,
    width: float = 2.4,
    end: str = "o",
    start: str | None = None,
    label: str = "",
) -> None:
    """Draw a path with a light dot at each checkpoint, a disc at its beginning and a marker at its end.

    Args:
        axes: where.
        points: (T, 2) coordinates in the plane.
        color: of the line; it gets a white halo, to be seen on any ground.
        width: of the line, in points.
        end: the marker of the last point, ``"o"`` or ``"*"``.
        start: colour of the first point, if it is not the path's own.
        label: its name in the legend.
    """
    x, y = points.T
    halo = [withStroke(linewidth=width + 1.8, foreground="white")]
    axes.plot(x, y, color=color, linewidth=width, path_effects=halo, label=label or "_", zorder=4)
    axes.plot(x[1:-1], y[1:-1], "o", color="white", markersize=width * 0.75, markeredgewidth=0, zorder=5)
    for at, marker, shade in ((0, "o", start or color), (-1, end, color)):
        axes.plot(x[at], y[at], marker, color=shade, markersize=SIZES[marker], markeredgecolor="white", zorder=6)


@dataclass(frozen=True)
class PointName:
    """A name to be written beside a point of the plane."""

    x: float
    y: float
    text: str
    color: str

    @classmethod
    def at(cls, point: Array, text: str, color: str) -> PointName:
        """The name of a point given as an array (2,)."""
        return cls(float(point[0]), float(point[1]), text, color)


def name_points(
    figure: Figure, axes: Axes, names: Sequence[PointName], avoid: Sequence[Array], *, size: float = 12.0
) -> None:
    """Write each name beside its point, on the side where it is furthest from the paths and the other names.

    Points outside the picture get no name. Call this last: it needs the final limits and layout of ``axes``.

    Args:
        figure: holds the axes.
        axes: where.
        names: what to write.
        avoid: paths of shape (T, 2) to stay clear of.
        size: of the letters, in points.
    """
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    corner, extent = np.array([left, bottom]), np.array([right - left, top - bottom])
    inches = _panel_inches(figure, axes)

    def placed(points: Array) -> Array:  # in points of the page, from the panel's lower left corner
        return np.asarray((points - corner) / extent * inches * 72, dtype=np.float64)

    obstacles = [placed(_dense(path)) for path in avoid if len(path)]
    obstacles += [placed(np.array([[name.x, name.y]])) for name in names]
    cloud = np.concatenate(obstacles) if obstacles else np.empty((0, 2))
    for name in names:
        point = placed(np.array([[name.x, name.y]]))[0]
        if not ((point >= 0) & (point <= inches * 72)).all():  # nor if it is not finite
            continue
        half = np.array(size_of(name.text, size)) * 36 + 1.0
        best, best_offset = -math.inf, np.zeros(2)
        for angle in np.arange(16) * math.pi / 8:
            for distance in (8.0, 15.0):
                direction = np.array([math.cos(angle), math.sin(angle)])
                away = direction * (half + distance * 0.75)
                centre = point + away
                # Distance from the box of the name to the nearest obstacle, and to the frame.
                gap = np.abs(cloud - centre) - half
                clear = np.hypot(*np.maximum(gap, 0).T) + np.minimum(gap.max(axis=1), 0)
                frame = min(float((centre - half).min()), float((inches * 72 - centre - half).min()))
                score = min(float(clear.min(initial=99.0)), 12.0, frame + 4 if frame < 2 else 99.0) - 0.12 * distance
                if score > best:
                    best, best_offset = score, away
        offset = (float(best_offset[0]), float(best_offset[1]))
        axes.annotate(
            name.text, (name.x, name.y), offset, textcoords="offset points", ha="center", va="center",
            fontsize=size, color=name.color, bbox=VEIL, zorder=8,
        )  # fmt: skip
        centre = point + best_offset
        spread = np.array([(u, v) for u in (-1, -0.5, 0, 0.5, 1) for v in (-1, 0, 1)]) * half
        cloud = np.concatenate([cloud, centre + spread])


def _dense(path: Array, count: int = 400) -> Array:
    """``count`` points along the finite part of the path: a long straight stretch is an obstacle, too."""
    path = path[np.isfinite(path).all(axis=1)]
    if not len(path):
        return path
    steps = np.hypot(*np.diff(path, axis=0).T)
    length = np.concatenate([[0.0], np.cumsum(steps)])
    at = np.linspace(0, length[-1], count)
    return np.stack([np.interp(at, length, path[:, k]) for k in range(2)], axis=1)


def _panel_inches(figure: Figure, axes: Axes) -> Array:
    """The panel's width and height as the layout leaves them."""
    settle(figure)
    box = axes.get_window_extent()
    return np.array([box.width, box.height]) / figure.dpi
