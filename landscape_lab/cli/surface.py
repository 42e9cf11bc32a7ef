"""``surface``: the loss around a solution, between solutions, along the way of training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    target_option,
)
from landscape_lab.errors import InputError
from landscape_lab.numbers import number, with_error

if TYPE_CHECKING:
    from landscape_lab.analysis import Surface

__all__ = ["surface"]


@cli.command(
    cls=Command,
    example="landscape-lab surface runs/digits-lt-erm-seed0 --classes head --classes tail\n"
    "landscape-lab surface runs/digits-lt-erm-seed0 --classes each,head,tail --adaptive\n"
    "landscape-lab surface runs/digits-lt-erm-seed0 --directions checkpoints:0,30,60",
)
@click.argument("run")
@epoch_option
@classes_option(("head", "tail"))
@split_option
@click.option(
    "--directions",
    default="random",
    show_default=True,
    metavar="KIND",
    help="random; eigenvectors (of the Hessian; eigenvectors:tail for a subset's); head-tail (down their gradients); "
    "pca (of the path of training); checkpoints:A,B,C (through three epochs) or checkpoints:A,B (a line).",
)
@click.option(
    "--normalisation",
    type=click.Choice(["filter", "layer", "norm", "none"]),
    default="filter",
    show_default=True,
    help="To whose norm random directions are scaled.",
)
@click.option(
    "--biases",
    type=click.Choice(["out", "in"]),
    default="out",
    show_default=True,
    help="Whether random directions move biases and BatchNorm's parameters.",
)
@click.option(
    "--extent",
    type=float,
    help="Half the side of the square; for random directions, at 1 each filter moves by its own norm. "
    "[default: 1; 0.02 for eigenvectors and head-tail, in norms of the parameters; a box around paths]",
)
@click.option(
    "--steps", type=int, help="Points on each axis.  [default: 25; 33 if adaptive, which makes it 9, 17, 33 …]"
)
@click.option("--line", is_flag=True, help="Along the first direction only.")
@click.option("--adaptive", is_flag=True, help="Evaluate only where the loss bends, and interpolate elsewhere.")
@click.option(
    "--tolerance",
    type=float,
    default=0.05,
    show_default=True,
    help="Relative error of the interpolation to be content with.",
)
@samples_option
@click.option("--per-class", type=click.IntRange(1), metavar="N", help="At most so many samples of each class.")
@click.option("--seed", default=0, show_default=True, help="Seed of random directions, the same in every run.")
@click.option(
    "--batch-norm",
    type=click.Choice(["running", "batch", "reestimated"]),
    help="Whose statistics normalise.  [default: running; reestimated for pca and checkpoints]",
)
@click.option(
    "--backend",
    type=click.Choice(["landscape-lab", "loss-landscapes"]),
    default="landscape-lab",
    show_default=True,
    help="loss-landscapes: that program's sweep over the same random plane, to check ours.",
)
@click.option("--scale", type=click.Choice(["auto", "linear", "log"]), default="auto", help="Of the picture's colours.")
@click.option("--clip", type=float, metavar="LOSS", help="Highest loss of the picture's colours; the data keep theirs.")
@data_root_option
@target_option
@device_option
@json_option
def surface(
    run: str,
    epoch: int | None,
    subsets: tuple[str, ...],
    steps: int | None,
    scale: Any,
    clip: float | None,
    data_root: str | None,
    device: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Loss and accuracy of several subsets over a plane or along a line.

    All subsets are scored in one sweep. A sweep that was stopped goes on where it was.
    """
    from landscape_lab.figures import save, surfaces
    from landscape_lab.studies import surfaces as studies

    extent, adaptive, backend = options["extent"], options["adaptive"], options["backend"]
    steps = steps if steps is not None else 65 if adaptive else 25
    if steps < 2 or (extent is not None and not extent > 0):
        raise InputError(f"--steps must be at least 2 and --extent positive, got {steps} and {extent or 0:g}")
    study = open_study(run, device, data_root)
    epoch = study.epoch(epoch)
    total = studies.surface_points(
        steps, line=options["line"] or options["directions"].count(",") == 1, adaptive=adaptive
    )
    with console.progress_bar(
        "grid points", total, estimate=not adaptive and options["directions"][:5] != "eigen"
    ) as advance:
        found = studies.surface(study, subsets, epoch, steps=steps, progress=advance, **options)
    limits = None if clip is None else (max(0.0, float(found.losses[found.losses.isfinite()].min())), clip)
    ending = [] if options["directions"] == "random" else [options["directions"].replace(":", "-").replace(",", "_")]
    ending += ["line"] * options["line"] + ["adaptive"] * adaptive + [backend] * (backend != "landscape-lab")
    picture = save(
        surfaces(found, scale=scale, limits=limits),
        study.run.path / "figures" / "-".join([f"surface-epoch-{epoch:04d}", *ending]),
    )
    apart = None
    if backend != "landscape-lab":
        ours = studies.surface(study, subsets, epoch, steps=steps, **{**options, "backend": "landscape-lab"})
        apart = float(((found.losses - ours.losses).abs() / ours.losses.abs().clamp(min=1e-3)).max())
    summary = {name: _summary(found, k) for k, name in enumerate(found.subsets)}
    content = {
        "epoch": epoch,
        "axes": list(found.names),
        "batch_norm": found.batch_norm,
        "points": found.losses[0].numel(),
        "evaluated": found.losses[0].numel() if found.evaluated is None else int(found.evaluated.sum()),
        "difference_from_ours": apart,
        "subsets": summary,
        "x": found.x.tolist(),
        "y": found.y.tolist(),
        "losses": {name: found.losses[k].tolist() for k, name in enumerate(found.subsets)},
        "accuracies": {name: found.accuracies[k].tolist() for k, name in enumerate(found.subsets)},
        "stderr": {} if found.stderr is None else {n: found.stderr[k].tolist() for k, n in enumerate(found.subsets)},
        "marks": [{"name": name, "x": x, "y": y} for name, x, y in found.marks],
        "picture": str(picture[0]),
    }
    rows = [
        [
            name,
            str(s["samples"]),
            with_error(s["centre"], s["centre_stderr"]),
            number(s["lowest"]),
            number(s["highest"]),
            f"{100 * s['centre_accuracy']:.1f}",
        ]
        for name, s in summary.items()
    ]
    show(
        as_json,
        content,
        f"{study.run.path}: {options['split']} loss around epoch {epoch}, {' × '.join(filter(None, found.names))}",
        ["classes", "samples", "at 0, ± s.e. over samples", "lowest", "highest", "accuracy at 0, %"],
        rows,
        caption=_caption(content, summary),
        pictures=picture,
    )


