"""Fig. 6: how far the gradient of a class agrees with the gradient of the batch, as training goes on."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import offset_copy

from landscape_lab.analysis.gradients import GradientSimilarity
from landscape_lab.figures.arrays import Array, as_array
from landscape_lab.figures.style import BARS, CYCLE, in_paper_style
from landscape_lab.figures.text import caption, letter, plain, size_of, wrapped

__all__ = ["SimilarityPanel", "gradient_similarity"]

EDGE = "#1a1a1a"


@dataclass(frozen=True, eq=False)
class SimilarityPanel:
    """One run: its gradient similarities at several epochs.

    Args:
        title: the run's name.
        epochs: (T,) epochs.
        similarities: (T,) results, all for the same classes.
    """

    title: str
    epochs: tuple[int, ...]
    similarities: tuple[GradientSimilarity, ...]


@in_paper_style
def gradient_similarity(panels: Sequence[SimilarityPanel], labels: Mapping[int, str] | None = None) -> Figure:
    """Draw the mean cosine of each class's gradient with the batch's as grouped bars, one panel for each run.

    The error bars are standard errors over the batches that hold the class. A class that no batch holds has no
    bar but a cross. All panels share their y axis.

    Args:
        panels: the runs, from left to right.
        labels: class number → name in the legend (default: ``class 0`` …).

    Raises:
        ValueError: there is no panel or no epoch, or the classes differ between results.

    References:
        Chen et al., CVPR 2026 (GKP+GSA), Fig. 6.
    """
    classes = _check(panels)
    names = [plain((labels or {}).get(number, f"class {number}")) for number in classes]
    colors = [color for _, color in zip(classes, itertools.cycle((*BARS, *CYCLE)), strict=False)]
    figure = Figure(figsize=(max(3.65 * len(panels), 4.6), 3.5), layout="constrained")
    row: list[Axes] = list(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0])
    missing = False
    for k, (axes, panel) in enumerate(zip(row, panels, strict=True)):
        missing |= _bars(figure, axes, panel, colors)
        prefix = f"{letter(k)} " if len(panels) > 1 else ""
        axes.set_title(wrapped(prefix + plain(panel.title), 3.1, 10.5), linespacing=1.05)
        axes.set_xlabel("Epoch")
        axes.tick_params(labelleft=True)
    row[0].set_ylabel("Cosine with the batch’s gradient")
    _limits(row[0], panels)
    handles: list[Patch | Line2D] = [
        Patch(facecolor=color, edgecolor=EDGE, linewidth=0.8, label=name)
        for name, color in zip(names, colors, strict=True)
    ]
    if missing:
        handles.append(Line2D([], [], linestyle="", marker="x", color=EDGE, markersize=5, label="in no batch"))
    widest = max(size_of(str(handle.get_label()), 8.5)[0] for handle in handles) + 0.42
    rows = -(-len(handles) // max(1, int(figure.get_figwidth() / widest)))
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=-(-len(handles) // rows),
        frameon=False,
        handlelength=1.3,
        columnspacing=1.2,
    )
    caption(figure, _notes(panels, names))
    return figure


def _check(panels: Sequence[SimilarityPanel]) -> tuple[int, ...]:
    if not panels:
        raise ValueError("at least one panel is needed, got none")
    for panel in panels:
        if not panel.epochs or len(panel.epochs) != len(panel.similarities):
            raise ValueError(
                f"{panel.title!r} needs one result for each epoch and at least one, "
                f"got {len(panel.similarities)} for {len(panel.epochs)}"
            )
    sets = list(dict.fromkeys(tuple(result.classes) for panel in panels for result in panel.similarities))
    if len(sets) != 1:
        raise ValueError(f"all results must be for the same classes, got {' and '.join(map(str, sets))}")
    return sets[0]


def _bars(figure: Figure, axes: Axes, panel: SimilarityPanel, colors: Sequence[str]) -> bool:
    """Draw one panel; returns whether a bar is missing."""
    mean, stderr, at = _table(panel, "mean"), _table(panel, "stderr"), np.arange(len(panel.epochs))
    width = 0.76 / len(colors)
    gone = False
    for j, color in enumerate(colors):
        x = at + (j - (len(colors) - 1) / 2) * width
        there = np.isfinite(mean[:, j])
        axes.bar(
            x[there], mean[there, j], width, yerr=stderr[there, j], color=color, edgecolor=EDGE, linewidth=0.8,
            error_kw={"elinewidth": 0.9, "capsize": min(2.2, 14 * width), "capthick": 0.9, "ecolor": EDGE},
        )  # fmt: skip
        if not there.all():
            gone = True
            above = offset_copy(axes.transData, figure, y=5, units="points")
            axes.plot(x[~there], np.zeros((~there).sum()), "x", color=EDGE, markersize=5, transform=above)
    axes.set_xticks(at, [str(epoch) for epoch in panel.epochs])
    axes.set_xlim(-0.62, len(at) - 0.38)
    axes.grid(True)
    return gone


def _table(panel: SimilarityPanel, name: str) -> Array:
    return np.stack([as_array(getattr(result, name)) for result in panel.similarities])


def _limits(axes: Axes, panels: Sequence[SimilarityPanel]) -> None:
    """From zero, or below it if a bar is, to just above the highest error bar."""
    mean = np.concatenate([_table(panel, "mean").ravel() for panel in panels])
    error = np.nan_to_num(np.concatenate([_table(panel, "stderr").ravel() for panel in panels]))
    there = np.isfinite(mean)
    top = float((mean + error)[there].max(initial=0.0))
    bottom = float((mean - error)[there].min(initial=0.0))
    spread = (top - bottom) or 1.0
    axes.set_ylim(bottom - 0.06 * spread if bottom < 0 else 0.0, top + 0.06 * spread)
    if bottom < 0:
        for panel in axes.get_shared_y_axes().get_siblings(axes):
            panel.axhline(0, color=EDGE, linewidth=0.8)


def _notes(panels: Sequence[SimilarityPanel], names: Sequence[str]) -> list[str]:
    """What the bars are, and how many batches each class was in."""
    present = np.concatenate([_table(panel, "present") for panel in panels]).astype(int)
    batches = sorted({result.batches for panel in panels for result in panel.similarities})
    of = f"{batches[0]:,}" if len(batches) == 1 else f"{batches[0]:,}–{batches[-1]:,}"

    def count(column: int) -> str:
        low, high = int(present[:, column].min()), int(present[:, column].max())
        return f"{low:,}" if low == high else f"{low:,}–{high:,}"

    # No line break between a class and its count.
    words = ", ".join(f"{name}: {count(j)}".replace(" ", "\N{NO-BREAK SPACE}") for j, name in enumerate(names))
    return [
        "Bars: mean over the batches that hold the class, ± its standard error.",
        f"Batches with the class, of {of} – {words}.",
    ]
