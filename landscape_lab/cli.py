"""The command line: a verb a command. torch is imported inside the commands, so that ``--help`` is quick."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from landscape_lab import console
from landscape_lab.errors import InputError
from landscape_lab.numbers import number, with_error
from landscape_lab.version import __version__

if TYPE_CHECKING:
    from landscape_lab.study import Study

__all__ = ["cli", "main"]

_F = TypeVar("_F", bound=Callable[..., Any])
DATA = ("digits-lt", "cifar10-lt", "cifar100-lt")


def main() -> NoReturn:
    """Run the command line; a wrong input ends in one line and exit code 2, Ctrl-C in 130."""
    try:
        cli.main(standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        console.note("stopped; the same command goes on from the last complete epoch")
        sys.exit(130)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "landscape-lab"
        _fail(f"{error.format_message()} See '{where} --help'.")
    except click.ClickException as error:
        _fail(error.format_message())
    except InputError as error:
        _fail(str(error))
    except OSError as error:
        reason = f"cannot write {error.filename}: {error.strerror}" if error.filename else str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            reason += "; no file is half-written: make room and run the same command again"
        _fail(reason)
    sys.exit(0)


def _fail(reason: str) -> NoReturn:
    console.note("error: " + " ".join(reason.split()))
    sys.exit(2)


class _Examples(click.Command):
    """A command whose help ends with an example that keeps its line breaks."""

    def __init__(self, *args: Any, example: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.example:
            with formatter.section("Example"):
                for line in self.example.strip().splitlines():
                    formatter.write_text(line)


def _device(command: _F) -> _F:
    option = click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
    return option(command)


def _data_root(command: _F) -> _F:
    option = click.option("--data-root", metavar="DIR", help="Folder that holds the data's files.")
    return option(command)


def _json(command: _F) -> _F:
    option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
    return option(command)


def _epoch(command: _F) -> _F:
    option = click.option("--epoch", type=int, metavar="N", help="Checkpoint to look at.  [default: the last]")
    return option(command)


def _split(command: _F) -> _F:
    option = click.option(
        "--split",
        type=click.Choice(["train", "test"]),
        default="train",
        show_default=True,
        help="Whose samples are used.",
    )
    return option(command)


def _classes(default: tuple[str, ...]) -> Callable[[_F], _F]:
    return click.option(
        "--classes",
        "subsets",
        multiple=True,
        default=default,
        show_default=True,
        metavar="SUBSET",
        help="head, tail, all, many, med, few, or numbers such as 0,3,7; may be repeated.",
    )


def _study(path: str, device: str, data_root: str | None) -> Study:
    from landscape_lab.devices import resolve_device
    from landscape_lab.run import Run
    from landscape_lab.study import Study

    return Study(Run.open(path), resolve_device(device), data_root)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="landscape-lab")
def cli() -> None:
    """Why does my model forget its rare classes, and what does the loss landscape say about it?

    Train on long-tailed data, then look at the landscape of any subset of classes: curvature, surfaces,
    trajectories, gradient similarity, feature quality. Start with:

        landscape-lab reproduce
    """


@cli.command(
    cls=_Examples,
    example="landscape-lab train digits-lt-gkp-gsa --set gsa.rho_max=0.002\n"
    "landscape-lab train cifar10-lt-erm --data-root ~/data --epochs 20",
)
@click.argument("recipe")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Change a field of the recipe, e.g. data.imbalance_ratio=50; may be repeated.",
)
@_data_root
@click.option(
    "--epochs",
    type=int,
    metavar="N",
    help="Number of epochs; warm-up, milestones and groupings keep their proportions.",
)
@click.option("--seed", type=int, metavar="N", help="Seed of weights, order and augmentation.")
@_device
@click.option("--out", metavar="RUN", help="Run directory.  [default: runs/RECIPE-seedN]")
@_json
def train(
    recipe: str,
    assignments: tuple[str, ...],
    data_root: str | None,
    epochs: int | None,
    seed: int | None,
    device: str,
    out: str | None,
    as_json: bool,
) -> None:
    """Train a recipe, or go on with a run.

    RECIPE is DATA-METHOD, a TOML file, or an unfinished run's directory. DATA is digits-lt, cifar10-lt or
    cifar100-lt; METHOD is erm (cross-entropy), sam, gsa, gsa-proj, gkp or gkp-gsa.
    """
    from landscape_lab.devices import resolve_device
    from landscape_lab.recipe import load_recipe, parse_assignment, rescaled
    from landscape_lab.run import Run
    from landscape_lab.train import train_run

    if (Path(recipe) / "run.json").is_file():
        if assignments or epochs is not None or seed is not None or out is not None:
            raise InputError(
                f"{recipe} is a run: it goes on as it was started, without --set, --epochs, --seed or --out"
            )
        plan, place = Run.open(recipe).recipe, Path(recipe)
    else:
        changes = dict(parse_assignment(text) for text in assignments)
        if seed is not None:
            changes["seed"] = seed
        if data_root is not None:
            changes["data.root"] = str(Path(data_root).expanduser().absolute())
        plan = load_recipe(recipe, changes)
        if epochs is not None:
            plan = rescaled(plan, epochs)
        place = Path(out or f"runs/{Path(recipe).stem}-seed{plan.seed}")
    run = train_run(plan, place, resolve_device(device), data_root=data_root)
    last = run.metrics()[-1]
    if as_json:
        console.result({"run": str(run.path), "class_counts": run.info["class_counts"], **last})
        return
    names = ("all", "many", "med", "few", "head", "tail")
    rows = [
        [which, number(last[which]["loss"])] + [_percent(last[which]["accuracy"][name]) for name in names]
        for which in ("train", "test")
    ]
    console.table(f"{run.path}: epoch {last['epoch']} (the last), accuracy in %", ["split", "loss", *names], rows)


def _class_label(number: int, name: str) -> str:
    return name if name == str(number) else f"{number} {name}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


@cli.command(cls=_Examples, example="landscape-lab hessian runs/digits-lt-erm-seed0 --classes head --classes tail")
@click.argument("run")
@_epoch
@_classes(("head", "tail"))
@_split
@click.option("--trace-products", default=30, show_default=True, help="Hessian-vector products for the trace.")
@click.option("--density-products", default=100, show_default=True, help="… and for the density.")
@click.option("--seed", default=0, show_default=True, help="Seed of the probes.")
@_data_root
@_device
@_json
def hessian(
    run: str,
    epoch: int | None,
    subsets: tuple[str, ...],
    split: str,
    trace_products: int,
    density_products: int,
    seed: int,
    data_root: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Curvature of the loss of any subset of classes.

    Extreme eigenvalues with residuals, trace with standard error, eigenvalue density.
    """
    from landscape_lab.figures import save, spectrum

    study = _study(run, device, data_root)
    epoch = study.epoch(epoch)
    found = {}
    for subset in subsets:
        samples = len(study.samples(subset, split)[1])
        with console.progress_bar(
            f"{subset}, {samples} samples: products", trace_products + density_products + 2
        ) as advance:
            found[subset] = study.hessian(
                subset,
                epoch,
                split=split,
                trace_products=trace_products,
                density_products=density_products,
                seed=seed,
                progress=advance,
            )
    picture = save(
        spectrum(found, title=f"{study.run.path.name}, epoch {epoch}"),
        study.run.path / "figures" / f"hessian-epoch-{epoch:04d}",
    )
    if as_json:
        console.result(
            {
                subset: {
                    "epoch": epoch,
                    "samples": s.samples,
                    "parameters": s.parameters,
                    "lambda_max": s.lambda_max,
                    "lambda_max_residual": s.lambda_max_residual,
                    "lambda_min": s.lambda_min,
                    "lambda_min_residual": s.lambda_min_residual,
                    "converged": s.converged,
                    "trace": s.trace.value,
                    "trace_stderr": s.trace.stderr,
                }
                for subset, s in found.items()
            }
        )
        return
    rows = [
        [
            subset,
            str(s.samples),
            with_error(s.lambda_max, s.lambda_max_residual),
            with_error(s.lambda_min, s.lambda_min_residual),
            with_error(s.trace.value, s.trace.stderr),
            "yes" if s.converged else "no",
        ]
        for subset, s in found.items()
    ]
    console.table(
        f"{study.run.path}: Hessian at epoch {epoch}, {split} loss",
        ["classes", "samples", "λ_max ± residual", "λ_min ± residual", "trace ± s.e.", "converged"],
        rows,
    )
    console.note(f"picture: {picture[0]}")


