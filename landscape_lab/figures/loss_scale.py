"""One colour scale and one set of iso-lines for several loss surfaces, so that they can be compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Colormap, Normalize
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from landscape_lab.figures.arrays import Array
from landscape_lab.figures.style import LOSS_MAP
from landscape_lab.numbers import number

__all__ = ["Kind", "LossScale", "hatch_missing", "loss_scale", "missing_note"]

Kind = Literal["auto", "linear", "sqrt", "log"]

# Below 1e-3 a classifier has fitted its samples; five decades are what a colour bar can tell apart.
FLOOR, DECADES = 1e-3, 5
# A linear scale shows nothing of the lower part of a range wider than this.
WIDE = 20.0
# What is drawn further back than this becomes an image in vector files.
BELOW = 0.2
MANTISSAS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))


@dataclass(frozen=True)
class LossScale:
    """Colours and iso-lines for losses between ``low`` and ``high``; only the picture is clipped, never a result.

    Surfaces are drawn through ``z = L``, ``z = √L`` or ``z = log10 L``: taking the logarithm before the contouring,
    which interpolates linearly, puts iso-lines in the right place where the loss grows tenfold between grid points.
    """

    kind: Literal["linear", "sqrt", "log"]
    low: float
    high: float
    levels: tuple[float, ...]
    clips_below: bool
    clips_above: bool

    def height(self, losses: Array) -> np.ma.MaskedArray[Any, Any]:
        """The ``z`` at which ``losses`` are drawn; what is not finite is masked."""
        values = np.ma.masked_invalid(losses)
        if self.kind == "linear":
            return values
        if self.kind == "sqrt":
            roots = np.sign(losses) * np.sqrt(np.abs(losses))
            return np.ma.masked_invalid(roots)
        # Anything below the floor, zero included, is one colour; the exact value there does not matter.
        return np.ma.masked_invalid(np.log10(np.maximum(values.filled(np.nan), self.low * 1e-3)))

    @property
    def norm(self) -> Normalize:
        """From ``z`` to 0…1."""
        low, high = (float(self.height(np.array([value]))[0]) for value in (self.low, self.high))
        return Normalize(low, high, clip=False)

    @property
    def heights(self) -> Array:
        """The iso-lines in ``z``."""
        return np.asarray(self.height(np.array(self.levels)), dtype=np.float64)

    @property
    def note(self) -> str:
        """What the scale does to the picture, for the label of the colour bar; empty if it does nothing."""
        words = [] if self.kind == "linear" else [{"log": "log colours", "sqrt": "square-root colours"}[self.kind]]
        ends = [f"{number(self.low)}"] * self.clips_below + [f"{number(self.high)}"] * self.clips_above
        if ends:
            words.append("colours clipped at " + " and ".join(ends))
        return "; ".join(words)

    def fill(self, axes: Axes, x: Array, y: Array, losses: Array, *, cmap: Colormap = LOSS_MAP) -> None:
        """Draw ``losses`` of shape ``(ny, nx)`` as smooth colours under thin black iso-lines.

        Grid points without a finite loss are left as a hatched hole.
        """
        z, norm = self.height(losses), self.norm
        hatch_missing(axes, z)
        if z.count():
            # Ninety-six steps look smooth. An image inside vector files: seams between polygons would show.
            steps = np.linspace(float(norm.vmin or 0.0), float(norm.vmax or 0.0), 97)
            axes.contourf(
                x, y, z, levels=steps, norm=norm, cmap=cmap, extend="both", antialiased=False, zorder=BELOW - 0.1
            )
            axes.set_rasterization_zorder(BELOW)
        self.lines(axes, x, y, losses, colors="black", linewidths=0.7)

    def lines(self, axes: Axes, x: Array, y: Array, losses: Array, **options: Any) -> ContourSet | None:
        """Draw the iso-lines alone; ``None`` if the surface crosses none of them."""
        z, heights = self.height(losses), self.heights
        crossed = z.count() > 0 and bool(((heights > z.min()) & (heights < z.max())).any())
        if not crossed:
            return None
        return axes.contour(x, y, z, levels=heights, negative_linestyles="solid", **options)

    def bar(
        self, figure: Figure, axes: Sequence[Axes], label: str, *, cmap: Colormap = LOSS_MAP, filled: bool = True
    ) -> Colorbar:
        """Add the colour bar for ``axes``: ticks in losses, at the iso-lines.

        Args:
            figure: holds the axes.
            axes: one panel, at whose right edge it stands, as high as the panel; or several, below which it lies.
            label: what is drawn; what the scale does to it is added.
            cmap: the colours of the surface, or of its iso-lines.
            filled: whether the surface is filled; if not, the bar shows coloured lines on white.
        """
        extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}
        norm, heights = self.norm, self.heights
        kind = extend[int(self.clips_below and filled), int(self.clips_above and filled)]
        mappable = ScalarMappable(norm, cmap)
        if len(axes) == 1:
            # Inside the panel's own box: the layout would make it as high as the row, legend and all.
            inches = float(axes[0].get_position().width * figure.get_size_inches()[0])
            inset = axes[0].inset_axes((1 + 0.14 / inches, 0.0, 0.12 / inches, 1.0))
            bar = figure.colorbar(mappable, cax=inset, extend=kind)
        else:
            bar = figure.colorbar(
                mappable, ax=list(axes), extend=kind, location="bottom", aspect=55, shrink=0.75, pad=0.03
            )
        if filled:
            bar.add_lines(list(heights), ["black"] * len(heights), [0.7] * len(heights))
        else:
            if bar.solids is not None:
                bar.solids.set_visible(False)
            bar.add_lines(list(heights), list(cmap(norm(heights))), [2.2] * len(heights))
        # Every second line gets its number if there are many.
        every = 1 + (len(heights) > 14)
        bar.set_ticks(list(heights[::every]), labels=[number(level, 4) for level in self.levels[::every]])
        bar.minorticks_off()
        bar.set_label(label + (f"   ({self.note})" if self.note and filled else ""))
        return bar


def hatch_missing(axes: Axes, z: np.ma.MaskedArray[Any, Any]) -> None:
    """Let a hatched ground show through where ``z`` is masked."""
    if np.ma.getmaskarray(z).any():
        axes.set_facecolor("#ececec")
        axes.patch.set_edgecolor("#999999")
        axes.patch.set_hatch("/////")
        axes.patch.set_linewidth(0.0)


def missing_note(losses: Sequence[Array]) -> str:
    """A sentence for the caption about grid points without a finite value; empty if there are none."""
    missing = sum(int((~np.isfinite(array)).sum()) for array in losses)
    if not missing:
        return ""
    return f"Hatched: no finite value ({missing:,} of {sum(array.size for array in losses):,} on the grid)."


def loss_scale(
    losses: Sequence[Array],
    *,
    kind: Kind = "auto",
    limits: tuple[float, float] | None = None,
    lines: int = 14,
) -> LossScale:
    """Choose one scale for several surfaces.

    Args:
        losses: arrays of any shape; values that are not finite are left aside.
        kind: ``"log"``; ``"linear"``; ``"sqrt"``, with iso-lines at the squares of equal steps, evenly spaced in a
            quadratic bowl; or ``"auto"``: log if no loss is negative and the largest is more than 20 times the
            smallest, else linear.
        limits: the losses at which the colours end; by default the whole range, but on a log scale nothing below
            1e-3 and no more than five decades.
        lines: the most iso-lines.

    Raises:
        ValueError: ``limits`` are not increasing, or not positive on a log scale.
    """
    parts = [array[np.isfinite(array)].ravel() for array in losses]
    values = np.concatenate(parts) if parts else np.empty(0)
    if not values.size:
        values = np.array([0.1, 1.0])
    positive = values[values > 0]
    if kind == "auto":
        lowest, highest = limits or (float(values.min()), float(values.max()))
        linear = values.min() < 0 or (limits and lowest <= 0) or highest <= WIDE * max(lowest, FLOOR)
        kind = "linear" if linear else "log"
    if limits is not None:
        low, high = limits
        if not low < high or (kind == "log" and low <= 0):
            raise ValueError(f"limits must increase, and be positive on a log scale, got {limits}")
    elif kind == "log":
        if not positive.size:
            raise ValueError("a log scale needs a positive loss, got none")
        high = float(positive.max())
        low = max(float(positive.min()), min(FLOOR, high / 1e3))
        high = min(high, low * 10**DECADES)
    else:
        low, high = float(values.min()), float(values.max())
    if not high > low:  # a constant surface still needs a width
        low, high = (low / 2, low * 2) if kind == "log" else (low - 0.5, low + 0.5)
    return LossScale(
        kind=kind,
        low=low,
        high=high,
        levels={"log": _log_levels, "sqrt": _square_levels, "linear": _linear_levels}[kind](low, high, lines),
        clips_below=bool(values.min() < low),
        clips_above=bool(values.max() > high),
    )


def _linear_levels(low: float, high: float, lines: int) -> tuple[float, ...]:
    ticks = MaxNLocator(nbins=lines, steps=[1, 2, 5, 10]).tick_values(low, high)
    return tuple(float(tick) for tick in ticks if low < tick < high)


def _square_levels(low: float, high: float, lines: int) -> tuple[float, ...]:
    low, high = (math.copysign(math.sqrt(abs(value)), value) for value in (low, high))
    # Twelve digits: 0.3 * 0.3 is 0.09, not 0.09000000000000001. Nothing at zero, where a flat floor would tremble.
    return tuple(float(f"{math.copysign(root * root, root):.12g}") for root in _linear_levels(low, high, lines) if root)


def _log_levels(low: float, high: float, lines: int) -> tuple[float, ...]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    best: tuple[float, ...] = ()
    for mantissas in MANTISSAS:
        # float(f"…"): 3 * 10.0**-1 is 0.30000000000000004.
        levels = tuple(float(f"{mantissa}e{decade}") for decade in decades for mantissa in mantissas)
        inside = tuple(level for level in levels if low < level < high)
        if len(inside) <= lines:
            best = inside
    return best if len(best) >= 3 else _linear_levels(low, high, lines)
