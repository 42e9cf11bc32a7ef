"""Which plane or line of a run to look at, how far, and what its axes are called."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from landscape_lab.analysis import Hessian, Line, Plane, Surface, Trajectory
from landscape_lab.analysis.directions import Biases, Normalisation
from landscape_lab.analysis.planes import eigenvector_plane, gradient_plane, mean_gradient, random_plane
from landscape_lab.errors import InputError, nearest
from landscape_lab.numbers import number
from landscape_lab.parameters import BatchNormPolicy
from landscape_lab.studies.study import Study
from landscape_lab.studies.trajectories import trajectory_of

__all__ = ["DIRECTIONS", "View", "random_names", "view_of"]

DIRECTIONS = ("random", "eigenvectors", "pca", "checkpoints", "head-tail")
_MARGIN = 4 / 3  # a path fills three quarters of its picture


@dataclass(frozen=True, eq=False)
class View:
    """A plane or line, the ranges of its coordinates, and what to write at them.

    Attributes:
        where: what is looked at.
        ranges: ``(low, high)`` of each axis; the second is unused along a line.
        names: of the axes.
        marks: points to mark, ``(name, x, y)``.
        batch_norm: what suits: ``"running"`` around one solution, ``"reestimated"`` between several.
    """

    where: Plane | Line
    ranges: tuple[tuple[float, float], tuple[float, float]]
    names: tuple[str, str]
    marks: tuple[tuple[str, float, float], ...] = ()
    batch_norm: BatchNormPolicy = "running"

    def named(self, surface: Surface) -> Surface:
        """The surface with the names and marks of this view."""
        names = self.names if isinstance(self.where, Plane) else (self.names[0], "")
        return replace(surface, names=names, marks=self.marks)


def view_of(
    study: Study,
    directions: str,
    data: tuple[Tensor, Tensor],
    *,
    normalisation: Normalisation = "filter",
    biases: Biases = "out",
    extent: float | None = None,
    seed: int = 0,
    line: bool = False,
) -> View:
    """The view that a user names, of the model as it is loaded now.

    Args:
        study: the run.
        directions: ``"random"``: two random directions through the solution, see
            :func:`~landscape_lab.analysis.planes.random_plane`.
            ``"eigenvectors"``: the two sharpest directions of the loss over ``data``; ``"eigenvectors:SUBSET"``: over
            all training samples of a subset.
            ``"head-tail"``: down the gradients of the head's and the tail's training loss.
            ``"pca"``: the plane of the path of training.
            ``"checkpoints:A,B,C"``: the plane through three epochs; ``"checkpoints:A,B"``: the line through two.
        data: inputs and targets that are scored.
        normalisation: of random directions.
        biases: whether biases and BatchNorm's parameters move, for random directions.
        extent: half the side of the square around the solution: 1 by default for random directions, and a fiftieth of
            the norm of the parameters for eigenvectors and gradients. Around paths: times a box that they fill to
            three quarters.
        seed: of random directions and of the eigenvectors' starting vector.
        line: along the first direction only.

    Raises:
        InputError: no such directions, subsets or epochs.
    """
    kind, _, detail = directions.partition(":")
    if kind not in DIRECTIONS or (bool(detail) != (kind == "checkpoints") and kind != "eigenvectors"):
        known = "random, eigenvectors, eigenvectors:SUBSET, pca, checkpoints:A,B,C, checkpoints:A,B, head-tail"
        raise InputError(f"no directions {directions!r}{nearest(kind, DIRECTIONS)}: choose from {known}")
    if extent is not None and not extent > 0:
        raise InputError(f"the extent must be positive, got {extent:g}")
    if kind in ("pca", "checkpoints"):
        return _of_path(study, detail, 1.0 if extent is None else extent, line)
    if kind == "random":
        plane = random_plane(study.space, seed=seed, normalisation=normalisation, biases=biases)
        names, usual = random_names(normalisation), 1.0
    elif kind == "eigenvectors":
        samples = study.samples(detail) if detail else data
        plane, pairs = eigenvector_plane(study.space, Hessian(study.model, study.loss, samples), seed=seed)
        first, second = (number(value) for value in pairs.values.tolist())
        whose = f" of {detail}" if detail else ""
        names, usual = (f"eigenvector 1{whose} in ‖θ‖, λ = {first}", f"eigenvector 2{whose} in ‖θ‖, λ = {second}"), 0.02
    else:
        gradients = [
            mean_gradient(study.model, study.loss, study.samples(subset), study.space) for subset in ("head", "tail")
        ]
        plane, cosine = gradient_plane(study.space, *gradients)
        names = "down the head's gradient, in ‖θ‖", f"down the tail's, in ‖θ‖ (cosine {number(cosine, 2)})"
        usual = 0.02
    side = usual if extent is None else extent
    where = Line(plane.origin, plane.x) if line else plane
    return View(where, ((-side, side), (-side, side)), names)


def random_names(normalisation: Normalisation) -> tuple[str, str]:
    """What the axes along random directions are called."""
    how = "" if normalisation == "none" else f" ({normalisation}-normalised)"
    return f"direction 1{how}", f"direction 2{how}"


def _of_path(study: Study, detail: str, extent: float, line: bool) -> View:
    """A view of the way of training, or of some of its checkpoints."""
    epochs = _epochs(detail) if detail else None
    if epochs is not None and len(epochs) == 2:
        return _between(study, epochs[0], epochs[1], extent)
    path, plane = trajectory_of(study.run, epochs)
    if line and epochs is not None:
        raise InputError("a line goes through two checkpoints: give checkpoints:A,B")
    kept = [k for k, epoch in enumerate(path.steps) if epochs is None or epoch in epochs]
    points = path.coordinates[kept]
    flat = 0.0 if line else 1.0
    marks = tuple((f"epoch {path.steps[k]}", x, flat * y) for k, (x, y) in zip(kept, points.tolist(), strict=True))
    if epochs is None:
        names = _components(path)
    else:
        names = f"from epoch {epochs[0]} towards epoch {epochs[1]}", f"across, on epoch {epochs[2]}'s side"
    where = Line(plane.origin, plane.x) if line else plane
    return View(where, _box(points, extent), names, marks, "reestimated")


def _between(study: Study, first: int, second: int, extent: float) -> View:
    """The line through two epochs' checkpoints, at 0 and 1."""
    points, epochs = study.run.trajectory()
    missing = [epoch for epoch in (first, second) if epoch not in epochs]
    if missing or first == second:
        raise InputError(
            f"checkpoints:A,B needs two different epochs that have a checkpoint, got {first} and {second}; "
            f"{study.run.path} has {', '.join(map(str, epochs))}"
        )
    a, b = (points[epochs.index(epoch)] for epoch in (first, second))
    half = 0.5 * _MARGIN * extent
    marks = (f"epoch {first}", 0.0, 0.0), (f"epoch {second}", 1.0, 0.0)
    names = f"from epoch {first} (0) to epoch {second} (1)", ""
    return View(Line(a, b - a), ((0.5 - half, 0.5 + half), (0.0, 0.0)), names, marks, "reestimated")


def _components(path: Trajectory) -> tuple[str, str]:
    shares = path.explained_variance_ratio or (0.0, 0.0)
    return f"component 1 ({100 * shares[0]:.0f} %)", f"component 2 ({100 * shares[1]:.0f} %)"


def _box(points: Tensor, extent: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """The ranges that hold all points ``(T, 2)`` with a margin, neither side less than a quarter of the other."""
    low, high = points.min(0).values, points.max(0).values
    sides = (high - low).maximum((high - low).max() / 4)
    centre, half = (low + high) / 2, sides / 2 * _MARGIN * extent
    (left, right), (bottom, top) = zip((centre - half).tolist(), (centre + half).tolist(), strict=True)
    return (left, right), (bottom, top)


def _epochs(text: str) -> list[int]:
    try:
        epochs = [int(part) for part in text.split(",")]
    except ValueError:
        epochs = []
    if len(epochs) not in (2, 3):
        raise InputError(f"checkpoints: needs two or three epochs, such as checkpoints:0,30,60, got {text!r}")
    return epochs
