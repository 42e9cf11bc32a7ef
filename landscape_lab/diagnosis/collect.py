"""The evidence of a run, measured where it is not stored yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from landscape_lab.analysis import GradientSimilarity
from landscape_lab.analysis.paths import Distances
from landscape_lab.diagnosis.findings import Curves, Diagnosis, Evidence
from landscape_lab.diagnosis.verdicts import judge
from landscape_lab.errors import InputError
from landscape_lab.studies.equal_sizes import EqualSizes, equal_sizes, equal_sizes_cost
from landscape_lab.studies.gradients import gradients
from landscape_lab.studies.groups import GroupingExamination, examine_groups, relations_cost
from landscape_lab.studies.paths import distances_to
from landscape_lab.studies.study import Progress, Study

__all__ = ["collect", "diagnose", "diagnosis_cost"]

_T = TypeVar("_T")

PRODUCT = 3  # a sample's Hessian-vector product takes about as long as its gradient three times


def diagnose(
    study: Study,
    *,
    tail_only: Study | None = None,
    epoch: int | None = None,
    samples: int | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Measure a run and say what the numbers say; the result is stored in the run as ``diagnosis``.

    Args:
        study: the run.
        tail_only: the run of the same network, from the same initialisation, that saw the tail alone.
        epoch: of the checkpoint; ``None``: the last. Curves end there.
        samples: at most so many of each subset for sharpness, and of each class for groups; ``None``: all, and the
            default of :func:`~landscape_lab.studies.groups.examine_groups`.
        progress: called with the number of units done, of :func:`diagnosis_cost`.
    """
    evidence = collect(study, tail_only=tail_only, epoch=epoch, samples=samples, progress=progress)
    result = judge(evidence)
    reference = str(tail_only.run.path) if tail_only else None
    settings = {"epoch": evidence.epoch, "tail_only": reference, "samples": samples}
    study.run.save_result("diagnosis", result, settings)
    return result


def collect(
    study: Study,
    *,
    tail_only: Study | None = None,
    epoch: int | None = None,
    samples: int | None = None,
    progress: Progress | None = None,
) -> Evidence:
    """All that :func:`~landscape_lab.diagnosis.verdicts.judge` needs of a run; takes what ``diagnose`` takes."""
    epoch = study.epoch(epoch)
    run, info = study.run, study.run.info
    head, tail = study.classes("head"), study.classes("tail")
    tell = progress or (lambda done: None)
    batch_size = study.batch_size
    missing: dict[str, str] = {}

    def measured(subject: str, compute: Callable[[], _T]) -> _T | None:
        try:
            return compute()
        except InputError as error:
            missing[subject] = str(error)
            return None

    lines = [line for line in run.metrics() if line["epoch"] <= epoch]
    form = run.recipe.quality.form if run.has_recipe else "difference"
    accuracy = _curves(lines, lambda line: line["test"]["class_accuracy"])
    quality = _curves(lines, lambda line: line["train"]["quality"][form])
    for subject, curves in (("degradation", accuracy), ("onset", quality)):
        if curves is None:
            missing[subject] = "metrics.jsonl does not hold it for each class and epoch"

    sharpness: EqualSizes | None = measured(
        "sharpness",
        lambda: equal_sizes(study, epoch, samples=samples, progress=lambda done: tell(PRODUCT * done)),
    )
    similarity: GradientSimilarity | None = measured(
        "gradients", lambda: gradients(study, epoch, progress=lambda done: tell(done * batch_size))
    )
    distances: Distances | None = None
    same_start = False
    if tail_only is None:
        missing["distance"] = "give the run that was trained on the tail alone with --tail-only"
    else:
        distances = measured("distance", lambda: distances_to(run, tail_only.run))
        same_start = distances is not None and _same_start(study, tail_only)
    grouping: GroupingExamination | None = None
    if info["groups"]:
        options = {} if samples is None else {"per_class": samples}
        grouping = measured("grouping", lambda: examine_groups(study, (), epoch, progress=tell, **options))
    return Evidence(
        run=run.path.name,
        epoch=epoch,
        seed=run.recipe.seed if run.has_recipe else None,
        class_names=tuple(info["class_names"]),
        class_counts=tuple(info["class_counts"]),
        head=head,
        tail=tail,
        accuracy=accuracy,
        quality=quality,
        sharpness=sharpness,
        gradients=similarity,
        batch_size=batch_size,
        distances=distances,
        same_start=same_start,
        grouping=grouping,
        missing=missing,
        test_counts=_test_counts(study),
    )


def diagnosis_cost(study: Study, samples: int | None = None) -> int:
    """About how many units :func:`diagnose` counts: gradients of samples, if nothing is stored yet."""
    groups = 0
    if study.run.info["groups"]:
        groups = relations_cost(study) if samples is None else relations_cost(study, samples)
    return PRODUCT * equal_sizes_cost(study, samples=samples) + len(study.split("train")) + groups


def _curves(lines: list[dict[str, Any]], of: Callable[[dict[str, Any]], list[float | None]]) -> Curves | None:
    """One number of each class from each epoch's line that has them; ``None`` if no line has."""
    epochs, rows = [], []
    for line in lines:
        try:
            row = of(line)
        except (KeyError, TypeError):  # a line of another program may hold less
            continue
        epochs.append(int(line["epoch"]))
        rows.append([torch.nan if value is None else value for value in row])
    return Curves(tuple(epochs), torch.tensor(rows, dtype=torch.float64)) if rows else None


def _test_counts(study: Study) -> tuple[int, ...]:
    try:
        return tuple(study.split("test").class_counts(study.num_classes))
    except InputError:  # a target without test samples
        return ()


def _same_start(study: Study, other: Study) -> bool:
    """Whether the first checkpoints of two runs hold the same parameters, before any training."""
    starts = []
    for one in (study, other):
        if one.run.checkpoints()[0] != 0:
            return False
        last = one.run.checkpoints()[-1]
        one.epoch(0)
        starts.append(one.space.vector())
        one.epoch(last)
    return torch.equal(starts[0].cpu(), starts[1].cpu())
