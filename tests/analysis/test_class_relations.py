"""How classes are related: against sklearn, literal loops and plain autograd."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import confusion_matrix
from torch import nn

from landscape_lab.analysis.class_relations import class_gradient_cosines, class_neighbours, confusion_rates
from landscape_lab.errors import InputError
from landscape_lab.parameters import ParameterSpace


def per_sample(output, target):
    return F.cross_entropy(output, target, reduction="none")


def test_confusion_is_sklearns():
    stream = torch.Generator().manual_seed(0)
    targets, predictions = (torch.randint(0, 4, (60,), generator=stream) for _ in range(2))
    targets[targets == 2] = 3
    found = confusion_rates(predictions, targets, 4)
    with np.errstate(invalid="ignore"):
        theirs = confusion_matrix(targets, predictions, labels=range(4), normalize="true")
    assert np.allclose(found[[0, 1, 3]], theirs[[0, 1, 3]])
    assert found[2].isnan().all()


def test_neighbours_against_a_loop():
    stream = torch.Generator().manual_seed(0)
    features = torch.randn(30, 3, generator=stream, dtype=torch.float64)
    targets = torch.tensor([0] * 15 + [1] * 9 + [2] * 6)
    found = class_neighbours(features, targets, 4, k=5)
    counts = [15, 9, 6]
    expected = torch.zeros(3, 3, dtype=torch.float64)
    for i in range(30):
        others = [j for j in range(30) if targets[j] != targets[i]]
        near = sorted(others, key=lambda j: float((features[i] - features[j]).norm()))[:5]
        weights = [1 / counts[int(targets[j])] for j in near]
        for j, weight in zip(near, weights, strict=True):
            expected[targets[i], targets[j]] += weight / sum(weights) / counts[int(targets[i])]
    assert torch.allclose(found[:3, :3], expected)
    assert found[3].isnan().all()
    assert found[:3, 3].isnan().all()
    assert torch.allclose(found[:3, :3].sum(1), torch.ones(3, dtype=torch.float64))


def test_neighbours_fewer_than_asked_for():
    features = torch.tensor([[0.0], [1.0], [2.0]])
    found = class_neighbours(features, torch.tensor([0, 0, 1]), 2)
    assert found.tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_neighbours_of_one_class_are_refused():
    with pytest.raises(InputError, match="two classes"):
        class_neighbours(torch.zeros(3, 1), torch.zeros(3, dtype=torch.long), 2)


def small():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).double()
    model[1].running_mean.normal_()
    inputs, targets = torch.randn(20, 5).double(), torch.tensor([0] * 12 + [1] * 6 + [2] * 2)
    return model, inputs, targets


def test_gradients_are_those_of_plain_autograd_whatever_the_batches():
    model, inputs, targets = small()
    order = torch.randperm(20)
    space = ParameterSpace(model, lambda name: name.startswith("0."))
    found = class_gradient_cosines(
        model, per_sample, (inputs[order], targets[order]), 4, parameters=space, batch_size=7
    )
    twin = copy.deepcopy(model).eval()
    rows = []
    for c in range(3):
        twin.zero_grad()
        F.cross_entropy(twin(inputs[targets == c]), targets[targets == c]).backward()
        rows.append(torch.cat([twin[0].weight.grad.flatten(), twin[0].bias.grad]))
    expected = F.cosine_similarity(torch.stack(rows)[:, None], torch.stack(rows)[None], dim=2)
    assert torch.allclose(found[:3, :3], expected)
    assert found[3].isnan().all()


def test_the_model_is_left_as_it_was():
    model, inputs, targets = small()
    model[3].weight.requires_grad_(False)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before, state = copy.deepcopy(model), torch.get_rng_state()
    seen = []
    class_gradient_cosines(model, per_sample, (inputs, targets), 3, progress=seen.append)
    assert sum(seen) == 20
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert not model[3].weight.requires_grad
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert model[0].bias.grad is None
    for name, tensor in before.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
