from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from landscape_lab.analysis.features import encode, feature_quality
from landscape_lab.errors import InputError

# Class 0 around (0, 0), class 1 around (3, 4) with one sample, class 3 around (0, 10); class 2 is absent.
FEATURES = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [3.0, 4.0], [0.0, 8.0], [0.0, 12.0], [0.0, 10.0], [0.0, 10.0]])
TARGETS = torch.tensor([0, 0, 1, 3, 3, 3, 3])
SEPARATION = [5.0, 5.0, math.nan, math.sqrt(45)]
VARIANCE = [1.0, 0.0, math.nan, 2.0]


def test_by_hand_as_a_difference() -> None:
    result = feature_quality(FEATURES, TARGETS, 4)
    assert result.counts.tolist() == [2, 1, 0, 4]
    assert result.separation.tolist() == pytest.approx(SEPARATION, nan_ok=True)
    assert result.variance.tolist() == pytest.approx(VARIANCE, nan_ok=True)
    expected = [5.0, 5.0 - 0.5 * math.log(1e-12), math.nan, math.sqrt(45) - 0.5 * math.log(2)]
    assert result.quality.tolist() == pytest.approx(expected, nan_ok=True)
    assert (result.form, result.beta) == ("difference", 0.5)
    assert result.quality.dtype == torch.float64


def test_by_hand_as_a_reciprocal() -> None:
    result = feature_quality(FEATURES, TARGETS, 4, form="reciprocal", beta=1.0)
    expected = [-1 / 5, -1 / 5 - math.log(1e-12), math.nan, -1 / math.sqrt(45) - math.log(2)]
    assert result.quality.tolist() == pytest.approx(expected, nan_ok=True)


def test_naive_twin_on_many_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, 1200, (5000,), generator=generator)  # more classes than one chunk of distances
    features = torch.randn(5000, 6, generator=generator) + 100  # far from the origin: cancellation would show
    result = feature_quality(features, targets, 1200)
    means = torch.stack([features[targets == c].double().mean(0) for c in range(1200)])
    for c in (0, 17, 1023, 1024, 1199):
        others = [float((means[c] - means[d]).norm()) for d in range(1200) if d != c]
        some = features[targets == c].double()
        assert float(result.separation[c]) == pytest.approx(min(x for x in others if x == x), rel=1e-9)
        variance = (some - means[c]).square().sum(1).mean()
        assert float(result.variance[c]) == pytest.approx(float(variance), rel=1e-9)


def test_moving_and_rotating_the_features_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(60, 5, generator=generator, dtype=torch.float64)
    targets = torch.arange(60) % 4
    Q, _ = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))
    moved = feature_quality(features @ Q + 7, targets, 4)
    torch.testing.assert_close(moved.quality, feature_quality(features, targets, 4).quality)


def test_one_class_alone_has_no_neighbour() -> None:
    result = feature_quality(FEATURES[:2], TARGETS[:2], 2)
    assert result.separation.isnan().all()
    assert result.quality.isnan().all()
    assert float(result.variance[0]) == 1.0


def test_bad_input() -> None:
    with pytest.raises(InputError, match=r"class numbers in 0 \.\. 2"):
        feature_quality(FEATURES, TARGETS, 3)
    with pytest.raises(ValueError, match="got \\(7, 2\\), \\(6,\\)"):
        feature_quality(FEATURES, TARGETS[:6], 4)
    with pytest.raises(ValueError, match="form must be"):
        feature_quality(FEATURES, TARGETS, 4, form="ratio")


def test_encode_runs_in_evaluation_mode() -> None:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).train()
    inputs, targets = torch.randn(11, 3), torch.arange(11) % 2
    features, labels = encode(encoder, (inputs, targets), batch_size=4)
    assert encoder.training
    assert not features.requires_grad
    assert torch.equal(labels, targets)
    torch.testing.assert_close(features, encoder.eval()(inputs).detach())


def test_encode_without_parameters_and_without_samples() -> None:
    inputs, targets = torch.randn(5, 2, 3), torch.zeros(5)
    features, _ = encode(nn.Flatten(), (inputs, targets))
    assert torch.equal(features, inputs.flatten(1))
    with pytest.raises(InputError, match="flatten them"):
        encode(nn.Identity(), (inputs, targets))
    with pytest.raises(InputError, match="holds no samples"):
        encode(nn.Flatten(), (inputs[:0], targets[:0]))


def test_features_of_an_encoder_feed_the_quality() -> None:
    def quality(scale: float) -> Tensor:
        return feature_quality(*encode(nn.Identity(), (FEATURES * scale, TARGETS)), 4).separation

    torch.testing.assert_close(quality(3.0), 3 * quality(1.0), equal_nan=True)
