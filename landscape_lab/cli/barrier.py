"""``barrier``: the loss on the straight line between two solutions."""

from __future__ import annotations

from typing import Any

import click

from landscape_lab import console
from landscape_lab.cli.group import cli
from landscape_lab.cli.options import (
    Command,
    class_label,
    classes_option,
    data_root_option,
    device_option,
    json_option,
    open_study,
    show,
    split_option,
    target_option,
)
from landscape_lab.errors import InputError
from landscape_lab.numbers import number, with_error

__all__ = ["barrier"]


@cli.command(cls=Command, example="landscape-lab barrier runs/digits-lt-erm-seed0 runs/digits-lt-erm-seed1")
@click.argument("run")
@click.argument("other")
@click.option("--epochs", metavar="N,N", help="Checkpoints of the two.  [default: the last ones]")
@classes_option(("head", "tail", "all", "each"))
@split_option
@click.option("--points", type=click.IntRange(3), default=25, show_default=True, help="Points on the line.")
@click.option(
    "--per-class",
    type=click.IntRange(2),
    metavar="N",
    help="At most so many samples of each class; larger subsets weigh classes by their true counts.  [default: all]",
)
@click.option(
    "--batch-norm",
    type=click.Choice(["reestimated", "batch", "running"]),
    default="reestimated",
    show_default=True,
    help="Statistics estimated anew at each point over training samples, each batch's own, or RUN's throughout.",
)
@data_root_option
@target_option
@device_option
@json_option
def barrier(
    run: str,
    other: str,
    epochs: str | None,
    subsets: tuple[str, ...],
    split: str,
    points: int,
    per_class: int | None,
    batch_norm: Any,
    data_root: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Loss barriers between two solutions.

    How far the loss of each subset rises, on the straight line from RUN's solution to OTHER's, above the line between
    its values at both ends. The same run with two --epochs will do.
    """
    from landscape_lab.figures import barrier_curves, save
    from landscape_lab.run import Run
    from landscape_lab.studies.paths import barrier_between

    chosen = _two(epochs) if epochs else (None, None)
    study = open_study(run, device, data_root)
    with console.progress_bar("points", points) as advance:
        found = barrier_between(
            study, Run.open(other), subsets, epochs=chosen, points=points, split=split, per_class=per_class,
            batch_norm=batch_norm, progress=advance,
        )  # fmt: skip
    classes = study.class_names
    labels = [class_label(int(name), classes[int(name)]) if name.isdigit() else name for name in found.subsets]
    stem = study.run.path / "figures" / f"barrier-{found.ends[1].replace(', epoch ', '-epoch-')}"
    picture = save(barrier_curves(found, labels=labels), stem)
    content = {
        "ends": list(found.ends),
        "batch_norm": found.batch_norm,
        "split": split,
        "coordinates": found.coordinates.tolist(),
        "subsets": {
            name: {
                "samples": found.counts[k],
                "barrier": float(found.barrier[k]),
                "stderr": float(found.stderr[k]),
                "at": float(found.at[k]),
                "losses": found.losses[k].tolist(),
                "accuracies": found.accuracies[k].tolist(),
            }
            for k, name in enumerate(found.subsets)
        },
    }
    rows = [
        [
            label,
            f"{found.counts[k]:,}",
            number(float(found.losses[k, 0])),
            number(float(found.losses[k, -1])),
            with_error(float(found.barrier[k]), float(found.stderr[k])) if found.barrier[k] > 0 else "none",
            f"{float(found.at[k]):.2f}" if found.barrier[k] > 0 else "–",
            f"{100 * float(found.accuracies[k].min()):.1f}",
        ]
        for k, label in enumerate(labels)
    ]
    show(
        as_json,
        content,
        f"from {found.ends[0]} to {found.ends[1]}, {split} samples",
        ["classes", "samples", "loss at 0", "loss at 1", "barrier ± s.e.", "at", "lowest accuracy, %"],
        rows,
        caption=f"BatchNorm statistics: {found.batch_norm}. The standard error is for the draw of the samples.",
        pictures=picture,
    )


def _two(text: str) -> tuple[int, int]:
    try:
        first, second = map(int, text.split(","))
    except ValueError:
        raise InputError(f"--epochs needs two numbers such as 30,60, got {text!r}") from None
    return first, second
