"""What a report shows and is not stored yet: planned with its cost, computed, and stored in the runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from landscape_lab import console
from landscape_lab.analysis import GradientSimilarity, Spectrum, Surface, Trajectory
from landscape_lab.analysis.neural_collapse import NeuralCollapse
from landscape_lab.analysis.noise import NoiseCurve
from landscape_lab.analysis.paths import Distances
from landscape_lab.analysis.sharpness import Sharpness
from landscape_lab.analysis.trajectory import JointTrajectory
from landscape_lab.curvature import CurvatureSettings
from landscape_lab.diagnosis import Diagnosis, diagnose, diagnosis_cost
from landscape_lab.errors import InputError
from landscape_lab.parameters import eval_mode
from landscape_lab.report.results import Results, Stored
from landscape_lab.run import Run
from landscape_lab.studies import Study, spread
from landscape_lab.studies.curvature import spectra, spectra_cost
from landscape_lab.studies.features import collapse
from landscape_lab.studies.gradients import gradient_batches, gradients
from landscape_lab.studies.groups import GroupingExamination, examine_groups, relations_cost
from landscape_lab.studies.noise import USUAL_RATIOS, noise_curve, sharpness, sharpness_cost
from landscape_lab.studies.paths import distances_to
from landscape_lab.studies.surfaces import surface
from landscape_lab.studies.trajectories import joint_trajectory, trajectory_of

__all__ = ["Step", "fill", "plan"]

SUBSETS = ("head", "tail")
EXTENT, GRID = 0.5, 25  # of a surface: half its side in filter norms, points on an axis
EPOCHS = 5  # with a surface, with gradients, and with neural collapse
# Forward passes that a product with the Hessian and a pass with its gradient are worth, about.
PRODUCT, GRADIENT = 7.0, 3.0


@dataclass(frozen=True)
class Step:
    """A thing to compute.

    Attributes:
        title: what, and of which run.
        units: of its progress bar.
        cost: forward passes of one sample, about.
        compute: takes the progress bar's function.
    """

    title: str
    units: int
    cost: float
    compute: Callable[[Callable[[int], None]], Any]


def fill(
    studies: Mapping[str, Study], *, tail_only: Study | None = None, samples: int | None = None, seed: int = 0
) -> list[str]:
    """Compute what :func:`plan` says is missing, with a progress bar each, and an estimate of the time beforehand.

    Args:
        studies: what each run is called → the run, opened.
        tail_only: a run that was trained on the tail alone: distances to its solution are then measured.
        samples: at most so many samples of a subset; ``None``: all.
        seed: of random directions.

    Returns:
        What could not be computed, and why.
    """
    steps = plan(studies, tail_only=tail_only, samples=samples, seed=seed)
    if not steps:
        return []
    seconds = sum(step.cost for step in steps) * _seconds(next(iter(studies.values())))
    count = f"{len(steps)} result{'s' if len(steps) > 1 else ''}"
    console.note(f"{count} to compute, about {console.duration(seconds)}; each is stored in its run and kept")
    failed = []
    for step in steps:
        with console.progress_bar(step.title, step.units, estimate=False) as advance:
            try:
                step.compute(advance)
            except InputError as error:  # a run without enough checkpoints, a tail without images
                failed.append(f"{step.title}: {error}")
    return failed


def plan(
    studies: Mapping[str, Study], *, tail_only: Study | None = None, samples: int | None = None, seed: int = 0
) -> list[Step]:
    """What is missing, in the order in which it will be computed. Arguments as of :func:`fill`."""
    steps: list[Step] = []
    for label, study in studies.items():
        results = Results(label, study.run)
        if not study.run.checkpoints():
            continue
        steps += _path_steps(results, study, tail_only.run if tail_only else None)
        steps += _surface_steps(results, study, samples, seed)
        steps += _curvature_steps(results, study, samples)
        steps += _collapse_steps(results, study)
        steps += _gradient_steps(results, study)
        steps += _noise_steps(results, study, samples, seed)
        steps += _group_steps(results, study, studies)
        steps += _diagnosis_steps(results, study, tail_only, samples)  # last: it reads what is stored by then
    return steps + _joint_steps(studies)


def _has(results: Results, kind: type[Any], folder: str, settings: Mapping[str, Any], *, named: str = "") -> bool:
    """Whether there is a result with these settings, whatever others it has."""
    entries: list[Stored[Any]] = results.of(kind, folder, named=named)
    return any(all(entry.settings.get(key) == value for key, value in settings.items()) for entry in entries)


def _size(study: Study, samples: int | None) -> int:
    counts = study.split("train").class_counts(study.num_classes)
    sizes = [sum(counts[c] for c in study.classes(subset)) for subset in SUBSETS]
    return sum(size if samples is None else min(size, samples) for size in sizes)


def _path_steps(results: Results, study: Study, tail_only: Run | None) -> list[Step]:
    run, steps = study.run, []
    if not _has(results, Trajectory, "", {}):

        def path(advance: Callable[[int], None]) -> None:
            run.save_result("trajectory", trajectory_of(run)[0], {"through": None})
            advance(1)

        steps.append(Step(f"trajectory, {results.label}", 1, 0.0, path))
    if tail_only is not None:
        place = f"distances/{tail_only.path.name}"
        settings = {"reference": tail_only.path.name, "epoch": tail_only.checkpoints()[-1]}

        def far(advance: Callable[[int], None]) -> None:
            run.save_result(place, distances_to(run, tail_only), settings)
            advance(1)

        if not _has(results, Distances, "distances", settings):
            steps.append(Step(f"distances, {results.label}", 1, 0.0, far))
    return steps


def _surface_steps(results: Results, study: Study, samples: int | None, seed: int) -> list[Step]:
    def step(epoch: int) -> Step:
        def compute(advance: Callable[[int], None]) -> None:
            surface(study, SUBSETS, epoch, extent=EXTENT, steps=GRID, samples=samples, seed=seed, progress=advance)

        title = f"surface at epoch {epoch}, {results.label}"
        return Step(title, GRID * GRID, GRID * GRID * _size(study, samples), compute)

    common = {"extent": EXTENT, "steps": GRID, "samples": samples, "seed": seed, "split": "train"}
    known = {
        entry.epoch
        for entry in results.of(Surface, "surface")
        if all(entry.settings.get(key) == value for key, value in common.items())
        and entry.settings.get("directions", "random") == "random"
        and entry.settings.get("normalisation", "filter") == "filter"
        and set(SUBSETS) <= set(entry.result.subsets)
    }
    return [step(epoch) for epoch in spread(study.run.checkpoints(), EPOCHS) if epoch not in known]


def _curvature_steps(results: Results, study: Study, samples: int | None) -> list[Step]:
    epoch, settings = study.run.checkpoints()[-1], CurvatureSettings()
    known = [s for s in results.of(Spectrum, "hessian") if s.epoch == epoch and s.settings.get("samples") == samples]
    if len(known) >= len(SUBSETS):
        return []
    cost = spectra_cost(study, SUBSETS, settings, samples=samples)

    def compute(advance: Callable[[int], None]) -> None:
        spectra(study, SUBSETS, epoch, settings, samples=samples, progress=advance)

    return [Step(f"Hessian, {results.label}", cost, PRODUCT * cost, compute)]


def _collapse_steps(results: Results, study: Study) -> list[Step]:
    def step(epoch: int) -> Step:
        def compute(advance: Callable[[int], None]) -> None:
            collapse(study, epoch)
            advance(1)

        return Step(f"neural collapse at epoch {epoch}, {results.label}", 1, len(study.split("train")), compute)

    epochs, kind = spread(study.run.checkpoints(), EPOCHS), NeuralCollapse
    return [step(e) for e in epochs if not _has(results, kind, "collapse", {"epoch": e, "split": "train"})]


def _gradient_steps(results: Results, study: Study) -> list[Step]:
    classes = tuple(dict.fromkeys(c for subset in SUBSETS for c in study.classes(subset)))
    batches, size = gradient_batches(study), len(study.split("train"))

    def step(epoch: int) -> Step:
        def compute(advance: Callable[[int], None]) -> None:
            gradients(study, epoch, classes, progress=advance)

        return Step(
            f"gradients at epoch {epoch}, {results.label}", batches, GRADIENT * size * (1 + len(classes)), compute
        )

    epochs = spread(study.run.checkpoints(), EPOCHS)
    return [step(epoch) for epoch in epochs if not _has(results, GradientSimilarity, "gradients", {"epoch": epoch})]


def _noise_steps(results: Results, study: Study, samples: int | None, seed: int) -> list[Step]:
    epoch, size, steps, directions = study.run.checkpoints()[-1], _size(study, samples), [], 10
    wanted = {"epoch": epoch, "samples": samples, "ratios": list(USUAL_RATIOS)}
    if not _has(results, NoiseCurve, "noise", wanted):

        def curve(advance: Callable[[int], None]) -> None:
            noise_curve(study, SUBSETS, epoch, directions=directions, samples=samples, seed=seed, progress=advance)

        points = directions * len(USUAL_RATIOS)
        steps.append(Step(f"noise, {results.label}", points, points * size, curve))
    if not _has(results, tuple[Sharpness, ...], "sharpness", {"epoch": epoch, "samples": samples}, named="tuple"):
        passes = sharpness_cost(len(SUBSETS))

        def numbers(advance: Callable[[int], None]) -> None:
            sharpness(study, SUBSETS, epoch, samples=samples, seed=seed, progress=advance)

        steps.append(Step(f"sharpness, {results.label}", passes, GRADIENT * passes * size / len(SUBSETS), numbers))
    return steps


def _group_steps(results: Results, study: Study, studies: Mapping[str, Study]) -> list[Step]:
    if not study.run.info["groups"] or _has(results, GroupingExamination, "groups", {}):
        return []
    others = [
        other.run
        for other in studies.values()
        if other is not study and other.run.info["groups"] and other.run.info.get("data") == study.run.info.get("data")
    ]
    cost = relations_cost(study)

    def compute(advance: Callable[[int], None]) -> None:
        examine_groups(study, others, progress=advance)

    return [Step(f"groups, {results.label}", cost, GRADIENT * cost, compute)]


def _diagnosis_steps(results: Results, study: Study, tail_only: Study | None, samples: int | None) -> list[Step]:
    reference = str(tail_only.run.path) if tail_only else None
    settings: dict[str, Any] = {"epoch": study.run.checkpoints()[-1], "samples": samples}
    if reference:
        settings["tail_only"] = reference
    if _has(results, Diagnosis, "", settings):
        return []

    def compute(advance: Callable[[int], None]) -> None:
        diagnose(study, tail_only=tail_only, samples=samples, progress=advance)

    try:
        units = diagnosis_cost(study, samples=samples)
    except InputError:  # told when it is tried
        units = 1
    return [Step(f"diagnosis, {results.label}", units, GRADIENT * units, compute)]


def _joint_steps(studies: Mapping[str, Study]) -> list[Step]:
    runs = {label: study.run for label, study in studies.items() if study.run.checkpoints()}
    # A common plane of different networks does not exist; of different beginnings it shows the beginnings.
    if len(runs) < 2 or len({_start(run) for run in runs.values()}) > 1:
        return []
    first = next(iter(runs.values()))
    settings = {"runs": list(runs)}
    if _has(Results("", first), JointTrajectory, "", settings):
        return []

    def compute(advance: Callable[[int], None]) -> None:
        joint = joint_trajectory(studies)
        first.save_result("trajectory-joint", joint, settings)
        advance(1)

    return [Step("trajectories in one plane", 1, 0.0, compute)]


def _start(run: Run) -> tuple[str, ...]:
    """Equal for runs that began with the same weights; a run without a recipe is like no other."""
    return (str(run.recipe.model), str(run.recipe.seed)) if run.has_recipe else (str(run.path),)


def _seconds(study: Study) -> float:
    """What a forward pass of one sample takes."""
    part = study.split("train")
    images, _ = part.take(slice(128)).tensors()
    study.epoch(None)
    with torch.no_grad(), eval_mode(study.model):
        study.model(images)
        started = time.perf_counter()
        study.model(images)
        if images.is_cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - started) / len(images)
