"""The loss of a run's subsets over planes, stored with the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from landscape_lab.analysis import Plane, Surface, evaluate, filter_normalised, random_direction
from landscape_lab.data import plain_batches
from landscape_lab.parameters import BatchNormPolicy
from landscape_lab.studies.study import Progress, Study, file_name
from landscape_lab.training.losses import cross_entropy

__all__ = ["plane_surface", "surface"]


def surface(
    study: Study,
    subsets: Sequence[str],
    epoch: int | None = None,
    *,
    extent: float = 1.0,
    steps: int = 25,
    split: str = "train",
    samples: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Surface:
    """Loss around a solution along two filter-normalised random directions (Li et al. 2018).

    Args:
        study: the run.
        subsets: scored in one sweep.
        epoch: of the checkpoint; ``None``: the last.
        extent: coordinates run from ``-extent`` to ``extent``; at 1 a filter moves by its own norm.
        steps: points on each axis.
        split: whose samples are scored.
        samples: at most so many of each subset, drawn at random; ``None``: all.
        seed: of the directions, which do not depend on the run: two runs of one network share them.
        progress: called with the number of grid points done.
    """
    epoch = study.epoch(epoch)
    chosen = {name: study.classes(name) for name in subsets}
    settings = {
        "epoch": epoch,
        "subsets": {name: list(classes) for name, classes in chosen.items()},
        "extent": extent,
        "steps": steps,
        "split": split,
        "samples": samples,
        "seed": seed,
    }

    def compute() -> Surface:
        x, y = (
            filter_normalised(random_direction(study.space, seed=2 * seed + axis), study.space) for axis in range(2)
        )
        axis = torch.linspace(-extent, extent, steps, dtype=torch.float64)
        plane = Plane(study.space.vector(), x, y)
        return _evaluate(study, plane, axis, axis, chosen, split, "running", samples, progress)

    name = f"surface/epoch-{epoch:04d}-{split}-{'+'.join(file_name(name) for name in subsets)}"
    return study.stored(name, Surface, settings, compute)


def plane_surface(
    study: Study,
    name: str,
    plane: Plane,
    x: Tensor,
    y: Tensor,
    subset: str,
    *,
    settings: Mapping[str, Any],
    samples: int | None = None,
    progress: Progress | None = None,
) -> Surface:
    """Loss of a subset over any plane, normalised by each batch's own statistics.

    Running statistics belong to one point of the plane; batch statistics are right everywhere on it, and
    what the optimiser saw. The subset is scored in as few batches as the evaluation batch size allows.
    """
    classes = {subset: study.classes(subset)}

    def compute() -> Surface:
        return _evaluate(study, plane, x, y, classes, "train", "batch", samples, progress)

    full = {
        **settings,
        "x": x.tolist(),
        "y": y.tolist(),
        "classes": list(classes[subset]),
        "samples": samples,
    }
    return study.stored(f"surface/{name}", Surface, full, compute)


def _evaluate(
    study: Study,
    plane: Plane,
    x: Tensor,
    y: Tensor,
    subsets: Mapping[str, Sequence[int]],
    split: str,
    batch_norm: BatchNormPolicy,
    samples: int | None,
    progress: Progress | None,
) -> Surface:
    chosen = study.choose(study.split(split), subsets, samples)
    batches = list(plain_batches(chosen, study.dataset, study.run.recipe.evaluation.batch_size))
    return evaluate(
        study.model,
        cross_entropy,
        batches,
        plane,
        x=x,
        y=y,
        subsets=subsets,
        num_classes=study.dataset.num_classes,
        parameters=study.space,
        batch_norm=batch_norm,
        progress=progress,
    )
