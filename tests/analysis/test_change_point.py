from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression, lsq_linear

from landscape_lab.analysis.change_point import FEWEST, Onset, onset_of_decline
from landscape_lab.analysis.monotone import FALL, PACES, broken_fit, rising_fit

Array = NDArray[np.float64]
EPOCHS = 40
AT = np.arange(EPOCHS)
RISE = 3 * (1 - np.exp(-AT / 4))


def ar(correlation: float, generator: np.random.Generator, count: int = EPOCHS) -> Array:
    """AR(1) noise of variance 1, step by step."""
    noise = [generator.standard_normal()]
    for _ in range(count - 1):
        noise.append(correlation * noise[-1] + math.sqrt(1 - correlation**2) * generator.standard_normal())
    return np.array(noise)


def judged(curve: Array) -> Onset:
    return onset_of_decline(range(len(curve)), torch.tensor(curve))


def brute(row: Array, t: int) -> float:
    """What a rise up to t and a fall after it leave, by scipy's bounded least squares."""

    def left(values: Array, basis: Array, low: float, high: float) -> float:
        if np.ptp(basis) == 0:
            return float(((values - values.mean()) ** 2).sum())
        A = np.stack([np.ones(len(values)), basis], axis=1)
        return 2 * float(lsq_linear(A, values, bounds=([-np.inf, low], [np.inf, high]), tol=1e-14).cost)

    def shapes(points: int) -> list[Array]:
        at = np.arange(float(points))
        return [at if not pace else 1 - np.exp(-at / (pace * len(row))) for pace in PACES]

    rise = min(left(row[: t + 1], basis, 0, np.inf) for basis in shapes(t + 1))
    return rise + min(left(row[t + 1 :], basis, -np.inf, 0) for basis in shapes(len(row) - t - 1))


def test_broken_fits_against_bounded_least_squares() -> None:
    curves = np.random.default_rng(3).standard_normal((4, 15)).cumsum(1) + 50
    fit = broken_fit(curves)
    for k, row in enumerate(curves):
        expected = [brute(row, t) for t in range(15 - FALL)]
        np.testing.assert_allclose(fit.broken[k], expected, rtol=1e-6, atol=1e-9)
        assert fit.last[k] == np.argmin(expected)
        assert ((row - fit.values[k]) ** 2).sum() == pytest.approx(min(expected), rel=1e-6)
        assert fit.decline[k] == pytest.approx(fit.values[k, fit.last[k]] - fit.values[k, -1])


def test_rising_fits_against_scipy() -> None:
    curves = np.random.default_rng(4).standard_normal((6, 30)).cumsum(1)
    left, values = rising_fit(curves)
    for k, row in enumerate(curves):
        expected = isotonic_regression(row).x
        np.testing.assert_allclose(values[k], expected, atol=1e-12)
        assert left[k] == pytest.approx(((row - expected) ** 2).sum())


@pytest.mark.parametrize("shape", ["flat", "risen"])
def test_false_alarms_on_curves_that_never_fall(shape: str) -> None:
    generator = np.random.default_rng(10)
    mean = RISE if shape == "risen" else 0 * RISE
    verdicts = [
        judged(mean + 0.05 * ar(correlation, generator)).verdict
        for correlation in (0, 0.3, 0.6, 0.8)
        for _ in range(25)
    ]
    assert verdicts.count("declines") <= 5
    assert verdicts.count("no decline") >= (75 if shape == "risen" else 0)


def test_a_planted_decline_is_found_and_its_interval_covers() -> None:
    generator = np.random.default_rng(11)
    onset, size = 20, 0.5
    line = -size * np.clip((AT - onset) / (EPOCHS - 1 - onset), 0, None)
    drop = np.where(onset < AT, -size, 0.0)
    levelling = -size * (1 - np.exp(-np.clip(AT - onset, 0, None) / 5))
    for fall, power, width in ((line, 0.9, 12), (drop, 0.9, 2), (levelling, 0.9, 8)):
        found = [judged(RISE + fall + 0.05 * ar(0.3, generator)) for _ in range(25)]
        seen = [one for one in found if one.verdict == "declines"]
        assert len(seen) >= power * len(found)
        covered = [one.low <= onset <= one.high for one in seen]
        assert sum(covered) >= 0.85 * len(seen)
        assert np.median([one.high - one.low for one in seen]) <= width
        assert np.median([one.epoch for one in seen]) == pytest.approx(onset, abs=2)
        covered = [one.decline_low <= -fall[-1] <= one.decline_high for one in found]
        assert sum(covered) >= 0.75 * len(found)
        assert "no decline" not in {one.verdict for one in found}


def test_scale_shift_and_spacing_do_not_matter() -> None:
    curve = RISE - np.clip(AT - 25, 0, None) * 0.03 + 0.05 * ar(0.2, np.random.default_rng(12))
    one, other = judged(curve), onset_of_decline([5 * k for k in range(EPOCHS)], list(100 * curve - 7))
    assert other.verdict == one.verdict == "declines"
    assert (other.epoch, other.high) == (5 * (one.epoch or 0), 5 * one.high)
    assert other.p_value == pytest.approx(one.p_value)
    assert other.decline_high == pytest.approx(100 * one.decline_high, rel=1e-6)


def test_classes_are_averaged_and_gaps_left_out() -> None:
    generator = np.random.default_rng(13)
    curves = torch.tensor(np.stack([RISE + 0.1 * ar(0, generator) for _ in range(3)], axis=1))
    assert onset_of_decline(range(EPOCHS), curves) == onset_of_decline(range(EPOCHS), curves.mean(1))
    holes = curves.mean(1).clone()
    holes[[3, 30]] = torch.nan
    kept = [k for k in range(EPOCHS) if k not in (3, 30)]
    assert onset_of_decline(range(EPOCHS), holes) == onset_of_decline(kept, holes[kept])


def test_long_curves_are_thinned() -> None:
    at = np.arange(400)
    curve = 3 * (1 - np.exp(-at / 40)) - 0.4 * np.clip((at - 200) / 199, 0, None)
    found = judged(curve + 0.05 * ar(0.5, np.random.default_rng(14), 400))
    assert found.verdict == "declines"
    assert found.points <= 128
    assert found.low <= 200 <= found.high


def test_too_little_to_tell() -> None:
    few = onset_of_decline(range(FEWEST - 1), np.linspace(1, 0, FEWEST - 1).tolist())
    assert few.verdict == "cannot tell"
    assert few.epoch is None
    assert math.isnan(few.p_value)
    constant = onset_of_decline(range(30), [0.7] * 30)
    assert (constant.verdict, constant.decline) == ("no decline", 0.0)
    steady = onset_of_decline(range(30), [min(k, 5) / 5 for k in range(30)])  # constant in the end, to the last digit
    assert steady.verdict == "no decline"
    flat = judged(ar(0, np.random.default_rng(15)))
    assert flat.verdict == "cannot tell"  # a decline of a tenth of such noise cannot be excluded
    assert onset_of_decline(range(EPOCHS), [0.01 * math.sin(k * k) for k in range(EPOCHS)], least=1).verdict == (
        "no decline"
    )


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="a value for each of 3 epochs"):
        onset_of_decline([0, 1, 2], [1.0, 2.0])
    with pytest.raises(ValueError, match="must ascend"):
        onset_of_decline([0, 2, 1], [1.0, 2.0, 3.0])
