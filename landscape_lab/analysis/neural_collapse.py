"""Neural collapse: how far features, class means and classifier have come to the simplex that training may end in."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape_lab.errors import InputError
from landscape_lab.tabular import Tabular

__all__ = ["NeuralCollapse", "neural_collapse"]

RANK = 1e-8  # of the largest singular value: smaller ones of the class means are rounding


@dataclass(frozen=True, eq=False)
class NeuralCollapse(Tabular):
    """NC1 to NC3, all 0 at collapse, and what each class adds to them; ``nan`` for a class without samples.

    Attributes:
        nc1: spread within classes over spread between them, the mean of ``within``.
        nc2_norms: the standard deviation of the class means' lengths over their mean; the mean of all classes is taken
            off first.
        nc2_angles: the mean over pairs of how far their cosine is from ``-1 / (C - 1)``.
        nc3: the squared distance of the classifier's weights from the class means, both of length 1 as a whole; ``nan``
            without weights.
        within: ``(C,)``, float64, the spread within each class.
        lengths: ``(C,)``, the length of each class mean over the mean of all.
        angles: ``(C,)``, the mean deviation of its cosines.
        alignment: ``(C,)``, the cosine of its weights with its mean, 1 at collapse.
        counts: ``(C,)``, int64.
    """

    nc1: float
    nc2_norms: float
    nc2_angles: float
    nc3: float
    within: Tensor
    lengths: Tensor
    angles: Tensor
    alignment: Tensor
    counts: Tensor


def neural_collapse(
    features: Tensor, targets: Tensor, num_classes: int, weights: Tensor | None = None
) -> NeuralCollapse:
    r"""Measure neural collapse of features by class.

    .. math::
        \mathrm{NC1} &= \tfrac1C \operatorname{tr} \Sigma_W \Sigma_B^\dagger, \qquad
        \mathrm{NC2} = \frac{\mathrm{std}_c \|m_c\|}{\mathrm{mean}_c \|m_c\|}, \quad
        \mathrm{mean}_{c \ne d} \left| \cos(m_c, m_d) + \tfrac{1}{C - 1} \right| \\
        \mathrm{NC3} &= \left\| \frac{W}{\|W\|_F} - \frac{M}{\|M\|_F} \right\|_F^2

    where :math:`m_c = \mu_c - \tfrac1C \sum_d \mu_d` are the rows of ``M``, :math:`\Sigma_B = \tfrac1C M^\top M`, and
    :math:`\Sigma_W` is the mean over classes of their covariances. The paper's classes are of equal size; here, too,
    each counts the same, however few samples it has. (For unequal sizes minority classes' means may merge: Fang et
    al. 2021, PNAS 118.) A class of one sample has no spread within, which says nothing.

    Args:
        features: ``(N, D)``, any floating dtype, on any device; computed with in float64.
        targets: ``(N,)``, int64.
        num_classes: ``C``; classes without samples are left out.
        weights: ``(C, D)``, the last layer's.

    Raises:
        InputError: a target is no class number, or fewer than two classes have samples.

    References:
        Papyan, Han and Donoho 2020, *Prevalence of neural collapse during the terminal phase of deep learning
        training*, PNAS 117, arXiv:2008.08186.
    """
    if features.dim() != 2 or targets.shape != features.shape[:1]:
        raise ValueError(f"expected features (N, D), targets (N,), got {tuple(features.shape)}, {tuple(targets.shape)}")
    if weights is not None and weights.shape != (num_classes, features.shape[1]):
        raise ValueError(f"expected weights ({num_classes}, {features.shape[1]}), got {tuple(weights.shape)}")
    features, targets = features.detach().double(), targets.to(features.device)
    if len(targets) and (int(targets.min()) < 0 or int(targets.max()) >= num_classes):
        raise InputError(f"targets must be class numbers in 0 .. {num_classes - 1}")
    counts = targets.bincount(minlength=num_classes)
    there = counts > 0
    classes = int(there.sum())
    if classes < 2:
        raise InputError(f"neural collapse needs samples of two classes at least, got {classes}")
    means = features.new_zeros(num_classes, features.shape[1]).index_add_(0, targets, features) / counts[:, None]
    M = means[there] - means[there].mean(0)

    # tr(S pinv(B)) is the mean squared length of S's samples after whitening by B.
    _, S, Vh = torch.linalg.svd(M, full_matrices=False)
    rank = int((S / S[0] > RANK).sum())
    whitening = Vh[:rank].T / S[:rank] * math.sqrt(classes)
    squares = ((features - means[targets]) @ whitening).square().sum(1)
    within = features.new_zeros(num_classes).index_add_(0, targets, squares) / counts / classes

    norms = M.norm(dim=1)
    unit = M / norms[:, None].clamp_min(1e-300)
    deviation = (unit @ unit.T + 1 / (classes - 1)).abs()
    deviation.fill_diagonal_(0.0)
    angles = deviation.sum(1) / (classes - 1)

    alignment, nc3 = torch.full_like(norms, torch.nan), math.nan
    if weights is not None:
        W = weights.detach().to(M)[there]
        alignment = torch.nn.functional.cosine_similarity(W, M, dim=1)
        nc3 = float((W / W.norm() - M / M.norm()).square().sum())

    def spread(values: Tensor) -> Tensor:
        result = values.new_full((num_classes,), torch.nan)
        result[there] = values
        return result.cpu()

    return NeuralCollapse(
        nc1=float(within[there].mean()),
        nc2_norms=float(norms.std(correction=0) / norms.mean()),
        nc2_angles=float(angles.mean()),
        nc3=nc3,
        within=within.cpu(),
        lengths=spread(norms / norms.mean()),
        angles=spread(angles),
        alignment=spread(alignment),
        counts=counts.cpu(),
    )
