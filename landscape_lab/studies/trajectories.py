"""A run's path in a plane; needs neither the model nor its data."""

from __future__ import annotations

from collections.abc import Sequence

from landscape_lab.analysis import Plane, Trajectory, pca_plane, plane_through, project
from landscape_lab.errors import InputError
from landscape_lab.run import Run

__all__ = ["trajectory_of"]


def trajectory_of(run: Run, through: Sequence[int] | None = None) -> tuple[Trajectory, Plane]:
    """A run's checkpoints in a plane; needs neither the model nor its data.

    Args:
        run: the run.
        through: three epochs that the plane goes through; ``None``: the first two principal axes of the
            checkpoints' differences from the last (Li et al. 2018).

    Returns:
        The path with its off-plane distances, and the plane.

    Raises:
        InputError: there are too few checkpoints, or ``through`` names others.
    """
    points, epochs = run.trajectory()
    if through is None:
        if len(epochs) < 3:
            raise InputError(
                f"{run.path} holds {len(epochs)} checkpoints, and a plane needs 3: "
                "train with a smaller training.checkpoint_every"
            )
        plane, ratio = pca_plane(points)
        return project(points, plane, epochs, explained_variance_ratio=ratio, method="pca"), plane
    missing = [epoch for epoch in through if epoch not in epochs]
    if len(set(through)) != 3 or missing:
        raise InputError(
            f"--through needs three different epochs that have a checkpoint, got {list(through)}; "
            f"{run.path} has {', '.join(map(str, epochs))}"
        )
    plane = plane_through(*(points[epochs.index(epoch)] for epoch in through))
    return project(points, plane, epochs, method="points"), plane
