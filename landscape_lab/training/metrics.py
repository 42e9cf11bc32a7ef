"""What ``metrics.jsonl`` says of an epoch's network, and ``run.json`` of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from landscape_lab.analysis.features import USUAL_BETA
from landscape_lab.data import Dataset, Split, plain_batches
from landscape_lab.models import Network
from landscape_lab.recipe import Recipe
from landscape_lab.run_info import described
from landscape_lab.training.evaluation import Evaluation, assess, shot_accuracies

__all__ = ["evaluate_epoch", "run_info"]


def run_info(recipe: Recipe, dataset: Dataset, device: torch.device) -> dict[str, Any]:
    """What ``run.json`` holds from the start: versions, device, data, class counts and subsets of classes."""
    return {
        **described(dataset.class_counts, dataset.class_names, device, recipe.evaluation.head_tail_fraction),
        "data": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "train": len(dataset.train),
            "test": len(dataset.test),
        },
    }


def evaluate_epoch(
    model: Network,
    splits: Mapping[str, Split],
    dataset: Dataset,
    recipe: Recipe,
    subsets: Mapping[str, Sequence[int]],
) -> tuple[dict[str, Any], list[float]]:
    """Evaluate a network on every split that holds samples.

    Args:
        model: the network, left in its mode.
        splits: ``train``, ``test``, and others.
        dataset: gives the normalisation.
        recipe: batch size, and the reading of feature quality.
        subsets: the classes of many, med, few, head and tail.

    Returns:
        For each split its loss, accuracies and qualities, of the classes and their subsets; and the quality of each
        class by which Eq. 1 chooses.
    """
    reading, results = recipe.quality, {}
    for which, split in splits.items():
        if len(split):
            batches = plain_batches(split, dataset, recipe.evaluation.batch_size)
            results[which] = assess(model, batches, dataset.num_classes)
    line = {
        which: {
            "loss": result.mean_loss,
            "accuracy": _accuracies(result, subsets),
            "class_accuracy": result.accuracy,
            "class_loss": result.loss,
            # Eq. 19, and the form and weight of the released code, side by side (reading 7).
            "quality": {form: result.quality(form, beta) for form, beta in USUAL_BETA.items()},
        }
        for which, result in results.items()
    }
    return line, results[reading.split].quality(reading.form, reading.beta, reading.features == "normalised")


def _accuracies(result: Evaluation, subsets: Mapping[str, Sequence[int]]) -> dict[str, float | None]:
    wanted = {"all": range(len(result.counts)), **subsets}
    present = {name: [c for c in classes if result.counts[c]] for name, classes in wanted.items()}
    return shot_accuracies(result.accuracy, present)
