"""The quality's tab: how well the features separate the classes over training, and when that turns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from landscape_lab.analysis.change_point import Onset
from landscape_lab.analysis.neural_collapse import NeuralCollapse
from landscape_lab.diagnosis.decline import Judged, judged, said
from landscape_lab.figures import Table
from landscape_lab.numbers import number
from landscape_lab.report.parts import Chart, Control, Section, axes, colour_of, line, mean_over
from landscape_lab.report.results import Results, Stored, class_title
from landscape_lab.studies.features import onsets, quality_history

__all__ = ["quality"]

FORMS = {"difference": "Eq. 19", "reciprocal": "released code"}
DEFINITIONS = {
    "difference": "Q = Dis − ½ log Var (Eq. 19 of GKP+GSA)",
    "reciprocal": "Q = −1/Dis − log Var (the released code’s form)",
}
LEAD = (
    "Separation of a class from its nearest neighbour against its spread, on the encoder’s features: where the tail’s "
    "falls while the head’s rises, training forgets the tail. Values of different classes may be compared; values of "
    "different networks only where their features have the same scale.\n\n"
    "Whether a curve falls in the end is tested, and not left to the eye: a curve that never falls is rejected in "
    "at most 5 % of cases. Each test is by itself; of twenty on curves that do not fall one would say yes."
)
COLLAPSE_NOTE = (
    "All are 0 at complete collapse (Papyan, Han and Donoho 2020). NC1: spread within classes over that between them; "
    "NC2: how unequal the lengths of the class means are, and how far their cosines are from those of a simplex; NC3: "
    "squared distance of the classifier’s weights from the class means. Each class counts the same, also those that a "
    "run was not trained on."
)
MARKS = ("triangle-down", "diamond")
MOST = 12  # classes that a chart tells apart


COLLAPSE = {"nc1": "NC1 spread", "nc2_norms": "NC2 lengths", "nc2_angles": "NC2 angles", "nc3": "NC3 classifier"}


def quality(found: Sequence[Results]) -> Section:
    """Feature quality of head, tail and single classes over the epochs, whether it falls, and neural collapse."""
    charts: list[Chart] = []
    findings: list[dict[str, Any]] = []
    missing: list[tuple[str, str]] = []
    absent: list[tuple[str, str]] = []
    known = [(str(k), results) for k, results in enumerate(found)]
    recorded = [(option, results) for option, results in known if any(_has_quality(results, form) for form in FORMS)]
    for option, results in recorded:
        for form in FORMS:
            if not _has_quality(results, form):
                continue
            tests = _tests(results, form)
            findings += [_finding(name, one, results, option, form) for name, one in tests.items()]
            charts.append(_subsets(results, option, form, tests))
            charts.append(_classes(results, option, form))
    measured = [(option, results, results.of(NeuralCollapse, "collapse")) for option, results in known]
    for option, results, stored in measured:
        if (option, results) not in recorded:
            missing.append((f"{results.label} has recorded no feature quality of its training images.", ""))
        if not stored:
            command = f"landscape-lab features {results.run.path.name}"
            absent.append((f"No neural collapse of {results.label}:", command))
    # Where there is none at all, one line says how it is made.
    missing += absent if len(absent) < len(found) or len(found) == 1 else [("No neural collapse:", absent[0][1])]
    return Section(
        key="quality",
        title="Quality",
        lead=LEAD,
        findings=findings,
        controls=[
            Control("run", "Run", {option: results.label for option, results in recorded}),
            Control("form", "Form", FORMS),
        ],
        charts=charts,
        tables=_collapse(measured),
        missing=missing,
    )


def _has_quality(results: Results, form: str) -> bool:
    return any(form in record.get("train", {}).get("quality", {}) for record in results.run.metrics())


def _curves(results: Results, form: str, split: str) -> tuple[list[int], list[Sequence[float | None]]]:
    """The epochs at which the quality was recorded, and that of all classes there."""
    known = [
        (int(record["epoch"]), record[split]["quality"][form])
        for record in results.run.metrics()
        if form in record.get(split, {}).get("quality", {})
    ]
    return [epoch for epoch, _ in known], [values for _, values in known]


def _tests(results: Results, form: str) -> dict[str, Judged]:
    """Whether the quality of the training images of head and tail falls in the end."""
    subsets = {name: results.classes(name) for name in ("head", "tail") if results.classes(name)}
    history = quality_history(results.run, "train", "difference" if form == "difference" else "reciprocal")
    return {name: judged(onset) for name, onset in onsets(history, subsets).items() if onset.points}


def _finding(name: str, one: Judged, results: Results, option: str, form: str) -> dict[str, Any]:
    epochs, _ = _curves(results, form, "train")
    return {
        "subject": f"Does the quality of the {name}’s features fall in the end?",
        "verdict": one.verdict,
        "sentence": said("feature quality Q (training images)", name, one, number, epochs),
        "caution": "",
        "facets": {"run": option, "form": form},
    }


def _subsets(results: Results, option: str, form: str, tests: Mapping[str, Judged]) -> Chart:
    traces, shapes = [], []
    for place, name in enumerate(("head", "tail")):
        for split, dash in (("train", "solid"), ("test", "dash")):
            epochs, rows = _curves(results, form, split)
            values = [mean_over(row, results.classes(name)) for row in rows]
            if all(map(math.isnan, values)):  # trained without the head, or on classes without test images
                continue
            traces.append(
                line(f"{name}, {split}", epochs, values, colour=colour_of(name), place=place, dash=dash, mode="lines")
            )
            if split == "train" and name in tests and tests[name].verdict == "yes":
                mark, band = _mark(name, tests[name].found, epochs, values, place)
                traces.append(mark)
                shapes.append(band)
    marked = (
        " Marked: the last epoch before the fall; the bar and the shaded band are its 95 % interval." if shapes else ""
    )
    return Chart(
        f"Head and tail: {results.label}",
        traces,
        {**axes("epoch", "Q"), "shapes": shapes},
        f"{DEFINITIONS[form]}, mean over the subset’s classes; solid: features of the training images, dashed: of "
        f"the test images.{marked}",
        {"run": option, "form": form},
        height=420,
    )


def _mark(
    name: str, onset: Onset, epochs: Sequence[int], values: Sequence[float], place: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A marker on the curve where the fall begins, and the band of its interval."""
    at = float(onset.epoch or 0)
    nearest = min(range(len(epochs)), key=lambda k: abs(epochs[k] - at))
    colour = colour_of(name)
    mark = line(
        f"{name} falls from epoch {number(at)} ({number(onset.low)} to {number(onset.high)})",
        [at],
        [values[nearest]],
        colour=colour,
        mode="markers",
        marker={"color": colour, "symbol": MARKS[place], "size": 13, "line": {"color": "@card", "width": 1.5}},
        error_x={
            "type": "data", "symmetric": False, "array": [onset.high - at], "arrayminus": [at - onset.low],
            "thickness": 2, "width": 6, "color": colour,
        },
    )  # fmt: skip
    band = {
        "type": "rect", "xref": "x", "yref": "paper", "x0": onset.low, "x1": onset.high, "y0": 0, "y1": 1,
        "fillcolor": f"{colour}/0.13", "line": {"width": 0}, "layer": "below",
    }  # fmt: skip
    return mark, band


