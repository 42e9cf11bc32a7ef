"""Verdicts: planted evidence is named, noise is not, and what was not measured is said so."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from diagnosis_cases import HEAD, TAIL, noise_page

from landscape_lab.analysis.change_point import Onset
from landscape_lab.analysis.paths import distances
from landscape_lab.diagnosis import Curves, Diagnosis, Evidence, Finding, judge
from landscape_lab.diagnosis.decline import judged, said
from landscape_lab.run import Run


def falling(evidence: Evidence, since: int, by: float) -> Curves:
    """The evidence's curves, with a tail that falls in a line from an epoch on."""
    assert evidence.accuracy is not None
    values = 0.02 * evidence.accuracy.values
    at = torch.arange(len(values))
    drop = by * ((at - since) / (len(values) - 1 - since)).clamp(min=0)
    values[:, list(TAIL)] -= drop[:, None]
    return Curves(evidence.accuracy.epochs, values)


def test_noise_is_rarely_given_a_verdict() -> None:
    """25 pages on noise: more than 4 with a "yes" would have a chance of 0.7 % at the promised 5 %."""
    pages = [judge(noise_page(seed)) for seed in range(25)]
    assert sum(any(one.verdict == "yes" for one in page.findings) for page in pages) <= 4


def test_sharpness_and_gradients_alone_keep_their_level() -> None:
    alarms = {"sharpness": 0, "gradients": 0}
    rounds = 100
    for seed in range(rounds):
        page = judge(replace(noise_page(seed), accuracy=None, quality=None))
        for subject in alarms:
            alarms[subject] += page.finding(subject).p_value <= 0.05
    assert all(count / rounds <= 0.1 for count in alarms.values()), alarms  # 5 % and 2.3 standard errors


def steady(level: float, images: int, noise: float = 0.0) -> Finding:
    """What is said of an accuracy that stays, on so many test images of each class."""
    evidence = noise_page(12)
    values = level + noise * torch.from_numpy(np.random.default_rng(3).standard_normal((41, 10)))
    curves = Curves(tuple(range(41)), values)
    return judge(replace(evidence, accuracy=curves, test_counts=(images,) * 10)).finding("degradation")


@pytest.mark.parametrize(("images", "verdict"), [(5, "cannot tell"), (50, "no"), (1000, "no")])
def test_few_test_images_hide_a_fall(images: int, verdict: str) -> None:
    """A fall that no image shows with a chance of 5 %: two classes' images, each losing its class or not."""
    one = steady(0.9, images)
    assert one.verdict == verdict
    hidden = one.numbers["tail decline seen"]
    assert hidden >= 1 / (2 * images)  # a step of one image
    stream = np.random.default_rng(images)
    missed = (stream.random((20_000, 2 * images)) >= hidden).all(1).mean()
    assert missed == pytest.approx(0.05, abs=0.006)
    # Half the 95 % interval of a proportion, here without a correction for small numbers.
    apart = 196 * (0.9 * 0.1 / (2 * images)) ** 0.5
    said = float(one.caution.split("±")[1].split()[0])
    assert said == pytest.approx(apart, rel=0.35 if images < 50 else 0.1)
    assert f"{2 * images:,} test images" in one.sentence
    if verdict == "no":
        assert f"does not fall, or by less than {100 * hidden:.2g} points" in one.sentence
    else:
        assert "would not be" in one.sentence


def onset_of(verdict: Literal["declines", "no decline"], decline: float, **more: float) -> Onset:
    numbers = {"p_value": 0.5, "least": 0.05, "correlation": 0.0, "noise": 0.0, **more}
    low, high = decline - 0.1, decline + 0.1
    return Onset(
        verdict, None, np.nan, np.nan, decline=decline, decline_low=low, decline_high=high, points=40, **numbers
    )


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_noise_of_the_epochs_hides_a_fall_of_a_rising_curve(correlation: float) -> None:
    """A curve that rises has a decline below zero, whatever its noise: that of two means of six values is left."""
    one = judged(onset_of("no decline", -0.3, noise=0.08, correlation=correlation))
    stream = np.random.default_rng(0)
    e = stream.standard_normal((20_000, 400))
    for t in range(1, 400):
        e[:, t] = correlation * e[:, t - 1] + (1 - correlation**2) ** 0.5 * e[:, t]
    # Far apart, so that the two means have nothing to do with one another.
    reach = np.quantile(np.abs(e[:, :6].mean(1) - e[:, -6:].mean(1)) * 0.08, 0.95)
    assert one.seen == pytest.approx(reach, rel=0.3 if correlation else 0.03)
    assert one.verdict == "cannot tell"
    assert judged(onset_of("no decline", -0.3, noise=0.001)).verdict == "no"


