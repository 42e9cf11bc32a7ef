"""The guard on a run: its samples, its classes, its loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from landscape_lab.curvature import stratified
from landscape_lab.errors import InputError
from landscape_lab.guard.measure import Wanted, measure, mixed_batches
from landscape_lab.guard.measured import Measurement
from landscape_lab.guard.origin import origin_of
from landscape_lab.guard.samples import Drawn
from landscape_lab.guard.settings import GuardSettings
from landscape_lab.parameters import ParameterSpace
from landscape_lab.studies.study import Study

__all__ = ["measure_run"]


def measure_run(
    study: Study,
    subsets: Mapping[str, Sequence[int]],
    settings: GuardSettings,
    epoch: int | None = None,
    *,
    wanted: Wanted | None = None,
    spend: int = 1,
    progress: Callable[[str], None] | None = None,
) -> Measurement:
    """Measure a checkpoint of a run over its own samples, some of each class.

    Args:
        study: the run.
        subsets: name → classes.
        settings: what and how.
        epoch: of the checkpoint; ``None``: the last.
        wanted: see :func:`~landscape_lab.guard.measure.measure`, as for ``spend`` and ``progress``.
        spend: so many times the probes.
        progress: called with the name of each metric.

    Raises:
        InputError: what the analyses refuse.
    """
    epoch = study.epoch(epoch)
    part = study.split(settings.split)
    places = stratified(part.labels, settings.samples).sort().values
    chosen = part.take(places)
    values, counts = part.labels.unique(return_counts=True)
    population = {int(c): float(count) for c, count in zip(values, counts, strict=True)}
    drawn = Drawn(*chosen.tensors(), chosen.labels.cpu(), population, finite=True)
    batches: list[tuple[Tensor, Tensor]] = []
    if torch.equal(part.targets, part.labels):  # the batch's classes are read off its targets
        mixed = mixed_batches(torch.arange(len(part)), part.targets, settings, study.batch_size, spend)
        batches = [part.take(some.to(part.labels.device)).tensors() for some, _ in mixed]
    in_encoder = any(name.startswith("encoder.") for name, _ in study.model.named_parameters())
    return measure(
        study.model,
        study.loss,
        drawn,
        subsets,
        settings,
        encoder=_encoder(study),
        batches=batches,
        gradient_parameters=ParameterSpace(study.model, _of_encoder) if in_encoder else None,
        wanted=wanted,
        spend=spend,
        origin={"run": study.run.path.name, "epoch": epoch, **origin_of(study.device)},
        progress=progress,
    )


def _of_encoder(name: str) -> bool:
    return name.startswith("encoder.")


def _encoder(study: Study) -> nn.Module | None:
    try:
        return study.encoder
    except InputError:
        return None  # a target that does not say which part it is: there is no quality then
