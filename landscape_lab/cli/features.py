"""``features``: how well a run's features separate the classes."""

from __future__ import annotations

import click

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
)
from landscape_lab.numbers import number

__all__ = ["features"]


@cli.command(cls=Command, example="landscape-lab features runs/digits-lt-gkp-gsa-seed0 --split test")
@click.argument("run")
@epoch_option
@split_option
@data_root_option
@device_option
@json_option
def features(run: str, epoch: int | None, split: str, data_root: str | None, device: str, as_json: bool) -> None:
    """Feature quality of every class.

    Separation from the nearest class, variance, and Q in both forms.
    """
    from landscape_lab.figures import quality_curves, save
    from landscape_lab.paper_figures import quality_panel
    from landscape_lab.studies import features as studies

    study = open_study(run, device, data_root)
    epoch = study.epoch(epoch)
    found = studies.features(study, epoch, split=split)
    ours, released = found["difference"], found["reciprocal"]
    picture = save(
        quality_curves(quality_panel(study.run, study.run.path.name)),
        study.run.path / "figures" / "feature-quality",
    )
    names = study.dataset.class_names
    columns = [ours.counts, ours.separation, ours.variance, ours.quality, released.quality]
    values = [column.tolist() for column in columns]
    keys = ["samples", "separation", "variance", "quality", "quality_reciprocal"]
    rows = [[class_label(c, name), *(number(float(column[c])) for column in values)] for c, name in enumerate(names)]
    content = {
        "epoch": epoch,
        "split": split,
        "classes": [
            {"class": c, "name": name, **{key: values[k][c] for k, key in enumerate(keys)}}
            for c, name in enumerate(names)
        ],
    }
    show(
        as_json,
        content,
        f"{study.run.path}: features at epoch {epoch}, {split} images",
        ["class", "samples", "Dis", "Var", "Q = Dis - 0.5 log Var", "Q = -1/Dis - log Var"],
        rows,
        pictures=picture,
    )
