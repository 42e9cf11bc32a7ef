"""How long a training run will take, from the measured time of one step."""

from __future__ import annotations

import copy
import math
import time

import torch
from torch import Tensor

from landscape_lab.models import Network
from landscape_lab.recipe import Recipe
from landscape_lab.training.workspace import cross_entropy

__all__ = ["passes_per_step", "training_seconds"]


def passes_per_step(recipe: Recipe) -> tuple[float, float]:
    """Cost of a step before and after the first grouping, in forward-and-backward passes of the batch.

    A backward pass counts as two forward ones. Exact GSA with G groups: one forward, G backward, then G whole
    passes.
    """
    if recipe.method == "sam":
        return 2.0, 2.0
    if recipe.uses_gsa:
        count = recipe.groups.count
        return 1.0, (1 + 2 * count) / 3 + (1 if recipe.gsa.passes == "merged" else count)
    return 1.0, 1.0


def training_seconds(
    recipe: Recipe, model: Network, images: Tensor, targets: Tensor, *, steps: int, samples: int, done: int
) -> float:
    """Estimate the time that a run still needs.

    Args:
        recipe: what is run.
        model: its network; a copy is timed.
        images: one normalised batch, ``(B, C, H, W)``.
        targets: ``(B,)``.
        steps: optimiser steps in an epoch.
        samples: images that are evaluated after each epoch.
        done: epochs completed.

    Returns:
        Seconds, to within some ten per cent on an idle machine.
    """
    model = copy.deepcopy(model).train()
    unit, begin = math.inf, time.perf_counter()
    # The first passes allocate; a small network's take milliseconds, and the best of many is the steadiest.
    while time.perf_counter() - begin < 0.3 or unit == math.inf:
        started = time.perf_counter()
        cross_entropy(model(images), targets).mean().backward()
        if images.is_cuda:
            torch.cuda.synchronize(images.device)
        unit = min(unit, time.perf_counter() - started)
    epochs = recipe.training.epochs
    first = max(1, recipe.groups.start_epoch) if recipe.uses_groups else epochs
    grouped = max(0, epochs - max(done, first))
    plain_cost, grouped_cost = passes_per_step(recipe)
    passes = steps * ((epochs - done - grouped) * plain_cost + grouped * grouped_cost)
    passes += (epochs - done) * samples / len(targets) / 3
    if recipe.uses_gkp:
        # Per-sample gradients of the training set at each grouping: measured at 1 to 1.5 passes of it.
        passes += math.ceil(grouped / recipe.groups.period) * steps * 1.5
    return unit * passes