@cli.command(cls=_Examples, example="landscape-lab features runs/digits-lt-gkp-gsa-seed0 --split test")
@click.argument("run")
@_epoch
@_split
@_data_root
@_device
@_json
def features(run: str, epoch: int | None, split: str, data_root: str | None, device: str, as_json: bool) -> None:
    """Feature quality of every class.

    Separation from the nearest class, variance, and Q in both forms.
    """
    from landscape_lab.figures import quality_curves, save
    from landscape_lab.paper_figures import quality_panel

    study = _study(run, device, data_root)
    epoch = study.epoch(epoch)
    ours = study.features(epoch, split=split, form="difference")
    released = study.features(epoch, split=split, form="reciprocal")
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
    rows = [[_class_label(c, name), *(number(float(column[c])) for column in values)] for c, name in enumerate(names)]
    console.table(
        f"{study.run.path}: features at epoch {epoch}, {split} images",
        ["class", "samples", "Dis", "Var", "Q = Dis - 0.5 log Var", "Q = -1/Dis - log Var"],
        rows,
    )
    console.note(f"picture: {picture[0]}")


@cli.command(cls=_Examples, example="landscape-lab gradients runs/digits-lt-erm-seed0 --epochs 0,30,60")
@click.argument("run")
@click.option("--epochs", metavar="N,N,…", help="Checkpoints to look at.  [default: five over the run]")
@_classes(("head", "tail"))
@_split
@click.option(
    "--parameters",
    type=click.Choice(["encoder", "classifier", "all"]),
    default="encoder",
    show_default=True,
    help="Whose gradient is compared.",
)
@_data_root
@_device
@_json
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

    study = _study(run, device, data_root)
    chosen = _epoch_list(epochs, study.run.checkpoints())
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
        [_class_label(c, names[c])] + [with_error(float(s.mean[k]), float(s.stderr[k])) for s in found.values()]
        for k, c in enumerate(classes)
    ]
    console.table(
        f"{study.run.path}: similarity of class and batch gradient, {parameters}, mean ± s.e. over batches",
        ["class", *(f"epoch {epoch}" for epoch in found)],
        rows,
    )
    console.note(f"picture: {picture[0]}")


