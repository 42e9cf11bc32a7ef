"""The paper's figures from runs: what each needs is analysed, stored in the run, and drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from landscape_lab import console
from landscape_lab.analysis import Plane, Spectrum, Surface, Trajectory, plane_through, project
from landscape_lab.data import head_tail
from landscape_lab.errors import InputError
from landscape_lab.figures import (
    GeometryPaths,
    QualityPanel,
    SimilarityPanel,
    feature_quality,
    gradient_similarity,
    hessian_density,
    landscape_geometry,
    save,
)
from landscape_lab.run import Run
from landscape_lab.studies import Study, spread
from landscape_lab.studies.curvature import USUAL, spectra, spectra_cost
from landscape_lab.studies.features import FORMS, quality_history
from landscape_lab.studies.gradients import gradient_batches, gradients
from landscape_lab.studies.surfaces import plane_surface, surface

__all__ = ["FigureMaker", "Picture", "quality_panel"]

NEEDS = {
    1: ("standard", "ours", "tail-only"),
    2: ("standard", "ours"),
    6: ("standard", "ours"),
    9: ("standard", "ours"),
}


@dataclass(frozen=True)
class Picture:
    """A drawn figure: its files (PNG first), title and caption."""

    number: int
    title: str
    caption: str
    files: tuple[Path, ...]


def quality_panel(
    run: Run | Study,
    title: str,
    surface: Surface | None = None,
    notes: Mapping[str, str] | None = None,
    *,
    epochs: Sequence[int] | None = None,
) -> QualityPanel:
    """Mean feature quality of head and tail over the epochs of a run.

    Args:
        run: the run, whose metrics hold the quality; of a study, what they do not hold is computed.
        title: the run's name.
        surface: around the last epoch.
        notes: below the surfaces.
        epochs: only these; ``None``: all.

    Raises:
        InputError: no epoch's quality is known.
    """
    info = run.info if isinstance(run, Run) else run.run.info
    subsets = {name: info["subsets"][name] for name in ("head", "tail")}

    def curves(split: str) -> tuple[tuple[int, ...], dict[str, dict[str, tuple[float, ...]]]]:
        histories = {form: quality_history(run, split, form, epochs=epochs) for form in FORMS}
        return histories["difference"].epochs, {
            form: {name: tuple(history.quality[:, classes].nanmean(1).tolist()) for name, classes in subsets.items()}
            for form, history in histories.items()
        }

    measured, trained = curves("train")
    try:
        tested_at, tested = curves("test")
    except InputError:  # there are no test samples
        tested_at, tested = measured, {}
    counts = info["class_counts"]
    return QualityPanel(
        title=title,
        epochs=measured,
        curves=trained,
        test_curves=tested if tested_at == measured else {},
        surface=surface,
        notes=dict(notes or {}),
        classes={name: len(classes) for name, classes in subsets.items()},
        samples={name: sum(counts[c] for c in classes) for name, classes in subsets.items()},
    )


class FigureMaker:
    """Draws the paper's figures from runs.

    Args:
        studies: ``standard`` and ``ours``; ``sam`` adds a column to figure 9; ``tail-only`` is for figure 1.
        folder: where the pictures go.
        samples: at most so many samples of a subset in surfaces and Hessians; ``None``: all.
        surface_steps: points on each axis of a surface.
        extent: half the side of figure 2's surfaces, in units of the filters' norms.
    """

    def __init__(
        self,
        studies: Mapping[str, Study],
        folder: Path,
        *,
        samples: int | None = None,
        surface_steps: int = 25,
        extent: float = 0.5,
    ) -> None:
        self.studies, self.folder, self.samples = dict(studies), folder, samples
        self.surface_steps, self.extent = surface_steps, extent

    def name(self, role: str) -> str:
        """What a run is called in the pictures: its base loss and method."""
        return self.studies[role].run.recipe.label

    def draw(self, number: int) -> Picture:
        """Analyse what figure 1, 2, 6 or 9 needs, draw it and save it as PNG, PDF and SVG.

        Raises:
            InputError: the figure is unknown, or needs a run that is not there.
        """
        if number not in NEEDS:
            raise InputError(f"figure {number} cannot be drawn; there are {', '.join(map(str, NEEDS))}")
        missing = [role for role in NEEDS[number] if role not in self.studies]
        if missing:
            raise InputError(f"figure {number} needs a {missing[0]} run: give it with --{missing[0]}")
        figure, title, caption = {1: self._one, 2: self._two, 6: self._six, 9: self._nine}[number]()
        files = save(figure, self.folder / f"figure-{number}")
        return Picture(number, title, caption, tuple(files))

    # -- figure 1 --------------------------------------------------------------------------------------------

    def _one(self) -> tuple[Figure, str, str]:
        roles = NEEDS[1]
        points, epochs = {}, {}
        for role in roles:
            points[role], epochs[role] = self.studies[role].run.trajectory()
        starts = [points[role][0] for role in roles]
        if any(start.shape != starts[0].shape or not torch.equal(start, starts[0]) for start in starts):
            raise InputError("figure 1 needs three runs from one initialisation: train them with the same seed")
        t1, t2, star = (points[role][-1] for role in ("tail-only", "standard", "ours"))
        plane = plane_through(starts[0], t1, t2)
        paths = {role: project(points[role], plane, epochs[role], method="points") for role in roles}
        x, y = _grid(paths, self.surface_steps)
        distances = {
            "ours": _distance(star, t1),
            "standard": _distance(t2, t1),
            "θ* to θ(t2)": _distance(star, t2),
        }
        settings = {
            "plane": "initialisation, tail-only, standard",
            "ends": [self._fingerprint(role) for role in ("tail-only", "standard")],
        }
        full = self._plane_surface("standard", "figure-1-all", plane, x, y, "all", settings)
        tail = self._plane_surface("tail-only", "figure-1-tail", plane, x, y, "tail", settings)
        figure = landscape_geometry(
            tail,
            full,
            GeometryPaths(
                tail_only=paths["tail-only"],
                standard=paths["standard"],
                ours=paths["ours"],
                distances=distances,
                names={
                    "standard": f"{self.name('standard')} (standard)",
                    "ours": f"{self.name('ours')} (ours)",
                },
            ),
        )
        closer = "closer to" if distances["ours"] < distances["standard"] else "further from"
        caption = (
            "Plane through the common initialisation θ(t0), the tail-only solution θ(t1) and the standard solution "
            f"θ(t2). In the full space ‖θ*−θ(t1)‖ = {distances['ours']:.3g} and ‖θ(t2)−θ(t1)‖ = "
            f"{distances['standard']:.3g}: in this run θ* is {closer} the tail's own solution than θ(t2) is. θ* lies "
            f"{float(paths['ours'].residuals[-1]):.3g} off the plane, so the surface below it is not the loss at it: "
            f"{self._true_losses(full, paths['ours'])}. BatchNorm normalises by the statistics of the batches at "
            "hand, since running statistics belong to one point of the plane only. The paper's figure is a drawing; "
            "this one is measured."
        )
        return figure, "Landscape of the tail and of the full data, and the way through them", caption

    def _plane_surface(
        self, role: str, name: str, plane: Plane, x: Tensor, y: Tensor, subset: str, settings: dict[str, Any]
    ) -> Surface:
        study = self.studies[role]
        with console.progress_bar(f"figure 1, {subset}", len(x) * len(y)) as advance:
            return plane_surface(
                study, name, plane, x, y, subset, settings=settings, samples=self.samples, progress=advance
            )

    def _fingerprint(self, role: str) -> str:
        run = self.studies[role].run
        return f"{run.recipe.seed}/{run.recipe.method}/{run.checkpoints()[-1]}"

    def _true_losses(self, surface: Surface, path: Trajectory) -> str:
        """The true training loss at θ* beside the plane's loss below it."""
        last = self.studies["ours"].run.metrics()[-1]["train"]["loss"]
        x, y = path.coordinates[-1]
        column = int((surface.x - x).abs().argmin())
        row = int((surface.y - y).abs().argmin())
        below = float(surface.losses[0, row, column])
        return f"the training loss at θ* is {last:.3g} (running statistics), on the plane below it {below:.3g}"

    # -- figure 2 --------------------------------------------------------------------------------------------

    def _two(self) -> tuple[Figure, str, str]:
        panels = []
        for role in NEEDS[2]:
            study = self.studies[role]
            with console.progress_bar(f"figure 2, {self.name(role)}", self.surface_steps**2) as advance:
                found = surface(
                    study,
                    ("head", "tail"),
                    extent=self.extent,
                    steps=self.surface_steps,
                    samples=self.samples,
                    progress=advance,
                )
            notes = {subset: _rise(found, subset, self.extent) for subset in ("head", "tail")}
            panels.append(quality_panel(study.run, self.name(role), found, notes))
        caption = (
            "Above: mean feature quality of head and tail classes over training, on training images (solid) and test "
            "images (dashed), in the form of Eq. 19 and in that of the released code. Below: training loss around the "
            "last epoch along two filter-normalised random directions, the same for all four; the iso-lines are the "
            "same in all panels. The numbers give the loss at the centre and its mean rise on the circle of radius "
            f"{self.extent:g} filter norms."
        )
        return (
            feature_quality(panels),
            "Feature quality over training, and the loss around the solution",
            caption,
        )

    # -- figure 6 --------------------------------------------------------------------------------------------

    def _six(self) -> tuple[Figure, str, str]:
        panels, labels = [], {}
        for role in NEEDS[6]:
            study = self.studies[role]
            # The two most and the two least frequent classes, as in the paper.
            counts = study.run.info["class_counts"]
            head, tail = head_tail(counts, min(0.5, 2 / len(counts))).values()
            names = study.class_names
            labels = {c: f"Head-{k} ({names[c]})" for k, c in enumerate(head)}
            labels |= {c: f"Tail-{k} ({names[c]})" for k, c in enumerate(tail)}
            epochs = spread(study.run.checkpoints(), 5)
            with console.progress_bar(
                f"figure 6, {self.name(role)}: batches", len(epochs) * gradient_batches(study)
            ) as advance:
                found = tuple(gradients(study, epoch, (*head, *tail), progress=advance) for epoch in epochs)
            panels.append(SimilarityPanel(self.name(role), tuple(epochs), found))
        recipe = self.studies["standard"].run.recipe
        caption = (
            "Cosine of a class's gradient with its batch's, encoder parameters, evaluation mode, unaugmented training "
            f"images in random batches of {recipe.training.batch_size}; mean over the batches that hold the class, "
            "bars: standard error."
        )
        return gradient_similarity(panels, labels), "Does a batch's gradient serve its rare classes?", caption

    # -- figure 9 --------------------------------------------------------------------------------------------

    def spectra(self, role: str) -> dict[str, Spectrum]:
        """The spectra of head and tail of one run."""
        study, subsets = self.studies[role], ("head", "tail")
        cost = spectra_cost(study, subsets, USUAL, samples=self.samples)
        with console.progress_bar(f"Hessian, {self.name(role)}: samples × products", cost) as advance:
            return spectra(study, subsets, samples=self.samples, progress=advance)

    def _nine(self) -> tuple[Figure, str, str]:
        roles = [role for role in ("standard", "sam", "ours") if role in self.studies]
        found = {self.name(role): self.spectra(role) for role in roles}
        info = self.studies["standard"].run.info
        groups = "; ".join(
            f"{subset}: classes {', '.join(info['class_names'][c] for c in info['subsets'][subset])} "
            f"({sum(info['class_counts'][c] for c in info['subsets'][subset])} images)"
            for subset in ("head", "tail")
        )
        caption = (
            f"Eigenvalue density of the Hessian of the cross-entropy over the training images of {groups}; last "
            "epoch, evaluation mode, no augmentation. λ_max by Lanczos ± the norm of its residual; the trace ± its "
            "standard error over probes; the density by stochastic Lanczos quadrature with the outliers deflated."
        )
        return hessian_density(found), "Hessian eigenvalues of head and tail", caption


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm())


def _grid(paths: Mapping[str, Trajectory], steps: int) -> tuple[Tensor, Tensor]:
    """A grid that holds all paths with a margin of a sixth of their extent on each side."""
    points = torch.cat([path.coordinates for path in paths.values()])
    low, high = points.min(0).values, points.max(0).values
    margin = (high - low) / 6
    axes = [
        torch.linspace(float(low[k] - margin[k]), float(high[k] + margin[k]), steps, dtype=torch.float64)
        for k in range(2)
    ]
    return axes[0], axes[1]


def _rise(surface: Surface, subset: str, radius: float) -> str:
    """The loss at the centre, and how much it rises on average on the circle of the given radius."""
    losses = surface.of(subset)
    centre = float(losses[len(surface.y) // 2, len(surface.x) // 2])
    length = (surface.x[None, :] ** 2 + surface.y[:, None] ** 2).sqrt()
    ring = (length - radius).abs() <= 0.5 * float(surface.x[1] - surface.x[0])
    return f"loss {centre:.3g}, rise {float(losses[ring].mean()) - centre:.3g}"
