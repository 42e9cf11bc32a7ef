"""The penalty of Eq. 6: all groups at once against the sum as printed."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from landscape_lab.training import gkp
from landscape_lab.training.gkp import Penalty, group_sizes

P = 13
GENERATOR = torch.Generator().manual_seed(3)


def literal(
    theta: Tensor, anchors: Tensor, fisher: Tensor, sizes: list[int], strength: float, weights: list[float]
) -> Tensor:
    """Σ_g v_g λ/2 Σ_{j ≠ g} 1/|G_j| Σ_i F_{j,i} (θ_i - θ*_{j,i})², loop by loop."""
    total = torch.zeros((), dtype=theta.dtype)
    for g in range(len(sizes)):
        own = torch.zeros((), dtype=theta.dtype)
        for j in range(len(sizes)):
            if j != g:
                for i in range(theta.numel()):
                    own = own + fisher[j, i] * (theta[i] - anchors[j, i]) ** 2 / sizes[j]
        total = total + weights[g] * strength / 2 * own
    return total


def problem(groups: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    anchors = torch.randn(groups, P, generator=GENERATOR, dtype=torch.float64)
    fisher = torch.rand(groups, P, generator=GENERATOR, dtype=torch.float64) ** 3
    fisher[:, 4] = 0  # a parameter that no group's loss depends on
    theta = torch.randn(P, generator=GENERATOR, dtype=torch.float64)
    sizes = [70, 25, 9, 3, 1][:groups]
    return theta.to(dtype), anchors.to(dtype), fisher.to(dtype), sizes


@pytest.mark.parametrize("groups", [2, 3, 5])
@pytest.mark.parametrize("kind", ["one", "share"])
@pytest.mark.parametrize("chunk", [1 << 20, 4])
def test_value_and_gradient_equal_the_printed_sum(
    groups: int, kind: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gkp, "CHUNK", chunk)
    theta, anchors, fisher, sizes = problem(groups)
    weights = [1.0] * groups if kind == "one" else [size / sum(sizes) for size in sizes]
    penalty = Penalty.build(zip(anchors, fisher, strict=True), sizes, 100.0, weights)
    for point in (theta, anchors[0], anchors.mean(0), 50 * theta):
        variable = point.clone().requires_grad_()
        expected = literal(variable, anchors, fisher, sizes, 100.0, weights)
        (slope,) = torch.autograd.grad(expected, variable)
        assert penalty.value(point) == pytest.approx(expected.item(), rel=1e-12)
        assert torch.allclose(penalty.gradient(point), slope, rtol=1e-11, atol=1e-12)
    assert penalty.gradient(theta).abs().max() > 0.1
    assert penalty.gradient(theta)[4] == 0
    assert torch.isfinite(penalty.anchor).all()


def test_summed_over_groups_the_other_groups_are_a_factor() -> None:
    """Σ_g L_gkp^g = (G - 1) Σ_j λ / (2 |G_j|) Σ_i F_j (θ - θ*_j)²."""
    theta, anchors, fisher, sizes = problem(5)
    penalty = Penalty.build(zip(anchors, fisher, strict=True), sizes, 100.0, [1.0] * 5)
    quadratics = (fisher * (theta - anchors) ** 2).sum(1)
    expected = 4 * (quadratics * 50.0 / torch.tensor(sizes, dtype=torch.float64)).sum()
    assert penalty.value(theta) == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_one_group_has_no_others(weight: float) -> None:
    theta, anchors, fisher, sizes = problem(1)
    penalty = Penalty.build(zip(anchors, fisher, strict=True), sizes, 100.0, [weight])
    assert penalty.value(theta) == 0.0
    assert not penalty.gradient(theta).any()


def test_no_strength_no_penalty() -> None:
    theta, anchors, fisher, sizes = problem(3)
    penalty = Penalty.build(zip(anchors, fisher, strict=True), sizes, 0.0, [1.0] * 3)
    assert penalty.value(theta) == 0.0
    assert not penalty.gradient(theta).any()


def test_the_gradient_vanishes_at_the_weighted_mean_of_the_anchors() -> None:
    _, anchors, fisher, sizes = problem(3)
    penalty = Penalty.build(zip(anchors, fisher, strict=True), sizes, 100.0, [1.0] * 3)
    stiffness = fisher / torch.tensor(sizes, dtype=torch.float64)[:, None]
    best = (stiffness * anchors).sum(0) / stiffness.sum(0).clamp_min(1e-300)
    assert penalty.gradient(best).abs().max() < 1e-12
    assert penalty.value(best) == pytest.approx(penalty.constant, rel=1e-12)


def test_float32_does_not_cancel_near_the_anchors() -> None:
    """Anchors a thousandth apart and a stiff penalty, as late in training: the gradient keeps its digits."""
    base = torch.randn(P, generator=GENERATOR, dtype=torch.float64)
    anchors = base + 1e-3 * torch.randn(3, P, generator=GENERATOR, dtype=torch.float64)
    fisher = 100 * torch.rand(3, P, generator=GENERATOR, dtype=torch.float64)
    theta = (base + 1e-3 * torch.randn(P, generator=GENERATOR, dtype=torch.float64)).float()
    exact = Penalty.build(zip(anchors.float().double(), fisher, strict=True), [30, 20, 10], 100.0, [1.0] * 3)
    single = Penalty.build(zip(anchors.float(), fisher.float(), strict=True), [30, 20, 10], 100.0, [1.0] * 3)
    assert single.stiffness.dtype == single.anchor.dtype == torch.float32
    expected = exact.gradient(theta.double())
    assert (single.gradient(theta).double() - expected).norm() < 2e-4 * expected.norm()
    assert single.value(theta) == pytest.approx(exact.value(theta.double()), rel=2e-4)


def test_one_group_is_in_memory_at_a_time() -> None:
    _, anchors, fisher, sizes = problem(5)
    alive = weakref.WeakSet[Tensor]()

    def terms() -> Iterator[tuple[Tensor, Tensor]]:
        for number in range(5):
            assert not alive
            pair = [anchors[number].clone(), fisher[number].clone()]
            alive.update(pair)
            yield pair.pop(0), pair.pop()

    found = Penalty.build(terms(), sizes, 100.0, [1.0] * 5)
    whole = Penalty.build(list(zip(anchors, fisher, strict=True)), sizes, 100.0, [1.0] * 5)
    assert torch.equal(found.stiffness, whole.stiffness)
    assert not alive


def test_anchors_far_from_zero_do_not_cancel() -> None:
    """The sum of squares about the mean, and not the difference of two large sums."""
    anchors = 1e6 + torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
    fisher = torch.ones(3, 1, dtype=torch.float64)
    penalty = Penalty.build(zip(anchors, fisher, strict=True), [1, 1, 1], 1.0, [1.0] * 3)
    # Each group is held by two others: a = 6; the variance of 0, 1, 3 about 4/3 is 14/9.
    assert penalty.stiffness.item() == 6.0
    assert penalty.anchor.item() == pytest.approx(1e6 + 4 / 3, rel=1e-15)
    assert penalty.constant == pytest.approx(0.5 * 2 * 14 / 3, rel=1e-9)


@pytest.mark.parametrize("count", [0, 2, 4])
def test_groups_and_sizes_must_be_as_many(count: int) -> None:
    terms = [(torch.zeros(P), torch.ones(P))] * count
    with pytest.raises(ValueError, match=r"there are (0|2|more) terms"):
        Penalty.build(terms, [1] * (3 if count else 0), 1.0, [1.0] * (3 if count else 0))


def test_group_sizes() -> None:
    groups, counts = ((0, 2), (1,), (3, 4, 5)), [50, 30, 20, 10, 5, 1]
    assert group_sizes(groups, counts, "samples") == [70, 30, 16]
    assert group_sizes(groups, counts, "classes") == [2, 1, 3]
