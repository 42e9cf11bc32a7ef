"""``trajectory``: the way of training in a plane."""

from __future__ import annotations

import click

from landscape_lab.cli.group import cli
from landscape_lab.cli.options import Command, json_option, numbers_of, show
from landscape_lab.numbers import number

__all__ = ["trajectory"]


@cli.command(cls=Command, example="landscape-lab trajectory runs/digits-lt-erm-seed0 --through 0,30,60")
@click.argument("run")
@click.option("--through", metavar="N,N,N", help="Draw the plane through these epochs instead of the principal axes.")
@json_option
def trajectory(run: str, through: str | None, as_json: bool) -> None:
    """The way of training in a plane, and off it."""
    from landscape_lab.figures import save, trajectories
    from landscape_lab.run import Run
    from landscape_lab.studies.trajectories import trajectory_of

    opened = Run.open(run)
    epochs = numbers_of("--through", through) if through else None
    path, _ = trajectory_of(opened, epochs)
    opened.save_result("trajectory", path, {"through": epochs})
    picture = save(trajectories({opened.path.name: path}), opened.path / "figures" / "trajectory")
    rows = [
        [str(epoch), *(number(float(v)) for v in (*path.coordinates[k], path.residuals[k]))]
        for k, epoch in enumerate(path.steps)
    ]
    ratio = path.explained_variance_ratio
    caption = f"the axes explain {100 * ratio[0]:.1f} % and {100 * ratio[1]:.1f} % of the variance" if ratio else ""
    content = {
        "epochs": list(path.steps),
        "coordinates": path.coordinates.tolist(),
        "residuals": path.residuals.tolist(),
        "explained_variance_ratio": path.explained_variance_ratio,
    }
    show(
        as_json,
        content,
        f"{opened.path}: trajectory",
        ["epoch", "θ1", "θ2", "off the plane"],
        rows,
        caption=caption,
        pictures=picture,
    )
