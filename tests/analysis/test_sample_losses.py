from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from analysis_cases import Case, cross_entropy
from torch import nn
from torch.func import functional_call

from landscape_lab.analysis.sample_losses import sample_losses, subset_mean
from landscape_lab.errors import InputError
from landscape_lab.parameters import ParameterSpace


def points_of(case: Case, count: int = 3) -> list[torch.Tensor]:
    space = ParameterSpace(case.model)
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(count, space.size, generator=generator, dtype=torch.float64)
    return list(space.vector() + 0.1 * noise)


def test_running_statistics_against_a_functional_call(conv: Case) -> None:
    space = ParameterSpace(conv.model)
    points = points_of(conv)
    losses, correct = sample_losses(conv.model, cross_entropy, conv.batches, points, batch_size=7)
    conv.model.eval()
    for k, point in enumerate(points):
        output = functional_call(conv.model, space.views(point), (conv.inputs,))
        expected = F.cross_entropy(output, conv.targets, reduction="none")
        torch.testing.assert_close(losses[k], expected.detach(), rtol=1e-12, atol=1e-12)
        assert torch.equal(correct[k], output.argmax(1) == conv.targets)


def test_reestimated_statistics_are_those_of_the_activations(conv: Case) -> None:
    space = ParameterSpace(conv.model)
    points = points_of(conv)
    statistics = [conv.inputs[:9], conv.inputs[9:18]]
    losses, _ = sample_losses(
        conv.model, cross_entropy, conv.batches, points, batch_norm="reestimated", statistics=statistics
    )
    for k, point in enumerate(points):
        model = copy.deepcopy(conv.model).eval()
        with torch.no_grad():
            for name, view in space.views(point).items():
                model.get_parameter(name).copy_(view)
            parts = [model.conv(some) for some in statistics]
            model.norm.running_mean = torch.stack([part.mean((0, 2, 3)) for part in parts]).mean(0)
            model.norm.running_var = torch.stack([part.var((0, 2, 3)) for part in parts]).mean(0)
            expected = F.cross_entropy(model(conv.inputs), conv.targets, reduction="none")
        torch.testing.assert_close(losses[k], expected, rtol=1e-10, atol=1e-12)


def test_a_loss_that_is_not_finite_is_not_right() -> None:
    model = nn.Linear(2, 2)
    inputs, targets = torch.tensor([[1.0, 0], [math.nan, 0]]), torch.tensor([0, 0])
    point = torch.tensor([1.0, 0, -1, 0, 0, 0])
    losses, correct = sample_losses(model, cross_entropy, (inputs, targets), [point])
    assert losses[0].isnan().tolist() == [False, True]
    assert correct[0].tolist() == [True, False]


def test_subset_means_weigh_classes_by_their_true_counts() -> None:
    values = torch.tensor([[1.0, 3.0, 10.0, 20.0, 99.0]])
    targets = torch.tensor([0, 0, 1, 1, 2])
    mean, error = subset_mean(values, targets, [0, 1])
    assert mean.tolist() == [8.5]
    # statistics.stdev([1, 3, 10, 20]) / 2
    assert error.tolist() == pytest.approx([8.5829287930557 / 2])
    mean, error = subset_mean(values, targets, [0, 1], class_counts=[30, 10, 7])
    assert mean.tolist() == [0.75 * 2 + 0.25 * 15]
    assert error.tolist() == pytest.approx([math.sqrt(0.75**2 * 2 / 2 + 0.25**2 * 50 / 2)])
    assert subset_mean(values, targets, [2])[1].isnan().all()
    with pytest.raises(InputError, match="holds no samples"):
        subset_mean(values, targets, [3])


def test_refusals(conv: Case) -> None:
    with pytest.raises(InputError, match="a point has 5 parameters"):
        sample_losses(conv.model, cross_entropy, conv.batches, [torch.zeros(5)])
    with pytest.raises(InputError, match="holds no samples"):
        sample_losses(conv.model, cross_entropy, [], [])
