"""How well a run's features separate the classes, stored with their settings."""

from __future__ import annotations

from landscape_lab.analysis import FeatureQuality, encode, feature_quality
from landscape_lab.analysis.features import USUAL_BETA
from landscape_lab.data import plain_batches
from landscape_lab.studies.study import Study

__all__ = ["features"]


def features(study: Study, epoch: int | None = None, *, split: str = "train") -> dict[str, FeatureQuality]:
    """Feature quality of each class (Eq. 17 to 19) at an epoch, in both forms."""
    epoch = study.epoch(epoch)

    def compute() -> dict[str, FeatureQuality]:
        batches = plain_batches(study.split(split), study.dataset, study.run.recipe.evaluation.batch_size)
        features, targets = encode(study.model.encoder, batches)
        return {
            form: feature_quality(features, targets, study.dataset.num_classes, form=form, beta=beta)
            for form, beta in USUAL_BETA.items()
        }

    settings = {"epoch": epoch, "split": split}
    return study.stored(f"features/epoch-{epoch:04d}-{split}", dict[str, FeatureQuality], settings, compute)
