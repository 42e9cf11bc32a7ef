"""Groups of classes over the epochs, and what they agree with beside random groups of the same sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from landscape_lab.analysis.partitions import AgainstRandom
from landscape_lab.figures.style import CYCLE, in_paper_style
from landscape_lab.figures.text import caption, plain

__all__ = ["GroupsPanel", "groups"]

NAMED = 25  # more classes than that are not named one by one


@dataclass(frozen=True, eq=False)
class GroupsPanel:
    """One run's groups.

    Args:
        title: the run's name.
        grouped_at: ``E`` epochs at which groups were made.
        labels: ``(E, C)`` the group of each class; -1 for none.
        classes: ``C`` names.
        tests: question → the last groups' statistic beside chance.
        adjusted: question → p-value adjusted for their number.
    """

    title: str
    grouped_at: tuple[int, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    tests: Mapping[str, AgainstRandom]
    adjusted: Mapping[str, float]


@in_paper_style
def groups(panel: GroupsPanel) -> Figure:
    """Draw which group each class was in whenever groups were made, and how the last groups stand against chance.

    Groups of successive epochs that share the most classes have one colour and one letter. On the right each
    statistic is drawn between what random groups have on average (0) and what 2.5 % of them exceed (1).

    Raises:
        ValueError: there are no groups.
    """
    if not panel.grouped_at or panel.labels.shape != (len(panel.grouped_at), len(panel.classes)):
        raise ValueError(f"expected labels for each class at each epoch, got {panel.labels.shape}")
    labels = _followed(panel.labels)
    asked = {name: test for name, test in panel.tests.items() if np.isfinite(test.value)}
    height = 1.5 + max(0.2 * min(len(panel.classes), NAMED), 0.3 * len(asked), 1.6)
    figure = Figure(figsize=(9.2, height), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.0, 1.25])
    _memberships(left, panel, labels)
    _against_chance(right, asked, panel.adjusted)
    figure.suptitle(plain(panel.title))
    some = next(iter(asked.values()), None)
    how = "" if some is None else f"{some.partitions:,} groupings, {'all there are' if some.exact else 'at random'}"
    sizes = [int((labels[-1] == g).sum()) for g in sorted(set(labels[-1].tolist()) - {-1})]
    caption(
        figure,
        [
            f"{len(sizes)} groups at the end, of {', '.join(map(str, sizes))} classes.",
            f"Bars hold 95 % of random groups of the same sizes ({how})." if how else "",
            "p: Holm’s, over all questions; filled points: p ≤ 0.05.",
        ],
    )
    return figure


def _followed(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the groups so that those of one number share the most classes with it at the epoch before."""
    result = labels.copy()
    for row in range(1, len(labels)):
        numbers = sorted(set(labels[row].tolist()) - {-1})
        before = sorted(set(result[:row].ravel().tolist()) - {-1})
        shared = [[int(((result[row - 1] == old) & (labels[row] == g)).sum()) for old in before] for g in numbers]
        rows, columns = linear_sum_assignment(-np.array(shared))
        names = {numbers[r]: before[c] for r, c in zip(rows, columns, strict=True) if shared[r][c]}
        free = (n for n in range(len(labels[0]) + len(before)) if n not in names.values())
        names |= {g: next(free) for g in numbers if g not in names}
        result[row] = [names.get(int(g), -1) for g in labels[row]]
    return result


def _memberships(axes: Axes, panel: GroupsPanel, labels: NDArray[np.int64]) -> None:
    order = np.lexsort((np.arange(labels.shape[1]), labels[-1]))
    colours = np.array(
        [to_rgb(CYCLE[g % len(CYCLE)]) if g >= 0 else (1.0, 1.0, 1.0) for g in range(-1, labels.max() + 1)]
    )
    axes.imshow(colours[labels[:, order].T + 1], aspect="auto", interpolation="nearest")
    if len(order) <= NAMED:
        axes.set_yticks(range(len(order)), [plain(panel.classes[c]) for c in order])
        for row, c in enumerate(order):
            for column in range(len(labels)):
                if labels[column, c] >= 0:
                    name = chr(ord("A") + labels[column, c] % 26)
                    axes.text(column, row, name, ha="center", va="center", color="white", fontsize=7.5)
    else:
        axes.set_yticks([])
        axes.set_ylabel(f"{len(order)} classes, by their last group")
    step = -(-len(labels) // 12)
    axes.set_xticks(range(0, len(labels), step), [str(epoch) for epoch in panel.grouped_at[::step]])
    axes.set_xlabel("Groups made after epoch")
    axes.grid(False)
    axes.set_title("Group of each class")


def _against_chance(axes: Axes, tests: Mapping[str, AgainstRandom], adjusted: Mapping[str, float]) -> None:
    rows: Sequence[str] = list(tests)
    for row, name in enumerate(rows):
        test, p = tests[name], adjusted.get(name, float("nan"))
        unit = (test.high - test.expected) or 1.0
        low, value = (test.low - test.expected) / unit, (test.value - test.expected) / unit
        axes.barh(row, 1 - low, 0.5, low, color="#d9d9de", edgecolor="none")
        axes.plot(value, row, "o", color=CYCLE[1], markerfacecolor=CYCLE[1] if p <= 0.05 else "white", markersize=6)
        words = f"p = {p:.2g}" if p >= 0.001 else "p < 0.001"
        axes.text(1.02, row, words, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.axvline(0, color="#333333", linewidth=0.8)
    axes.use_sticky_edges = False  # else a bar that ends the axis looks cut
    axes.set_yticks(range(len(rows)), [plain(name) for name in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("0: mean of random groups; 1: exceeded by 2.5 % of them")
    axes.set_title("The last groups against chance")
