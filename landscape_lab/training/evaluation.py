"""How well a network does on a split, class by class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from landscape_lab.analysis import feature_quality
from landscape_lab.analysis.features import QualityForm
from landscape_lab.models import Network
from landscape_lab.parameters import eval_mode

__all__ = ["Evaluation", "assess", "shot_accuracies"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A network on a split in evaluation mode.

    Attributes:
        features: the encoder's output, ``(N, D)``, on the device.
        targets: ``(N,)``.
        accuracy: of each class, in [0, 1], length C; NaN for a class without samples.
        loss: mean cross-entropy of each class, length C; NaN likewise.
        counts: samples of each class, length C.
    """

    features: Tensor
    targets: Tensor
    accuracy: list[float]
    loss: list[float]
    counts: list[int]

    @property
    def mean_loss(self) -> float:
        """Mean loss over all samples."""
        present = [(loss, n) for loss, n in zip(self.loss, self.counts, strict=True) if n]
        return sum(loss * n for loss, n in present) / sum(n for _, n in present)

    def quality(self, form: QualityForm, beta: float, normalised: bool = False) -> list[float]:
        """Feature quality Q of each class (Eq. 17 to 19), length C; NaN for a class without samples."""
        features = F.normalize(self.features, dim=1) if normalised else self.features
        result = feature_quality(features, self.targets, len(self.counts), form=form, beta=beta)
        return [float(q) for q in result.quality]


def assess(
    model: Network,
    batches: Iterable[tuple[Tensor, Tensor]],
    num_classes: int,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Run a network over a split once, in evaluation mode, and give it its own mode back."""
    features, targets, sums = [], [], None
    with torch.no_grad(), eval_mode(model):
        for images, labels in batches:
            encoded = model.encoder(images)
            logits = model.classifier(encoded)
            losses = F.cross_entropy(logits, labels, reduction="none").double()
            hits = (logits.argmax(1) == labels).double()
            # One row a quantity, summed by class on the device; read back once, after the last batch.
            if sums is None:
                sums = torch.zeros(3, num_classes, dtype=torch.float64, device=images.device)
            sums.index_add_(1, labels, torch.stack([losses, hits, torch.ones_like(hits)]))
            features.append(encoded)
            targets.append(labels)
            if progress:
                progress(1)
    if sums is None:
        raise ValueError("there are no batches to evaluate")
    losses, hits, counts = sums.cpu()
    return Evaluation(
        torch.cat(features),
        torch.cat(targets),
        (hits / counts).tolist(),
        (losses / counts).tolist(),
        [int(n) for n in counts],
    )


def shot_accuracies(accuracy: Sequence[float], groups: Mapping[str, Sequence[int]]) -> dict[str, float | None]:
    """Unweighted mean accuracy of the classes of each group (Many, Med, Few …); ``None`` for an empty one."""
    return {
        name: sum(accuracy[c] for c in classes) / len(classes) if classes else None for name, classes in groups.items()
    }
