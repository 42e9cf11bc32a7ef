"""``figures`` and ``reproduce``: the paper's pictures from runs, and from nothing."""

from __future__ import annotations

from pathlib import Path

import click

from landscape_lab import console
from landscape_lab.cli.group import cli
from landscape_lab.cli.options import Command, data_root_option, device_option, numbers_of, open_study, samples_option

__all__ = ["figures", "reproduce"]

DATA = ("digits-lt", "cifar10-lt", "cifar100-lt")


@cli.command(
    cls=Command,
    example="landscape-lab figures 2 6 9 --standard runs/digits-lt-erm-seed0 --sam runs/digits-lt-sam-seed0\n"
    "    --ours runs/digits-lt-gkp-gsa-seed0 --out figures",
)
@click.argument("numbers", nargs=-1, type=click.Choice(["1", "2", "6", "9"]), required=True)
@click.option("--standard", required=True, metavar="RUN", help="Standard training (erm).")
@click.option("--ours", required=True, metavar="RUN", help="The method that is compared with it.")
@click.option("--sam", metavar="RUN", help="A third column for figure 9.")
@click.option("--tail-only", metavar="RUN", help="Trained on the tail alone; needed by figure 1.")
@samples_option
@click.option("--out", default="figures", show_default=True, metavar="DIR", help="Where the pictures go.")
@data_root_option
@device_option
def figures(
    numbers: tuple[str, ...],
    standard: str,
    ours: str,
    sam: str | None,
    tail_only: str | None,
    samples: int | None,
    out: str,
    data_root: str | None,
    device: str,
) -> None:
    """Draw the paper's figures from runs.

    Figures 1, 2, 6 and 9, each as PNG, PDF and SVG.
    """
    from landscape_lab.paper_figures import FigureMaker

    studies = {
        name: open_study(path, device, data_root)
        for name, path in {"standard": standard, "sam": sam, "ours": ours, "tail-only": tail_only}.items()
        if path
    }
    maker = FigureMaker(studies, Path(out), samples=samples)
    for figure in dict.fromkeys(numbers):
        picture = maker.draw(int(figure))
        console.note(f"figure {figure}: {picture.files[0]}")


@cli.command(
    cls=Command,
    example="landscape-lab reproduce --out demo\n"
    "landscape-lab reproduce --data cifar10-lt --data-root ~/data --figures 2,9 --seeds 0,1,2",
)
@click.option("--data", type=click.Choice(DATA), default="digits-lt", show_default=True, help="What to train on.")
@click.option("--figures", "numbers", default="1,2,6,9", show_default=True, help="Which of the paper's figures.")
@click.option("--seeds", default="0", show_default=True, help="Seeds of the table; figures show the first.")
@click.option("--epochs", type=int, metavar="N", help="Number of epochs of each run.  [default: the recipe's]")
@click.option("--set", "assignments", multiple=True, metavar="FIELD=VALUE", help="Change a field of all recipes.")
@samples_option
@data_root_option
@device_option
@click.option("--out", default="demo", show_default=True, metavar="DIR", help="Where runs and pictures go.")
def reproduce(
    data: str,
    numbers: str,
    seeds: str,
    epochs: int | None,
    assignments: tuple[str, ...],
    samples: int | None,
    data_root: str | None,
    device: str,
    out: str,
) -> None:
    """Train, analyse, draw: the paper in one page.

    What exists is not done again, so a stopped command goes on where it was.
    """
    from landscape_lab.devices import resolve_device
    from landscape_lab.recipe import parse_assignment
    from landscape_lab.reproduce import reproduce as run_all

    page = run_all(
        data,
        Path(out),
        figures=numbers_of("--figures", numbers),
        seeds=numbers_of("--seeds", seeds),
        epochs=epochs,
        changes=dict(parse_assignment(text) for text in assignments),
        samples=samples,
        data_root=data_root,
        device=resolve_device(device),
    )
    console.note(f"done: open {page}")