def _summary(found: Surface, k: int) -> dict[str, float]:
    """What a table says of a subset; the centre is the grid's point nearest to the origin."""
    column, row = int(found.x.abs().argmin()), int(found.y.abs().argmin())
    losses = found.losses[k]
    worst = 0.0 if found.errors is None else float(found.errors[k].max())
    return {
        "samples": found.counts[k],
        "centre": float(losses[row, column]),
        "centre_stderr": float("nan") if found.stderr is None else float(found.stderr[k, row, column]),
        "centre_accuracy": float(found.accuracies[k, row, column]),
        "lowest": float(losses.min()),
        "highest": float(losses.max()),
        "interpolation_error": worst,
    }


def _caption(content: dict[str, Any], summary: dict[str, dict[str, float]]) -> str:
    words = [f"BatchNorm statistics: {content['batch_norm']}."]
    if content["evaluated"] < content["points"]:
        worst = max(s["interpolation_error"] for s in summary.values())
        words.append(
            f"Evaluated at {content['evaluated']:,} of {content['points']:,} points; elsewhere interpolated, "
            f"estimated error at most {number(worst)}."
        )
    if content["difference_from_ours"] is not None:
        apart = number(content["difference_from_ours"], 2)
        words.append(f"Our own sweep of the same plane differs by at most {apart} of the loss.")
    return " ".join(words)
