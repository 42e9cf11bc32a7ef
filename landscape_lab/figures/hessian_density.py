"""Fig. 9: the density of the Hessian's eigenvalues on head and tail, for several methods on the same axes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.scale import SymmetricalLogTransform
from matplotlib.ticker import LogLocator

from landscape_lab.analysis.spectra import Spectrum
from landscape_lab.figures.arrays import Array, as_array
from landscape_lab.figures.style import CYCLE, grey_panel, in_paper_style
from landscape_lab.figures.text import capital, caption, letter, plain, wrapped
from landscape_lab.numbers import number, with_error

__all__ = ["hessian_density", "spectrum"]

# Points on a curve; the kernel's standard deviation in axis widths. At 1/400 a lone eigenvalue is a spike a few
# pixels wide, and one grid step is a sixth of a standard deviation, so that its height is right.
GRID, WIDTH = 2400, 1 / 400
# Weights below this are rounding in the quadrature: they must not decide the axes.
NEGLIGIBLE = 1e-13
LARGEST, SMALLEST = "#d55e00", "#5b3b8c"


# The width of the linear part, in decades times 0.9 as matplotlib counts it, with which linear and logarithmic part
# meet at the same slope. With another, curves would be drawn out on one side of the threshold.
SMOOTH = 0.9 / math.log(10)


@dataclass(frozen=True)
class _Axis:
    """The x axis of all panels: linear within ±threshold, logarithmic beyond, and the smoothing that goes with it."""

    threshold: float
    low: float
    high: float

    @property
    def transform(self) -> SymmetricalLogTransform:
        """Eigenvalues to positions on the axis."""
        return SymmetricalLogTransform(10, self.threshold, SMOOTH)

    def to(self, *eigenvalues: float) -> Array:
        """Positions on the axis."""
        return np.asarray(self.transform.transform_non_affine(np.array(eigenvalues)), dtype=np.float64)

    def back(self, positions: Array) -> Array:
        """Eigenvalues at positions on the axis."""
        return np.asarray(self.transform.inverted().transform_non_affine(positions), dtype=np.float64)

    def grid(self) -> tuple[Array, Array]:
        """Eigenvalues evenly spaced on the axis, and the kernel's width at each, in eigenvalue units.

        The width is a fixed fraction of the axis: constant within ±threshold, proportional to |λ| beyond. A width
        constant in λ, as is usual, is far too wide near zero or leaves spikes thinner than a pixel at the outliers.
        """
        left, right = self.to(self.low, self.high)
        points = self.back(np.linspace(left, right, GRID))
        # dλ/ds of the axis; s is in units of the threshold times decades.
        slope = math.log(10) * np.maximum(np.abs(points) / self.threshold, 1.0)
        return points, WIDTH * (right - left) * slope


@in_paper_style
def hessian_density(spectra: Mapping[str, Mapping[str, Spectrum]], *, threshold: float | None = None) -> Figure:
    """Draw the eigenvalue densities of several methods: a column for each method, a row for each subset.

    The curve is the density with respect to λ, φ(t) = mean over probes of Σ_i w_i N(t; λ_i, σ(t)²), with a band of ±1
    standard error over the probes. σ follows the symmetrical-log axis: a fixed fraction of the axis wherever t lies.
    All panels have the same axes.

    Args:
        spectra: method → subset → spectrum; every method with the same subsets.
        threshold: the x axis is linear within ±threshold; by default a power of ten, two to three decades below the
            largest eigenvalue.

    Raises:
        ValueError: there is nothing to draw, or the subsets differ between methods.

    References:
        Chen et al., CVPR 2026 (GKP+GSA), Fig. 9;
        density by quadrature: Ghorbani et al., arXiv:1901.10159.
    """
    return _draw(spectra, threshold)


@in_paper_style
def spectrum(spectra: Mapping[str, Spectrum], *, title: str = "", threshold: float | None = None) -> Figure:
    """Draw one run's eigenvalue densities, subset below subset: a single column of :func:`hessian_density`."""
    return _draw({title: spectra}, threshold)


