"""How well a run's features separate the classes, epoch by epoch, and from when on they do worse."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape_lab.analysis import FeatureQuality, encode, feature_quality
from landscape_lab.analysis.change_point import Onset, onset_of_decline
from landscape_lab.analysis.features import USUAL_BETA, QualityForm
from landscape_lab.analysis.neural_collapse import NeuralCollapse, neural_collapse
from landscape_lab.errors import InputError
from landscape_lab.run import Run
from landscape_lab.studies.study import Progress, Study
from landscape_lab.tabular import Columns, Tabular, columns_of

__all__ = ["FORMS", "QualityHistory", "collapse", "features", "onsets", "quality_history"]

FORMS: tuple[QualityForm, ...] = ("difference", "reciprocal")


@dataclass(frozen=True, eq=False)
class QualityHistory(Tabular):
    """The feature quality of every class over the epochs.

    Attributes:
        epochs: ``T`` epochs, ascending; 0 is the initialisation.
        quality: ``(T, C)``, float64, Q; ``nan`` where a class has no samples or an epoch was not measured.
        form: ``"difference"`` (Eq. 19 of GKP+GSA) or ``"reciprocal"`` (its released code).
        split: whose images.
    """

    epochs: tuple[int, ...]
    quality: Tensor
    form: str
    split: str


@columns_of.register
def _(history: QualityHistory) -> Columns:
    classes = range(history.quality.shape[1])
    return {
        "epoch": [epoch for epoch in history.epochs for _ in classes],
        "class": [*classes] * len(history.epochs),
        "quality": history.quality.flatten().tolist(),
    }


def features(study: Study, epoch: int | None = None, *, split: str = "train") -> dict[str, FeatureQuality]:
    """Feature quality of each class (Eq. 17 to 19) at an epoch, in both forms."""
    return _of_epoch(study, study.epoch(epoch), split)[0]


def collapse(study: Study, epoch: int | None = None, *, split: str = "train") -> NeuralCollapse:
    """Neural collapse (NC1 to NC3) at an epoch, with the classifier's weights."""
    return _of_epoch(study, study.epoch(epoch), split)[1]


def _of_epoch(study: Study, epoch: int, split: str) -> tuple[dict[str, FeatureQuality], NeuralCollapse]:
    """Both measures from one pass over the images; the model holds the epoch."""
    settings = {"epoch": epoch, "split": split}
    places = f"features/epoch-{epoch:04d}-{split}", f"collapse/epoch-{epoch:04d}-{split}"
    quality = study.run.load_result(places[0], dict[str, FeatureQuality], settings)
    collapsed = study.run.load_result(places[1], NeuralCollapse, settings)
    if quality is None or collapsed is None:
        batches = study.split(split).batches(study.evaluation_batch_size)
        encoded, targets = encode(study.encoder, batches)
        classes = study.num_classes
        quality = {
            form: feature_quality(encoded, targets, classes, form=form, beta=beta) for form, beta in USUAL_BETA.items()
        }
        weights = getattr(study.classifier, "weight", None)
        collapsed = neural_collapse(encoded, targets, classes, weights)
        study.run.save_result(places[0], quality, settings)
        study.run.save_result(places[1], collapsed, settings)
    return quality, collapsed


def quality_history(
    run: Run | Study,
    split: str = "train",
    form: QualityForm = "difference",
    *,
    epochs: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> QualityHistory:
    """The quality of every class over all epochs that training recorded, and all checkpoints besides.

    Args:
        run: the run. Given a :class:`Study`, epochs that were not recorded but have a checkpoint are computed and
            stored; given a run, they are left out.
        split: ``train`` or ``test``.
        form: of Q.
        epochs: only these; ``None``: all.
        progress: called with 1 after each epoch that is computed.

    Raises:
        InputError: there is no such epoch, or none at all.
    """
    study = run if isinstance(run, Study) else None
    opened = run.run if isinstance(run, Study) else run
    known = {
        int(line["epoch"]): [math.nan if q is None else float(q) for q in line[split]["quality"][form]]
        for line in opened.metrics()
        if form in line.get(split, {}).get("quality", {})
    }
    wanted = sorted({*known, *(opened.checkpoints() if study else ())}) if epochs is None else sorted(set(epochs))
    for epoch in wanted:
        if epoch not in known:
            if study is None:
                raise InputError(f"{opened.path} recorded no quality of {split} features at epoch {epoch}")
            known[epoch] = features(study, epoch, split=split)[form].quality.tolist()
            if progress:
                progress(1)
    if not wanted:
        raise InputError(f"{opened.path} has recorded no quality of {split} features: train it first")
    quality = torch.tensor([known[epoch] for epoch in wanted], dtype=torch.float64)
    return QualityHistory(tuple(wanted), quality, form, split)


def onsets(
    history: QualityHistory, subsets: Mapping[str, Sequence[int]], *, least: float | None = None
) -> dict[str, Onset]:
    """From when on the mean quality of each subset falls; see :func:`onset_of_decline`.

    The initialisation is left out: its features are random.

    Args:
        history: the quality over the epochs.
        subsets: classes by name.
        least: the smallest decline that matters.
    """
    trained = [k for k, epoch in enumerate(history.epochs) if epoch > 0]
    quality, epochs = history.quality[trained], [history.epochs[k] for k in trained]
    return {name: onset_of_decline(epochs, quality[:, list(classes)], least=least) for name, classes in subsets.items()}
