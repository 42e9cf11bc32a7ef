from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from analysis_cases import Case, cross_entropy
from torch import Tensor, nn

from landscape_lab.analysis import Hessian
from landscape_lab.analysis.planes import eigenvector_plane, gradient_plane, mean_gradient, random_plane
from landscape_lab.errors import InputError
from landscape_lab.parameters import ParameterSpace


def test_random_planes_are_the_same_for_every_state_of_a_network() -> None:
    first, second = (nn.Sequential(nn.Linear(30, 40), nn.Linear(40, 3)) for _ in range(2))
    spaces = ParameterSpace(first), ParameterSpace(second)
    planes = [random_plane(space, seed=4, normalisation="none") for space in spaces]
    assert torch.equal(planes[0].x, planes[1].x)
    assert torch.equal(planes[0].y, planes[1].y)
    assert not torch.equal(planes[0].origin, planes[1].origin)
    scaled = random_plane(spaces[0], seed=4)
    cosine = float(F.cosine_similarity(scaled.x, scaled.y, dim=0))
    assert abs(cosine) < 5 / spaces[0].size ** 0.5
    assert not torch.equal(random_plane(spaces[0], seed=5).x, scaled.x)


def test_eigenvectors_are_those_of_the_dense_matrix(mlp: Case, mlp_hessian: Tensor) -> None:
    space = ParameterSpace(mlp.model)
    plane, pairs = eigenvector_plane(space, Hessian(mlp.model, cross_entropy, mlp.batches))
    values, vectors = torch.linalg.eigh(mlp_hessian)
    for k, axis in enumerate((plane.x, plane.y)):
        exact = vectors[:, -1 - k]
        assert abs(float(axis @ exact)) == pytest.approx(float(axis.norm()), rel=1e-4)
        assert float(axis.norm()) == pytest.approx(float(space.vector().norm()))
        assert float(axis[axis.abs().argmax()]) > 0
        assert float(pairs.values[k]) == pytest.approx(float(values[-1 - k]), rel=1e-5)
    assert torch.equal(plane.origin, space.vector())


def test_gradients_are_naive_ones_and_lead_down(mlp: Case) -> None:
    space = ParameterSpace(mlp.model)
    gradients, members = [], [mlp.targets < 2, mlp.targets >= 2]
    for member in members:
        found = mean_gradient(mlp.model, cross_entropy, (mlp.inputs[member], mlp.targets[member]), space, batch_size=17)
        twin = copy.deepcopy(mlp.model)
        F.cross_entropy(twin(mlp.inputs[member]), mlp.targets[member]).backward()
        torch.testing.assert_close(found, torch.cat([p.grad.flatten() for p in twin.parameters()]))
        gradients.append(found)
    plane, cosine = gradient_plane(space, *gradients)
    assert cosine == pytest.approx(float(F.cosine_similarity(*gradients, dim=0)))
    for axis, member in zip((plane.x, plane.y), members, strict=True):
        twin = copy.deepcopy(mlp.model)
        losses = []
        for step in (0.0, 1e-4):
            nn.utils.vector_to_parameters(plane.origin + step * axis, twin.parameters())
            losses.append(F.cross_entropy(twin(mlp.inputs[member]), mlp.targets[member]).item())
        assert losses[1] < losses[0]
        assert float(axis.norm()) == pytest.approx(float(space.vector().norm()))


def test_bad_gradients(mlp: Case) -> None:
    space = ParameterSpace(mlp.model)
    g = torch.ones(space.size, dtype=torch.float64)
    with pytest.raises(InputError, match="parallel"):
        gradient_plane(space, g, -2 * g)
    with pytest.raises(InputError, match="zero"):
        gradient_plane(space, g, 0 * g)
    with pytest.raises(InputError, match="no samples"):
        mean_gradient(mlp.model, cross_entropy, (mlp.inputs[:0], mlp.targets[:0]), space)