def _epoch_list(text: str | None, available: tuple[int, ...]) -> list[int]:
    from landscape_lab.study import spread

    if text is None:
        return spread(available, 5)
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--epochs needs numbers such as 0,30,60, got {text!r}") from None


@cli.command(cls=_Examples, example="landscape-lab surface runs/digits-lt-erm-seed0 --classes head --classes tail")
@click.argument("run")
@_epoch
@_classes(("head", "tail"))
@_split
@click.option(
    "--extent",
    default=1.0,
    show_default=True,
    help="Half the side of the square; at 1 each filter moves by its own norm.",
)
@click.option("--steps", default=25, show_default=True, help="Points on each axis.")
@click.option("--samples", type=int, help="At most so many samples of each subset.  [default: all]")
@click.option("--seed", default=0, show_default=True, help="Seed of the directions.")
@_data_root
@_device
@_json
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
    study = _study(run, device, data_root)
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


@cli.command(cls=_Examples, example="landscape-lab trajectory runs/digits-lt-erm-seed0 --through 0,30,60")
@click.argument("run")
@click.option("--through", metavar="N,N,N", help="Draw the plane through these epochs instead of the principal axes.")
@_json
def trajectory(run: str, through: str | None, as_json: bool) -> None:
    """The way of training in a plane, and off it."""
    from landscape_lab.figures import save, trajectories
    from landscape_lab.run import Run
    from landscape_lab.study import trajectory_of

    opened = Run.open(run)
    epochs = _epoch_list(through, ()) if through else None
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


