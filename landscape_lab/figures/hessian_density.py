"""Fig. 9: the density of the Hessian's eigenvalues on head and tail, for several methods on the same axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from landscape_lab.analysis.estimates import Estimate
from landscape_lab.analysis.spectra import SpectralDensity, Spectrum
from landscape_lab.figures.arrays import Array, as_array
from landscape_lab.figures.signed_log import GRID, SMOOTH, SignedLog
from landscape_lab.figures.spectrum_words import at_most, basis, joined, letter_of, name_of, span
from landscape_lab.figures.style import CYCLE, SUBSETS, grey_panel, in_paper_style
from landscape_lab.figures.text import capital, caption, letter, plain, plural, size_of, wrapped
from landscape_lab.numbers import number, with_error

__all__ = ["hessian_density", "spectrum"]

# Weights below this are rounding in the quadrature: they must not decide the axes.
NEGLIGIBLE = 1e-13
LARGEST, SMALLEST, OUTLIER = "#d55e00", "#5b3b8c", "#3d3d46"
# More panels than these nobody reads, and the page would be longer than a metre.
MOST = 24
HEIGHT, NUMBERS = 2.35, 8.5  # of a panel with its titles, in inches; font size of the numbers in it


@in_paper_style
def hessian_density(spectra: Mapping[str, Mapping[str, Spectrum]], *, threshold: float | None = None) -> Figure:
    """Draw the eigenvalue densities of several methods: a column for each method, a row for each subset.

    The curve is the density with respect to λ, φ(t) = mean over probes of Σ_i w_i N(t; λ_i, σ(t)²), with a band of ±1
    standard error over the probes. σ follows the symmetrical-log axis: a fixed fraction of the axis wherever t lies.
    All panels have the same axes. Spectra without a density are left out. Of more than 24 panels the named groups
    (head, tail, all …) are drawn and as many of the other subsets as there is room for, evenly spaced in their order.

    Args:
        spectra: method → subset → spectrum; every method with the same subsets.
        threshold: the x axis is linear within ±threshold; by default a power of ten, two to three decades below the
            largest eigenvalue.

    Raises:
        ValueError: there is no density to draw, or the subsets differ between methods.

    References:
        Chen et al., CVPR 2026 (GKP+GSA), Fig. 9;
        density by quadrature: Ghorbani et al., arXiv:1901.10159.
    """
    return _draw(spectra, threshold)


@in_paper_style
def spectrum(spectra: Mapping[str, Spectrum], *, title: str = "", threshold: float | None = None) -> Figure:
    """Draw one run's eigenvalue densities as :func:`hessian_density` does.

    Up to three subsets stand one below another, more of them in two or three columns.
    """
    return _draw({title: spectra}, threshold)


def _draw(spectra: Mapping[str, Mapping[str, Spectrum]], threshold: float | None) -> Figure:
    if not spectra or not all(spectra.values()):
        raise ValueError("at least one method with one spectrum is needed, got none")
    subsets = list(next(iter(spectra.values())))
    for method, row in spectra.items():
        if set(row) != set(subsets):
            raise ValueError(f"{method!r} must have the subsets {', '.join(subsets)}, got {', '.join(row)}")
    seen = [name for name in subsets if any(row[name].density is not None for row in spectra.values())]
    methods = [name for name, row in spectra.items() if any(row[subset].density is not None for subset in seen)]
    if not seen:
        raise ValueError("at least one spectrum with a density is needed, got none: give products for the density")
    chosen = _chosen(seen, max(1, MOST // len(methods)))
    cells = [[(method, subset, spectra[method][subset]) for method in methods] for subset in chosen]
    single = len(spectra) == 1
    columns = len(methods)
    if single:  # one column of cells, folded into several
        columns = 1 if len(chosen) <= 3 else 2 if len(chosen) == 4 else 3
        flat = [cell for row in cells for cell in row]
        cells = [flat[k : k + columns] for k in range(0, len(flat), columns)]
    every = [result for row in cells for _, _, result in row if result.density is not None]
    axis = _axis(every, threshold)
    width = max((5.6, 6.6, 9.0)[columns - 1] if single else 2.75 * columns, 5.6 if single else 5.8)
    figure = Figure(figsize=(width, HEIGHT * len(cells) + 0.95), layout="constrained")
    panels = figure.subplots(len(cells), columns, sharex=True, sharey=True, squeeze=False)
    space = (width - 0.6) / columns - 0.1
    folded = single and columns > 1
    drawn: list[tuple[Axes, Spectrum, tuple[Array, Array], list[str]]] = []
    for k, (method, subset, result) in enumerate(cell for row in cells for cell in row):
        axes: Axes = panels.flat[k]
        name = f"{plain(method)}: {plain(subset)}" if method and not folded else capital(plain(subset))
        of = f" ({plural(result.samples, 'sample')})" if folded and result.samples else ""
        prefix = f"{letter(k)} " if len(chosen) * len(methods) > 1 else ""
        axes.set_title(wrapped(f"{prefix}{name}{of}", space, 10), fontsize=10, linespacing=1.05)
        grey_panel(axes)
        if result.density is None:
            axes.text(0.5, 0.5, "no density", transform=axes.transAxes, ha="center", color="#777777")
        else:
            drawn.append((axes, result, _curve(axes, result, axis), _numbers(axes, result)))
    _scales(panels[0, 0], axis, [(result, curve, lines) for _, result, curve, lines in drawn], space)
    for k, axes in enumerate(panels.flat):
        if k >= sum(map(len, cells)):
            axes.remove()
        elif k + columns >= sum(map(len, cells)):  # nothing stands below it
            axes.tick_params(labelbottom=True)
            axes.set_xlabel(_eigenvalue(every))
    for axes in panels[:, 0]:
        axes.set_ylabel("Density")
    handles = _legend(every)
    needed = sum(size_of(str(handle.get_label()), 8.5)[0] + 0.5 for handle in handles)
    legend = figure.legend(
        handles=handles, loc="outside upper center", ncols=len(handles) if needed < width else 2, frameon=False,
        title=wrapped(plain(next(iter(spectra))), width - 0.4, 10.5) if folded else None, title_fontsize=10.5,
    )  # fmt: skip
    legend.get_title().set_multialignment("center")
    caption(figure, [*_choice(subsets, seen, chosen), *_notes(every, axis)])
    return figure


def _chosen(subsets: Sequence[str], most: int) -> list[str]:
    """All subsets, or the named groups and as many of the others as fit, evenly spaced; in their order."""
    if len(subsets) <= most:
        return list(subsets)
    groups = [name for name in subsets if name in SUBSETS][:most]
    others = [name for name in subsets if name not in SUBSETS]
    places = np.linspace(0, len(others) - 1, most - len(groups)).round().astype(int)
    kept = {*groups, *(others[place] for place in places)}
    return [name for name in subsets if name in kept]


def _choice(subsets: Sequence[str], seen: Sequence[str], chosen: Sequence[str]) -> list[str]:
    """What is not in the picture, and why."""
    words = []
    if len(chosen) < len(seen):
        words.append(
            f"{len(chosen)} of {len(seen)} subsets: the named groups, and of the others some, evenly spaced in their "
            "order."
        )
    gone = [name for name in subsets if name not in seen]
    if gone:
        names = ", ".join(map(plain, gone[:8])) + (f" and {len(gone) - 8} more" if len(gone) > 8 else "")
        words.append(f"Measured without a density and left out: {names}.")
    return words


def _axis(every: list[Spectrum], threshold: float | None) -> SignedLog:
    ends = [value for result in every for value in (result.lambda_max, result.lambda_min)]
    for result in every:
        density = _density(result)
        nodes, weights = as_array(density.nodes), as_array(density.weights)
        seen = nodes[(weights > NEGLIGIBLE) & np.isfinite(nodes)]
        ends += [float(seen.max(initial=0.0)), float(seen.min(initial=0.0))]
    ends = [end for end in ends if math.isfinite(end)]
    extent = max(map(abs, ends), default=0.0) or 1.0
    if threshold is None:
        threshold = 10.0 ** (math.ceil(math.log10(extent) - 1e-9) - 3)
    axis = SignedLog(threshold, min(*ends, -threshold), max(*ends, threshold))
    low, high = axis.to(axis.low, axis.high)
    margin = 0.05 * (high - low)
    low, high = axis.back(np.array([low - margin, high + margin]))
    return SignedLog(threshold, float(low), float(high))


def _density(result: Spectrum) -> SpectralDensity:
    if result.density is None:
        raise ValueError("a spectrum with a density is needed, got one without")
    return result.density


def _curve(axes: Axes, result: Spectrum, axis: SignedLog) -> tuple[Array, Array]:
    """Draw density, band and marks; returns the density on the grid and its standard error."""
    found = _density(result)
    points, sigma = axis.grid()
    smoothed = found.on_grid(torch.from_numpy(points), torch.from_numpy(sigma))
    density, stderr = (as_array(part) for part in smoothed)
    error = np.nan_to_num(stderr)
    # A logarithmic axis has no place for zero.
    axes.fill_between(
        points, np.maximum(density - error, 1e-300), density + error, color=CYCLE[0], alpha=0.28, linewidth=0, zorder=2
    )
    axes.plot(points, np.maximum(density, 1e-300), color=CYCLE[0], linewidth=0.9, zorder=3)
    axes.vlines(
        as_array(found.nodes[0, : found.outliers]), 0, 0.03, colors=OUTLIER, linewidth=0.7,
        transform=axes.get_xaxis_transform(), zorder=4,
    )  # fmt: skip
    for value, color in ((result.lambda_max, LARGEST), (result.lambda_min, SMALLEST)):
        axes.plot(
            value, 0, "^", color=color, markersize=6, markeredgecolor="white", markeredgewidth=0.6, clip_on=False,
            transform=axes.get_xaxis_transform(), zorder=5,
        )  # fmt: skip
    return density, stderr


def _numbers(axes: Axes, result: Spectrum) -> list[str]:
    """Write the numbers into the corner; returns the lines."""
    symbol = letter_of(result.operator)
    negative = _density(result).negative_mass()
    lines = [r"$\lambda_{\max}$: " + with_error(result.lambda_max, result.lambda_max_residual)]
    if math.isfinite(result.lambda_max_upper):
        lines.append(f"95 %: ≤ {at_most(result.lambda_max_upper)}")
    lines += [
        rf"$\mathrm{{Tr}}({symbol})$: " + with_error(result.trace.value, result.trace.stderr),
        r"$\lambda_{\min}$: " + with_error(result.lambda_min, result.lambda_min_residual),
    ]
    if _is_negative(result):
        lines.append(f"neg. mass: {_per_cent(negative)}")
    if not result.converged:
        lines.append("(not converged)")
    axes.text(
        0.975,
        0.96,
        "\n".join(lines),
        transform=axes.transAxes,
        ha="right",
        va="top",
        fontsize=NUMBERS,
        linespacing=1.25,
        zorder=6,
    )
    return lines


def _is_negative(result: Spectrum) -> bool:
    return result.lambda_min < -result.lambda_min_residual


def _per_cent(share: Estimate) -> str:
    if not math.isfinite(share.stderr):
        return f"{number(100 * share.value, 2)} %"
    return f"{with_error(100 * share.value, 100 * share.stderr)} %"


def _scales(
    axes: Axes, axis: SignedLog, drawn: Sequence[tuple[Spectrum, tuple[Array, Array], list[str]]], inches: float
) -> None:
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
        1 / (_density(result).size * math.sqrt(2 * math.pi) * float(np.interp(result.lambda_max, points, sigma)))
        for result, _, _ in drawn
        if _density(result).size and math.isfinite(result.lambda_max)
    ]
    top = max(_peak(density) for _, (density, _), _ in drawn) or 1.0
    bottom = max(math.floor(math.log10(min(spikes, default=top * 1e-8) / 10)), math.log10(top) - 16)
    # … and so high that the numbers in the corner lie above every curve.
    clear = math.log10(top) + 0.4
    for _, (density, _), lines in drawn:
        beside = 1 - (max(size_of(line, NUMBERS)[0] for line in lines) + 0.1) / inches
        below = 0.94 - len(lines) * NUMBERS * 1.25 / 72 / (HEIGHT - 0.5)
        corner = _peak(density[int(GRID * max(beside, 0.0)) :])
        clear = max(clear, bottom + (math.log10(max(corner, 10.0**bottom)) - bottom) / below)
    axes.set_yscale("log")
    axes.set_ylim(10.0**bottom, 10.0**clear)
    axes.yaxis.set_major_locator(LogLocator(numticks=7))


def _peak(density: Array) -> float:
    return float(density[np.isfinite(density)].max(initial=0.0))


def _eigenvalue(every: Sequence[Spectrum]) -> str:
    names = {name_of(result.operator) for result in every}
    return "Eigenvalue" if len(names) > 1 or names == {"Hessian"} else f"Eigenvalue of the {names.pop()}"


def _legend(every: list[Spectrum]) -> list[Line2D]:
    def mark(marker: str, color: str, label: str) -> Line2D:
        size, edge = (6, "white") if marker == "^" else (7, color)
        return Line2D(
            [], [], linestyle="", marker=marker, color=color, markersize=size, markeredgecolor=edge, label=label
        )

    several = any(len(_density(result).nodes) > 1 for result in every)
    name = "density, band: ± 1 standard error" if several else "density (one probe: no error)"
    handles = [
        Line2D([], [], color=CYCLE[0], label=name),
        mark("^", LARGEST, r"$\lambda_{\max}$"),
        mark("^", SMALLEST, r"$\lambda_{\min}$"),
    ]
    if any(_density(result).outliers for result in every):
        handles.append(mark("|", OUTLIER, "found one by one"))
    return handles


def _notes(every: list[Spectrum], axis: SignedLog) -> list[str]:
    densities = [_density(result) for result in every]
    probes = [len(density.nodes) for density in densities]
    negative = any(_is_negative(result) for result in every)
    limits = any(math.isfinite(result.lambda_max_upper) for result in every)
    return [
        f"± after λ: residual ‖{letter_of(every[0].operator)}v − λv‖, within which an eigenvalue lies; "
        "± after the trace: standard error.",
        "95 %: the largest eigenvalue is at most this, with that confidence." if limits else "",
        "Negative mass: the share of Σ|λ| that negative eigenvalues have, ± standard error." if negative else "",
        f"Density by {joined(density.method for density in densities)} quadrature, "
        f"{span(density.products for density in densities)} products,",
        f"{span(probes)} {'probe' if max(probes) == 1 else 'probes'},",
        "smoothed by a Gaussian of one width everywhere on this axis",
        f"(linear within ±{number(axis.threshold)}, logarithmic beyond).",
        basis(every),
    ]
