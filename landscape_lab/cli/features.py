"""``features``: how well a run's features separate the classes, and from when on they do worse."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from landscape_lab import console
from landscape_lab.cli.group import cli
from landscape_lab.cli.options import (
    Command,
    class_label,
    data_root_option,
    device_option,
    epoch_option,
    json_option,
    open_study,
    show,
    split_option,
    target_option,
)
from landscape_lab.errors import InputError
from landscape_lab.numbers import number

if TYPE_CHECKING:
    from landscape_lab.analysis import NeuralCollapse, Onset
    from landscape_lab.figures import QualityPanel
    from landscape_lab.studies import Study

__all__ = ["features"]

EXAMPLE = """
landscape-lab features runs/digits-lt-gkp-gsa-seed0 --split test

landscape-lab features runs/digits-lt-gkp-gsa-seed0 --history
"""

COLLAPSE = {
    "nc1": "NC1 spread",
    "nc2_norms": "NC2 lengths",
    "nc2_angles": "NC2 angles",
    "nc3": "NC3 classifier",
}


@cli.command(cls=Command, example=EXAMPLE)
@click.argument("run")
@epoch_option
@split_option
@click.option("--history", is_flag=True, help="Over all epochs: does the quality fall in the end, and from when on?")
@data_root_option
@target_option
@device_option
@json_option
def features(
    run: str, epoch: int | None, split: str, history: bool, data_root: str | None, device: str, as_json: bool
) -> None:
    """Feature quality of every class.

    Separation from the nearest class, variance, and Q in both forms; neural collapse beside it. With --history, a
    change-point test on the quality of head, tail and every class.
    """
    study = open_study(run, device, data_root)
    if history:
        if epoch is not None:
            raise InputError("--history looks at all epochs: leave --epoch out")
        _over_epochs(study, split, as_json)
    else:
        _at_epoch(study, epoch, split, as_json)


def _at_epoch(study: Study, epoch: int | None, split: str, as_json: bool) -> None:
    from landscape_lab.figures import quality_curves, save
    from landscape_lab.studies import features as studies
    from landscape_lab.studies import spread

    epoch = study.epoch(epoch)
    found = studies.features(study, epoch, split=split)
    collapsed = studies.collapse(study, epoch, split=split)
    ours, released = found["difference"], found["reciprocal"]
    picture = save(
        quality_curves(_panel(study, spread(study.run.checkpoints(), 5))),
        study.run.path / "figures" / "feature-quality",
    )
    names = study.class_names
    columns = {
        "samples": ours.counts,
        "separation": ours.separation,
        "variance": ours.variance,
        "quality": ours.quality,
        "quality_reciprocal": released.quality,
        "within": collapsed.within,
        "alignment": collapsed.alignment,
    }
    values = {key: column.tolist() for key, column in columns.items()}
    content: dict[str, Any] = {
        "epoch": epoch,
        "split": split,
        "neural_collapse": _collapse(collapsed),
        "classes": [
            {"class": c, "name": name, **{key: column[c] for key, column in values.items()}}
            for c, name in enumerate(names)
        ],
    }
    rows = [
        [class_label(c, name), *(_text(float(column[c])) for column in values.values())] for c, name in enumerate(names)
    ]
    measures = ", ".join(f"{words} {number(content['neural_collapse'][key])}" for key, words in COLLAPSE.items())
    show(
        as_json,
        content,
        f"{study.run.path}: features at epoch {epoch}, {split} samples",
        ["class", "samples", "Dis", "Var", "Q = Dis - 0.5 log Var", "Q = -1/Dis - log Var", "within", "cos(w, m)"],
        rows,
        caption=f"neural collapse, 0 when complete: {measures}; by class: spread within over between, and the cosine "
        "of the classifier's weights with the class mean",
        pictures=picture,
    )


def _over_epochs(study: Study, split: str, as_json: bool) -> None:
    from landscape_lab.analysis.multiplicity import holm
    from landscape_lab.figures import quality_curves, save
    from landscape_lab.studies import features as studies
    from landscape_lab.studies import spread

    run = study.run
    recorded = {line["epoch"] for line in run.metrics() if line.get(split, {}).get("quality")}
    checkpoints = spread(run.checkpoints(), 5)
    missing = [epoch for epoch in run.checkpoints() if epoch not in recorded]
    names, subsets = study.class_names, {name: study.classes(name) for name in ("head", "tail")}
    chosen = {**subsets, **{class_label(c, name): (c,) for c, name in enumerate(names)}}
    with console.progress_bar("epochs", len(missing) + len(checkpoints)) as advance:
        histories = {form: studies.quality_history(study, split, form, progress=advance) for form in studies.FORMS}
        collapsed = {}
        for epoch in checkpoints:
            collapsed[epoch] = studies.collapse(study, epoch, split=split)
            advance(1)
    found: dict[str, dict[str, Onset]] = {form: studies.onsets(history, chosen) for form, history in histories.items()}
    panel = _panel(study, None)
    if split == "train":
        marks: dict[str, dict[str, Onset]] = {
            form: {name: onsets[name] for name in subsets} for form, onsets in found.items()
        }
        panel = replace(panel, onsets=marks)
    picture = save(quality_curves(panel), run.path / "figures" / f"feature-quality-history-{split}")
    ours = found["difference"]
    last = {name: float(histories["difference"].quality[-1, list(c)].nanmean()) for name, c in chosen.items()}
    alone = holm({name: onset.p_value for name, onset in ours.items() if name not in subsets})
    content = {
        "split": split,
        "epochs": list(histories["difference"].epochs),
        "quality": {
            form: {str(c): history.quality[:, c].tolist() for c in range(len(names))}
            for form, history in histories.items()
        },
        "onsets": {form: {name: asdict(onset) for name, onset in onsets.items()} for form, onsets in found.items()},
        "adjusted_p": alone,
        "neural_collapse": {str(epoch): _collapse(one) for epoch, one in collapsed.items()},
    }
    show(
        as_json,
        content,
        f"{run.path}: does Q = Dis - 0.5 log Var of the {split} features fall in the end?",
        ["classes", "Q at the end", "verdict", "from epoch (95 %)", "falls by (95 %)", "p", "p, all classes"],
        _rows(ours, last, alone),
        caption=f"Each class by itself is tested at 5 %: of {len(names)} classes that do not fall, about "
        f"{number(0.05 * len(names), 2)} would be said to; the last column corrects for that (Holm).",
        pictures=picture,
    )
    if not as_json:
        console.table(
            f"Neural collapse over the run, {split} features; 0 when complete",
            ["epoch", *COLLAPSE.values()],
            [[str(epoch), *(number(getattr(one, key)) for key in COLLAPSE)] for epoch, one in collapsed.items()],
        )


def _panel(study: Study, epochs: Sequence[int] | None) -> QualityPanel:
    """From what training recorded, or else computed at ``epochs``, or at all checkpoints."""
    from landscape_lab.paper_figures import quality_panel

    name = study.run.path.name
    try:
        return quality_panel(study.run, name)
    except InputError:
        return quality_panel(study, name, epochs=epochs)


def _rows(onsets: Mapping[str, Onset], last: Mapping[str, float], alone: Mapping[str, float]) -> Sequence[list[str]]:
    rows = []
    for name, onset in onsets.items():
        when = size = "–"
        if onset.epoch is not None:
            when = f"{number(onset.epoch)} ({number(onset.low)} to {number(onset.high)})"
        if not math.isnan(onset.decline):
            size = f"{number(onset.decline, 2)} ({number(onset.decline_low, 2)} to {number(onset.decline_high, 2)})"
        together = _text(alone[name], 2) if name in alone else ""
        rows.append([name, _text(last[name]), onset.verdict, when, size, _text(onset.p_value, 2), together])
    return rows


def _text(value: float, digits: int = 3) -> str:
    return "–" if math.isnan(value) else number(value, digits)


def _collapse(found: NeuralCollapse) -> dict[str, Any]:
    return {key: getattr(found, key) for key in COLLAPSE}
