"""How the gradients of a run's classes agree, stored with their settings."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from landscape_lab.analysis import GradientSimilarity, gradient_similarity
from landscape_lab.data import Split, plain_batches
from landscape_lab.parameters import ParameterSpace
from landscape_lab.studies.study import Progress, Study
from landscape_lab.training.losses import cross_entropy

__all__ = ["gradient_batches", "gradients"]


def gradients(
    study: Study,
    epoch: int | None = None,
    classes: Sequence[int] | None = None,
    *,
    split: str = "train",
    parameters: str = "encoder",
    seed: int = 0,
    progress: Progress | None = None,
) -> GradientSimilarity:
    """Similarity of each class's gradient with its batch's (Fig. 6), in evaluation mode, unaugmented."""
    epoch = study.epoch(epoch)
    batch_size = study.run.recipe.training.batch_size
    classes = tuple(classes) if classes is not None else study.subsets["all"]
    settings = {
        "epoch": epoch,
        "classes": list(classes),
        "split": split,
        "batch_size": batch_size,
        "parameters": parameters,
        "seed": seed,
    }

    def compute() -> GradientSimilarity:
        part = study.split(split)
        # The readers give class after class; batches must mix the classes as training does.
        order = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed)).to(study.device)
        mixed = Split(part.images[order], part.targets[order])
        where = None if parameters == "all" else lambda name: name.startswith(f"{parameters}.")
        return gradient_similarity(
            study.model,
            cross_entropy,
            plain_batches(mixed, study.dataset, batch_size),
            classes,
            parameters=ParameterSpace(study.model, where),
            progress=progress,
        )

    name = f"gradients/epoch-{epoch:04d}-{split}-{parameters}"
    return study.stored(name, GradientSimilarity, settings, compute)


def gradient_batches(study: Study, split: str = "train") -> int:
    """The number of batches that :func:`gradients` looks at."""
    return -(-len(study.split(split)) // study.run.recipe.training.batch_size)
