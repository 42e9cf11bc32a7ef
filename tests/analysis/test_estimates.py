from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from landscape_lab.analysis.estimates import (
    Estimate,
    clipped,
    linearised_estimate,
    mean_estimate,
    ratio_estimate,
    t_quantile,
)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("count", [2, 3, 18])
def test_a_mean_has_students_interval(level: float, count: int) -> None:
    x = torch.randn(count, generator=torch.Generator().manual_seed(count), dtype=torch.float64) + 5
    estimate = mean_estimate(x, level)
    low, high = stats.t.interval(level, count - 1, loc=x.mean().item(), scale=stats.sem(x.numpy()))
    assert (estimate.value, estimate.stderr) == pytest.approx((float(x.mean()), stats.sem(x.numpy())))
    assert (estimate.low, estimate.high) == pytest.approx((low, high))


def test_the_default_is_95_percent() -> None:
    x = torch.tensor([1.0, 2.0, 6.0])
    assert mean_estimate(x) == mean_estimate(x, 0.95)
    assert t_quantile(3) == pytest.approx(4.302652729911275)
    assert ratio_estimate(x, x + 1) == ratio_estimate(x, x + 1, 0.95)


@pytest.mark.parametrize(
    "estimate", [mean_estimate(torch.tensor([2.0])), ratio_estimate(*torch.tensor([[4.0], [2.0]]))]
)
def test_a_single_sample_has_no_error(estimate: Estimate) -> None:
    assert estimate.value == 2.0
    assert all(map(math.isnan, (estimate.stderr, estimate.low, estimate.high)))


def test_a_ratio_by_hand() -> None:
    # Means 3 and 2; the influences are (x - 1.5 y) / 2: -0.25, 0.25.
    estimate = ratio_estimate(torch.tensor([1.0, 5.0]), torch.tensor([1.0, 3.0]))
    assert estimate.value == 1.5
    assert estimate.stderr == pytest.approx(0.25)
    assert estimate.high - estimate.value == pytest.approx(12.706204736 * 0.25)
    assert estimate.value - estimate.low == pytest.approx(12.706204736 * 0.25)


def test_the_common_part_of_a_ratio_cancels() -> None:
    y = torch.tensor([1.0, 2.0, 7.0], dtype=torch.float64)
    estimate = ratio_estimate(3 * y, y)
    assert estimate.value == pytest.approx(3)
    assert estimate.stderr == pytest.approx(0, abs=1e-15)
    assert not math.isfinite(ratio_estimate(y, 0 * y).value)
    assert math.isnan(ratio_estimate(0 * y, 0 * y).value)


def test_the_delta_method_is_the_jackknife_for_many_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4000, generator=generator, dtype=torch.float64) + 1
    y = x + torch.rand(4000, generator=generator, dtype=torch.float64)
    leave_one_out = (x.sum() - x) / (y.sum() - y)
    jackknife = math.sqrt(3999 / 4000 * float((leave_one_out - leave_one_out.mean()).square().sum()))
    assert ratio_estimate(x, y).stderr == pytest.approx(jackknife, rel=1e-3)


@pytest.mark.parametrize("count", [3, 20])
def test_coverage_of_normal_samples(count: int) -> None:
    x = torch.randn(4000, count, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    held = sum(estimate.low <= 0 <= estimate.high for estimate in map(mean_estimate, x)) / 4000
    assert held == pytest.approx(0.95, abs=0.011)


def test_a_constant_in_the_influences_does_not_matter() -> None:
    x = torch.tensor([1.0, 2.0, 4.0])
    assert linearised_estimate(9.0, x + 128).low == pytest.approx(linearised_estimate(9.0, x).low)


def test_a_known_variance_is_pooled() -> None:
    x = torch.tensor([1.0, 3.0, 5.0])  # variance 4
    estimate = linearised_estimate(3.0, x, variance=1.0, weight=4)
    assert estimate.stderr == pytest.approx(math.sqrt((2 * 4 + 4 * 1) / 6 / 3))
    assert estimate.high - 3 == pytest.approx(stats.t.ppf(0.975, 6) * estimate.stderr)
    assert linearised_estimate(3.0, x, variance=7.0, weight=0) == mean_estimate(x)
    assert math.isnan(linearised_estimate(3.0, x[:1], variance=1.0, weight=4).low)


def test_a_known_skewness_moves_the_interval() -> None:
    x = torch.tensor([1.0, 3.0, 5.0])
    plain = linearised_estimate(3.0, x, variance=1.0, weight=4)
    skewed = linearised_estimate(3.0, x, variance=1.0, weight=4, skewness=0.9)
    a, t = 0.3 / math.sqrt(3), stats.t.ppf(0.975, 6)
    assert (skewed.value, skewed.stderr) == (plain.value, plain.stderr)
    assert skewed.high == pytest.approx(3 + plain.stderr * (math.exp(a * t) - 1) / a)
    assert skewed.low == pytest.approx(3 - plain.stderr * (1 - math.exp(-a * t)) / a)
    assert skewed.high > plain.high
    assert skewed.low > plain.low
    mirrored = linearised_estimate(-3.0, -x, variance=1.0, weight=4, skewness=-0.9)
    assert (mirrored.low, mirrored.high) == pytest.approx((-skewed.high, -skewed.low))
    barely = linearised_estimate(3.0, x, variance=1.0, weight=4, skewness=1e-5)
    assert (barely.low, barely.high) == pytest.approx((plain.low, plain.high), rel=1e-4)
    wild = linearised_estimate(3.0, x, variance=1.0, weight=4, skewness=100.0)
    assert wild.high == pytest.approx(3 + plain.stderr * (math.exp(0.6 * t) - 1) / 0.6)


def test_the_tilted_interval_holds_for_skewed_samples() -> None:
    # Means of three chi-squared variables of 4 degrees of freedom; the variance is half of the mean's square, and is
    # told by the mean that was seen. The skewness is sqrt(2).
    x = torch.randn(3000, 3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64).square().sum(2)
    missed = {}
    for skewness in (0.0, 2**0.5):
        estimates = [
            linearised_estimate(m := float(row.mean()), row, variance=m * m / 2, skewness=skewness, weight=8)
            for row in x
        ]
        missed[skewness] = [
            sum(part) / 3000 for part in ([e.high < 4 for e in estimates], [e.low > 4 for e in estimates])
        ]
    # Nearly all misses are those of means that were seen too small.
    assert missed[0.0][0] > 0.1
    assert missed[2**0.5][0] < 0.6 * missed[0.0][0]
    assert max(missed[0.0][1], missed[2**0.5][1]) < 0.005


def test_clipping_keeps_the_error_and_nan() -> None:
    assert clipped(Estimate(0.5, 1.0, -2.0, 3.0), 0.0, 1.0) == Estimate(0.5, 1.0, 0.0, 1.0)
    assert clipped(Estimate(-0.5, 1.0, -2.0, 3.0), 0.0, 4.0) == Estimate(0.0, 1.0, 0.0, 3.0)
    single = clipped(mean_estimate(torch.tensor([2.0])), 0.0, 1.0)
    assert single.value == 1.0
    assert math.isnan(single.low)
    assert math.isnan(single.high)


def test_impossible_levels() -> None:
    with pytest.raises(ValueError, match="level must lie between 0 and 1, got 95"):
        mean_estimate(torch.tensor([1.0, 2.0]), 95)
