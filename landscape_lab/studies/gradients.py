"""How the gradients of a run's classes agree, stored with their settings."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from landscape_lab.analysis import GradientSimilarity, gradient_similarity
from landscape_lab.parameters import ParameterSpace, matching
from landscape_lab.studies.study import Progress, Study

__all__ = ["gradient_batches", "gradients"]


def gradients(
    study: Study,
    epoch: int | None = None,
    classes: Sequence[int] | None = None,
    *,
    split: str = "train",
    parameters: str | None = None,
    between: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> GradientSimilarity:
    """Similarity of each class's gradient with its batch's (Fig. 6), in evaluation mode, unaugmented.

    Args:
        study: the run.
        epoch: of the checkpoint; ``None``: the last.
        classes: to score; ``None``: all.
        split: ``train`` or ``test``.
        parameters: ``None``: the encoder of a run of ours, else all; ``all``, or a module, a parameter or a glob
            over parameter names, as :func:`~landscape_lab.parameters.matching` takes it.
        between: compare the classes with each other, too.
        seed: of the order in which samples make up batches.
        progress: called with 1 after each batch.

    Raises:
        InputError: no parameter matches.
    """
    epoch = study.epoch(epoch)
    batch_size = study.batch_size
    parameters = parameters or ("encoder" if study.run.has_recipe else "all")
    classes = tuple(classes) if classes is not None else study.subsets["all"]
    settings = {
        "epoch": epoch,
        "classes": list(classes),
        "split": split,
        "batch_size": batch_size,
        "parameters": parameters,
        "seed": seed,
    }
    where = None if parameters == "all" else matching(study.model, parameters)

    def compute() -> GradientSimilarity:
        part = study.split(split)
        # The readers give class after class; batches must mix the classes as training does.
        order = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed)).to(study.device)
        mixed = part.take(order)
        return gradient_similarity(
            study.model,
            study.loss,
            mixed.batches(batch_size),
            classes,
            parameters=ParameterSpace(study.model, where),
            between=between,
            progress=progress,
        )

    # A glob is no name of a file; that of a module is.
    place = "".join(c if c.isalnum() or c in "._-" else "_" for c in parameters)
    name = f"gradients/epoch-{epoch:04d}-{split}-{place}"
    # What holds the classes' pairs, too, serves those who do not ask for them.
    with_pairs = {**settings, "between": True}
    known = study.run.load_result(name, GradientSimilarity, with_pairs)
    return known or study.stored(name, GradientSimilarity, with_pairs if between else settings, compute)


def gradient_batches(study: Study, split: str = "train") -> int:
    """The number of batches that :func:`gradients` looks at."""
    return len(study.split(split).batches(study.batch_size))
