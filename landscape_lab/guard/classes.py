"""The guard's numbers of classes: how well their features are apart, how their gradients agree with the batch's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from landscape_lab.analysis import encode, feature_quality, gradient_similarity
from landscape_lab.analysis.batches import Loss
from landscape_lab.analysis.features import USUAL_BETA
from landscape_lab.guard.measured import Measured
from landscape_lab.guard.samples import Drawn
from landscape_lab.parameters import ParameterSpace

__all__ = ["qualities", "similarities"]


def qualities(
    encoder: nn.Module, drawn: Drawn, subsets: Mapping[str, Sequence[int]], only: Collection[str]
) -> Iterator[Measured]:
    r"""The mean feature quality of each subset's classes, :math:`Q_c = \mathrm{Dis}_c - \beta \log \mathrm{Var}_c`.

    Each sample's part to first order: it moves its class's mean, its neighbour's, or its class's variance. Classes
    of one sample have no variance, and are left out.
    """
    features, labels = encode(encoder, (drawn.inputs, drawn.labels))
    features, labels = features.double().cpu(), labels.cpu()
    several = [c for c, count in drawn.counts.items() if count > 1]
    if len(several) < 2:
        return
    beta = USUAL_BETA["difference"]
    found = feature_quality(features, labels, max(drawn.counts) + 1, form="difference", beta=beta)
    means = {c: features[labels == c].mean(0) for c in drawn.counts}
    parts = {c: _quality_influences(features, labels, means, c, float(found.variance[c]), beta) for c in several}
    for name, classes in subsets.items():
        scored = [c for c in dict.fromkeys(classes) if c in parts]
        if name in only and scored:
            value = float(found.quality[scored].mean())
            influences = torch.stack([parts[c] for c in scored]).mean(0)
            yield Measured("quality", name, value, influences=influences)


def _quality_influences(
    features: Tensor, labels: Tensor, means: Mapping[int, Tensor], label: int, variance: float, beta: float
) -> Tensor:
    """``(n,)``: the quality of one class is, to first order, the sum over the classes of these numbers' means."""
    others = [c for c in means if c != label]
    distances = torch.stack([(means[label] - means[c]).norm() for c in others])
    neighbour = others[int(distances.argmin())]
    towards = (means[label] - means[neighbour]) / distances.min()
    own, near = labels == label, labels == neighbour
    result = torch.zeros(len(features), dtype=torch.float64)
    centred = features[own] - means[label]
    result[own] = centred @ towards
    if variance > 0:
        result[own] -= beta * (centred.square().sum(1) / variance - 1)
    result[near] = -(features[near] - means[neighbour]) @ towards
    return result


def similarities(
    model: nn.Module,
    loss: Loss,
    batches: Sequence[tuple[Tensor, Tensor]],
    subsets: Mapping[str, Sequence[int]],
    only: Collection[str],
    parameters: ParameterSpace | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Measured]:
    """The cosine between a class's gradient and its batch's, the mean over the subset's classes in the batch.

    The batches hold different samples, so that their spread is also that of the samples.

    Args:
        model: with ``loss`` and ``parameters`` as for :func:`~landscape_lab.analysis.gradients.gradient_similarity`.
        loss: a value for each sample.
        batches: mixed as in training.
        subsets: name → classes.
        only: the wanted ones.
        parameters: whose gradient.
        progress: called with 1 after each batch.
    """
    wanted = sorted({c for name, classes in subsets.items() if name in only for c in classes})
    rows = []
    for batch in batches:
        rows.append(gradient_similarity(model, loss, [batch], wanted, parameters=parameters).mean)
        if progress:
            progress(1)
    cosines = torch.stack(rows)  # (batches, classes)
    for name, classes in subsets.items():
        if name in only:
            probes = cosines[:, [wanted.index(c) for c in dict.fromkeys(classes)]].nanmean(1)
            probes = probes[~probes.isnan()]
            if len(probes):
                yield Measured("similarity", name, float(probes.mean()), probes)
