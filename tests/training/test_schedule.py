"""Schedules at the epochs that matter."""

from __future__ import annotations

import math

import pytest

from landscape_lab.recipe import GkpRecipe, GroupsRecipe, TrainingRecipe
from landscape_lab.training.schedule import alpha, learning_rate, regroups


@pytest.mark.parametrize(
    ("epoch", "factor"),
    [
        (0, 0.2),
        (1, 0.4),
        (3, 0.8),
        (4, 1.0),
        (5, 1.0),
        (159, 1.0),
        (160, 0.01),
        (179, 0.01),
        (180, 0.0001),
        (199, 0.0001),
    ],
)
def test_ldams_steps(epoch: int, factor: float) -> None:
    assert learning_rate(TrainingRecipe(), epoch) == pytest.approx(0.1 * factor, rel=1e-12)


def test_cosine() -> None:
    recipe = TrainingRecipe(schedule="cosine", epochs=100, warmup_epochs=0, learning_rate=0.4)
    assert learning_rate(recipe, 0) == 0.4
    assert learning_rate(recipe, 50) == pytest.approx(0.2)
    assert learning_rate(recipe, 100) == pytest.approx(0.0, abs=1e-16)
    assert 0 < learning_rate(recipe, 99) < 2e-4
    rates = [learning_rate(recipe, epoch) for epoch in range(101)]
    assert rates == sorted(rates, reverse=True)
    warm = TrainingRecipe(schedule="cosine", epochs=100, warmup_epochs=10, learning_rate=0.4)
    assert [learning_rate(warm, epoch) for epoch in (0, 9, 50)] == pytest.approx([0.04, 0.4, 0.2])


def test_constant() -> None:
    recipe = TrainingRecipe(schedule="constant", warmup_epochs=2, milestones=(3,), learning_rate=0.5)
    assert [learning_rate(recipe, epoch) for epoch in (0, 1, 2, 3, 100)] == [0.25, 0.5, 0.5, 0.5, 0.5]


def test_alpha_is_equation_20() -> None:
    recipe = GkpRecipe()
    assert alpha(recipe, 0, 200) == pytest.approx(0.95, rel=1e-15)
    assert alpha(recipe, 100, 200) == pytest.approx((0.95 + 0.6) / 2)
    assert alpha(recipe, 200, 200) == pytest.approx(0.6)
    for epoch in range(0, 200, 7):
        assert alpha(recipe, epoch, 200) == pytest.approx(
            0.6 + 0.5 * (0.95 - 0.6) * (1 + math.cos(math.pi * epoch / 200))
        )
    released = GkpRecipe(alpha_max=0.9, alpha_min=0.8)
    assert alpha(released, 50, 200) == pytest.approx(0.8 + 0.05 * (1 + math.sqrt(0.5)))


@pytest.mark.parametrize(
    ("start", "period", "expected"),
    [
        (5, 10, [5, 15, 25]),
        (0, 10, [0, 10, 20]),  # as the released code: from the initialisation
        (1, 10, [1, 11, 21]),
        (0, 1, list(range(30))),
        (29, 10, [29]),
        (30, 10, []),
    ],
)
def test_regroups(start: int, period: int, expected: list[int]) -> None:
    recipe = GroupsRecipe(start_epoch=start, period=period)
    assert [epoch for epoch in range(30) if regroups(recipe, epoch)] == expected
