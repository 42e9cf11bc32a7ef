"""``sharpness``: the loss under noise on the parameters, and sharpness in numbers."""

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
from landscape_lab.numbers import number

if TYPE_CHECKING:
    from landscape_lab.analysis.noise import NoiseCurve
    from landscape_lab.analysis.sharpness import Sharpness

__all__ = ["run_names", "sharpness"]

KINDS = {
    "average": "average rise, ‖ε‖ = {radius} ‖θ‖",
    "epsilon": "ε-sharpness in a random subspace, %, ε = {radius} (≥)",
    "adaptive-worst": "adaptive worst rise, ρ = {radius} (≥)",
}


@cli.command(
    cls=Command,
    example="landscape-lab sharpness runs/digits-lt-erm-seed0 runs/digits-lt-sam-seed0 --parameters classifier",
)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@epoch_option
@classes_option(("head", "tail"))
@split_option
@click.option(
    "--parameters",
    default="all",
    show_default=True,
    metavar="PATTERN",
    help="Which parameters get the noise: all, a module such as encoder or classifier, or a glob over their names.",
)
@click.option(
    "--normalisation",
    type=click.Choice(["norm", "filter", "layer"]),
    default="norm",
    show_default=True,
    help="The noise is isotropic, or in proportion to the norm of each filter or layer.",
)
@click.option("--directions", type=click.IntRange(2), default=10, show_default=True, help="Random directions.")
@click.option("--seed", default=0, show_default=True, help="Seed of the directions.")
@samples_option
@click.option("--rise", is_flag=True, help="Draw what the noise adds to the loss, not the loss.")
@click.option("--ratio", default=0.1, show_default=True, help="Norm of the noise to that of θ, for the average rise.")
@click.option("--epsilon", default=1e-3, show_default=True, help="Half the side of the box of the ε-sharpness.")
@click.option("--rho", default=0.5, show_default=True, help="Radius of the adaptive worst case.")
@click.option(
    "--steps",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    help="Steps of ascent for both worst cases; 0 leaves them out.",
)
@data_root_option
@target_option
@device_option
@json_option
def sharpness(
    runs: tuple[str, ...],
    epoch: int | None,
    subsets: tuple[str, ...],
    split: str,
    parameters: str,
    normalisation: Any,
    directions: int,
    seed: int,
    samples: int | None,
    rise: bool,
    ratio: float,
    epsilon: float,
    rho: float,
    steps: int,
    data_root: str | None,
    device: str,
    as_json: bool,
) -> None:
    """The loss under noise on the parameters, for one run or several in one picture; and sharpness in numbers.

    The noise grows to the norm of the parameters themselves; a second column of panels shows its first tenth. Numbers
    have 95 % intervals; those marked ≥ are lower bounds, the highest points that an ascent found.
    """
    from landscape_lab.figures import noise_curves, save
    from landscape_lab.studies.noise import USUAL_RATIOS, noise_curve, sharpness_cost
    from landscape_lab.studies.noise import sharpness as measure

    studies = {name: open_study(path, device, data_root) for name, path in run_names(runs).items()}
    curves: dict[str, NoiseCurve] = {}
    numbers: dict[str, tuple[Sharpness, ...]] = {}
    epochs = {name: study.epoch(epoch) for name, study in studies.items()}
    common: dict[str, Any] = {
        "directions": directions,
        "parameters": parameters,
        "samples": samples,
        "split": split,
        "seed": seed,
    }
    with console.progress_bar("points", len(studies) * directions * len(USUAL_RATIOS)) as advance:
        for name, study in studies.items():
            curves[name] = noise_curve(study, subsets, epoch, normalisation=normalisation, progress=advance, **common)
    passes = sum(
        sharpness_cost(len(study.subset_classes(subsets)), directions=directions, steps=steps)
        for study in studies.values()
    )
    with console.progress_bar("passes", passes) as advance:
        for name, study in studies.items():
            numbers[name] = measure(
                study, subsets, epoch, ratio=ratio, epsilon=epsilon, rho=rho, steps=steps, progress=advance, **common
            )
    first = next(iter(studies.values())).run
    several = f"-{len(studies)}-runs" if len(studies) > 1 else ""
    part = "" if parameters == "all" else "-" + "".join(c if c.isalnum() else "_" for c in parameters)
    stem = first.path / "figures" / f"noise{several}-epoch-{epochs[next(iter(epochs))]:04d}{part}"
    picture = save(noise_curves(curves, rise=rise), stem)
    rows = [
        [
            name,
            found.subset,
            number(found.loss),
            KINDS[found.kind].format(radius=f"{found.radius:g}"),
            number(found.value),
            f"{number(found.low)} … {number(found.high)}",
        ]
        for name in studies
        for found in numbers[name]
    ]
    content = {
        name: {
            "epoch": epochs[name],
            "split": split,
            "parameters": parameters,
            "norm": curves[name].norm,
            "normalisation": normalisation,
            "seed": seed,
            "batch_norm": curves[name].batch_norm,
            "ratios": curves[name].ratios.tolist(),
            "subsets": {
                subset: {
                    "samples": curves[name].counts[k],
                    "losses": curves[name].losses[k].tolist(),
                    "accuracies": curves[name].accuracies[k].tolist(),
                    "mean": curves[name].band(subset)[0].tolist(),
                    "low": curves[name].band(subset)[1].tolist(),
                    "high": curves[name].band(subset)[2].tolist(),
                    "sharpness": {
                        found.kind: {
                            "value": found.value,
                            "low": found.low,
                            "high": found.high,
                            "radius": found.radius,
                            "loss": found.loss,
                            "note": found.note,
                        }
                        for found in numbers[name]
                        if found.subset == subset
                    },
                }
                for k, subset in enumerate(curves[name].subsets)
            },
        }
        for name in studies
    }
    show(
        as_json,
        content,
        f"sharpness over {split} samples, {'all parameters' if parameters == 'all' else parameters}",
        ["run", "classes", "L(θ)", "measure", "value", "95 % interval"],
        rows,
        caption="≥: a lower bound, its interval for the draw of the samples alone. "
        "Sharpness at unequal losses compares badly.",
        pictures=picture,
    )


def run_names(paths: tuple[str, ...]) -> dict[str, str]:
    """A name for each run in pictures and tables: its folder's, or the whole path where two would be alike.

    Raises:
        InputError: a run is named twice.
    """
    from pathlib import Path

    resolved = [Path(path).resolve() for path in paths]
    if len(set(resolved)) < len(resolved):
        raise InputError("a run is named twice: name each once")
    names = [path.name for path in resolved]
    return {name if names.count(name) == 1 else given: given for name, given in zip(names, paths, strict=True)}
