"""Fig. 2: feature quality of head and tail over the epochs, and the loss around the solution that they end in."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from landscape_lab.analysis.change_point import Onset
from landscape_lab.analysis.surface import Surface
from landscape_lab.figures.contour_row import Contours, contour_row
from landscape_lab.figures.loss_scale import Kind
from landscape_lab.figures.style import colours_of, in_paper_style, settle
from landscape_lab.figures.text import capital, caption, letter, plain, plural, size_of, wrapped

__all__ = ["QualityPanel", "feature_quality", "quality_curves"]

# What each form of Q is called on the y axis; a form that is not here is called by its own name.
FORMS = {"difference": "Quality $Q$ (Eq. 19)", "reciprocal": "Quality $Q$ (released-code form)"}
LINES: dict[str, Literal["-"] | tuple[int, tuple[float, ...]]] = {"curves": "-", "test_curves": (0, (4, 1.6))}


@dataclass(frozen=True, eq=False)
class QualityPanel:
    """One run: how the quality of its features develops, and the loss surface around its last epoch.

    Args:
        title: the run's name.
        epochs: (T,) epochs at which the quality was measured.
        curves: form of Q → subset (``"head"``, ``"tail"`` …) → (T,) mean quality over its classes; NaN leaves a gap.
        surface: filter-normalised losses around the last epoch, with the same subsets; ``None`` draws curves only.
        notes: subset → what to write below its contour plot: numbers, such as λ_max or the mean rise at a radius.
        classes: subset → how many classes it has, for the legend.
        samples: subset → how many images the features of ``curves`` come from, for the legend.
        features: which images those are, for the legend.
        test_curves: as ``curves``, from test images, drawn dashed.
        onsets: form of Q → subset → from when on its curve falls; an epoch is marked where the verdict is that it does.
    """

    title: str
    epochs: tuple[int, ...]
    curves: dict[str, dict[str, tuple[float, ...]]]
    surface: Surface | None = None
    notes: dict[str, str] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    samples: dict[str, int] = field(default_factory=dict)
    features: str = "training"
    test_curves: dict[str, dict[str, tuple[float, ...]]] = field(default_factory=dict)
    onsets: dict[str, dict[str, Onset]] = field(default_factory=dict)


@in_paper_style
def feature_quality(
    panels: Sequence[QualityPanel],
    *,
    forms: Sequence[str] | None = None,
    contours: Contours = "loss",
    scale: Kind = "auto",
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Draw quality curves over contour plots, one column for each run.

    All curves of one form share their y axis, all contour plots share axes and iso-lines: unlike in the paper's
    figure, a difference that is seen is a difference in the numbers.

    Args:
        panels: the runs, from left to right.
        forms: which forms of Q to draw, one row each (``None``: all that the first panel has).
        contours: ``"loss"``, or ``"rise"``: the loss less that at the centre.
        scale: of the iso-lines.
        limits: losses between which the iso-lines lie.

    Raises:
        ValueError: there is no panel, a form or a curve is missing, lengths differ, or surfaces have different grids.

    References:
        Chen et al., CVPR 2026 (GKP+GSA), Fig. 2.
    """
    return _draw(panels, forms, contours, scale, limits)


@in_paper_style
def quality_curves(panel: QualityPanel, *, forms: Sequence[str] | None = None) -> Figure:
    """Draw one run's quality curves: a single column of :func:`feature_quality`."""
    return _draw([panel], forms, "loss", "auto", None)


def _draw(
    panels: Sequence[QualityPanel],
    forms: Sequence[str] | None,
    contours: Contours,
    scale: Kind,
    limits: tuple[float, float] | None,
) -> Figure:
    if not panels:
        raise ValueError("at least one panel is needed, got none")
    forms = list(panels[0].curves) if forms is None else list(forms)
    subsets = _check(panels, forms)
    surfaces = [panel.surface for panel in panels if panel.surface is not None]
    names = list(surfaces[0].subsets) if surfaces else []
    # A column as wide as its contour plots; a gap after each column but the last.
    across = max(len(names), 1) if surfaces else 1
    curve_height, contour_height = 2.35, (2.15 if across > 1 else 3.2) + (0.9 if surfaces else 0.0)
    figure = Figure(
        figsize=(
            max(3.75 * len(panels), 5.0) if across < 3 else 1.9 * across * len(panels),
            curve_height * len(forms) + 0.75 + (contour_height if surfaces else 0.0),
        ),
        layout="constrained",
    )
    columns = len(panels) * (across + 1) - 1
    grid = figure.add_gridspec(
        len(forms) + bool(surfaces),
        columns,
        width_ratios=[0.07 if (k + 1) % (across + 1) == 0 else 1 for k in range(columns)],
        height_ratios=[curve_height] * len(forms) + ([2.0] if surfaces else []),
    )
    tops: list[Axes] = []
    for row, form in enumerate(forms):
        first: Axes | None = None
        for k, panel in enumerate(panels):
            left = k * (across + 1)
            axes = figure.add_subplot(grid[row, left : left + across], sharey=first, sharex=tops[0] if tops else None)
            first = first or axes
            tops.append(axes)
            _curves(axes, panel, form, subsets)
            if row == 0:
                prefix = f"{letter(k)} " if len(panels) > 1 else ""
                axes.set_title(wrapped(prefix + plain(panel.title), 3.2, 10.5), linespacing=1.05)
            if row == len(forms) - 1:
                axes.set_xlabel("Epoch")
            else:
                axes.tick_params(labelbottom=False)
            if k == 0:
                axes.set_ylabel(FORMS.get(form, f"Quality $Q$ ({plain(form)})"))
    handles = _legend(panels, subsets)
    widest = max(size_of(str(handle.get_label()), 8.5)[0] for handle in handles)
    ncols = 2 if 2 * (widest + 0.5) < figure.get_figwidth() else 1
    figure.legend(handles=handles, loc="outside upper center", ncols=ncols, frameon=False)
    notes = ["Quality: mean over the subset’s classes." + " One y axis for each row." * (len(panels) > 1)]
    if any(panel.onsets for panel in panels):
        notes.append(_onset_note(panels, forms))
    lowest = tops[-len(panels) :]
    if surfaces:
        spaces = [[grid[-1, k * (across + 1) + j] for j in range(across)] for k in range(len(panels))]
        rows = [(panel.surface, panel.notes) for panel in panels]
        lowest, words = contour_row(figure, rows, spaces, contours, scale, limits)
        notes += words
    caption(figure, notes)
    _separate(figure, tops[: len(panels)], lowest)
    return figure


