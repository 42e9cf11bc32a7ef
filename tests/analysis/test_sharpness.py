"""A linear model with squared error has a quadratic loss, whose maxima over balls and boxes are known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from analysis_cases import Case, cross_entropy
from scipy import stats
from scipy.optimize import brentq
from torch import Tensor, nn

from landscape_lab.analysis.sample_losses import sample_losses
from landscape_lab.analysis.sharpness import passes, sharpness, two_way_mean
from landscape_lab.errors import InputError
from landscape_lab.parameters import ParameterSpace


class Quadratic:
    """Linear model, 30 samples of 4 features; the loss over them is (θ - θ₀)ᵀ A (θ - θ₀) + gᵀ(θ - θ₀) + c."""

    def __init__(self, residual: float = 0.3) -> None:
        generator = torch.Generator().manual_seed(3)
        self.X = torch.randn(30, 4, generator=generator, dtype=torch.float64) * torch.tensor([2.0, 1, 0.5, 0.1])
        self.model = nn.Linear(4, 1, bias=False).double()
        with torch.no_grad():
            self.model.weight.copy_(torch.tensor([[1.0, -2.0, 0.5, 3.0]]))
        self.theta = self.model.weight.detach()[0].clone()
        self.rest = residual * torch.randn(30, generator=generator, dtype=torch.float64)
        self.wanted = self.X @ self.theta + self.rest
        self.A = (self.X.T @ self.X / 30).numpy()
        self.g = (-2 * self.X.T @ self.rest / 30).numpy()
        self.loss_there = float(self.rest.square().mean())

    def measure(self, **options: object) -> dict[str, object]:
        def loss(output: Tensor, target: Tensor) -> Tensor:
            return (output[:, 0] - self.wanted[target]).square()

        found = sharpness(self.model, loss, (self.X, torch.arange(30)), batch_size=30, **options)
        assert [one.kind for one in found] == ["average", "epsilon", "adaptive-worst"]
        return {one.kind: one for one in found}


def highest_in_ball(A: np.ndarray, g: np.ndarray, radius: float) -> float:
    """max zᵀAz + gᵀz over ‖z‖ ≤ radius, by the secular equation (A positive definite: on the boundary)."""
    values, vectors = np.linalg.eigh(A)
    c = vectors.T @ g

    def excess(nu: float) -> float:
        return float(np.linalg.norm(c / (2 * (nu - values))) - radius)

    nu = brentq(excess, values[-1] + 1e-9, values[-1] + np.linalg.norm(c) / radius + 1)
    z = c / (2 * (nu - values))
    return float(z @ (values * z) + c @ z)


@pytest.mark.parametrize("rho", [0.1, 0.5, 2.0])
def test_the_adaptive_worst_case_of_a_quadratic(rho: float) -> None:
    case = Quadratic()
    T = np.diag(case.theta.abs().numpy())
    expected = highest_in_ball(T @ case.A @ T, T @ case.g, rho)
    found = case.measure(rho=rho, steps=40)["adaptive-worst"]
    assert found.value <= expected * (1 + 1e-9)  # a lower bound
    assert found.value == pytest.approx(expected, rel=1e-3)
    assert found.radius == rho
    assert found.loss == pytest.approx(case.loss_there)
    assert "lower bound" in found.note


def test_epsilon_sharpness_of_a_quadratic() -> None:
    """A convex function is highest in a corner of the box: all corners are tried."""
    case = Quadratic()
    epsilon, directions = 0.2, 3
    found = case.measure(epsilon=epsilon, directions=directions, steps=30)["epsilon"]
    generator = torch.Generator().manual_seed(0)
    basis = torch.stack([torch.randn(4, generator=generator, dtype=torch.float64) for _ in range(directions)]).numpy()
    basis *= 2 / np.linalg.norm(basis, axis=1, keepdims=True)  # the length of √4
    box = epsilon * (np.abs(np.linalg.pinv(basis.T) @ case.theta.numpy()) + 1)
    rises = []
    for corner in itertools.product([-1, 1], repeat=directions):
        z = (np.array(corner) * box) @ basis
        rises.append(z @ case.A @ z + case.g @ z)
    expected = 100 * max(rises) / (1 + case.loss_there)
    assert found.value == pytest.approx(expected, rel=1e-6)


def test_the_average_is_the_noise_curves() -> None:
    case = Quadratic(residual=0.0)
    found = case.measure(ratio=0.5, directions=300)["average"]
    expected = 0.25 * float(case.theta.square().sum()) * np.trace(case.A) / 4
    assert found.low < expected < found.high
    assert found.radius == 0.5
    assert "300 directions and 30 samples" in found.note


def test_passes_are_told() -> None:
    calls: list[int] = []
    Quadratic().measure(directions=4, steps=5, progress=calls.append)
    assert sum(calls) == passes(4, 5)
    assert passes(4, 0) == 5


def test_bounds_grow_with_the_radius_and_hold_the_sampled_ones(conv: Case) -> None:
    def measure(rho: float) -> float:
        return sharpness(conv.model, cross_entropy, conv.batches, rho=rho, directions=3, steps=10)[-1].value

    small, large = measure(0.1), measure(0.5)
    assert 0 < small < large
    # Random points of the ball are no higher.
    space = ParameterSpace(conv.model)
    theta = space.vector()
    generator = torch.Generator().manual_seed(9)
    ways = torch.randn(50, space.size, generator=generator, dtype=torch.float64)
    points = [theta, *(theta + theta.abs() * 0.5 * way / way.norm() for way in ways)]
    losses = sample_losses(conv.model, cross_entropy, conv.batches, points)[0].mean(1)
    assert float((losses[1:] - losses[0]).max()) < large


def test_a_single_sample_and_a_flat_loss() -> None:
    model = nn.Linear(2, 3)
    one = torch.ones(1, 2), torch.tensor([0])
    average, epsilon, worst = sharpness(model, cross_entropy, one, directions=3, steps=2)
    assert math.isfinite(average.value)
    assert math.isnan(worst.low)
    assert math.isnan(epsilon.high)
    assert "a single sample" in average.note

    def flat(output: Tensor, target: Tensor) -> Tensor:
        return output.sum(1) * 0

    for found in sharpness(model, flat, (torch.ones(3, 2), torch.zeros(3, dtype=torch.int64)), directions=3, steps=3):
        assert (found.value, found.low, found.high) == (0, 0, 0)


def test_the_two_way_interval_covers() -> None:
    """Additive rows and columns with noise in the cells: the mean is covered in 95 % of the cases, or more often."""
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(400):
        rows = torch.randn(8, 1, generator=generator, dtype=torch.float64)
        columns = 2 * torch.randn(1, 12, generator=generator, dtype=torch.float64)
        found = two_way_mean(1.5 + rows + columns + torch.randn(8, 12, generator=generator, dtype=torch.float64))
        covered += found.low < 1.5 < found.high
    assert 0.93 * 400 <= covered <= 0.99 * 400
    column = torch.tensor([[1.0], [2.0], [6.0]])
    expected = stats.t.interval(0.95, 2, loc=3.0, scale=stats.sem([1.0, 2.0, 6.0]))
    for values in (column, column.T):
        found = two_way_mean(values)
        assert (found.low, found.high) == pytest.approx(expected)
    assert math.isnan(two_way_mean(torch.ones(1, 1)).low)


@pytest.mark.parametrize("option", ["ratio", "epsilon", "rho"])
def test_a_radius_must_be_positive(conv: Case, option: str) -> None:
    with pytest.raises(InputError, match=f"{option} must be positive"):
        sharpness(conv.model, cross_entropy, conv.batches, **{option: 0.0})