@cli.command(
    cls=_Examples,
    example="landscape-lab figures 2 6 9 --standard runs/digits-lt-erm-seed0 --sam runs/digits-lt-sam-seed0\n"
    "    --ours runs/digits-lt-gkp-gsa-seed0 --out figures",
)
@click.argument("numbers", nargs=-1, type=click.Choice(["1", "2", "6", "9"]), required=True)
@click.option("--standard", required=True, metavar="RUN", help="Standard training (erm).")
@click.option("--ours", required=True, metavar="RUN", help="The method that is compared with it.")
@click.option("--sam", metavar="RUN", help="A third column for figure 9.")
@click.option("--tail-only", metavar="RUN", help="Trained on the tail alone; needed by figure 1.")
@click.option("--samples", type=int, help="At most so many samples of a subset in surfaces.  [default: all]")
@click.option("--out", default="figures", show_default=True, metavar="DIR", help="Where the pictures go.")
@_data_root
@_device
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
        name: _study(path, device, data_root)
        for name, path in {"standard": standard, "sam": sam, "ours": ours, "tail-only": tail_only}.items()
        if path
    }
    maker = FigureMaker(studies, Path(out), samples=samples)
    for figure in dict.fromkeys(numbers):
        picture = maker.draw(int(figure))
        console.note(f"figure {figure}: {picture.files[0]}")


@cli.command(
    cls=_Examples,
    example="landscape-lab reproduce --out demo\n"
    "landscape-lab reproduce --data cifar10-lt --data-root ~/data --figures 2,9 --seeds 0,1,2",
)
@click.option("--data", type=click.Choice(DATA), default="digits-lt", show_default=True, help="What to train on.")
@click.option("--figures", "numbers", default="1,2,6,9", show_default=True, help="Which of the paper's figures.")
@click.option("--seeds", default="0", show_default=True, help="Seeds of the table; figures show the first.")
@click.option("--epochs", type=int, metavar="N", help="Number of epochs of each run.  [default: the recipe's]")
@click.option("--set", "assignments", multiple=True, metavar="FIELD=VALUE", help="Change a field of all recipes.")
@click.option("--samples", type=int, help="At most so many samples of a subset in surfaces.  [default: all]")
@_data_root
@_device
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
        figures=_numbers("--figures", numbers),
        seeds=_numbers("--seeds", seeds),
        epochs=epochs,
        changes=dict(parse_assignment(text) for text in assignments),
        samples=samples,
        data_root=data_root,
        device=resolve_device(device),
    )
    console.note(f"done: open {page}")


def _numbers(option: str, text: str) -> list[int]:
    try:
        return list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise InputError(f"{option} needs numbers such as 1,2, got {text!r}") from None


@cli.command(cls=_Examples, example="landscape-lab runs demo/runs")
@click.argument("folder", default="runs")
@_json
def runs(folder: str, as_json: bool) -> None:
    """List the runs below a folder."""
    from landscape_lab.run import Run

    if not Path(folder).is_dir():
        raise InputError(f"there is no folder {folder}; `landscape-lab train` makes runs in runs/")
    content = []
    for place in sorted(Path(folder).rglob("run.json")):
        try:
            run = Run.open(place.parent)
            lines = run.metrics()
        except InputError as error:
            console.note(f"skipped: {error}")
            continue
        accuracy = lines[-1]["test"]["accuracy"] if lines else {}
        content.append(
            {
                "run": str(run.path),
                "data": run.recipe.data.name,
                "method": run.recipe.method,
                "seed": run.recipe.seed,
                "epoch": lines[-1]["epoch"] if lines else 0,
                "epochs": run.recipe.training.epochs,
                "status": run.info["status"],
                "device": run.info["device"],
                "accuracy": {name: accuracy.get(name) for name in ("all", "many", "med", "few")},
            }
        )
    if as_json:
        console.result(content)
        return
    rows = [
        [
            r["run"],
            r["data"],
            r["method"],
            str(r["seed"]),
            f"{r['epoch']}/{r['epochs']}",
            r["status"],
            *(_percent(value) for value in r["accuracy"].values()),
        ]
        for r in content
    ]
    header = ["run", "data", "method", "seed", "epoch", "status", "all", "many", "med", "few"]
    console.table("test accuracy in %", header, rows, "" if rows else f"no runs below {folder}")
