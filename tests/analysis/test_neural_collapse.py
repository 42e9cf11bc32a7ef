from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from landscape_lab.analysis.neural_collapse import neural_collapse
from landscape_lab.errors import InputError


def simplex(classes: int, dimensions: int) -> Tensor:
    """Vertices of a simplex around zero, turned into a larger space."""
    generator = torch.Generator().manual_seed(0)
    vertices = torch.eye(classes, dtype=torch.float64) - 1 / classes
    Q, _ = torch.linalg.qr(torch.randn(dimensions, classes, generator=generator, dtype=torch.float64))
    return vertices @ Q.T


def test_collapsed_features_are_at_zero() -> None:
    targets = torch.arange(5).repeat_interleave(torch.tensor([40, 20, 10, 5, 2]))
    M = simplex(5, 9)
    result = neural_collapse((3 * M + 7)[targets], targets, 5, weights=0.2 * M)
    values = [result.nc1, result.nc2_norms, result.nc2_angles, result.nc3]
    assert values == pytest.approx([0, 0, 0, 0], abs=1e-12)
    assert result.lengths.tolist() == pytest.approx([1] * 5)
    assert result.alignment.tolist() == pytest.approx([1] * 5)


def test_literal_transcription_with_numpy() -> None:
    rng = np.random.default_rng(1)
    C, D = 4, 6
    counts = [30, 11, 5, 3]
    y = np.repeat(np.arange(C), counts)
    h = rng.normal(size=(C, D))[y] + rng.normal(size=(len(y), D)) * 0.4 + 2
    W = rng.normal(size=(C, D))
    mu = np.array([h[y == c].mean(0) for c in range(C)])
    mu_g = mu.mean(0)
    sigma_b = sum(np.outer(mu[c] - mu_g, mu[c] - mu_g) for c in range(C)) / C
    covariance = [sum(np.outer(x - mu[c], x - mu[c]) for x in h[y == c]) / counts[c] for c in range(C)]
    pinv = np.linalg.pinv(sigma_b, rcond=1e-10, hermitian=True)
    within = [np.trace(s @ pinv) / C for s in covariance]
    norms = [np.linalg.norm(m - mu_g) for m in mu]
    cosines = [
        abs((mu[a] - mu_g) @ (mu[b] - mu_g) / norms[a] / norms[b] + 1 / (C - 1))
        for a in range(C)
        for b in range(C)
        if a != b
    ]
    M = mu - mu_g
    nc3 = np.linalg.norm(W / np.linalg.norm(W) - M / np.linalg.norm(M)) ** 2
    result = neural_collapse(torch.tensor(h), torch.tensor(y), C, torch.tensor(W))
    assert result.nc1 == pytest.approx(np.mean(within), rel=1e-10)
    assert result.within.tolist() == pytest.approx(within, rel=1e-10)
    assert result.nc2_norms == pytest.approx(np.std(norms) / np.mean(norms), rel=1e-10)
    assert result.nc2_angles == pytest.approx(np.mean(cosines), rel=1e-10)
    assert result.nc3 == pytest.approx(nc3, rel=1e-10)


def test_moving_turning_and_scaling_the_features_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(80, 6, generator=generator, dtype=torch.float64)
    targets, weights = torch.arange(80) % 3, torch.randn(3, 6, generator=generator, dtype=torch.float64)
    Q, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))
    one = neural_collapse(features, targets, 3, weights)
    other = neural_collapse(5 * features @ Q + 3, targets, 3, 2 * weights @ Q)
    for name in ("nc1", "nc2_norms", "nc2_angles", "nc3"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-9)


def test_absent_classes_are_left_out() -> None:
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(40, 5, generator=generator)
    few = neural_collapse(features, torch.arange(40) % 2 * 2, 4, torch.randn(4, 5))
    assert few.counts.tolist() == [20, 0, 20, 0]
    assert few.within.isnan().tolist() == [False, True, False, True]
    assert few.angles.isnan().tolist() == [False, True, False, True]
    assert few.nc1 == pytest.approx(neural_collapse(features, torch.arange(40) % 2, 2).nc1)
    assert few.nc2_angles == pytest.approx(0, abs=1e-12)  # two means around their centre are opposite
    assert math.isnan(neural_collapse(features, torch.arange(40) % 2, 2).nc3)


def test_bad_input() -> None:
    features = torch.randn(4, 3)
    with pytest.raises(InputError, match="two classes at least, got 1"):
        neural_collapse(features, torch.zeros(4, dtype=torch.int64), 2)
    with pytest.raises(InputError, match=r"class numbers in 0 \.\. 1"):
        neural_collapse(features, torch.arange(4), 2)
    with pytest.raises(ValueError, match="expected weights"):
        neural_collapse(features, torch.arange(4), 4, torch.zeros(4, 2))
    with pytest.raises(ValueError, match="expected features"):
        neural_collapse(features, torch.arange(3), 4)