def _draw(spectra: Mapping[str, Mapping[str, Spectrum]], threshold: float | None) -> Figure:
    if not spectra or not all(spectra.values()):
        raise ValueError("at least one method with one spectrum is needed, got none")
    subsets = list(next(iter(spectra.values())))
    for method, row in spectra.items():
        if set(row) != set(subsets):
            raise ValueError(f"{method!r} must have the subsets {', '.join(subsets)}, got {', '.join(row)}")
    every = [result for row in spectra.values() for result in row.values()]
    axis = _axis(every, threshold)
    single = len(spectra) == 1
    width = 5.6 if single else max(2.75 * len(spectra), 5.8)
    figure = Figure(figsize=(width, 2.35 * len(subsets) + 0.95), layout="constrained")
    panels = figure.subplots(len(subsets), len(spectra), sharex=True, sharey=True, squeeze=False)
    curves, space = {}, (width - 0.6) / len(spectra) - 0.1
    for row_index, subset in enumerate(subsets):
        for column, (method, row) in enumerate(spectra.items()):
            axes: Axes = panels[row_index, column]
            prefix = f"{letter(row_index * len(spectra) + column)} " if len(every) > 1 else ""
            name = f"{plain(method)}: {plain(subset)}" if method else capital(plain(subset))
            axes.set_title(wrapped(f"{prefix}{name}", space, 10), fontsize=10, linespacing=1.05)
            grey_panel(axes)
            curves[subset, method] = _curve(axes, row[subset], axis)
            _numbers(axes, row[subset])
    _scales(panels[0, 0], axis, every, list(curves.values()), space)
    for axes in panels[:, 0]:
        axes.set_ylabel("Density")
    for axes in panels[-1]:
        axes.set_xlabel("Eigenvalue")
    figure.legend(handles=_legend(every), loc="outside upper center", ncols=3, frameon=False)
    caption(figure, _notes(every, axis))
    return figure


def _axis(every: list[Spectrum], threshold: float | None) -> _Axis:
    ends = [value for result in every for value in (result.lambda_max, result.lambda_min)]
    for result in every:
        nodes, weights = as_array(result.density.nodes), as_array(result.density.weights)
        seen = nodes[(weights > NEGLIGIBLE) & np.isfinite(nodes)]
        ends += [float(seen.max(initial=0.0)), float(seen.min(initial=0.0))]
    ends = [end for end in ends if math.isfinite(end)]
    extent = max(map(abs, ends), default=0.0) or 1.0
    if threshold is None:
        threshold = 10.0 ** (math.ceil(math.log10(extent) - 1e-9) - 3)
    axis = _Axis(threshold, min(*ends, -threshold), max(*ends, threshold))
    low, high = axis.to(axis.low, axis.high)
    margin = 0.05 * (high - low)
    low, high = axis.back(np.array([low - margin, high + margin]))
    return _Axis(threshold, float(low), float(high))


def _curve(axes: Axes, result: Spectrum, axis: _Axis) -> tuple[Array, Array]:
    """Draw density, band and marks; returns the density on the grid and its standard error."""
    points, sigma = axis.grid()
    smoothed = result.density.on_grid(torch.from_numpy(points), torch.from_numpy(sigma))
    density, stderr = (as_array(part) for part in smoothed)
    error = np.nan_to_num(stderr)
    # A logarithmic axis has no place for zero.
    axes.fill_between(
        points, np.maximum(density - error, 1e-300), density + error, color=CYCLE[0], alpha=0.28, linewidth=0, zorder=2
    )
    axes.plot(points, np.maximum(density, 1e-300), color=CYCLE[0], linewidth=0.9, zorder=3)
    for value, color in ((result.lambda_max, LARGEST), (result.lambda_min, SMALLEST)):
        axes.plot(
            value, 0, "^", color=color, markersize=6, markeredgecolor="white", markeredgewidth=0.6, clip_on=False,
            transform=axes.get_xaxis_transform(), zorder=5,
        )  # fmt: skip
    return density, stderr


