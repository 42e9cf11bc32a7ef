from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from analysis_cases import Case, cross_entropy
from scipy import stats
from torch import Tensor, nn
from torch.func import functional_call

from landscape_lab.analysis.noise import NoiseCurve, noise_curve, noise_directions
from landscape_lab.errors import InputError
from landscape_lab.parameters import ParameterSpace, matching

SUBSETS = {"all": (0, 1, 2), "tail": (2,)}


def curve_of(case: Case, ratios: list[float], **options: object) -> NoiseCurve:
    return noise_curve(
        case.model, cross_entropy, case.batches, ratios=ratios, subsets=SUBSETS, num_classes=3, **options
    )


def test_every_subset_against_direct_evaluation(conv: Case) -> None:
    space = ParameterSpace(conv.model)
    ratios = [0.0, 0.1, 0.5]
    calls: list[int] = []
    found = curve_of(conv, ratios, directions=3, seed=4, progress=calls.append)
    assert sum(calls) == 9
    assert found.losses.shape == (2, 3, 3)
    assert found.counts == (24, 3)
    theta = space.vector()
    assert found.norm == pytest.approx(float(theta.norm()))
    generator = torch.Generator().manual_seed(4)
    for k in range(3):
        noise = torch.randn(space.size, generator=generator, dtype=torch.float64)
        for r, ratio in enumerate(ratios):
            moved = theta + ratio * theta.norm() * noise / noise.norm()
            output = functional_call(conv.model.eval(), space.views(moved), (conv.inputs,))
            losses = F.cross_entropy(output, conv.targets, reduction="none").detach()
            right = (output.argmax(1) == conv.targets).double()
            for s, classes in enumerate(SUBSETS.values()):
                member = torch.isin(conv.targets, torch.tensor(classes))
                torch.testing.assert_close(found.losses[s, k, r], losses[member].mean())
                torch.testing.assert_close(found.accuracies[s, k, r], right[member].mean())


def test_noise_on_some_parameters_leaves_the_others(conv: Case) -> None:
    space = ParameterSpace(conv.model, matching(conv.model, "head"))
    found = curve_of(conv, [0.0, 0.3], directions=1, parameters=space, name="head")
    assert found.parameters == "head"
    assert found.norm == pytest.approx(
        float(sum(p.square().sum() for p in conv.model.head.parameters()).sqrt().detach())
    )
    (direction,) = noise_directions(space, 1)
    moved = space.views(space.vector() + 0.3 * direction)
    output = functional_call(conv.model.eval(), moved, (conv.inputs,))
    torch.testing.assert_close(found.of("all")[0, 1], F.cross_entropy(output, conv.targets).detach())


@pytest.mark.parametrize("normalisation", ["norm", "filter", "layer"])
def test_directions_have_the_norm_of_the_parameters(conv: Case, normalisation: str) -> None:
    space = ParameterSpace(conv.model)
    directions = list(noise_directions(space, 3, seed=1, normalisation=normalisation))
    theta = space.vector()
    for direction in directions:
        assert float(direction.norm()) == pytest.approx(float(theta.norm()))
    # The first ones do not depend on how many there are.
    assert torch.equal(next(noise_directions(space, 1, seed=1, normalisation=normalisation)), directions[0])
    if normalisation != "norm":
        parts, weights = space.views(directions[0]), space.views(theta)
        ratios = []
        for name in ("conv.weight", "head.weight"):
            rows = parts[name].flatten(1) if normalisation == "filter" else parts[name].flatten()[None]
            others = weights[name].flatten(1) if normalisation == "filter" else weights[name].flatten()[None]
            ratios += (rows.norm(dim=1) / others.norm(dim=1)).tolist()
        assert ratios == pytest.approx([ratios[0]] * len(ratios))
        assert not parts["norm.weight"].any()
        assert not parts["head.bias"].any()


def test_the_band_is_students_interval() -> None:
    losses = torch.tensor([[[0.0, 1.0], [0.0, 2.0], [0.0, 6.0]]], dtype=torch.float64)
    found = NoiseCurve(torch.tensor([0.0, 0.1]), losses, losses, ("all",), (5,), 0, "running", "norm")
    mean, low, high = found.band("all")
    expected = stats.t.interval(0.95, 2, loc=3.0, scale=stats.sem([1.0, 2.0, 6.0]))
    assert mean.tolist() == [0.0, 3.0]
    assert (float(low[1]), float(high[1])) == pytest.approx(expected)
    assert found.without_noise("all") == 0.0
    with pytest.raises(InputError, match=r"did you mean 'all'"):
        found.of("al")


def test_a_linear_model_has_a_known_curve() -> None:
    """Squared error of a linear model without data noise: the rise is r² ‖θ‖² dᵀ(XᵀX/n)d, whose mean is known."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    X[:, 0] *= 3
    model = nn.Linear(6, 1, bias=False).double()

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return (output[:, 0] - X @ model_weight).square() + 0 * target

    model_weight = model.weight.detach().clone()[0]
    targets = torch.zeros(40, dtype=torch.int64)
    found = noise_curve(
        model, loss, (X, targets), ratios=[0.0, 1.0, 2.0], directions=400, subsets={"all": [0]}, num_classes=1
    )
    mean, low, high = found.band("all", level=0.999)
    expected = float(model_weight.square().sum() * torch.trace(X.T @ X / 40) / 6)
    assert float(low[1]) < expected < float(high[1])
    torch.testing.assert_close(mean[2], 4 * mean[1])
    assert float(mean[0]) == 0


@pytest.mark.parametrize("ratios", [[], [-0.1, 0.2], [0.2, 0.1], [0.1, 0.1]])
def test_bad_ratios(conv: Case, ratios: list[float]) -> None:
    with pytest.raises(InputError, match="zero or more and ascending"):
        curve_of(conv, ratios)


def test_refusals(conv: Case) -> None:
    with pytest.raises(InputError, match="at least one direction"):
        curve_of(conv, [0.1], directions=0)
    with pytest.raises(InputError, match="normalisation must be one of norm, filter, layer"):
        curve_of(conv, [0.1], normalisation="weights")
    space = ParameterSpace(conv.model, matching(conv.model, "norm"))
    with pytest.raises(InputError, match="have no filters"):
        curve_of(conv, [0.1], parameters=space, normalisation="filter")
