"""``features``, ``gradients``, ``surface`` and ``trajectory``: a run in, a table and a picture out."""

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
    epoch_option,
    json_option,
    numbers_of,
    open_study,
    samples_option,
    split_option,
)
from landscape_lab.errors import InputError
from landscape_lab.numbers import number, with_error

__all__ = ["features", "gradients", "surface", "trajectory"]


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

    study = open_study(run, device, data_root)
    epoch = study.epoch(epoch)
    found = study.features(epoch, split=split)
    ours, released = found["difference"], found["reciprocal"]
    picture = save(
        quality_curves(quality_panel(study.run, study.run.path.name)),
        study.run.path / "figures" / "feature-quality",
    )
    names = study.dataset.class_names
    columns = [ours.counts, ours.separation, ours.variance, ours.quality, released.quality]
    values = [column.tolist() for column in columns]
    keys = ["samples", "separation", "variance", "quality", "quality_reciprocal"]
    if as_json:
        console.result(
            {
                "epoch": epoch,
                "split": split,
                "classes": [
                    {"class": c, "name": name, **{key: values[k][c] for k, key in enumerate(keys)}}
                    for c, name in enumerate(names)
                ],
            }
        )
        return
    rows = [[class_label(c, name), *(number(float(column[c])) for column in values)] for c, name in enumerate(names)]
    console.table(
        f"{study.run.path}: features at epoch {epoch}, {split} images",
        ["class", "samples", "Dis", "Var", "Q = Dis - 0.5 log Var", "Q = -1/Dis - log Var"],
        rows,
    )
    console.note(f"picture: {picture[0]}")


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
    from landscape_lab.study import spread

    study = open_study(run, device, data_root)
    chosen = spread(study.run.checkpoints(), 5) if epochs is None else numbers_of("--epochs", epochs)
    classes = tuple(dict.fromkeys(c for subset in subsets for c in study.classes(subset)))
    found = {}
    with console.progress_bar("batches", len(chosen) * study.gradient_batches(split)) as advance:
        for epoch in chosen:
            found[epoch] = study.gradients(epoch, classes, split=split, parameters=parameters, progress=advance)
    names = {c: study.dataset.class_names[c] for c in classes}
    panel = SimilarityPanel(study.run.path.name, tuple(found), tuple(found.values()))
    picture = save(draw([panel], names), study.run.path / "figures" / "gradient-similarity")
    if as_json:
        console.result(
            {
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
        )
        return
    rows = [
        [class_label(c, names[c])] + [with_error(float(s.mean[k]), float(s.stderr[k])) for s in found.values()]
        for k, c in enumerate(classes)
    ]
    console.table(
        f"{study.run.path}: similarity of class and batch gradient, {parameters}, mean ± s.e. over batches",
        ["class", *(f"epoch {epoch}" for epoch in found)],
        rows,
    )
    console.note(f"picture: {picture[0]}")


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

    if steps < 2 or extent <= 0:
        raise InputError(f"--steps must be at least 2 and --extent positive, got {steps} and {extent:g}")
    study = open_study(run, device, data_root)
    epoch = study.epoch(epoch)
    with console.progress_bar("grid points", steps * steps) as advance:
        found = study.surface(
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
    if as_json:
        console.result({"epoch": epoch, "subsets": summary, "picture": str(picture[0])})
        return
    rows = [
        [name, str(s["samples"]), *(number(s[key]) for key in ("centre", "lowest", "highest"))]
        for name, s in summary.items()
    ]
    console.table(
        f"{study.run.path}: {split} loss around epoch {epoch}",
        ["classes", "samples", "at the solution", "lowest", "highest"],
        rows,
    )
    console.note(f"picture: {picture[0]}")


@cli.command(cls=Command, example="landscape-lab trajectory runs/digits-lt-erm-seed0 --through 0,30,60")
@click.argument("run")
@click.option("--through", metavar="N,N,N", help="Draw the plane through these epochs instead of the principal axes.")
@json_option
def trajectory(run: str, through: str | None, as_json: bool) -> None:
    """The way of training in a plane, and off it."""
    from landscape_lab.figures import save, trajectories
    from landscape_lab.run import Run
    from landscape_lab.study import trajectory_of

    opened = Run.open(run)
    epochs = numbers_of("--through", through) if through else None
    path, _ = trajectory_of(opened, epochs)
    opened.save_result("trajectory", path, {"through": epochs})
    picture = save(trajectories({opened.path.name: path}), opened.path / "figures" / "trajectory")
    if as_json:
        console.result(
            {
                "epochs": list(path.steps),
                "coordinates": path.coordinates.tolist(),
                "residuals": path.residuals.tolist(),
                "explained_variance_ratio": path.explained_variance_ratio,
            }
        )
        return
    rows = [
        [str(epoch), *(number(float(v)) for v in (*path.coordinates[k], path.residuals[k]))]
        for k, epoch in enumerate(path.steps)
    ]
    ratio = path.explained_variance_ratio
    caption = f"the axes explain {100 * ratio[0]:.1f} % and {100 * ratio[1]:.1f} % of the variance" if ratio else ""
    console.table(f"{opened.path}: trajectory", ["epoch", "θ1", "θ2", "off the plane"], rows, caption)
    console.note(f"picture: {picture[0]}")
