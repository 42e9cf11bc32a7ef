"""Largest eigenvalue and trace of many subsets: side by side at one epoch, or over the epochs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm, Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import MaxNLocator

from landscape_lab.analysis.spectra import Spectrum
from landscape_lab.figures.measures import (
    NORMAL,
    Measure,
    fixed_ticks,
    largest,
    log_ticks,
    negative_mass,
    trace_of,
    value_axis,
)
from landscape_lab.figures.spectrum_words import basis, letter_of, span
from landscape_lab.figures.style import CYCLE, SUBSETS, colours_of, in_paper_style
from landscape_lab.figures.text import caption, maths, plain, size_of, wrapped
from landscape_lab.numbers import number

__all__ = ["curvature_bars", "curvature_curves"]

# From here on single classes are told apart by place or by a ramp of colours, no longer by name.
MANY = 16
COUNTS, PALE = "#b9bac4", 0.3
EDGE = "#1a1a1a"


def _ramp() -> Colormap:
    # Plasma is evenly spaced to the eye; its last part is too light for lines on white.
    colours = matplotlib.colormaps["plasma"](np.linspace(0, 0.86, 64))
    return LinearSegmentedColormap.from_list("landscape_classes", list(colours))


# -- one epoch -----------------------------------------------------------------------------------------------


@in_paper_style
def curvature_bars(
    spectra: Mapping[str, Spectrum], *, counts: Mapping[str, int] | None = None, title: str = ""
) -> Figure:
    """Draw the largest eigenvalue and the trace of every subset, above the subsets' sample counts.

    Single classes stand in the order given; the named groups (head, tail, all …) stand apart on the right, and their
    values go on as dashed lines among the classes. Thin lines are 95 % intervals of the computation, wide pale ones
    those from the draw of the samples, where they were estimated. The axes are logarithmic where all values are
    positive.

    Args:
        spectra: subset → spectrum, up to a few hundred.
        counts: subset → number of samples (default: those that each spectrum was measured on).
        title: written above.

    Raises:
        ValueError: there is no spectrum.
    """
    if not spectra:
        raise ValueError("at least one spectrum is needed, got none")
    groups = [name for name in spectra if name in SUBSETS]
    classes = [name for name in spectra if name not in SUBSETS]
    parts = [part for part in (classes, groups) if part]
    slot = 0.42 if len(classes) <= 30 else max(0.105, 3.0 / len(classes))
    widths = [min(max(slot * len(part), 1.3), 10.5) if part is classes else 0.5 * len(part) + 0.3 for part in parts]
    widths = [size * max(1.0, 4.4 / sum(widths)) for size in widths]
    width = sum(widths) + 1.0
    figure = Figure(figsize=(width, 6.0), layout="constrained")
    grid = figure.add_gridspec(3, len(parts), width_ratios=widths, height_ratios=[2.2, 2.2, 0.9])
    found = {name: (largest(result), trace_of(result)) for name, result in spectra.items()}
    symbol = letter_of(next(iter(spectra.values())).operator)
    for row, label in enumerate((r"$\lambda_{\max}$", rf"$\mathrm{{Tr}}({symbol})$")):
        first: Axes | None = None
        for column, (part, size) in enumerate(zip(parts, widths, strict=True)):
            axes = figure.add_subplot(grid[row, column], sharey=first)
            axes.tick_params(labelbottom=False, bottom=False, labelleft=column == 0)
            if column == 0:
                axes.set_ylabel(label)
            _intervals(axes, part, [found[name][row] for name in part], size / len(part))
            if part is classes:
                for name in groups:
                    axes.axhline(found[name][row].value, color=SUBSETS[name], linestyle=(0, (4, 2)), linewidth=0.9)
            first = first or axes
        if first is not None:
            value_axis(first, [pair[row] for pair in found.values()])
    held = {name: (counts or {}).get(name, result.samples) for name, result in spectra.items()}
    first = None
    for column, (part, size) in enumerate(zip(parts, widths, strict=True)):
        axes = figure.add_subplot(grid[2, column], sharey=first)
        axes.bar(range(len(part)), [held[name] for name in part], 0.8, color=COUNTS, linewidth=0)
        axes.tick_params(labelleft=column == 0)
        _names(axes, part, size / len(part))
        first = first or axes
        if column == 0:
            axes.set_ylabel("Samples")
            axes.set_yscale("log")
            low, high = max(min(held.values()), 1), max(*held.values(), 1)
            axes.set_ylim(low / 2, high * 1.6)
            fixed_ticks(axes, log_ticks(low / 2, high * 1.6, 4))
    _heading(figure, title, _bar_legend(list(spectra.values())))
    every = list(spectra.values())
    _caption(
        figure,
        [
            *_errors(every),
            "A dot hides an interval smaller than itself.",
            "Dashed: the groups." * bool(classes and groups),
            basis(every),
        ],
    )
    return figure


def _intervals(axes: Axes, names: Sequence[str], measures: Sequence[Measure], slot: float) -> None:
    """Values with their intervals, one place a subset, ``slot`` inches wide."""
    points = slot * 72
    for x, (name, measure) in enumerate(zip(names, measures, strict=True)):
        color = SUBSETS.get(name, CYCLE[0])
        if not math.isfinite(measure.value):
            axes.plot(x, 0.04, "x", color=EDGE, markersize=min(5, 0.7 * points), transform=axes.get_xaxis_transform())
            continue
        low, high = measure.drawn
        if math.isfinite(low):
            axes.vlines(x, low, high, colors=color, alpha=PALE, linewidth=min(7.0, 0.7 * points), zorder=2)
        if math.isfinite(measure.low + measure.high):
            axes.vlines(x, measure.low, measure.high, colors=color, linewidth=min(1.3, 0.25 * points), zorder=3)
        axes.plot(
            x, measure.value, "o", color=color, markersize=min(5.0, 0.55 * points), zorder=4,
            markerfacecolor=color if measure.converged else "white", markeredgewidth=min(1.0, 0.15 * points),
        )  # fmt: skip
    axes.set_xlim(-0.7, len(names) - 0.3)
    axes.grid(True, axis="y")


def _names(axes: Axes, names: Sequence[str], slot: float) -> None:
    """Name the places below the lowest panel: upright where they fit, else turned, else every second, third …"""
    axes.set_xlim(-0.7, len(names) - 0.3)
    labels = [plain(name) for name in names]
    if max(size_of(label, 8.5)[0] for label in labels) < slot - 0.06:
        axes.set_xticks(range(len(names)), labels, fontsize=8.5)
        return
    size = min(8.5, max(5.5, slot * 72 / 1.2))
    step = math.ceil(size * 1.15 / (slot * 72) - 1e-9)
    labels = [_short(name, 1.1, size) for name in names]
    axes.set_xticks(range(0, len(names), step), labels[::step], fontsize=size, rotation=90)
    axes.tick_params(axis="x", length=2, pad=2)


def _bar_legend(every: Sequence[Spectrum]) -> list[Line2D | Patch]:
    ours = "95 % interval of the computation"
    handles: list[Line2D | Patch] = [Line2D([], [], color=EDGE, linewidth=1.3, marker="o", markersize=5, label=ours)]
    if any(result.data for result in every):
        handles.append(Line2D([], [], color=EDGE, linewidth=7, alpha=PALE, label="… from the draw of the samples"))
    if not all(result.converged for result in every):
        handles.append(
            Line2D([], [], linestyle="", marker="o", color=EDGE, markerfacecolor="white", label="λ not converged")
        )
    if not all(math.isfinite(result.lambda_max + result.trace.value) for result in every):
        handles.append(Line2D([], [], linestyle="", marker="x", color=EDGE, markersize=5, label="not finite"))
    return handles


# -- over the epochs -----------------------------------------------------------------------------------------


@in_paper_style
def curvature_curves(spectra: Mapping[str, Mapping[int, Spectrum]], *, title: str = "") -> Figure:
    """Draw the largest eigenvalue, the trace and, where densities exist, the negative mass over the epochs.

    Bands are 95 % intervals of the computation. Up to 16 subsets are told apart by a legend. Of more, the named groups
    (head, tail, all …) are drawn on top, and the single classes as thin lines without bands, coloured by their number
    of samples, or by their place in the order given if they have equally many.

    Args:
        spectra: subset → epoch → spectrum; a subset may lack epochs.
        title: written above.

    Raises:
        ValueError: there is no spectrum.
    """
    if not spectra or not all(spectra.values()):
        raise ValueError("at least one subset with one epoch each is needed, got none")
    every = [result for curve in spectra.values() for result in curve.values()]
    symbol = letter_of(every[0].operator)
    rows: list[tuple[str, Callable[[Spectrum], Measure]]] = [
        (r"$\lambda_{\max}$", largest),
        (rf"$\mathrm{{Tr}}({symbol})$", trace_of),
    ]
    if any(result.density is not None for result in every):
        rows.append(("Negative mass (%)", negative_mass))
    many = len(spectra) > MANY
    figure = Figure(figsize=(7.2, 2.15 * len(rows) + 1.1), layout="constrained")
    panels: list[Axes] = list(figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0])
    colours, scale = _colours(spectra)
    # Classes first, so that the groups lie on top; of each, the first is the uppermost.
    order = sorted(spectra, key=lambda name: name in SUBSETS)
    for axes, (label, measure) in zip(panels, rows, strict=True):
        found = {name: {epoch: measure(spectra[name][epoch]) for epoch in sorted(spectra[name])} for name in order}
        for name in order:
            thin = many and name not in SUBSETS
            _curve(axes, found[name], colours[name], thin, name in SUBSETS, _shows_data(name, spectra))
        axes.set_ylabel(label)
        axes.grid(True)
        flat = [item for curve in found.values() for item in curve.values()]
        if measure is negative_mass:
            tops = [item.high if math.isfinite(item.high) else item.value for item in flat]
            axes.set_ylim(0, 1.08 * (max((top for top in tops if math.isfinite(top)), default=0.0) or 1.0))
        else:
            value_axis(axes, flat)
    panels[-1].set_xlabel("Epoch")
    panels[-1].xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True, steps=[1, 2, 5, 10]))
    panels[-1].margins(x=0.03)
    epochs = {epoch for curve in spectra.values() for epoch in curve}
    if len(epochs) == 1:
        (epoch,) = epochs
        panels[-1].set_xticks([epoch])
        panels[-1].set_xlim(epoch - 1, epoch + 1)
    listed = [name for name in spectra if not many or name in SUBSETS]
    lines = [
        Line2D([], [], color=colours[name], linewidth=2.0 if name in SUBSETS else 1.3, label=_short(name, 1.4, 8.5))
        for name in listed
    ]
    if many:
        bar = figure.colorbar(scale, ax=panels, aspect=45, pad=0.02, label=_scale_label(scale))
        if isinstance(scale.norm, LogNorm):
            fixed_ticks(bar.ax, log_ticks(*scale.get_clim(), 9))
        _heading(figure, title, lines)
    else:
        figure.legend(handles=lines, loc="outside right center", frameon=False)
        _heading(figure, title, [])
    notes = ["Bands: 95 % intervals of the computation" + (", drawn for the groups alone." if many else ".")]
    if many:
        notes += _typical([spectra[name] for name in spectra if name not in SUBSETS])
    with_data = [name for name in order if any(result.data for result in spectra[name].values())]
    if any(_shows_data(name, spectra) for name in with_data):
        which = "" if all(_shows_data(name, spectra) for name in with_data) else " of the groups"
        notes.append(f"Dotted: 95 % intervals{which} from the draw of the samples.")
    if not all(result.converged for result in every):
        notes.append("Hollow: λ_max not converged.")
    if len(rows) > 2:
        notes.append("Negative mass: the share of Σ|λ| that negative eigenvalues have.")
    _caption(figure, [*notes, *_errors(every), basis(every)])
    return figure


def _typical(curves: Sequence[Mapping[int, Spectrum]]) -> list[str]:
    """How wide the intervals are that are not drawn."""
    words = []
    for noun, measure in (("λ_max", largest), ("trace", trace_of)):
        found = [measure(result) for curve in curves for result in curve.values()]
        widths = [abs((item.high - item.low) / item.value) / 2 for item in found if item.value]
        widths = [width for width in widths if math.isfinite(width)]
        if widths:
            words.append(f"± {number(100 * float(np.median(widths)), 2)} % ({noun})")
    return [f"Of single classes they are in the median {' and '.join(words)}."] if words else []


def _shows_data(name: str, spectra: Mapping[str, object]) -> bool:
    """Whether the interval from the draw of the samples is drawn: for many lines it would hide them."""
    return len(spectra) <= 4 or name in SUBSETS


def _colours(spectra: Mapping[str, Mapping[int, Spectrum]]) -> tuple[dict[str, str], ScalarMappable]:
    """A colour for each subset, and the scale that those of many classes are from."""
    classes = [name for name in spectra if name not in SUBSETS]
    counts = {name: spectra[name][max(spectra[name])].samples for name in classes}
    frequent, rare = max(counts.values(), default=1), max(min(counts.values(), default=1), 1)
    norm: Normalize
    if frequent > rare:
        # The frequent classes at the blue end, like head; the rare ones at the red end, like tail.
        norm, ramp = LogNorm(rare, frequent), _ramp().reversed()
        at: dict[str, float] = {name: max(count, 1) for name, count in counts.items()}
    else:
        norm, ramp = Normalize(0, max(len(classes) - 1, 1)), _ramp()
        at = {name: place for place, name in enumerate(classes)}
    scale = ScalarMappable(norm, ramp)
    if len(classes) <= 6:
        return dict(zip(spectra, colours_of(list(spectra)), strict=True)), scale
    return {name: SUBSETS.get(name) or to_hex(ramp(float(norm(at[name])))) for name in spectra}, scale


def _scale_label(scale: ScalarMappable) -> str:
    return "Samples of the class" if isinstance(scale.norm, LogNorm) else "Class, in the order given"


def _curve(axes: Axes, curve: Mapping[int, Measure], color: str, thin: bool, group: bool, with_data: bool) -> None:
    epochs = np.array(list(curve))
    value, low, high = (np.array([getattr(item, name) for item in curve.values()]) for name in ("value", "low", "high"))
    low, high = (np.where(np.isfinite(edge), edge, value) for edge in (low, high))
    if not thin:
        if len(epochs) > 1:
            axes.fill_between(epochs, low, high, color=color, alpha=0.2 if group else 0.1, linewidth=0, zorder=2)
        else:
            axes.vlines(epochs, low, high, colors=color, alpha=0.5, linewidth=4, zorder=2)
    if with_data and any(math.isfinite(item.data) for item in curve.values()):
        for edge in np.array([item.drawn for item in curve.values()]).T:
            marker = "_" if len(epochs) == 1 else ""
            axes.plot(epochs, edge, color=color, linestyle=(0, (1, 1.5)), linewidth=0.9, marker=marker, zorder=3)
    width = 0.6 if thin else 2.0 if group else 1.3
    marker = "o" if len(epochs) == 1 or (len(epochs) <= 12 and not thin) else ""
    size, above = 3.0 if thin else 3.6, 5 if group else 4
    (line,) = axes.plot(
        epochs, value, color=color, linewidth=width, alpha=0.85 if thin else 1.0, marker=marker, markersize=size,
        zorder=above,
    )  # fmt: skip
    if group:
        line.set_path_effects([Stroke(linewidth=width + 1.0, foreground="white"), Normal()])
    unsure = [k for k, item in enumerate(curve.values()) if not item.converged]
    axes.plot(
        epochs[unsure], value[unsure], "o", color=color, markerfacecolor="white", markersize=size,
        markeredgewidth=0.9, zorder=above + 0.1,
    )  # fmt: skip


# -- shared --------------------------------------------------------------------------------------------------


def _short(name: str, inches: float, size: float) -> str:
    """A name in one line, without its middle where it is too long: names of classes often differ at the end."""
    # One measurement brings a very long name near what fits; its parts differ in width by less than two.
    most = int(2 * len(name) * inches / max(size_of(plain(name), size)[0], inches / 2)) + 2
    for kept in range(min(len(name), most), 2, -1):
        text = name if kept == len(name) else f"{name[: (kept + 1) // 2]}…{name[len(name) - kept // 2 :]}"
        if size_of(plain(text), size)[0] <= inches:
            return plain(text)
    return plain(name[:2])


def _heading(figure: Figure, title: str, handles: Sequence[Line2D | Patch]) -> None:
    """The title and the legend below it, above all panels."""
    width = float(figure.get_figwidth())
    if not title and not handles:
        return
    needed = [size_of(str(handle.get_label()), 8.5)[0] + 0.55 for handle in handles]
    columns = max(1, min(len(handles), int(width / max(needed)))) if needed else 1
    legend = figure.legend(
        handles=list(handles), loc="outside upper center", ncols=len(handles) if sum(needed) < width else columns,
        frameon=False, title=wrapped(plain(title), width - 0.4, 10.5) if title else None, title_fontsize=10.5,
    )  # fmt: skip
    legend.get_title().set_multialignment("center")


def _caption(figure: Figure, sentences: Sequence[str]) -> None:
    caption(figure, [maths(sentence) for sentence in sentences])


def _errors(every: Sequence[Spectrum]) -> list[str]:
    """What the intervals are."""
    limits = [math.isfinite(result.lambda_max_upper) for result in every]
    above = "its 95 % upper limit" if all(limits) else "its 95 % upper limit where there is one" if any(limits) else ""
    words = [f"λ_max: from one residual below to {above};" if above else "λ_max: ± residual;"]
    words.append("trace: 95 % interval over the probes.")
    resamples = [result.data.resamples for result in every if result.data]
    if resamples:
        words.append(f"Draw of the samples: ± {NORMAL} bootstrap standard errors, {span(resamples)} resamples.")
    return words
