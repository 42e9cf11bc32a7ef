"""``gradients``: does a batch's gradient serve its classes, and do the classes' gradients agree?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    numbers_of,
    open_study,
    show,
    split_option,
    target_option,
)
from landscape_lab.numbers import with_error

if TYPE_CHECKING:
    from landscape_lab.analysis import GradientSimilarity

__all__ = ["gradients"]

EXAMPLE = """
landscape-lab gradients runs/digits-lt-erm-seed0 --epochs 0,30,60

landscape-lab gradients runs/digits-lt-erm-seed0 --classes all --between --parameters 'encoder.stages.2.*'
"""
SHOWN = 12  # classes up to which the table of pairs fits


@cli.command(cls=Command, example=EXAMPLE)
@click.argument("run")
@click.option("--epochs", metavar="N,N,…", help="Checkpoints to look at.  [default: five over the run]")
@classes_option(("head", "tail"))
@split_option
@click.option(
    "--parameters",
    metavar="NAME",
    help="Whose gradient is compared: all, encoder, classifier, any module, or a pattern such as '*.conv1.*'.  "
    "[default: encoder; all for runs without a recipe]",
)
@click.option("--between", is_flag=True, help="Compare the classes with each other, too.")
@data_root_option
@target_option
@device_option
@json_option
def gradients(
    run: str,
    epochs: str | None,
    subsets: tuple[str, ...],
    split: str,
    parameters: str | None,
    between: bool,
    data_root: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Does a batch's gradient serve its classes?

    Cosine of each class's gradient with its batch's, mean over batches with its standard error; with --between also of
    every two classes' gradients.
    """
    from landscape_lab.figures import SimilarityPanel, class_similarity, gradient_similarity, save
    from landscape_lab.figures.class_similarity import cosine_text
    from landscape_lab.studies import gradients as studies
    from landscape_lab.studies import spread

    study = open_study(run, device, data_root)
    chosen = spread(study.run.checkpoints(), 5) if epochs is None else numbers_of("--epochs", epochs)
    classes = tuple(dict.fromkeys(c for subset in subsets for c in study.classes(subset)))
    found = {}
    with console.progress_bar("batches", len(chosen) * studies.gradient_batches(study, split)) as advance:
        for epoch in chosen:
            found[epoch] = studies.gradients(
                study, epoch, classes, split=split, parameters=parameters, between=between, progress=advance
            )
    names = {c: study.class_names[c] for c in classes}
    panel = SimilarityPanel(study.run.path.name, tuple(found), tuple(found.values()))
    folder = study.run.path / "figures"
    pictures = save(gradient_similarity([panel], names), folder / "gradient-similarity")
    if between:
        pictures = [*save(class_similarity([panel], names), folder / "class-similarity"), *pictures]
    rows = [
        [
            class_label(c, names[c]),
            *(with_error(float(s.mean[k]), float(s.stderr[k])) for s in found.values()),
            _absence(next(iter(found.values())), k),
        ]
        for k, c in enumerate(classes)
    ]
    show(
        as_json,
        {str(epoch): _content(one, between) for epoch, one in found.items()},
        f"{study.run.path}: similarity of class and batch gradient{f', {parameters}' if parameters else ''}, "
        "mean ± s.e. over batches",
        ["class", *(f"epoch {epoch}" for epoch in found), "absent from"],
        rows,
        pictures=pictures,
    )
    if between and not as_json and len(classes) <= SHOWN:
        epoch, last = list(found.items())[-1]
        assert last.between is not None
        console.table(
            f"Class against class at epoch {epoch}: mean over the batches that hold both",
            ["class", *(class_label(c, names[c]) for c in classes)],
            [
                [class_label(c, names[c]), *map(cosine_text, last.between.mean[k].tolist())]
                for k, c in enumerate(classes)
            ],
        )


def _absence(found: GradientSimilarity, k: int) -> str:
    """How many batches did not hold a class."""
    return f"{found.batches - int(found.present[k]):,} of {found.batches:,} batches"


def _content(found: GradientSimilarity, between: bool) -> dict[str, Any]:
    content: dict[str, Any] = {
        str(c): {
            "mean": float(found.mean[k]),
            "std": float(found.std[k]),
            "stderr": float(found.stderr[k]),
            "present": int(found.present[k]),
            "absent": found.batches - int(found.present[k]),
            "batches": found.batches,
        }
        for k, c in enumerate(found.classes)
    }
    if between and found.between is not None:
        for k, c in enumerate(found.classes):
            tables = {
                "mean": found.between.mean,
                "std": found.between.std,
                "present": found.between.present,
            }
            content[str(c)]["between"] = {
                str(other): {key: table[k, j].item() for key, table in tables.items()}
                for j, other in enumerate(found.classes)
            }
    return content