def _numbers(axes: Axes, result: Spectrum) -> None:
    lines = [
        r"$\lambda_{\max}$: " + with_error(result.lambda_max, result.lambda_max_residual),
        r"$\mathrm{Tr}(H)$: " + with_error(result.trace.value, result.trace.stderr),
        r"$\lambda_{\min}$: " + with_error(result.lambda_min, result.lambda_min_residual),
    ]
    if not result.converged:
        lines.append("(not converged)")
    axes.text(
        0.975,
        0.96,
        "\n".join(lines),
        transform=axes.transAxes,
        ha="right",
        va="top",
        fontsize=8.5,
        linespacing=1.25,
        zorder=6,
    )


def _scales(axes: Axes, axis: _Axis, every: list[Spectrum], curves: list[tuple[Array, Array]], inches: float) -> None:
    """The common axes of all panels, ``inches`` wide."""
    axes.set_xscale("symlog", linthresh=axis.threshold, linscale=SMOOTH)
    axes.set_xlim(axis.low, axis.high)
    decades = [axis.threshold * 10**k for k in range(int(math.log10(max(axis.high, -axis.low) / axis.threshold)) + 1)]
    every_tick = [*(-decade for decade in reversed(decades)), 0.0, *decades]
    ticks = [tick for tick in every_tick if axis.low < tick < axis.high]
    zero, first, left, right = axis.to(0.0, axis.threshold, axis.low, axis.high)
    crowded = (first - zero) / (right - left) * inches < 0.24
    labels = ["" if crowded and abs(tick) == axis.threshold else number(tick) for tick in ticks]
    axes.set_xticks(ticks, labels)
    # From a tenth of a lone outlier's peak, so that its spike is seen standing, to above the highest peak …
    points, sigma = axis.grid()
    spikes = [
        1 / (result.density.size * math.sqrt(2 * math.pi) * float(np.interp(result.lambda_max, points, sigma)))
        for result in every
        if result.density.size and math.isfinite(result.lambda_max)
    ]
    top = max(_peak(density) for density, _ in curves) or 1.0
    bottom = max(math.floor(math.log10(min(spikes, default=top * 1e-8) / 10)), math.log10(top) - 16)
    # … and so high that the numbers in the corner, half a panel wide and 30 % high, lie above every curve.
    corner = max(_peak(density[GRID * 45 // 100 :]) for density, _ in curves)
    clear = bottom + (math.log10(max(corner, 10.0**bottom)) - bottom) / 0.66
    axes.set_yscale("log")
    axes.set_ylim(10.0**bottom, 10.0 ** max(math.log10(top) + 0.4, clear))
    axes.yaxis.set_major_locator(LogLocator(numticks=7))


def _peak(density: Array) -> float:
    return float(density[np.isfinite(density)].max(initial=0.0))


def _legend(every: list[Spectrum]) -> list[Line2D]:
    def mark(color: str, label: str) -> Line2D:
        return Line2D([], [], linestyle="", marker="^", color=color, markersize=6, markeredgecolor="white", label=label)

    several = any(len(result.density.nodes) > 1 for result in every)
    name = "density, band: ± 1 standard error" if several else "density (one probe: no error)"
    return [
        Line2D([], [], color=CYCLE[0], label=name),
        mark(LARGEST, r"$\lambda_{\max}$"),
        mark(SMALLEST, r"$\lambda_{\min}$"),
    ]


def _notes(every: list[Spectrum], axis: _Axis) -> list[str]:
    def span(values: list[int]) -> str:
        low, high = min(values), max(values)
        return f"{low:,}" if low == high else f"{low:,} to {high:,}"

    probes = [len(result.density.nodes) for result in every]
    methods = sorted({result.density.method for result in every})
    products = span([result.density.products for result in every])
    return [
        "± after λ: residual ‖Hv − λv‖, within which an eigenvalue lies; ± after Tr(H): standard error.",
        f"Density by {' and '.join(methods)} quadrature, {products} products,",
        f"{span(probes)} {'probe' if max(probes) == 1 else 'probes'},",
        "smoothed by a Gaussian of one width everywhere on this axis",
        f"(linear within ±{number(axis.threshold)}, logarithmic beyond).",
        f"H over {span([result.samples for result in every])} samples,",
        f"{span([result.parameters for result in every])} parameters;",
        f"BatchNorm statistics: {' and '.join(sorted({result.batch_norm for result in every}))}.",
    ]
