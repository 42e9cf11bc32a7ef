"""The groups' tab: which classes were trained as one, and whether that has to do with the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from landscape_lab.figures import Table
from landscape_lab.figures.text import capital
from landscape_lab.numbers import number
from landscape_lab.report.parts import Chart, Control, Section, escaped
from landscape_lab.report.results import Results, class_title
from landscape_lab.studies.groups import GroupingExamination

__all__ = ["groups"]

# Light to dark beside the hues, so that groups differ without colour too.
COLOURS = ("#56b4e9", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#0072b2", "#d55e00", "#999999")


def groups(found: Sequence[Results]) -> Section:
    """The groups of each run over the epochs, and stored examinations of them."""
    charts, tables = [], list[tuple[Table, Mapping[str, str]]]()
    options: dict[str, str] = {}
    missing = []
    for k, results in enumerate(found):
        if not results.run.info["groups"]:
            continue
        options[str(k)] = results.label
        charts.append(_chart(results, str(k)))
        stored = results.of(GroupingExamination)
        if stored:
            tables.append((_table(stored[-1].result), {"run": str(k)}))
        else:
            missing.append(
                (f"The groups of {results.label} are not examined:", f"landscape-lab groups {results.run.path.name}")
            )
    if not options:
        missing.append(("None of these runs was trained in groups of classes.", ""))
    return Section(
        key="groups",
        title="Groups",
        lead=(
            "Classes that were trained as one group, over the epochs. Groups are numbered in the order in which "
            "they were "
            "made, so that a group’s number may change while its members stay."
            if options
            else ""
        ),
        controls=[Control("run", "Run", options)],
        charts=charts,
        tables=tables,
        missing=missing,
    )


def _chart(results: Results, option: str) -> Chart:
    counts = results.run.info["class_counts"]
    order = sorted(range(len(counts)), key=lambda c: (-counts[c], c))
    by_epoch = {int(epoch): members for epoch, members in results.run.info["groups"].items()}
    epochs = sorted(by_epoch)
    group_of = {epoch: {c: g for g, members in enumerate(by_epoch[epoch]) for c in members} for epoch in epochs}
    most = max((len(members) for members in by_epoch.values()), default=1)
    values = [[group_of[e].get(c) for e in epochs] for c in order]
    scale = []
    for g in range(most):
        colour = COLOURS[g % len(COLOURS)]
        scale += [[g / most, colour], [(g + 1) / most, colour]]
    few = len(order) <= 40
    heat: dict[str, Any] = {
        "type": "heatmap", "x": [str(epoch) for epoch in epochs],
        "y": [escaped(f"{class_title(c, results.class_names)} ({counts[c]:,})") for c in order],
        "z": values,
        "zmin": -0.5, "zmax": most - 0.5, "colorscale": scale, "xgap": 2, "ygap": 1, "showscale": False,
        "hovertemplate": "epoch %{x}, %{y}: group %{z}<extra></extra>",
    }  # fmt: skip
    if few:
        heat |= {"text": [["" if v is None else str(v) for v in row] for row in values], "texttemplate": "%{text}",
                 "textfont": {"color": "#111111"}}  # fmt: skip
    return Chart(
        f"Groups over training: {results.label}",
        [heat],
        {
            "xaxis": {"title": {"text": "epoch at which groups were made"}, "type": "category", "showgrid": False},
            "yaxis": {"autorange": "reversed", "type": "category", "showgrid": False},
        },
        "The number and the colour of a cell are the class’s group. Classes from the most to the least frequent.",
        {"run": option},
        height=max(320, min(1400, 24 * len(order) + 110)),
        wide=True,
    )


def _table(found: GroupingExamination) -> Table:
    rows = []
    for name, test in found.tests().items():
        adjusted = found.adjusted.get(name)
        rows.append(
            (
                capital(name),
                number(test.value, 2),
                f"{number(round(test.expected, 6) + 0.0, 2)} [{number(test.low, 2)}, {number(test.high, 2)}]",
                f"{test.p_value:.2g}",
                "–" if adjusted is None else f"{adjusted:.2g}",
            )
        )
    absent = " ".join(f"{capital(name)}: {why}." for name, why in found.missing.items())
    return Table(
        f"What the groups at epoch {found.epoch} have to do with the data",
        ("what was asked", "value", "random groups of equal sizes", "p", "p, all questions (Holm)"),
        tuple(rows),
        f"Random groups: mean and the middle 95 %. {absent}",
    )
