"""The loss of a run's subsets over planes and along lines, stored with the settings."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from landscape_lab.analysis import Plane, Surface, evaluate
from landscape_lab.analysis.adaptive import TOLERANCE, evaluate_adaptively, nested_axis
from landscape_lab.analysis.directions import Biases, Normalisation
from landscape_lab.analysis.loss_landscapes_backend import loss_landscapes_surface
from landscape_lab.analysis.sweep import Measured
from landscape_lab.errors import InputError
from landscape_lab.parameters import BatchNormPolicy
from landscape_lab.studies.curvature import drawn
from landscape_lab.studies.study import Progress, Study, file_name
from landscape_lab.studies.trajectories import norm_statistics
from landscape_lab.studies.views import View, random_names, view_of

__all__ = ["Backend", "plane_surface", "surface", "surface_points"]

Backend = Literal["landscape-lab", "loss-landscapes"]
KEEP_EVERY = 5.0  # seconds between two savings of an unfinished sweep


def surface(
    study: Study,
    subsets: Sequence[str],
    epoch: int | None = None,
    *,
    directions: str = "random",
    normalisation: Normalisation = "filter",
    biases: Biases = "out",
    extent: float | None = None,
    steps: int = 25,
    line: bool = False,
    adaptive: bool = False,
    tolerance: float = TOLERANCE,
    split: str = "train",
    samples: int | None = None,
    per_class: int | None = None,
    seed: int = 0,
    batch_norm: BatchNormPolicy | None = None,
    backend: Backend = "landscape-lab",
    progress: Progress | None = None,
) -> Surface:
    """Loss and accuracy of subsets over a plane, or along a line, from one sweep.

    What an unfinished sweep has measured is kept in the run, and the same call goes on from there: the result is the
    same, bit for bit.

    Args:
        study: the run.
        subsets: as :meth:`Study.subset_classes` takes them; scored in one sweep.
        epoch: of the checkpoint; ``None``: the last.
        directions: see :func:`~landscape_lab.studies.views.view_of`: ``random``, ``eigenvectors``,
            ``eigenvectors:SUBSET``, ``pca``, ``checkpoints:A,B,C`` (or ``A,B``, a line), ``head-tail``.
        normalisation: of random directions.
        biases: whether biases and BatchNorm's parameters move, for random directions.
        extent: half the side of the square; ``None``: what suits the directions.
        steps: points on each axis; the least number, for an adaptive grid.
        line: along the first direction only.
        adaptive: evaluate only where the loss bends.
        tolerance: the relative error to be content with, for an adaptive grid.
        split: whose samples are scored.
        samples: at most so many of each subset, drawn at random; ``None``: all.
        per_class: at most so many of each class; unions weigh the classes by their true counts.
        seed: of random directions, which do not depend on the run: two runs of one network share them.
        batch_norm: ``None``: running statistics around one solution, re-estimated ones where the plane or line
            connects several.
        backend: ``"loss-landscapes"``: the other program's sweep over the same random plane.
        progress: called with the number of grid points done.

    Raises:
        InputError: no such directions, subsets or checkpoints, or what the back end cannot do.
    """
    epoch = study.epoch(epoch)
    chosen = study.subset_classes(subsets)
    if steps < 2:
        raise InputError(f"a surface needs two steps at least, got {steps}")
    plain = directions == "random" and not (line or adaptive) and biases == "out" and batch_norm != "reestimated"
    if backend != "landscape-lab" and not plain:
        raise InputError(
            "loss-landscapes can do full planes along random directions without biases, with running or batch "
            "statistics, and nothing else"
        )
    settings = {
        "epoch": epoch,
        "subsets": {name: list(classes) for name, classes in chosen.items()},
        "directions": directions,
        "normalisation": normalisation,
        "biases": biases,
        "extent": extent,
        "steps": steps,
        "line": line,
        "tolerance": tolerance if adaptive else None,
        "split": split,
        "samples": samples,
        "per_class": per_class,
        "seed": seed,
        "batch_norm": batch_norm,
        "backend": backend,
    }
    kind = [directions.replace(":", "-").replace(",", "_")] if directions != "random" else []
    kind += [normalisation] if normalisation != "filter" else []
    kind += [] if extent is None else [f"to-{extent:g}"]
    kind += ["biases"] * (biases == "in") + ["line"] * line + ["adaptive"] * adaptive
    kind += [backend] if backend != "landscape-lab" else []
    name = "-".join([f"surface/epoch-{epoch:04d}-{split}-{_file_name(list(chosen))}", *kind])

    def compute() -> Surface:
        data, counts = _mixed(study, chosen, split, samples, per_class)
        if backend == "loss-landscapes":
            theirs = loss_landscapes_surface(
                study.model,
                study.loss,
                data,
                extent=1.0 if extent is None else extent,
                steps=steps,
                subsets=chosen,
                num_classes=study.num_classes,
                seed=seed,
                normalisation=normalisation,
                batch_norm=batch_norm or "running",
                class_counts=counts,
                progress=progress,
            )
            return replace(theirs, names=random_names(normalisation))
        view = view_of(
            study,
            directions,
            data,
            normalisation=normalisation,
            biases=biases,
            extent=extent,
            seed=seed,
            line=line,
        )
        return _swept(study, view, chosen, data, counts, settings, name, progress)

    return study.stored(name, Surface, settings, compute)


def surface_points(steps: int, *, line: bool = False, adaptive: bool = False) -> int:
    """The points of a surface's grid; an adaptive one evaluates some of them."""
    side = len(nested_axis(-1, 1, steps)) if adaptive else steps
    return side if line else side * side


