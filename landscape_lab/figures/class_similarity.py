"""Class against class: whose gradients agree, and whose work against each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from landscape_lab.analysis.gradients import GradientSimilarity
from landscape_lab.figures.arrays import Array, as_array
from landscape_lab.figures.gradient_similarity import SimilarityPanel
from landscape_lab.figures.style import in_paper_style
from landscape_lab.figures.text import caption, letter, plain, size_of, wrapped
from landscape_lab.numbers import MINUS

__all__ = ["class_similarity", "cosine_text"]

# Blue against orange is told apart with every common colour blindness; no agreement is white.
AGREEMENT = LinearSegmentedColormap.from_list(
    "landscape_agreement", ["#0b4a86", "#5b93c7", "#c3d7ea", "#ffffff", "#f6cfa5", "#dd8432", "#9c4300"]
)
ABSENT = "#d9d9d9"
WRITTEN = 12  # classes up to which each cell says its number


@in_paper_style
def class_similarity(
    panels: Sequence[SimilarityPanel], labels: Mapping[int, str] | None = None, *, columns: int = 3
) -> Figure:
    """Draw the mean cosine of every two classes' gradients, a square for each run and epoch, all of one scale.

    Args:
        panels: runs with results that hold pairs.
        labels: class number → name (default: ``class 0`` …).
        columns: squares side by side.

    Raises:
        ValueError: there is no result, or one has no pairs.
    """
    found = [
        (f"{panel.title}, epoch {epoch}" if len(panels) > 1 else f"Epoch {epoch}", result)
        for panel in panels
        for epoch, result in zip(panel.epochs, panel.similarities, strict=True)
    ]
    if not found:
        raise ValueError("at least one result is needed, got none")
    if any(result.between is None for _, result in found):
        raise ValueError("every result must hold pairs of classes: compute it with between=True")
    classes = len(found[0][1].classes)
    across = min(columns, len(found))
    down = -(-len(found) // across)
    size = min(max(2.0, 0.3 * classes + 0.9), 3.6)
    names = [[plain((labels or {}).get(c, f"class {c}")) for c in result.classes] for _, result in found]
    widest = max(size_of(name, 7.5)[0] for row in names for name in row)
    figure = Figure(
        figsize=((size + 0.35) * across + min(widest, 1.6) + 1.0, (size + 0.5) * down + 0.55 + min(widest, 1.6)),
        layout="constrained",
    )
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.flat[len(found) :]:
        axes.remove()
    image = None
    for k, (title, result) in enumerate(found):
        axes = grid.flat[k]
        image = _square(axes, result, names[k], left=k % across == 0, below=k + across >= len(found))
        prefix = f"{letter(k)} " if len(found) > 1 else ""
        axes.set_title(wrapped(prefix + plain(title), size, 10), linespacing=1.05)
    assert image is not None
    figure.colorbar(image, ax=list(grid.flat[: len(found)]), label="Cosine", shrink=0.85, aspect=24, pad=0.02)
    caption(figure, _notes([result for _, result in found]))
    return figure


def _square(axes: Axes, result: GradientSimilarity, names: Sequence[str], *, left: bool, below: bool) -> AxesImage:
    assert result.between is not None
    mean = as_array(result.between.mean)
    axes.set_facecolor(ABSENT)
    image = axes.imshow(np.ma.masked_invalid(mean), cmap=AGREEMENT, vmin=-1, vmax=1, interpolation="nearest")
    step = -(-len(names) // 25)
    at = list(range(0, len(names), step))
    shown = [wrapped(names[k], 1.6, 7.5).split("\n")[0] for k in at]
    axes.set_xticks(at, shown if below else [], rotation=90, fontsize=7.5)
    axes.set_yticks(at, shown if left else [], fontsize=7.5)
    axes.tick_params(length=0)
    if len(names) <= WRITTEN:
        _write(axes, mean)
    return image


def _write(axes: Axes, mean: Array) -> None:
    for (row, column), value in np.ndenumerate(mean):
        if row != column and np.isfinite(value):
            color = "white" if abs(value) > 0.6 else "#1a1a1a"
            axes.text(column, row, cosine_text(value), ha="center", va="center", fontsize=5.6, color=color)


def _notes(results: Sequence[GradientSimilarity]) -> list[str]:
    present = [result.between.present for result in results if result.between is not None]
    apart = [table[~np.eye(len(table), dtype=bool)] for table in (as_array(p) for p in present)]
    counts = np.concatenate(apart) if apart else np.zeros(1)
    few, many = int(counts.min() if counts.size else 0), int(counts.max(initial=0))
    batches = sorted({result.batches for result in results})
    of = " and ".join(f"{count:,}" for count in batches)
    words = [f"Mean over the batches that hold both classes: {few:,} to {many:,} of {of}."]
    if few == 0:
        words.append("Grey: no batch holds both.")
    return words


def cosine_text(value: float) -> str:
    """A cosine with two decimals; a dash where there is none.

    Example:
        >>> cosine_text(-0.104), cosine_text(-0.001), cosine_text(float("nan"))
        ('−0.10', '0.00', '–')
    """
    return "–" if math.isnan(value) else f"{round(value, 2) + 0.0:.2f}".replace("-", MINUS)
