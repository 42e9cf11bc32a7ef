"""The quality's tab: how well the features separate the classes over training, and when that turns."""

from __future__ import annotations

from collections.abc import Sequence

from landscape_lab.report.parts import Chart, Control, Section, axes, colour_of, line, mean_over
from landscape_lab.report.results import Results, class_title

__all__ = ["quality"]

FORMS = {"difference": "Eq. 19", "reciprocal": "released code"}
DEFINITIONS = {
    "difference": "Q = Dis − ½ log Var (Eq. 19 of GKP+GSA)",
    "reciprocal": "Q = −1/Dis − log Var (the released code’s form)",
}
MOST = 12  # classes that a chart tells apart


def quality(found: Sequence[Results]) -> Section:
    """Feature quality of head, tail and single classes over the epochs, from the recorded metrics."""
    charts = []
    for k, results in enumerate(found):
        for form in FORMS:
            charts.append(_subsets(results, str(k), form))
            charts.append(_classes(results, str(k), form))
    return Section(
        key="quality",
        title="Quality",
        lead=(
            "Separation of a class from its nearest neighbour against its spread, on the encoder’s features: where the "
            "tail’s falls while the head’s rises, training forgets the tail. Values of different classes may be "
            "compared; "
            "values of different networks only where their features have the same scale."
        ),
        controls=[
            Control("run", "Run", {str(k): results.label for k, results in enumerate(found)}),
            Control("form", "Form", FORMS),
        ],
        charts=charts,
    )


def _subsets(results: Results, option: str, form: str) -> Chart:
    metrics = results.run.metrics()
    epochs = [record["epoch"] for record in metrics]
    traces = []
    for place, name in enumerate(("head", "tail")):
        for split, dash in (("train", "solid"), ("test", "dash")):
            values = [mean_over(record[split]["quality"][form], results.classes(name)) for record in metrics]
            traces.append(
                line(f"{name}, {split}", epochs, values, colour=colour_of(name), place=place, dash=dash, mode="lines")
            )
    return Chart(
        f"Head and tail: {results.label}",
        traces,
        axes("epoch", "Q"),
        f"{DEFINITIONS[form]}, mean over the subset’s classes; solid: features of the training images, dashed: of "
        "the test "
        "images.",
        {"run": option, "form": form},
        height=420,
    )


def _classes(results: Results, option: str, form: str) -> Chart:
    metrics = results.run.metrics()
    counts = results.run.info["class_counts"]
    epochs = [record["epoch"] for record in metrics]
    order = sorted(range(len(counts)), key=lambda c: (-counts[c], c))
    shown = order if len(order) <= MOST else [*order[: MOST // 2], *order[-MOST // 2 :]]
    traces = [
        line(
            f"{class_title(c, results.class_names)} ({counts[c]:,})",
            epochs,
            [record["train"]["quality"][form][c] for record in metrics],
            colour=colour_of("", place),
            place=place // 3,
            mode="lines",
        )
        for place, c in enumerate(shown)
    ]
    some = "" if len(shown) == len(order) else f" The {MOST // 2} most and the {MOST // 2} least frequent classes."
    return Chart(
        f"Each class, training images: {results.label}",
        traces,
        axes("epoch", "Q"),
        f"In brackets: training images.{some}",
        {"run": option, "form": form},
        height=420,
    )