def _swept(
    study: Study,
    view: View,
    subsets: Mapping[str, Sequence[int]],
    data: tuple[Tensor, Tensor],
    counts: Mapping[int, float] | None,
    settings: Mapping[str, Any],
    name: str,
    progress: Progress | None,
) -> Surface:
    """Evaluate, keeping what is there in the run until all of it is."""
    place = f"partial/{name}"
    policy: BatchNormPolicy = settings["batch_norm"] or view.batch_norm
    steps, tolerance = settings["steps"], settings["tolerance"]
    axes = [_axis(low, high, steps, tolerance is not None) for low, high in view.ranges]
    run = partial(evaluate_adaptively, tolerance=tolerance) if tolerance is not None else evaluate
    result = run(
        study.model,
        study.loss,
        data,
        view.where,
        x=axes[0],
        y=axes[1] if isinstance(view.where, Plane) else None,
        subsets=subsets,
        num_classes=study.num_classes,
        parameters=study.space,
        batch_norm=policy,
        batch_size=None if policy == "running" else study.evaluation_batch_size,
        class_counts=counts,
        statistics=norm_statistics(study) if policy == "reestimated" else None,
        known=study.run.load_result(place, Measured, settings),
        keep=lambda measured: _keep(study, place, measured, settings),
        keep_every=KEEP_EVERY,
        progress=progress,
    )
    for suffix in (".json", ".safetensors"):
        (study.run.path / "results" / f"{place}{suffix}").unlink(missing_ok=True)
    return study.scored(view.named(result))


def _keep(study: Study, place: str, measured: Measured, settings: Mapping[str, Any]) -> None:
    study.run.save_result(place, measured, settings)


def _axis(low: float, high: float, steps: int, nested: bool) -> Tensor:
    return nested_axis(low, high, steps) if nested else torch.linspace(low, high, steps, dtype=torch.float64)


def _mixed(
    study: Study, subsets: Mapping[str, Sequence[int]], split: str, samples: int | None, per_class: int | None
) -> tuple[tuple[Tensor, Tensor], Mapping[int, float] | None]:
    """The samples in random order: batches must mix the classes where BatchNorm looks at the batch."""
    (inputs, targets), counts = drawn(study, subsets, split, samples, per_class)
    if per_class is not None:
        order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(1)).to(targets.device)
        inputs, targets = inputs[order], targets[order]
    return (inputs, targets), counts


def _file_name(subsets: Sequence[str]) -> str:
    """Short enough for a file of a hundred subsets."""
    name = "+".join(map(file_name, subsets))
    return name if len(name) <= 60 else f"{len(subsets)}-subsets-{zlib.crc32(name.encode()):08x}"


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
        chosen = study.choose(study.split("train"), classes, samples)
        return evaluate(
            study.model,
            study.loss,
            list(chosen.batches(study.evaluation_batch_size)),
            plane,
            x=x,
            y=y,
            subsets=classes,
            num_classes=study.num_classes,
            parameters=study.space,
            batch_norm="batch",
            progress=progress,
        )

    full = {
        **settings,
        "x": x.tolist(),
        "y": y.tolist(),
        "classes": list(classes[subset]),
        "samples": samples,
    }
    return study.stored(f"surface/{name}", Surface, full, compute)