def _check(panels: Sequence[QualityPanel], forms: Sequence[str]) -> list[str]:
    """The subsets, in order, after looking at every curve."""
    for panel in panels:
        for form in forms:
            if form not in panel.curves:
                raise ValueError(f"{panel.title!r} has no quality of the form {form!r}, got {', '.join(panel.curves)}")
            for name, curve in [*panel.curves[form].items(), *panel.test_curves.get(form, {}).items()]:
                if len(curve) != len(panel.epochs):
                    raise ValueError(
                        f"{panel.title!r}: {name!r} needs a value for each epoch, "
                        f"got {len(curve)} for {len(panel.epochs)}"
                    )
    surfaces = [panel.surface for panel in panels if panel.surface is not None]
    for surface in surfaces[1:]:
        if surface.x.tolist() != surfaces[0].x.tolist() or surface.y.tolist() != surfaces[0].y.tolist():
            raise ValueError("the surfaces must lie on the same grid to be compared, got different ones")
        if surface.subsets != surfaces[0].subsets:
            raise ValueError(f"the surfaces must have equal subsets, got {surfaces[0].subsets} and {surface.subsets}")
    return list(dict.fromkeys(name for panel in panels for form in forms for name in panel.curves[form]))


def _curves(axes: Axes, panel: QualityPanel, form: str, subsets: Sequence[str]) -> None:
    marker = "o" if len(panel.epochs) <= 12 else ""
    for name, color in zip(subsets, colours_of(subsets), strict=True):
        for chosen, line in LINES.items():
            curves = getattr(panel, chosen)
            if name in curves.get(form, {}):
                axes.plot(panel.epochs, curves[form][name], linestyle=line, marker=marker, markersize=3.5, color=color)
        onset = panel.onsets.get(form, {}).get(name)
        if onset is not None and onset.epoch is not None:
            axes.axvspan(onset.low, onset.high, color=color, alpha=0.14, linewidth=0)
            axes.axvline(onset.epoch, color=color, linewidth=1.0, linestyle=(0, (1, 1.5)))
    axes.grid(True)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True, steps=[1, 2, 5, 10]))
    axes.margins(x=0.04, y=0.08)


def _onset_note(panels: Sequence[QualityPanel], forms: Sequence[str]) -> str:
    found = [onset for panel in panels for form in forms for onset in panel.onsets.get(form, {}).values()]
    words = "No solid curve can be said to fall (change-point test at 5 %)."
    if any(onset.epoch is not None for onset in found):
        words = "Dotted: from when on a solid curve falls (change-point test at 5 %); shaded: the 95 % interval."
    return words.replace(" %", "\N{NO-BREAK SPACE}%")


def _legend(panels: Sequence[QualityPanel], subsets: Sequence[str]) -> list[Line2D]:
    """One entry a subset, for the training features and, where drawn, for the test features."""
    handles = []
    for chosen, line in LINES.items():
        drawn = [panel for panel in panels if getattr(panel, chosen)]
        for name, color in zip(subsets, colours_of(subsets), strict=True):
            if not drawn:
                continue
            # Counts may differ between runs on different data: then all of them are told.
            counts = list(dict.fromkeys(_counts(panel, name, chosen) for panel in drawn))
            label = f"{capital(plain(name))}: {' / '.join(counts)}"
            handles.append(Line2D([], [], linestyle=line, color=color, label=label))
    return handles


def _counts(panel: QualityPanel, name: str, chosen: str) -> str:
    words = [plural(panel.classes[name], "class", "classes")] if name in panel.classes else []
    if chosen == "test_curves":
        return ", ".join([*words, "test features"])
    images = f"{panel.samples[name]:,} " if name in panel.samples else ""
    return ", ".join([*words, f"{images}{panel.features} {'images' if images else 'features'}"])


def _separate(figure: Figure, upper: Sequence[Axes], lower: Sequence[Axes]) -> None:
    """Dashed lines between the columns, as in the paper."""
    settle(figure)
    boxes = [axes.get_tightbbox() for axes in (*upper, *lower)]
    edges = [box for box in boxes if box is not None]
    bottom, top = (value / figure.bbox.height for value in (min(b.y0 for b in edges), max(b.y1 for b in edges)))
    for left, right in itertools.pairwise(edges[: len(upper)]):
        middle = (left.x1 + right.x0) / 2 / figure.bbox.width
        figure.add_artist(
            Line2D([middle, middle], [bottom, top], color="#b5b5b5", linestyle=(0, (5, 4)), linewidth=1.2)
        )