def _classes(results: Results, option: str, form: str) -> Chart:
    counts = results.run.info["class_counts"]
    epochs, rows = _curves(results, form, "train")
    known = [c for c in range(len(counts)) if any(row[c] is not None for row in rows)]
    order = sorted(known, key=lambda c: (-counts[c], c))
    shown = order if len(order) <= MOST else [*order[: MOST // 2], *order[-MOST // 2 :]]
    traces = [
        line(
            f"{class_title(c, results.class_names)} ({counts[c]:,})",
            epochs,
            [row[c] for row in rows],
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


def _collapse(
    measured: Sequence[tuple[str, Results, Sequence[Stored[NeuralCollapse]]]],
) -> list[tuple[Table, dict[str, str]]]:
    """All runs at their last epoch, training images; and each over its epochs, where there are several."""
    last, result = [], list[tuple[Table, dict[str, str]]]()
    for option, results, stored in measured:
        rows = [(entry, [number(getattr(entry.result, key)) for key in COLLAPSE]) for entry in stored]
        trained = [(entry, cells) for entry, cells in rows if entry.settings.get("split") == "train"]
        if trained:
            entry, cells = trained[-1]
            last.append((results.label, str(entry.epoch), *cells))
        if len(rows) > 1:
            table = Table(
                f"Neural collapse over training: {results.label}",
                ("epoch", "images", *COLLAPSE.values()),
                tuple((str(entry.epoch), str(entry.settings.get("split")), *cells) for entry, cells in rows),
            )
            result.append((table, {"run": option}))
    if last:
        header = ("run", "epoch", *COLLAPSE.values())
        result.insert(
            0, (Table("Neural collapse of each run, training images", header, tuple(last), COLLAPSE_NOTE), {})
        )
    return result
