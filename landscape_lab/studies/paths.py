"""From one run's solution to another's: distances along training, and the loss between them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from landscape_lab.analysis.paths import Barrier, Distances, distances
from landscape_lab.analysis.paths import barrier as measure_barrier
from landscape_lab.curvature import stratified
from landscape_lab.errors import InputError
from landscape_lab.files import read_tensors
from landscape_lab.parameters import BatchNormPolicy
from landscape_lab.run import Run
from landscape_lab.studies.study import Progress, Study
from landscape_lab.studies.trajectories import norm_statistics, one_network

__all__ = ["barrier_between", "distances_to"]


def distances_to(run: Run, reference: Run, epoch: int | None = None) -> Distances:
    """How far each checkpoint of a run is from another run's solution, in the whole space and by layer.

    Args:
        run: the run.
        reference: the other, such as the one that saw the tail only; from the same initialisation, or the distances
            say little.
        epoch: of the reference's checkpoint; ``None``: the last.

    Raises:
        InputError: the networks differ, or there is no such checkpoint.
    """
    one_network(run, reference)
    points, epochs = run.trajectory()
    others, available = reference.trajectory()
    epoch = available[-1] if epoch is None else epoch
    if epoch not in available:
        known = ", ".join(map(str, available))
        raise InputError(f"{reference.path} holds no checkpoint of epoch {epoch}; it has {known}")
    tensors, _ = read_tensors(run.checkpoint_path(epochs[-1]))
    sizes = {name: tensors[name].numel() for name in run.info["parameters"]}
    goal = others[available.index(epoch)]
    return distances(points, goal, sizes, epochs, name=f"{reference.path.name}, epoch {epoch}")


def barrier_between(
    study: Study,
    other: Run,
    subsets: Sequence[str] = ("head", "tail", "all", "each"),
    *,
    epochs: tuple[int | None, int | None] = (None, None),
    points: int = 25,
    split: str = "train",
    per_class: int | None = None,
    batch_norm: BatchNormPolicy = "reestimated",
    progress: Progress | None = None,
) -> Barrier:
    """The loss on the straight line from one run's solution to another's, over the first run's data.

    Args:
        study: the run at 0, whose data are scored, and over whose training images BatchNorm is re-estimated.
        other: the run at 1; the same run with another epoch will do.
        subsets: scored in one sweep; ``each`` is every class.
        epochs: of the two checkpoints; ``None``: the last.
        points: on the line, both ends among them.
        split: whose samples are scored.
        per_class: at most so many samples of each class; larger subsets weigh the classes by their true counts.
        batch_norm: ``"reestimated"`` or ``"batch"``; ``"running"`` would use the first run's statistics throughout.
        progress: called with the number of points done.

    Raises:
        InputError: the networks differ, a checkpoint is missing, or both ends are the same point.
    """
    one_network(study.run, other)
    first, second = (_epoch_of(run, epoch) for run, epoch in zip((study.run, other), epochs, strict=True))
    if first == second and study.run.path.resolve() == other.path.resolve():
        raise InputError(f"both ends are epoch {first} of {other.path}: name two runs, or two epochs with --epochs")
    counts = study.split(split).class_counts(study.num_classes)
    chosen = {
        name: classes
        for name, classes in study.subset_classes(subsets).items()
        if any(counts[c] for c in classes) or name not in map(str, range(len(counts)))
    }
    ends = []
    for run, epoch in ((other, second), (study.run, first)):  # the study's own last: its buffers stay in the model
        run.load_checkpoint(epoch, study.model)
        ends.append(study.space.vector())
    ends.reverse()
    settings = {
        "subsets": {name: list(classes) for name, classes in chosen.items()},
        "epochs": [first, second],
        "other": [str(other.path.resolve()), float(ends[1].double().norm())],
        "points": points,
        "split": split,
        "per_class": per_class,
        "batch_norm": batch_norm,
    }

    def compute() -> Barrier:
        part = study.split(split)
        part = part.of([c for classes in chosen.values() for c in classes])
        if per_class is not None:
            part = part.take(stratified(part.labels, per_class))
        # The readers give class after class; batches must mix them where BatchNorm uses the batch.
        order = torch.randperm(len(part), generator=torch.Generator().manual_seed(1))
        part = part.take(order.to(study.device))
        found = measure_barrier(
            study.model,
            study.loss,
            list(part.batches(study.evaluation_batch_size)),
            (ends[0], ends[1]),
            subsets=chosen,
            points=points,
            class_counts=None if per_class is None else counts,
            parameters=study.space,
            batch_norm=batch_norm,
            statistics=norm_statistics(study) if batch_norm == "reestimated" else None,
            names=(f"{study.run.path.name}, epoch {first}", f"{other.path.name}, epoch {second}"),
            progress=progress,
        )
        return study.scored(found)

    name = f"barrier/epoch-{first:04d}-to-{other.path.name}-epoch-{second:04d}-{split}"
    return study.stored(name, Barrier, settings, compute)


def _epoch_of(run: Run, epoch: int | None) -> int:
    available = run.checkpoints()
    if not available:
        raise InputError(f"{run.path} holds no checkpoint yet; train it first")
    epoch = available[-1] if epoch is None else epoch
    if epoch not in available:
        raise InputError(f"{run.path} holds no checkpoint of epoch {epoch}; it has {', '.join(map(str, available))}")
    return epoch