def test_a_curve_that_ends_higher_does_not_fall() -> None:
    """A dip on the way up rejects a curve that never falls, but nothing is lost in the end."""
    dipped = judged(onset_of("declines", -0.3, p_value=0.01, noise=0.01))
    assert dipped.verdict == "cannot tell"
    assert said("accuracy", "tail", dipped, str, [60]) == (
        "The accuracy of the tail falls for a while (p = 0.01), but not in the end."
    )
    assert judged(onset_of("declines", 0.3, p_value=0.01)).verdict == "yes"


def test_a_forgetting_tail_is_named_with_its_epoch() -> None:
    evidence = noise_page(1)
    curves = falling(evidence, since=20, by=0.4)
    found = judge(replace(evidence, accuracy=curves, quality=curves))
    for subject in ("degradation", "onset"):
        one = found.finding(subject)
        assert one.verdict == "yes"
        assert one.numbers["tail onset low"] <= 20 <= one.numbers["tail onset high"]
        assert one.numbers["tail decline"] == pytest.approx(0.4, abs=0.08)
        assert "falls from epoch" in one.sentence
    listed = found.finding("degradation").sentence.split("By themselves fall:")[1]
    assert "class 8" in listed
    assert "class 9" in listed
    assert found.finding("sharpness").verdict != "yes"


def test_a_sharp_tail_is_named_and_other_losses_are_said() -> None:
    evidence = noise_page(2)
    assert evidence.sharpness is not None
    draws = evidence.sharpness.draws.clone()
    draws[list(TAIL)] *= 1000
    sharp = replace(
        evidence.sharpness,
        draws=draws,
        losses=torch.tensor([0.01, 0.9], dtype=torch.float64),
        loss_stderr=torch.tensor([0.001, 0.1], dtype=torch.float64),
    )
    one = judge(replace(evidence, accuracy=None, quality=None, sharpness=sharp)).finding("sharpness")
    assert one.verdict == "yes"
    assert one.numbers["ratio"] > 100
    assert "The losses differ: 0.90 ± 0.10 (tail) and 0.0100 ± 0.0010 (head)" in one.caution
    assert "indefinite" in one.caution  # λ_min = -1 beside λ_max = 1
    flat = replace(sharp, draws=1 / draws)
    assert judge(replace(evidence, sharpness=flat)).finding("sharpness").verdict == "no"


def test_a_large_difference_among_large_differences_is_none() -> None:
    """With every class as far from the next, no number of samples makes two of them special."""
    evidence = noise_page(3)
    assert evidence.sharpness is not None
    order = torch.tensor([3.0, 5, 0, 9, 1, 7, 2, 8, 6, 4], dtype=torch.float64)
    draws = 10 ** order[:, None] * (1 + 0.01 * torch.arange(8))
    one = judge(replace(evidence, sharpness=replace(evidence.sharpness, draws=draws))).finding("sharpness")
    assert one.numbers["p over samples"] < 1e-3
    assert one.numbers["p over classes"] > 0.05
    assert one.verdict == "cannot tell"


def test_dominating_head_gradients_are_named() -> None:
    evidence = noise_page(4)
    assert evidence.gradients is not None
    means = torch.linspace(0.9, 0.0, 10, dtype=torch.float64)
    means[list(HEAD)] = 0.95
    means[list(TAIL)] = -0.6
    std = torch.full((10,), 0.05, dtype=torch.float64)
    found = replace(evidence.gradients, mean=means, std=std, stderr=std / evidence.gradients.present.sqrt())
    quiet = replace(evidence, accuracy=None, quality=None, gradients=found)
    one = judge(quiet).finding("gradients")
    assert one.verdict == "yes"
    assert one.numbers["difference"] == pytest.approx(1.55)
    turned = replace(found, mean=means.flip(0))
    assert judge(replace(quiet, gradients=turned)).finding("gradients").verdict == "no"


