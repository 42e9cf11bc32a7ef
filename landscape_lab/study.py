"""Analyses applied to a run: the model of an epoch, the samples of a subset, and the stored result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from landscape_lab.analysis import (
    FeatureQuality,
    GradientSimilarity,
    Plane,
    Spectrum,
    Surface,
    Trajectory,
    encode,
    evaluate,
    feature_quality,
    filter_normalised,
    gradient_similarity,
    pca_plane,
    plane_through,
    project,
    random_direction,
)
from landscape_lab.analysis.features import USUAL_BETA
from landscape_lab.curvature import CurvatureSettings, class_subsets, measure, stratified
from landscape_lab.data import Dataset, Split, dataset_of, hold_out, plain_batches
from landscape_lab.errors import InputError
from landscape_lab.models import Network, build_network
from landscape_lab.parameters import BatchNormPolicy, ParameterSpace
from landscape_lab.run import Run
from landscape_lab.training.losses import cross_entropy

__all__ = ["USUAL", "Study", "spread", "trajectory_of"]

Progress = Callable[[int], None]
_T = TypeVar("_T")

USUAL = CurvatureSettings()


class Study:
    """A run opened for analysis.

    Results are stored in the run with the settings that they were computed with, and not computed again for
    the same settings.

    Args:
        run: the run.
        device: where to compute.
        data_root: where the data lie, if not where the recipe says.
        dataset: the data, if already loaded.

    Raises:
        InputError: the data cannot be loaded or are not those of the run.
    """

    def __init__(
        self, run: Run, device: torch.device, data_root: str | None = None, dataset: Dataset | None = None
    ) -> None:
        self.run, self.device = run, device
        if dataset is None:
            dataset = dataset_of(run.recipe.data, data_root)
        if dataset.fingerprint != run.info["data"]["fingerprint"]:
            raise InputError(
                f"the data at hand are not those that {run.path} was trained on; give theirs with --data-root"
            )
        self.dataset = dataset.to(device)
        share, seed = run.recipe.evaluation.validation_share, run.recipe.data.subset_seed
        self._trained, _ = hold_out(self.dataset.train, share, seed)
        self.subsets: dict[str, tuple[int, ...]] = {
            "all": tuple(range(dataset.num_classes)),
            **{name: tuple(classes) for name, classes in run.info["subsets"].items()},
        }
        self.model: Network = build_network(
            run.recipe.model,
            in_channels=dataset.train.images.shape[1],
            num_classes=dataset.num_classes,
            seed=run.recipe.seed,
        ).to(device)
        self.space = ParameterSpace(self.model)

    # -- what is analysed ------------------------------------------------------------------------------------

    def epoch(self, epoch: int | None = None) -> int:
        """Load the checkpoint of an epoch (``None``: the last) into the model; returns its number."""
        return self.run.load_checkpoint(epoch, self.model)

    def classes(self, subset: str) -> tuple[int, ...]:
        """The classes of ``head``, ``tail``, ``all``, ``many``, ``med``, ``few``, a group, or of ``0,3,7``.

        Raises:
            InputError: no such subset, no such class, or a subset without classes.
        """
        found = self.subset_classes([subset])
        return tuple(dict.fromkeys(c for classes in found.values() for c in classes))

    def split(self, which: str = "train") -> Split:
        """The test split, or what of the training images was trained on (the classes' subset aside)."""
        return self._trained if which == "train" else self.dataset.test

    def samples(self, subset: str, split: str = "train", limit: int | None = None) -> tuple[Tensor, Tensor]:
        """The unaugmented, normalised images and targets of a subset, on the device.

        Args:
            subset: as :meth:`classes` takes it.
            split: ``train`` or ``test``.
            limit: at most so many, drawn at random; ``None``: all.

        Raises:
            InputError: the subset has no samples in this split.
        """
        part = self._choose(self.split(split), {subset: self.classes(subset)}, limit)
        if not len(part):
            raise InputError(f"the classes {subset!r} have no samples in the {split} split")
        return self.dataset.normalise(part.images), part.targets

    # -- analyses --------------------------------------------------------------------------------------------

    def spectra(
        self,
        subsets: Sequence[str],
        epoch: int | None = None,
        settings: CurvatureSettings = USUAL,
        *,
        split: str = "train",
        samples: int | None = None,
        per_class: int | None = None,
        warm: bool = False,
        memory_limit: int | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Spectrum]:
        """Extreme eigenvalues, trace and density of the loss over each subset's own samples.

        Each subset's result is stored as soon as it is there.

        Args:
            subsets: as :meth:`subset_classes` takes them.
            epoch: of the checkpoint; ``None``: the last.
            settings: what to measure.
            split: ``train`` or ``test``.
            samples: at most so many of each subset, drawn at random; ``None``: all.
            per_class: at most so many of each class; unions weigh the classes by their true counts.
            warm: start from the vectors of the last earlier checkpoint that has them, and keep one's own.
            memory_limit: bytes that kept graphs may take.
            progress: called with the number of samples just multiplied by a vector; see :meth:`spectra_cost`.

        The errors that a result states are those of the matrix over the samples that were drawn; only its ``data``
        errors cover the draw.
        """
        epoch = self.epoch(epoch)
        wanted = chosen = self.subset_classes(subsets)
        common = {"epoch": epoch, "split": split, "samples": samples, "per_class": per_class, **settings.stored()}
        if not settings.density_products:
            # Their traces come from vectors that depend on all of them.
            common["together"] = [list(classes) for classes in chosen.values()]
        found: dict[str, Spectrum] = {}
        for name, classes in chosen.items():
            place = self._spectrum_name(name, epoch, split, settings)
            known = self.run.load_result(place, Spectrum, {**common, "classes": list(classes)})
            if known is not None:
                found[name] = known
        missing = [name for name in chosen if name not in found]
        if missing:

            def done(name: str, result: Spectrum) -> None:
                found[name] = result
                place = self._spectrum_name(name, epoch, split, settings)
                self.run.save_result(place, result, {**common, "classes": list(chosen[name])})
                if before is not None:  # only the newest vectors are needed again
                    earlier = self._spectrum_name(name, before, split, settings)
                    self.run.update_result(earlier, Spectrum, lambda known: replace(known, vectors=None))

            before, starts = self._vectors_before(epoch, missing, split, settings) if warm else (None, {})
            if settings.density_products:
                chosen = {name: chosen[name] for name in missing}
            data, counts = self._drawn(chosen, split, samples, per_class)
            measure(
                self.model,
                cross_entropy,
                data,
                chosen,
                settings,
                counts=counts,
                memory_limit=memory_limit,
                starts=starts,
                keep_vectors=warm,
                only=missing,
                progress=progress,
                done=done,
            )
        return {name: found[name] for name in wanted}

    def spectra_cost(
        self,
        subsets: Sequence[str],
        settings: CurvatureSettings,
        *,
        split: str = "train",
        samples: int | None = None,
        per_class: int | None = None,
    ) -> int:
        """About how many samples :meth:`spectra` multiplies by a vector, if nothing is stored yet."""
        counts = self.split(split).class_counts(self.dataset.num_classes)
        if per_class is not None:
            counts = [min(count, per_class) for count in counts]
        chosen = self.subset_classes(subsets)
        sizes = [sum(counts[c] for c in classes) for classes in chosen.values()]
        if samples is not None:
            sizes = [min(size, samples) for size in sizes]
        used = sum(counts[c] for c in {c for classes in chosen.values() for c in classes})
        return settings.cost(sizes, used if samples is None else sum(sizes))

    def subset_classes(self, subsets: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """The classes of each subset: see :func:`~landscape_lab.curvature.class_subsets`; ``groups`` are the last ones.

        Raises:
            InputError: no such subset, no such class, or a subset without classes.
        """
        groups = list(self.run.info["groups"].values())
        try:
            return class_subsets(subsets, self.subsets, self.dataset.num_classes, groups[-1] if groups else ())
        except InputError as error:
            counts = ", ".join(map(str, self.run.info["class_counts"]))
            raise InputError(f"{error}; the class counts of {self.run.path} are {counts}") from None

    def features(self, epoch: int | None = None, *, split: str = "train") -> dict[str, FeatureQuality]:
        """Feature quality of each class (Eq. 17 to 19) at an epoch, in both forms."""
        epoch = self.epoch(epoch)

        def compute() -> dict[str, FeatureQuality]:
            batches = plain_batches(self.split(split), self.dataset, self.run.recipe.evaluation.batch_size)
            features, targets = encode(self.model.encoder, batches)
            return {
                form: feature_quality(features, targets, self.dataset.num_classes, form=form, beta=beta)
                for form, beta in USUAL_BETA.items()
            }

        settings = {"epoch": epoch, "split": split}
        return self._stored(f"features/epoch-{epoch:04d}-{split}", dict[str, FeatureQuality], settings, compute)

    def gradients(
        self,
        epoch: int | None = None,
        classes: Sequence[int] | None = None,
        *,
        split: str = "train",
        parameters: str = "encoder",
        seed: int = 0,
        progress: Progress | None = None,
    ) -> GradientSimilarity:
        """Similarity of each class's gradient with its batch's (Fig. 6), in evaluation mode, unaugmented."""
        epoch = self.epoch(epoch)
        batch_size = self.run.recipe.training.batch_size
        classes = tuple(classes) if classes is not None else self.subsets["all"]
        settings = {
            "epoch": epoch,
            "classes": list(classes),
            "split": split,
            "batch_size": batch_size,
            "parameters": parameters,
            "seed": seed,
        }

        def compute() -> GradientSimilarity:
            part = self.split(split)
            # The readers give class after class; batches must mix the classes as training does.
            order = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed)).to(self.device)
            mixed = Split(part.images[order], part.targets[order])
            where = None if parameters == "all" else lambda name: name.startswith(f"{parameters}.")
            return gradient_similarity(
                self.model,
                cross_entropy,
                plain_batches(mixed, self.dataset, batch_size),
                classes,
                parameters=ParameterSpace(self.model, where),
                progress=progress,
            )

        name = f"gradients/epoch-{epoch:04d}-{split}-{parameters}"
        return self._stored(name, GradientSimilarity, settings, compute)

    def gradient_batches(self, split: str = "train") -> int:
        """The number of batches that :meth:`gradients` looks at."""
        return -(-len(self.split(split)) // self.run.recipe.training.batch_size)

    def surface(
        self,
        subsets: Sequence[str],
        epoch: int | None = None,
        *,
        extent: float = 1.0,
        steps: int = 25,
        split: str = "train",
        samples: int | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Surface:
        """Loss around a solution along two filter-normalised random directions (Li et al. 2018).

        Args:
            subsets: scored in one sweep.
            epoch: of the checkpoint; ``None``: the last.
            extent: coordinates run from ``-extent`` to ``extent``; at 1 a filter moves by its own norm.
            steps: points on each axis.
            split: whose samples are scored.
            samples: at most so many of each subset, drawn at random; ``None``: all.
            seed: of the directions, which do not depend on the run: two runs of one network share them.
            progress: called with the number of grid points done.
        """
        epoch = self.epoch(epoch)
        chosen = {name: self.classes(name) for name in subsets}
        settings = {
            "epoch": epoch,
            "subsets": {name: list(classes) for name, classes in chosen.items()},
            "extent": extent,
            "steps": steps,
            "split": split,
            "samples": samples,
            "seed": seed,
        }

        def compute() -> Surface:
            x, y = (
                filter_normalised(random_direction(self.space, seed=2 * seed + axis), self.space) for axis in range(2)
            )
            axis = torch.linspace(-extent, extent, steps, dtype=torch.float64)
            plane = Plane(self.space.vector(), x, y)
            return self._evaluate(plane, axis, axis, chosen, split, "running", samples, progress)

        name = f"surface/epoch-{epoch:04d}-{split}-{'+'.join(_file_name(name) for name in subsets)}"
        return self._stored(name, Surface, settings, compute)

    def plane_surface(
        self,
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
        classes = {subset: self.classes(subset)}

        def compute() -> Surface:
            return self._evaluate(plane, x, y, classes, "train", "batch", samples, progress)

        full = {
            **settings,
            "x": x.tolist(),
            "y": y.tolist(),
            "classes": list(classes[subset]),
            "samples": samples,
        }
        return self._stored(f"surface/{name}", Surface, full, compute)

    # -- inside ----------------------------------------------------------------------------------------------

    def _evaluate(
        self,
        plane: Plane,
        x: Tensor,
        y: Tensor,
        subsets: Mapping[str, Sequence[int]],
        split: str,
        batch_norm: BatchNormPolicy,
        samples: int | None,
        progress: Progress | None,
    ) -> Surface:
        chosen = self._choose(self.split(split), subsets, samples)
        batches = list(plain_batches(chosen, self.dataset, self.run.recipe.evaluation.batch_size))
        return evaluate(
            self.model,
            cross_entropy,
            batches,
            plane,
            x=x,
            y=y,
            subsets=subsets,
            num_classes=self.dataset.num_classes,
            parameters=self.space,
            batch_norm=batch_norm,
            progress=progress,
        )

    def _choose(self, split: Split, subsets: Mapping[str, Sequence[int]], samples: int | None) -> Split:
        """The samples of all subsets in random order, at most ``samples`` of each."""
        # The readers give class after class; batches must mix them where BatchNorm uses the batch.
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0)).to(self.device)
        targets = split.targets[order]
        parts = []
        for classes in subsets.values():
            member = torch.isin(targets, torch.tensor(sorted(classes), device=self.device))
            parts.append(order[member][:samples])
        chosen = torch.cat(parts)
        distinct = torch.unique(chosen)
        if samples is not None and len(distinct) < len(chosen):
            raise InputError(
                "with a limit on samples the subsets must not share classes; limit the samples of each class instead"
            )
        chosen = chosen if len(distinct) == len(chosen) else order[torch.isin(order, distinct)]
        chosen = chosen[torch.randperm(len(chosen), generator=torch.Generator().manual_seed(1)).to(self.device)]
        return Split(split.images[chosen], split.targets[chosen])

    def _drawn(
        self, subsets: Mapping[str, Sequence[int]], split: str, samples: int | None, per_class: int | None
    ) -> tuple[tuple[Tensor, Tensor], dict[int, float] | None]:
        """Images and targets of all subsets, and what the classes count where each has only some of its samples."""
        part = self.split(split)
        if per_class is None:
            chosen = self._choose(part, subsets, samples)
            return (self.dataset.normalise(chosen.images), chosen.targets), None
        if samples is not None:
            raise InputError("a limit on the samples of each subset and one on those of each class exclude each other")
        counts = torch.bincount(part.targets, minlength=self.dataset.num_classes)
        places = stratified(part.targets, per_class)
        return (
            (self.dataset.normalise(part.images[places]), part.targets[places]),
            dict(enumerate(map(float, counts.tolist()))),
        )

    def _spectrum_name(self, subset: str, epoch: int, split: str, settings: CurvatureSettings) -> str:
        return f"hessian/epoch-{epoch:04d}-{_file_name(subset)}-{split}{settings.suffix}"

    def _vectors_before(
        self, epoch: int, subsets: Sequence[str], split: str, settings: CurvatureSettings
    ) -> tuple[int | None, dict[str, Tensor]]:
        """The last earlier checkpoint that has the vectors of both ends for all subsets, and these."""
        for before in reversed([one for one in self.run.checkpoints() if one < epoch]):
            found: dict[str, Tensor] = {}
            for name in subsets:
                known = self.run.load_result(self._spectrum_name(name, before, split, settings), Spectrum)
                if known is not None and known.vectors is not None:
                    found[name] = known.vectors
            if len(found) == len(subsets):
                return before, found
        return None, {}

    def _stored(self, name: str, kind: type[_T], settings: Mapping[str, Any], compute: Callable[[], _T]) -> _T:
        known = self.run.load_result(name, kind, settings)
        if known is None:
            known = compute()
            self.run.save_result(name, known, settings)
        return known


def _file_name(subset: str) -> str:
    return subset.replace(",", "_")


def spread(available: Sequence[int], count: int) -> list[int]:
    """At most ``count`` of the available epochs, from the first to the last, evenly spaced."""
    last = len(available) - 1
    places = {round(k * last / (count - 1)) for k in range(count)} if count > 1 else {last}
    return [available[place] for place in sorted(places)]


def trajectory_of(run: Run, through: Sequence[int] | None = None) -> tuple[Trajectory, Plane]:
    """A run's checkpoints in a plane; needs neither the model nor its data.

    Args:
        run: the run.
        through: three epochs that the plane goes through; ``None``: the first two principal axes of the
            checkpoints' differences from the last (Li et al. 2018).

    Returns:
        The path with its off-plane distances, and the plane.

    Raises:
        InputError: there are too few checkpoints, or ``through`` names others.
    """
    points, epochs = run.trajectory()
    if through is None:
        if len(epochs) < 3:
            raise InputError(
                f"{run.path} holds {len(epochs)} checkpoints, and a plane needs 3: "
                "train with a smaller training.checkpoint_every"
            )
        plane, ratio = pca_plane(points)
        return project(points, plane, epochs, explained_variance_ratio=ratio, method="pca"), plane
    missing = [epoch for epoch in through if epoch not in epochs]
    if len(set(through)) != 3 or missing:
        raise InputError(
            f"--through needs three different epochs that have a checkpoint, got {list(through)}; "
            f"{run.path} has {', '.join(map(str, epochs))}"
        )
    plane = plane_through(*(points[epochs.index(epoch)] for epoch in through))
    return project(points, plane, epochs, method="points"), plane
