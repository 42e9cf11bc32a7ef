"""All numbers of a model that the guard compares, from one set of samples."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from landscape_lab.analysis.batches import Loss, per_sample
from landscape_lab.analysis.losses import objective_of
from landscape_lab.errors import InputError
from landscape_lab.guard.classes import qualities, similarities
from landscape_lab.guard.curvature import largest_eigenvalues, operators_of, traces
from landscape_lab.guard.measured import Measured, Measurement
from landscape_lab.guard.noise import average_rises, highest_rises
from landscape_lab.guard.samples import Drawn, sketch
from landscape_lab.guard.settings import METRICS, GuardSettings, MetricName
from landscape_lab.parameters import ParameterSpace, eval_mode

__all__ = ["Wanted", "fingerprint", "measure", "mixed_batches", "sample_loss"]

Wanted = Collection[tuple[MetricName, str]]


def measure(
    model: nn.Module,
    loss: Loss,
    drawn: Drawn,
    subsets: Mapping[str, Sequence[int]],
    settings: GuardSettings,
    *,
    encoder: nn.Module | None = None,
    batches: Sequence[tuple[Tensor, Tensor]] = (),
    gradient_parameters: ParameterSpace | None = None,
    wanted: Wanted | None = None,
    spend: int = 1,
    origin: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Measurement:
    """Measure a model in evaluation mode; it is left as it was.

    Args:
        model: any module; classes are asked for only where there are several subsets.
        loss: of ``(output, target)``: a value for each sample, or their mean.
        drawn: the samples.
        subsets: name → classes.
        settings: what and how.
        encoder: gives the features; without one there is no quality.
        batches: for the gradient similarity, mixed as in training; without them there is none.
        gradient_parameters: whose gradients are compared; ``None``: all.
        wanted: metrics of subsets; ``None``: all that can be had.
        spend: so many times the random probes, which begin with the same ones.
        origin: to keep with the numbers.
        progress: called with the name of each metric before it is measured.

    Raises:
        InputError: a number is not finite, a subset has no samples, or what the analyses refuse.
    """
    for name, classes in subsets.items():
        if not any(c in drawn.counts for c in classes):
            raise InputError(f"the subset {name!r} holds no samples: choose classes that the data contain")
    loss = sample_loss(model, loss, drawn)
    space = ParameterSpace(model)
    some: Wanted = {(metric, name) for metric in settings.metrics for name in subsets} if wanted is None else wanted
    found: list[Measured] = []

    def take(metric: MetricName, made: Callable[[Collection[str]], Iterator[Measured]]) -> None:
        names = [name for name in subsets if (metric, name) in some]
        if names:
            if progress:
                progress(METRICS[metric].words)
            found.extend(made(names))

    if any(metric in ("lambda_max", "trace") for metric, _ in some):
        operators = operators_of(model, loss, drawn, subsets, space)
        take("lambda_max", lambda names: largest_eigenvalues(operators, drawn, settings, names))
        take("trace", lambda names: traces(operators, drawn, settings, names, spend))
        del operators  # with the gradient graphs that it keeps
    take("average", lambda names: average_rises(model, loss, drawn, subsets, settings, space, names, spend))
    take("epsilon", lambda names: highest_rises(model, loss, drawn, subsets, settings, space, names, spend))
    if encoder is not None:
        take("quality", lambda names: qualities(encoder, drawn, subsets, names))
    if batches:
        take("similarity", lambda names: similarities(model, loss, batches, subsets, names, gradient_parameters))
    for one in found:
        if not math.isfinite(one.value):
            raise InputError(
                f"the {METRICS[one.metric].words} of {one.subset!r} is not finite: has the training of this model "
                "diverged?"
            )
    return Measurement(
        # As precise as a baseline's file keeps them, so that the same model differs by nothing at all.
        metrics=tuple(replace(one, influences=one.influences.float().double()) for one in found),
        labels=drawn.labels,
        unseen={label: drawn.unseen(label) for label in drawn.counts},
        subsets={name: tuple(classes) for name, classes in subsets.items()},
        settings=settings,
        network=fingerprint(space),
        data=sketch(drawn),
        origin=dict(origin or {}),
    )


def sample_loss(model: nn.Module, loss: Loss, drawn: Drawn) -> Loss:
    """A loss that gives each sample's value, from one that may give their mean.

    Raises:
        InputError: it is neither, or not finite.
    """
    device = next(iter(model.parameters())).device

    def outputs(size: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
        # Every so many-th sample, so that several classes are among them.
        for first in range(min(8, len(drawn.inputs))):
            some = slice(first, None, max(1, len(drawn.inputs) // size))
            yield model(drawn.inputs[some].to(device)), drawn.targets[some].to(device)

    with eval_mode(model), torch.no_grad():
        objective = objective_of(loss, outputs())
        output, target = next(outputs())
        values = per_sample(objective.per_sample, output, target)
    if not bool(values.isfinite().all()):
        raise InputError("the loss of this model is not finite: has its training diverged?")
    return loss if objective.kind == "samples" else objective.per_sample


def mixed_batches(
    inputs: Tensor, targets: Tensor, settings: GuardSettings, batch_size: int, spend: int = 1
) -> list[tuple[Tensor, Tensor]]:
    """Batches for the gradient similarity, disjoint, their classes mixed as in the data.

    Args:
        inputs: ``(N, …)``, all that there are.
        targets: ``(N, …)``.
        settings: how many, and the seed.
        batch_size: at most so many in each; fewer where there would be too few batches.
        spend: so many times as many batches, if there are samples for them.
    """
    most = settings.batch_size or batch_size
    size = max(2, min(most, len(inputs) // settings.batches))
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(settings.seed))
    places = [some for some in order.split(size) if len(some) == size][: settings.batches * spend]
    return [(inputs[some.to(inputs.device)], targets[some.to(targets.device)]) for some in places]


def fingerprint(space: ParameterSpace) -> dict[str, Any]:
    """What tells one network from another: names and shapes of its parameters."""
    text = "\n".join(f"{name} {tuple(shape)}" for name, shape in zip(space.names, space.shapes, strict=True))
    return {"parameters": space.size, "names": hashlib.sha256(text.encode()).hexdigest()}
