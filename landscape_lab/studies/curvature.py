"""The Hessian's spectra of a run's subsets, stored with their settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from landscape_lab.analysis import Spectrum
from landscape_lab.curvature import CurvatureSettings, measure, stratified
from landscape_lab.errors import InputError
from landscape_lab.studies.study import Progress, Study, file_name

__all__ = ["USUAL", "drawn", "spectra", "spectra_cost"]

USUAL = CurvatureSettings()


def spectra(
    study: Study,
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
        study: the run.
        subsets: as :meth:`Study.subset_classes` takes them.
        epoch: of the checkpoint; ``None``: the last.
        settings: what to measure.
        split: ``train`` or ``test``.
        samples: at most so many of each subset, drawn at random; ``None``: all.
        per_class: at most so many of each class; unions weigh the classes by their true counts.
        warm: start from the vectors of the last earlier checkpoint that has them, and keep one's own.
        memory_limit: bytes that kept graphs may take.
        progress: called with the number of samples just multiplied by a vector; see :func:`spectra_cost`.

    The errors that a result states are those of the matrix over the samples that were drawn; only its ``data``
    errors cover the draw.
    """
    epoch = study.epoch(epoch)
    wanted = chosen = study.subset_classes(subsets)
    common = {"epoch": epoch, "split": split, "samples": samples, "per_class": per_class, **settings.stored()}
    if not settings.density_products:
        # Their traces come from vectors that depend on all of them.
        common["together"] = [list(classes) for classes in chosen.values()]
    found: dict[str, Spectrum] = {}
    for name, classes in chosen.items():
        place = _spectrum_name(name, epoch, split, settings)
        known = study.run.load_result(place, Spectrum, {**common, "classes": list(classes)})
        if known is not None:
            found[name] = known
    missing = [name for name in chosen if name not in found]
    if missing:

        def done(name: str, result: Spectrum) -> None:
            found[name] = result
            place = _spectrum_name(name, epoch, split, settings)
            study.run.save_result(place, result, {**common, "classes": list(chosen[name])})
            if before is not None:  # only the newest vectors are needed again
                earlier = _spectrum_name(name, before, split, settings)
                study.run.update_result(earlier, Spectrum, lambda known: replace(known, vectors=None))

        before, starts = _vectors_before(study, epoch, missing, split, settings) if warm else (None, {})
        if settings.density_products:
            chosen = {name: chosen[name] for name in missing}
        data, counts = drawn(study, chosen, split, samples, per_class)
        measure(
            study.model,
            study.loss,
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
    study: Study,
    subsets: Sequence[str],
    settings: CurvatureSettings,
    *,
    split: str = "train",
    samples: int | None = None,
    per_class: int | None = None,
) -> int:
    """About how many samples :func:`spectra` multiplies by a vector, if nothing is stored yet."""
    counts = study.split(split).class_counts(study.num_classes)
    if per_class is not None:
        counts = [min(count, per_class) for count in counts]
    chosen = study.subset_classes(subsets)
    sizes = [sum(counts[c] for c in classes) for classes in chosen.values()]
    if samples is not None:
        sizes = [min(size, samples) for size in sizes]
    used = sum(counts[c] for c in {c for classes in chosen.values() for c in classes})
    return settings.cost(sizes, used if samples is None else sum(sizes))


def drawn(
    study: Study, subsets: Mapping[str, Sequence[int]], split: str, samples: int | None, per_class: int | None
) -> tuple[tuple[Tensor, Tensor], dict[int, float] | None]:
    """Images and targets of all subsets, and what the classes count where each has only some of its samples."""
    part = study.split(split)
    if per_class is None:
        chosen = study.choose(part, subsets, samples)
        return chosen.tensors(), None
    if samples is not None:
        raise InputError("a limit on the samples of each subset and one on those of each class exclude each other")
    counts = part.class_counts(study.num_classes)
    return part.take(stratified(part.labels, per_class)).tensors(), dict(enumerate(map(float, counts)))


def _spectrum_name(subset: str, epoch: int, split: str, settings: CurvatureSettings) -> str:
    return f"hessian/epoch-{epoch:04d}-{file_name(subset)}-{split}{settings.suffix}"


def _vectors_before(
    study: Study, epoch: int, subsets: Sequence[str], split: str, settings: CurvatureSettings
) -> tuple[int | None, dict[str, Tensor]]:
    """The last earlier checkpoint that has the vectors of both ends for all subsets, and these."""
    for before in reversed([one for one in study.run.checkpoints() if one < epoch]):
        found: dict[str, Tensor] = {}
        for name in subsets:
            known = study.run.load_result(_spectrum_name(name, before, split, settings), Spectrum)
            if known is not None and known.vectors is not None:
                found[name] = known.vectors
        if len(found) == len(subsets):
            return before, found
    return None, {}
