from __future__ import annotations

import pytest
import torch
from analysis_cases import Case
from torch import nn

from landscape_lab.analysis.directions import (
    filter_normalised,
    layer_normalised,
    norm_normalised,
    normalised,
    orthogonalised,
    random_direction,
    sign_fixed,
)
from landscape_lab.errors import InputError
from landscape_lab.parameters import ParameterSpace


def test_each_filter_has_the_norm_of_the_models_filter(conv: Case) -> None:
    space = ParameterSpace(conv.model)
    raw = random_direction(space, seed=1)
    direction = filter_normalised(raw, space)
    seen = 0
    for (name, part), original, weight in zip(
        space.views(direction).items(), space.views(raw).values(), space.parameters, strict=True
    ):
        if weight.dim() < 2:
            assert not part.any(), name
            continue
        for ours, drawn, theirs in zip(part, original, weight.detach(), strict=True):
            assert float(ours.norm()) == pytest.approx(float(theirs.norm()))
            torch.testing.assert_close(ours / ours.norm(), drawn / drawn.norm())
            seen += 1
    assert seen == 3 + 3 + 2  # filters of the convolution, rows of two linear layers
    assert torch.equal(raw, random_direction(space, seed=1))


def test_each_layer_has_the_norm_of_the_models_layer(conv: Case) -> None:
    space = ParameterSpace(conv.model)
    raw = random_direction(space)
    direction = layer_normalised(raw, space)
    for part, original, weight in zip(
        space.views(direction).values(), space.views(raw).values(), space.parameters, strict=True
    ):
        norm = float(weight.detach().norm()) if weight.dim() > 1 else 0.0
        torch.testing.assert_close(part, original * (norm / original.norm()))


def test_empty_filters_stay_zero() -> None:
    model = nn.Linear(3, 2)
    space = ParameterSpace(model)
    direction = torch.ones(8)
    direction[:3] = 0
    assert not filter_normalised(direction, space)[:3].any()
    with torch.no_grad():
        model.weight[1] = 0
    assert not filter_normalised(torch.ones(8), space)[3:].any()
    with pytest.raises(ValueError, match=r"shape \(8,\), got \(7,\)"):
        filter_normalised(torch.ones(7), space)


def test_random_directions_are_standard_normal_and_seeded() -> None:
    space = ParameterSpace(nn.Linear(200, 100))
    direction = random_direction(space, seed=4)
    assert direction.dtype == torch.float32
    assert float(direction.mean()) == pytest.approx(0, abs=0.03)
    assert float(direction.std()) == pytest.approx(1, abs=0.03)
    double = ParameterSpace(nn.Linear(200, 100).double())
    torch.testing.assert_close(random_direction(double, seed=4).float(), direction)
    generator = torch.Generator().manual_seed(4)
    assert torch.equal(random_direction(space, generator=generator), direction)
    assert not torch.equal(random_direction(space, generator=generator), direction)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_orthogonalised(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(5000, generator=generator, dtype=dtype)
    b = a + 1e-3 * torch.randn(5000, generator=generator, dtype=dtype)  # nearly parallel
    result = orthogonalised(b, a)
    cosine = float(result.double() @ a.double() / (result.double().norm() * a.double().norm()))
    assert abs(cosine) < 1e-6
    with pytest.raises(InputError, match="parallel"):
        orthogonalised(2 * a, a)
    with pytest.raises(InputError, match="zero direction"):
        orthogonalised(a, 0 * a)


def test_sign_fixed() -> None:
    rows = torch.tensor([[1.0, -3.0], [2.0, 1.0], [0.0, 0.0]])
    assert sign_fixed(rows).tolist() == [[-1.0, 3.0], [2.0, 1.0], [0.0, 0.0]]


def transcription(direction: list[torch.Tensor], weights: list[torch.Tensor], norm: str, biases: str) -> None:
    """Li et al.'s normalisation, filter by filter and in place, written out from the paper's section 4."""
    for d, w in zip(direction, weights, strict=True):
        if d.dim() <= 1:
            if biases == "out":
                d.fill_(0)
            else:
                d.mul_(w.norm() / d.norm())
        elif norm == "filter":
            for j in range(len(d)):
                d[j].mul_(w[j].norm() / d[j].norm())
        else:
            d.mul_(w.norm() / d.norm())


@pytest.mark.parametrize("biases", ["out", "in"])
@pytest.mark.parametrize("norm", ["filter", "layer"])
def test_normalisation_is_a_literal_transcription(conv: Case, norm: str, biases: str) -> None:
    space = ParameterSpace(conv.model)
    raw = random_direction(space, seed=3)
    expected = [part.clone() for part in space.views(raw).values()]
    transcription(expected, [parameter.detach() for parameter in space.parameters], norm, biases)
    torch.testing.assert_close(normalised(raw, space, norm, biases), space.flatten(expected))


def test_normalisation_as_a_whole_and_none(conv: Case) -> None:
    space = ParameterSpace(conv.model)
    raw = random_direction(space, seed=3)
    whole = norm_normalised(raw, space, "in")
    torch.testing.assert_close(whole, raw * (space.vector().norm() / raw.norm()))
    weights = [parameter.detach().flatten() for parameter in space.parameters if parameter.dim() > 1]
    out = norm_normalised(raw, space)
    assert float(out.norm()) == pytest.approx(float(torch.cat(weights).norm()))
    none = normalised(raw, space, "none")
    for (name, part), drawn, parameter in zip(
        space.views(none).items(), space.views(raw).values(), space.parameters, strict=True
    ):
        assert torch.equal(part, drawn if parameter.dim() > 1 else 0 * drawn), name
    assert torch.equal(normalised(raw, space, "none", "in"), raw)
    assert not norm_normalised(0 * raw, space).any()
    with pytest.raises(InputError, match="normalisation must be one of filter, layer, norm, none"):
        normalised(raw, space, "filters")
