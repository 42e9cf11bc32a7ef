"""How well an encoder's features separate the classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from landscape_lab.analysis.batches import Batches, batches_of
from landscape_lab.errors import InputError
from landscape_lab.parameters import eval_mode
from landscape_lab.tabular import Tabular

__all__ = ["USUAL_BETA", "FeatureQuality", "QualityForm", "encode", "feature_quality"]

QualityForm = Literal["difference", "reciprocal"]
USUAL_BETA: dict[QualityForm, float] = {"difference": 0.5, "reciprocal": 1.0}
"""The weight of the logarithm in Eq. 19, and in the released code of GKP+GSA."""

VARIANCE_FLOOR = 1e-12  # a class of one sample has no variance, and the logarithm wants a number
CHUNK = 1024  # classes compared with all others at a time


@dataclass(frozen=True, eq=False)
class FeatureQuality(Tabular):
    """Separation against spread, class by class; ``nan`` where a class has no samples.

    Attributes:
        quality: ``(C,)``, float64, Q.
        separation: ``(C,)``, the distance from the class's mean to the nearest other class's mean.
        variance: ``(C,)``, the mean squared distance of the class's features from their mean (no floor).
        counts: ``(C,)``, int64, samples of each class.
        form: ``"difference"`` or ``"reciprocal"``.
        beta: the weight of the logarithm.
    """

    quality: Tensor
    separation: Tensor
    variance: Tensor
    counts: Tensor
    form: str
    beta: float


def feature_quality(
    features: Tensor,
    targets: Tensor,
    num_classes: int,
    *,
    form: QualityForm = "difference",
    beta: float = 0.5,
) -> FeatureQuality:
    r"""Score each class by the distance to its nearest neighbour and by its variance (Eq. 17-19 of GKP+GSA).

    .. math:: Q_c = \mathrm{Dis}_c - \beta \log \mathrm{Var}_c, \qquad
              \mathrm{Dis}_c = \min_{c' \ne c} \|\mu_c - \mu_{c'}\|_2, \qquad
              \mathrm{Var}_c = \frac{1}{n_c} \sum_{i : y_i = c} \|a_i - \mu_c\|_2^2

    Args:
        features: ``(N, D)``, any floating dtype, on any device; computed with in float64.
        targets: ``(N,)``, int64 class numbers.
        num_classes: ``C``; a class without samples gets ``nan`` and is no one's neighbour.
        form: ``"difference"`` as above; ``"reciprocal"`` is :math:`-1/\mathrm{Dis}_c - \beta \log
            \mathrm{Var}_c`, which the paper's released code uses, with ``beta=1``.
        beta: the weight of the logarithm.

    Raises:
        InputError: a target lies outside ``0 .. num_classes - 1``.
    """
    if form not in ("difference", "reciprocal"):
        raise ValueError(f"form must be 'difference' or 'reciprocal', got {form!r}")
    if features.dim() != 2 or targets.shape != features.shape[:1]:
        raise ValueError(f"expected features (N, D), targets (N,), got {tuple(features.shape)}, {tuple(targets.shape)}")
    targets = targets.to(features.device)
    if len(targets) and (int(targets.min()) < 0 or int(targets.max()) >= num_classes):
        raise InputError(f"targets must be class numbers in 0 .. {num_classes - 1}")
    features = features.detach().double()
    counts = targets.bincount(minlength=num_classes)
    means = features.new_zeros(num_classes, features.shape[1]).index_add_(0, targets, features) / counts[:, None]
    squares = (features - means[targets]).square().sum(1)
    variance = features.new_zeros(num_classes).index_add_(0, targets, squares) / counts
    separation = _nearest_distance(means, counts > 0)
    spread = beta * variance.clamp(min=VARIANCE_FLOOR).log()
    quality = separation - spread if form == "difference" else -1 / separation - spread
    return FeatureQuality(quality.cpu(), separation.cpu(), variance.cpu(), counts.cpu(), form, beta)


def _nearest_distance(means: Tensor, present: Tensor) -> Tensor:
    """The distance from each present class's mean to the nearest other present one, else ``nan``."""
    result = means.new_full(means.shape[:1], torch.nan)
    some = means[present]
    if len(some) < 2:
        return result
    nearest = []
    for start in range(0, len(some), CHUNK):
        distances = torch.cdist(some[start : start + CHUNK], some)
        distances.diagonal(start).fill_(torch.inf)
        nearest.append(distances.argmin(1))
    # cdist finds the neighbour by a matrix product, which loses digits of small distances: take them again.
    result[present] = (some - some[torch.cat(nearest)]).norm(dim=1)
    return result


def encode(encoder: nn.Module, batches: Batches, *, batch_size: int = 512) -> tuple[Tensor, Tensor]:
    """Compute features in evaluation mode, without gradients, on the encoder's device.

    Args:
        encoder: gives ``(B, D)`` for a batch of inputs; left in the mode it was in.
        batches: as for the other analyses; a pair of tensors is split into ``batch_size`` samples.
        batch_size: see ``batches``.

    Returns:
        Features ``(N, D)`` and targets ``(N,)``, in the order of the batches.

    Raises:
        InputError: there are no samples, or the features are not ``(B, D)``.
    """
    device = next((parameter.device for parameter in encoder.parameters()), None)
    features, targets = [], []
    with eval_mode(encoder), torch.no_grad():
        for inputs, labels in batches_of(batches, batch_size):
            some = encoder(inputs.to(device))
            if some.dim() != 2:
                raise InputError(f"the encoder must give features (B, D), but gave {tuple(some.shape)}: flatten them")
            features.append(some)
            targets.append(labels.to(some.device))
    if not features:
        raise InputError("the subset holds no samples: choose classes that the data contain")
    return torch.cat(features), torch.cat(targets)
