"""Runs' paths in a plane, which need neither the model nor its data; and the true loss along them, which does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor

from landscape_lab.analysis import Plane, Trajectory, pca_plane, plane_through, project
from landscape_lab.analysis.sample_losses import sample_losses
from landscape_lab.analysis.trajectory import JointTrajectory, joint_pca
from landscape_lab.errors import InputError
from landscape_lab.parameters import BatchNormPolicy
from landscape_lab.run import Run
from landscape_lab.studies.study import Progress, Study

__all__ = ["joint_plane", "joint_trajectory", "losses_along", "norm_statistics", "one_network", "trajectory_of"]


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


def joint_plane(runs: Mapping[str, Run | Study]) -> tuple[JointTrajectory, Plane]:
    """Several runs' paths in the plane that fits all their checkpoints best, and that plane.

    Runs from different initialisations differ mostly by these: the plane then shows where each began, not how it went.

    Args:
        runs: name to run, all of one network.

    Raises:
        InputError: the networks differ, or there are fewer than three checkpoints in all.
    """
    opened = {name: run.run if isinstance(run, Study) else run for name, run in runs.items()}
    one_network(*opened.values())
    points: dict[str, Tensor] = {}
    epochs: dict[str, tuple[int, ...]] = {}
    for name, run in opened.items():
        points[name], epochs[name] = run.trajectory()
    plane, ratio = joint_pca(points)
    paths = {
        name: project(points[name], plane, epochs[name], explained_variance_ratio=ratio, method="joint pca")
        for name in points
    }
    return JointTrajectory(paths, ratio, max(0.0, 1 - sum(ratio))), plane


def joint_trajectory(
    runs: Mapping[str, Study],
    subset: str | None = None,
    *,
    samples: int | None = None,
    progress: Progress | None = None,
) -> JointTrajectory:
    """Several runs' paths in one plane; with ``subset``, their true losses beside the plane's.

    Args:
        runs: name to run, all of one network.
        subset: whose losses to measure; ``None``: none.
        samples: at most so many of the subset.
        progress: called with the number of points done, two for each checkpoint.

    Raises:
        InputError: the networks differ, or there are fewer than three checkpoints in all.
    """
    joint, plane = joint_plane(runs)
    if subset is None:
        return joint
    paths = {
        name: losses_along(study, joint.paths[name], plane, subset, samples=samples, progress=progress)
        for name, study in runs.items()
    }
    return replace(joint, paths=paths)


def losses_along(
    study: Study,
    path: Trajectory,
    plane: Plane,
    subset: str = "all",
    *,
    samples: int | None = None,
    split: str = "train",
    batch_norm: BatchNormPolicy = "reestimated",
    progress: Progress | None = None,
) -> Trajectory:
    """The path with the loss at each checkpoint, and at its projection, where a picture of the plane shows it.

    Both in the same way: BatchNorm's statistics are estimated anew at each point, because a projection has none.

    Args:
        study: the run of the path.
        path: its checkpoints in ``plane``.
        plane: in the space of all parameters.
        subset: whose loss.
        samples: at most so many of the subset, drawn at random; ``None``: all.
        split: whose samples.
        batch_norm: see :func:`~landscape_lab.analysis.sample_losses.sample_losses`.
        progress: called with the number of points done, two for each checkpoint.
    """
    classes = study.classes(subset)
    settings = {
        "classes": list(classes),
        "samples": samples,
        "split": split,
        "batch_norm": batch_norm,
        "steps": list(path.steps),
        "coordinates": path.coordinates.tolist(),
        "residuals": path.residuals.tolist(),
    }

    def compute() -> Trajectory:
        points, epochs = study.run.trajectory()
        at = (points[epochs.index(step)] for step in path.steps)
        there = (plane.point(a, b) for a, b in path.coordinates.tolist())
        batch = study.samples(subset, split, samples)
        statistics = norm_statistics(study) if batch_norm == "reestimated" else None
        values, _ = sample_losses(
            study.model, study.loss, batch, chain(at, there), parameters=study.space, batch_norm=batch_norm,
            statistics=statistics, progress=progress,
        )  # fmt: skip
        losses, plane_losses = values.mean(1).chunk(2)
        words = f"{subset}, {len(batch[1])} {split} samples, BatchNorm statistics: {batch_norm}"
        return replace(path, losses=losses.clone(), plane_losses=plane_losses.clone(), subset=words)

    name = f"trajectory-losses/{path.method.replace(' ', '-')}-{split}-{subset.replace(',', '_')}"
    return study.stored(name, Trajectory, settings, compute)


def norm_statistics(study: Study, samples: int = 2048, batch_size: int = 512) -> list[Tensor]:
    """Batches of training images to re-estimate BatchNorm's statistics over: all classes as they were trained on.

    The statistics of a subset's images would be those of another network than the one that was trained.

    Args:
        study: the run.
        samples: at most so many, drawn at random, always the same ones.
        batch_size: at most; the batches are of nearly one size, as they count alike.
    """
    part = study.split("train")
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(2))[:samples].to(study.device)
    inputs, _ = part.take(order).tensors()
    return list(inputs.chunk(-(-len(inputs) // batch_size)))


def one_network(*runs: Run) -> None:
    """Make sure that all runs have the same parameters.

    Raises:
        InputError: they do not; the message names the first that differs.
    """
    first = runs[0]
    for run in runs[1:]:
        models = [one.recipe.model if one.has_recipe else None for one in (run, first)]
        if models[0] != models[1] or run.info["parameters"] != first.info["parameters"]:
            raise InputError(
                f"{first.path} and {run.path} are of different networks: compare runs with the same [model] in their "
                "recipes"
            )
