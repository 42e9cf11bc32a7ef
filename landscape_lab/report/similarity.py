"""The similarity's tab: whether a batch's gradient serves its classes, and classes one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from landscape_lab.analysis import GradientSimilarity
from landscape_lab.figures import Table
from landscape_lab.numbers import with_error
from landscape_lab.report.parts import Chart, Control, Section, colour_of, escaped, line, packed
from landscape_lab.report.results import Results, Stored, class_title

__all__ = ["similarity"]


def similarity(found: Sequence[Results]) -> Section:
    """Cosines of class and batch gradients over the epochs, and between classes where these were measured."""
    known = [(results, results.of(GradientSimilarity)) for results in found]
    missing = [
        (f"No gradient similarity of {results.label}:", f"landscape-lab gradients {results.run.path.name}")
        for results, entries in known
        if not entries
    ]
    if len(missing) == len(found):
        return Section("similarity", "Similarity", missing=missing[:1])
    charts: list[Chart] = []
    for k, (results, entries) in enumerate(known):
        groups: dict[tuple[str, str], list[Stored[GradientSimilarity]]] = {}
        for stored in entries:
            key = (str(stored.settings.get("parameters", "")), str(stored.settings.get("split", "train")))
            groups.setdefault(key, []).append(stored)
        for (parameters, split), group in groups.items():
            charts.append(_over_epochs(results, str(k), parameters, split, group))
            pairs = [_pairs(results, str(k), stored) for stored in (group[0], group[-1])[2 - min(2, len(group)) :]]
            charts += [chart for chart in pairs if chart is not None]
    return Section(
        key="similarity",
        title="Similarity",
        lead=(
            "The cosine of a class’s gradient with that of its batch: near one, the step serves the class; near "
            "zero, the "
            "class is not served; below zero, the step works against it."
        ),
        controls=[Control("run", "Run", {str(k): results.label for k, (results, has) in enumerate(known) if has})],
        charts=charts,
        tables=[(_table(results, has), {"run": str(k)}) for k, (results, has) in enumerate(known) if has],
        missing=missing,
    )


def _over_epochs(
    results: Results, option: str, parameters: str, split: str, group: Sequence[Stored[GradientSimilarity]]
) -> Chart:
    counts = results.run.info["class_counts"]
    classes = sorted({c for stored in group for c in stored.result.classes}, key=lambda c: (-counts[c], c))
    traces = []
    for place, c in enumerate(classes):
        epochs, means, errors = [], [], []
        for stored in group:
            if c in stored.result.classes:
                k = stored.result.classes.index(c)
                epochs.append(float(stored.epoch or 0))
                means.append(float(stored.result.mean[k]))
                errors.append(float(stored.result.stderr[k]))
        name = f"{class_title(c, results.class_names)} ({counts[c]:,})"
        traces.append(line(name, epochs, means, colour=colour_of("", place), place=place, error=errors))
    batches = sorted({stored.result.batches for stored in group})
    return Chart(
        f"Class against batch, {parameters or 'parameters'}: {results.label}",
        traces,
        {"xaxis": {"title": {"text": "epoch"}}, "yaxis": {"title": {"text": "cosine"}, "zeroline": True}},
        f"Mean over the batches that hold the class ({', '.join(map(str, batches))} batches of {split} images, "
        "unaugmented, evaluation mode); bars: standard error over batches. In brackets: training images. How many "
        "batches "
        "held a class is in the table.",
        {"run": option},
        height=440,
        wide=True,
    )


def _pairs(results: Results, option: str, stored: Stored[GradientSimilarity]) -> Chart | None:
    between: Any = getattr(stored.result, "between", None)
    if between is None:
        return None
    names = [escaped(class_title(c, results.class_names)) for c in stored.result.classes]
    places = list(range(len(names)))
    ticks = {"tickvals": places, "ticktext": names} if len(names) <= 40 else {"showticklabels": False}
    heat = {
        "type": "heatmap", "x": places, "y": places, "z": packed(between.mean), "zmin": -1, "zmax": 1, "zmid": 0,
        # Blue to orange: told apart with every common colour blindness.
        "colorscale": [[0, "#0b67a8"], [0.5, "#f7f7f7"], [1, "#c2570c"]],
        "colorbar": {"thickness": 12, "outlinewidth": 0, "title": {"text": "cosine", "side": "right"}},
        "customdata": packed(between.present), "hoverongaps": False,
        "hovertemplate": "%{x} and %{y}: %{z:.3f}, %{customdata} batches<extra></extra>",
    }  # fmt: skip
    return Chart(
        f"Class against class, epoch {stored.epoch}: {results.label}",
        [heat],
        {
            "xaxis": {**ticks, "showgrid": False, "constrain": "domain"},
            "yaxis": {**ticks, "showgrid": False, "autorange": "reversed", "scaleanchor": "x", "constrain": "domain"},
        },
        "Cosine of the gradients of two classes, mean over the batches that hold both; gaps: no batch does.",
        {"run": option},
        height=480,
    )


def _table(results: Results, entries: Sequence[Stored[GradientSimilarity]]) -> Table:
    rows = [
        (
            str(stored.epoch),
            str(stored.settings.get("parameters", "")),
            class_title(c, results.class_names),
            with_error(float(stored.result.mean[k]), float(stored.result.stderr[k])),
            f"{float(stored.result.std[k]):.2f}",
            f"{int(stored.result.present[k])} of {stored.result.batches}",
        )
        for stored in entries
        for k, c in enumerate(stored.result.classes)
    ]
    return Table(
        f"Class against batch: {results.label}",
        ("epoch", "parameters", "class", "cosine ± s.e.", "std over batches", "batches with the class"),
        tuple(rows),
    )
