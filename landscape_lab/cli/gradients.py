"""``gradients``: does a batch's gradient serve its classes?"""

from __future__ import annotations

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
)
from landscape_lab.numbers import with_error

__all__ = ["gradients"]


@cli.command(cls=Command, example="landscape-lab gradients runs/digits-lt-erm-seed0 --epochs 0,30,60")
@click.argument("run")
@click.option("--epochs", metavar="N,N,…", help="Checkpoints to look at.  [default: five over the run]")
@classes_option(("head", "tail"))
@split_option
@click.option(
    "--parameters",
    type=click.Choice(["encoder", "classifier", "all"]),
    default="encoder",
    show_default=True,
    help="Whose gradient is compared.",
)
@data_root_option
@device_option
@json_option
def gradients(
    run: str,
    epochs: str | None,
    subsets: tuple[str, ...],
    split: str,
    parameters: str,
    data_root: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Does a batch's gradient serve its classes?

    Cosine of each class's gradient with its batch's, mean over batches with its standard error.
    """
    from landscape_lab.figures import SimilarityPanel, save
    from landscape_lab.figures import gradient_similarity as draw
    from landscape_lab.studies import gradients as studies
    from landscape_lab.studies import spread

    study = open_study(run, device, data_root)
    chosen = spread(study.run.checkpoints(), 5) if epochs is None else numbers_of("--epochs", epochs)
    classes = tuple(dict.fromkeys(c for subset in subsets for c in study.classes(subset)))
    found = {}
    with console.progress_bar("batches", len(chosen) * studies.gradient_batches(study, split)) as advance:
        for epoch in chosen:
            found[epoch] = studies.gradients(
                study, epoch, classes, split=split, parameters=parameters, progress=advance
            )
    names = {c: study.dataset.class_names[c] for c in classes}
    panel = SimilarityPanel(study.run.path.name, tuple(found), tuple(found.values()))
    picture = save(draw([panel], names), study.run.path / "figures" / "gradient-similarity")
    rows = [
        [class_label(c, names[c])] + [with_error(float(s.mean[k]), float(s.stderr[k])) for s in found.values()]
        for k, c in enumerate(classes)
    ]
    content = {
        str(epoch): {
            str(c): {
                "mean": float(s.mean[k]),
                "std": float(s.std[k]),
                "stderr": float(s.stderr[k]),
                "present": int(s.present[k]),
                "batches": s.batches,
            }
            for k, c in enumerate(s.classes)
        }
        for epoch, s in found.items()
    }
    show(
        as_json,
        content,
        f"{study.run.path}: similarity of class and batch gradient, {parameters}, mean ± s.e. over batches",
        ["class", *(f"epoch {epoch}" for epoch in found)],
        rows,
        pictures=picture,
    )
