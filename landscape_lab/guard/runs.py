"""The guard on a run: its samples, its classes, its loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from landscape_lab.errors import InputError
from landscape_lab.guard.measure import Wanted, measure, mixed_batches
from landscape_lab.guard.measured import Measurement
from landscape_lab.guard.origin import origin_of
from landscape_lab.guard.samples import draw
from landscape_lab.guard.settings import GuardSettings
from landscape_lab.parameters import ParameterSpace
from landscape_lab.studies.study import Study
from landscape_lab.training.losses import cross_entropy

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
    inputs, targets = study.samples("all", settings.split)
    if targets.dim() != 1 or targets.is_floating_point():
        raise InputError("the guard compares classes: the targets of this run are no class numbers")
    drawn = draw(inputs, targets, targets, settings.samples)
    encoder = getattr(study, "encoder", None) or getattr(study.model, "encoder", None)
    pieces = [name for name, _ in study.model.named_parameters() if name.startswith("encoder.")]
    return measure(
        study.model,
        getattr(study, "loss", cross_entropy),
        drawn,
        subsets,
        settings,
        encoder=encoder,
        batches=mixed_batches(inputs, targets, settings, getattr(study, "batch_size", 128), spend),
        gradient_parameters=ParameterSpace(study.model, lambda name: name.startswith("encoder.")) if pieces else None,
        wanted=wanted,
        spend=spend,
        origin={"run": study.run.path.name, "epoch": epoch, **origin_of(study.device)},
        progress=progress,
    )
