"""``trajectory``: the way of training in a plane, and its distance to a reference solution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from landscape_lab import console
from landscape_lab.cli.group import cli
from landscape_lab.cli.options import (
    Command,
    data_root_option,
    device_option,
    json_option,
    numbers_of,
    open_study,
    samples_option,
    show,
    target_option,
)
from landscape_lab.cli.sharpness import run_names
from landscape_lab.errors import InputError
from landscape_lab.numbers import number

if TYPE_CHECKING:
    from landscape_lab.analysis import Plane, Trajectory
    from landscape_lab.analysis.paths import Distances
    from landscape_lab.run import Run

__all__ = ["trajectory"]


@cli.command(
    cls=Command,
    example="landscape-lab trajectory runs/digits-lt-erm-seed0 runs/digits-lt-sam-seed0 --losses tail "
    "--reference runs/digits-lt-erm-tail-only-seed0",
)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--through",
    metavar="N,N,N",
    help="Draw the plane through these epochs of a single run instead of the principal axes.",
)
@click.option(
    "--losses",
    "subset",
    metavar="SUBSET",
    help="Measure the loss of head, tail, all or 0,3,7 at each checkpoint, and beside it at its place in the plane.",
)
@samples_option
@click.option("--reference", metavar="RUN", help="Measure the distances to this run's solution, as a tail-only one.")
@data_root_option
@target_option
@device_option
@json_option
def trajectory(
    runs: tuple[str, ...],
    through: str | None,
    subset: str | None,
    samples: int | None,
    reference: str | None,
    data_root: str | None,
    device: str,
    as_json: bool,
) -> None:
    """The way of training in a plane, and off it; several runs in one plane.

    The plane is that of the principal components of all checkpoints. Where distances off the plane are large, the
    losses that it shows are not those of the run: --losses tells both.
    """
    from landscape_lab.analysis import JointTrajectory
    from landscape_lab.figures import distance_curves, save, trajectories
    from landscape_lab.run import Run
    from landscape_lab.studies.paths import distances_to
    from landscape_lab.studies.trajectories import losses_along

    opened = {name: Run.open(path) for name, path in run_names(runs).items()}
    epochs = numbers_of("--through", through) if through else None
    paths, plane, ratio, method = _paths(opened, epochs)
    if subset is not None:
        studies = {name: open_study(str(run.path), device, data_root) for name, run in opened.items()}
        with console.progress_bar("points", 2 * sum(len(path.steps) for path in paths.values())) as advance:
            for name, study in studies.items():
                paths[name] = losses_along(study, paths[name], plane, subset, samples=samples, progress=advance)
    distances: dict[str, Distances] = {}
    if reference is not None:
        goal = Run.open(reference)
        settings = {"reference": goal.path.name, "epoch": goal.checkpoints()[-1]}
        for name, run in opened.items():
            distances[name] = distances_to(run, goal)
            run.save_result(f"distances/{goal.path.name}", distances[name], settings)
    first = next(iter(opened.values()))
    if len(opened) == 1:
        first.save_result("trajectory", next(iter(paths.values())), {"through": epochs})
    elif ratio is not None:
        joint = JointTrajectory(paths, ratio, max(0.0, 1 - sum(ratio)))
        first.save_result("trajectory-joint", joint, {"runs": list(paths)})
    several = f"-{len(opened)}-runs" if len(opened) > 1 else ""
    pictures = list(save(trajectories(paths), first.path / "figures" / f"trajectory{several}"))
    if distances:
        pictures += save(distance_curves(distances), first.path / "figures" / f"distances{several}")
    rows = [
        row if len(opened) == 1 else [name, *row]
        for name, path in paths.items()
        for row in _rows(path, distances.get(name))
    ]
    header = ["epoch", "θ1", "θ2", "off the plane"]
    header += ["loss", "loss in the plane"] if subset is not None else []
    header += ["to the reference", "relative"] if distances else []
    caption = f"the axes explain {100 * ratio[0]:.1f} % and {100 * ratio[1]:.1f} % of the variance" if ratio else ""
    content = {name: _content(path, distances.get(name)) for name, path in paths.items()}
    show(
        as_json,
        # One run keeps the form it always had.
        next(iter(content.values())) if len(opened) == 1 else {"method": method, "runs": content},
        f"{', '.join(str(run.path) for run in opened.values())}: trajectory",
        header if len(opened) == 1 else ["run", *header],
        rows,
        caption=caption,
        pictures=pictures,
    )
    if distances:
        console.note(f"picture: {pictures[len(pictures) // 2]}")


def _paths(
    opened: dict[str, Run], epochs: list[int] | None
) -> tuple[dict[str, Trajectory], Plane, tuple[float, float] | None, str]:
    from landscape_lab.studies.trajectories import joint_plane, trajectory_of

    if len(opened) == 1:
        ((name, run),) = opened.items()
        path, plane = trajectory_of(run, epochs)
        return {name: path}, plane, path.explained_variance_ratio, path.method
    if epochs:
        raise InputError("--through is for a single run: several are drawn along their common principal axes")
    joint, plane = joint_plane(dict(opened))
    return dict(joint.paths), plane, joint.explained_variance_ratio, "joint pca"


def _rows(path: Trajectory, distances: Distances | None) -> list[list[str]]:
    rows = []
    for k, epoch in enumerate(path.steps):
        values: list[Any] = [*path.coordinates[k], path.residuals[k]]
        if path.losses is not None and path.plane_losses is not None:
            values += [path.losses[k], path.plane_losses[k]]
        if distances is not None:
            values += [distances.full[k], distances.relative[k]]
        rows.append([str(epoch), *(number(float(value)) for value in values)])
    return rows


def _content(path: Trajectory, distances: Distances | None) -> dict[str, Any]:
    content: dict[str, Any] = {
        "epochs": list(path.steps),
        "coordinates": path.coordinates.tolist(),
        "residuals": path.residuals.tolist(),
        "explained_variance_ratio": path.explained_variance_ratio,
    }
    if path.losses is not None and path.plane_losses is not None:
        content |= {
            "subset": path.subset,
            "losses": path.losses.tolist(),
            "plane_losses": path.plane_losses.tolist(),
        }
    if distances is not None:
        content["distances"] = {
            "reference": distances.reference,
            "full": distances.full.tolist(),
            "relative": distances.relative.tolist(),
            "cosine": distances.cosine.tolist(),
            "layers": dict(zip(distances.names, distances.layers.tolist(), strict=True)),
        }
    return content