def test_cosines_by_shares_alone_are_no_domination() -> None:
    """Unrelated gradients agree with their batch as the root of their share: literally, over drawn batches."""
    evidence = replace(noise_page(5), accuracy=None, quality=None)
    stream = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), evidence.class_counts)
    roots: list[list[float]] = [[] for _ in range(10)]
    for _ in range(3000):
        batch = stream.choice(labels, 32, replace=False)
        for c in range(10):
            if (batch == c).any():
                roots[c].append(float((batch == c).mean() ** 0.5))
    means = torch.tensor([np.mean(one) for one in roots])
    assert evidence.gradients is not None
    std = torch.full((10,), 0.01, dtype=torch.float64)
    found = replace(evidence.gradients, mean=means, std=std, stderr=std / evidence.gradients.present.sqrt())
    one = judge(replace(evidence, gradients=found)).finding("gradients")
    assert one.numbers["head by share"] == pytest.approx(float(means[:2].mean()), abs=0.01)
    assert one.numbers["tail by share"] == pytest.approx(float(means[8:].mean()), abs=0.01)
    assert one.verdict != "yes"


def test_a_yes_among_many_questions_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def says(p_value: float) -> Finding:
        return Finding("gradients", "yes", "", {}, "As measured.", "", p_value)

    evidence = noise_page(6)
    monkeypatch.setattr("landscape_lab.diagnosis.verdicts._gradients", lambda _: says(0.03))
    one = judge(evidence).finding("gradients")
    assert one.verdict == "cannot tell"
    assert "Alone this would be a yes (p = 0.03)" in one.caution
    assert one.caution.endswith("As measured.")
    monkeypatch.setattr("landscape_lab.diagnosis.verdicts._gradients", lambda _: says(0.001))
    assert judge(evidence).finding("gradients").verdict == "yes"


@pytest.mark.parametrize(("end", "verdict"), [([2.0, 0.1], "no"), ([-2.0, 0.1], "yes"), ([0.05, 3.0], "cannot tell")])
def test_the_way_from_the_start(end: list[float], verdict: str) -> None:
    path = torch.tensor([[0.0, 0.0], [0.5 * end[0], 0.5 * end[1]], end])
    found = distances(path, torch.tensor([4.0, 0.0]), {"a": 2}, (0, 10, 40), name="tail")
    evidence = replace(noise_page(7), distances=found, same_start=True)
    one = judge(evidence).finding("distance")
    assert one.verdict == verdict
    assert one.numbers["start"] == pytest.approx(4.0)
    assert one.numbers["end"] == pytest.approx(((4 - end[0]) ** 2 + end[1] ** 2) ** 0.5, rel=1e-6)
    other = judge(replace(evidence, same_start=False)).finding("distance")
    assert other.verdict == "cannot tell"
    assert "different initialisations" in other.caution


def test_what_was_not_measured_is_said() -> None:
    bare = replace(
        noise_page(8), accuracy=None, quality=None, sharpness=None, gradients=None,
        missing={"sharpness": "the class 'x' has no samples"},
    )  # fmt: skip
    found = judge(bare)
    assert {one.verdict for one in found.findings} == {"cannot tell"}
    assert "the class 'x' has no samples" in found.finding("sharpness").sentence
    assert "one run, of seed 0" in found.finding("seeds").sentence


def test_too_few_epochs_carry_no_verdict() -> None:
    evidence = noise_page(9)
    assert evidence.accuracy is not None
    few = Curves(evidence.accuracy.epochs[:5], evidence.accuracy.values[:5])
    one = judge(replace(evidence, accuracy=few)).finding("degradation")
    assert one.verdict == "cannot tell"
    assert "known at 4 epochs, and a test needs" in one.sentence


def test_a_diagnosis_comes_back_from_a_run(tmp_path) -> None:
    found = judge(noise_page(10))
    run = Run(tmp_path, None, {})  # type: ignore[arg-type]
    run.save_result("diagnosis", found, {})
    back = run.load_result("diagnosis", Diagnosis)
    assert back is not None
    assert [one.sentence for one in back.findings] == [one.sentence for one in found.findings]
    assert [one.numbers.keys() for one in back.findings] == [one.numbers.keys() for one in found.findings]
