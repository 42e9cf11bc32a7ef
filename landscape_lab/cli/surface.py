"""``surface``: the loss around a solution."""

from __future__ import annotations

import click

from landscape_lab import console
from landscape_lab.cli.group import cli
from landscape_lab.cli.options import (
    Command,
    classes_option,
    data_root_option,
    device_option,
    epoch_option,
    json_option,
    open_study,
    samples_option,
    show,
    split_option,
)
from landscape_lab.errors import InputError
from landscape_lab.numbers import number

__all__ = ["surface"]


@cli.command(cls=Command, example="landscape-lab surface runs/digits-lt-erm-seed0 --classes head --classes tail")
@click.argument("run")
@epoch_option
@classes_option(("head", "tail"))
@split_option
@click.option(
    "--extent",
    default=1.0,
    show_default=True,
    help="Half the side of the square; at 1 each filter moves by its own norm.",
)
@click.option("--steps", default=25, show_default=True, help="Points on each axis.")
@samples_option
@click.option("--seed", default=0, show_default=True, help="Seed of the directions.")
@data_root_option
@device_option
@json_option
def surface(
    run: str,
    epoch: int | None,
    subsets: tuple[str, ...],
    split: str,
    extent: float,
    steps: int,
    samples: int | None,
    seed: int,
    data_root: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Loss around a solution, for several subsets.

    Scored in one sweep over a plane of two filter-normalised random directions.
    """
    from landscape_lab.figures import save, surfaces
    from landscape_lab.studies import surfaces as studies

    if steps < 2 or extent <= 0:
        raise InputError(f"--steps must be at least 2 and --extent positive, got {steps} and {extent:g}")
    study = open_study(run, device, data_root)
    epoch = study.epoch(epoch)
    with console.progress_bar("grid points", steps * steps) as advance:
        found = studies.surface(
            study,
            subsets,
            epoch,
            extent=extent,
            steps=steps,
            split=split,
            samples=samples,
            seed=seed,
            progress=advance,
        )
    picture = save(surfaces(found), study.run.path / "figures" / f"surface-epoch-{epoch:04d}")
    middle = steps // 2
    summary = {
        name: {
            "samples": found.counts[k],
            "centre": float(found.losses[k, middle, middle]),
            "lowest": float(found.losses[k].min()),
            "highest": float(found.losses[k].max()),
        }
        for k, name in enumerate(found.subsets)
    }
    rows = [
        [name, str(s["samples"]), *(number(s[key]) for key in ("centre", "lowest", "highest"))]
        for name, s in summary.items()
    ]
    content = {"epoch": epoch, "subsets": summary, "picture": str(picture[0])}
    show(
        as_json,
        content,
        f"{study.run.path}: {split} loss around epoch {epoch}",
        ["classes", "samples", "at the solution", "lowest", "highest"],
        rows,
        pictures=picture,
    )
