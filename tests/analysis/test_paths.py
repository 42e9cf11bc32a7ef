from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from analysis_cases import Case, cross_entropy
from torch import Tensor, nn
from torch.func import functional_call

from landscape_lab.analysis.paths import barrier, distances
from landscape_lab.errors import InputError
from landscape_lab.parameters import ParameterSpace

SUBSETS = {"all": (0, 1, 2), "head": (0,), "tail": (2,)}


def other_end(case: Case) -> Tensor:
    space = ParameterSpace(case.model)
    generator = torch.Generator().manual_seed(8)
    return space.vector() + torch.randn(space.size, generator=generator, dtype=torch.float64) * 0.5


def test_distances_of_a_planted_path() -> None:
    sizes = {"a": 2, "b": 3}
    reference = torch.tensor([3.0, 4, 0, 0, 2])
    points = torch.tensor([[0.0, 0, 0, 0, 0], [3, 0, 0, 0, 0], [3, 4, 0, 0, 2], [3, 4, 0, 2, 2]])
    found = distances(points, reference, sizes, [0, 10, 20, 30], name="ref")
    assert found.full.tolist() == pytest.approx([math.sqrt(29), math.sqrt(20), 0, 2])
    assert found.layers.tolist() == [pytest.approx([5, 4, 0, 0]), pytest.approx([2, 2, 0, 2])]
    assert found.relative.tolist() == pytest.approx([1, math.sqrt(20 / 29), 0, 2 / math.sqrt(29)])
    assert found.relative_layers[1].tolist() == pytest.approx([1, 1, 0, 1])
    assert found.norms.tolist() == pytest.approx([0, 3, math.sqrt(29), math.sqrt(33)])
    assert math.isnan(found.cosine[0])
    assert found.cosine[1:].tolist() == pytest.approx([9 / (3 * math.sqrt(29)), 1, 29 / math.sqrt(29 * 33)])
    # The ways begin at the first checkpoint, wherever that is.
    torch.testing.assert_close(distances(points + 1, reference + 1, sizes).cosine, found.cosine, equal_nan=True)
    assert (found.names, found.steps, found.reference) == (("a", "b"), (0, 10, 20, 30), "ref")


def test_distances_of_float32_checkpoints_have_float64_digits() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(3, 1000, generator=generator) + 100
    reference = points[-1] + 1e-3 * torch.randn(1000, generator=generator)
    found = distances(points, reference, {"w": 600, "v": 400})
    expected = np.linalg.norm(points.numpy().astype(np.float64) - reference.numpy().astype(np.float64), axis=1)
    np.testing.assert_allclose(found.full.numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(found.layers.square().sum(0).sqrt().numpy(), expected, rtol=1e-12)


def test_a_barrier_against_direct_evaluation(conv: Case) -> None:
    space = ParameterSpace(conv.model)
    a, b = space.vector(), other_end(conv)
    found = barrier(
        conv.model,
        cross_entropy,
        conv.batches,
        (a, b),
        subsets=SUBSETS,
        points=9,
        batch_norm="running",
        names=("a", "b"),
    )
    conv.model.eval()
    for k, classes in enumerate(SUBSETS.values()):
        member = torch.isin(conv.targets, torch.tensor(classes))
        rows = []
        for t in range(9):
            weight = t / 8
            output = functional_call(conv.model, space.views((1 - weight) * a + weight * b), (conv.inputs,))
            rows.append(F.cross_entropy(output, conv.targets, reduction="none").detach()[member])
        losses = [float(row.mean()) for row in rows]
        assert found.losses[k].tolist() == pytest.approx(losses)
        heights = [losses[t] - ((1 - t / 8) * losses[0] + t / 8 * losses[8]) for t in range(9)]
        top = int(np.argmax(heights))
        assert float(found.barrier[k]) == pytest.approx(max(heights), abs=1e-12)
        assert float(found.at[k]) == top / 8
        above = rows[top] - ((1 - top / 8) * rows[0] + top / 8 * rows[8])
        expected = float(above.std()) / math.sqrt(len(above))
        assert float(found.stderr[k]) == pytest.approx(expected, abs=1e-12)
        assert found.counts[k] == int(member.sum())
    assert found.batch_norm == "running"
    assert found.ends == ("a", "b")
    assert found.place("tail") == 2
    with pytest.raises(InputError, match="did you mean 'tail'"):
        found.place("tial")


def test_reestimated_statistics_remove_a_barrier_that_is_not_there(conv: Case) -> None:
    """Scaling the weights before BatchNorm changes nothing but the statistics: a barrier would be an artefact."""
    space = ParameterSpace(conv.model)
    a = space.vector()
    b = a.clone()
    b[space.slice_of("conv.weight")] *= 30
    # One batch, so that the statistics are those of the scored samples; float64, and BatchNorm's eps is small.
    options = {"subsets": {"all": (0, 1, 2)}, "points": 11}
    right = barrier(conv.model, cross_entropy, [conv.batches], (a, b), **options)
    assert right.batch_norm == "reestimated"
    wrong = barrier(conv.model, cross_entropy, [conv.batches], (a, b), batch_norm="running", **options)
    flat = float(right.losses.max() - right.losses.min())
    assert flat < 1e-3
    assert float(wrong.losses.max() - wrong.losses.min()) > 1


def test_a_known_double_well() -> None:
    """The loss (θ² - 1)² per sample, wells at ±1: the barrier is 1, at a half; scaled by class."""
    model = nn.Linear(1, 2, bias=False).double()
    inputs = torch.ones(6, 1, dtype=torch.float64)
    targets = torch.tensor([0, 0, 0, 1, 1, 1])

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return (output[:, 0].square() - 1).square() * (1 + 2 * target)

    ends = torch.tensor([-1.0, 0.0], dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)
    subsets = {"0": (0,), "1": (1,), "both": (0, 1)}
    found = barrier(model, loss, (inputs, targets), ends, subsets=subsets)
    assert found.barrier.tolist() == pytest.approx([1, 3, 2])
    assert found.at.tolist() == [0.5, 0.5, 0.5]
    assert found.stderr[:2].tolist() == pytest.approx([0, 0])
    weighted = barrier(model, loss, (inputs, targets), ends, subsets=subsets, class_counts=[30, 10])
    assert weighted.barrier.tolist() == pytest.approx([1, 3, 1.5])


def test_no_barrier_is_zero_and_an_infinite_one_is_infinite() -> None:
    model = nn.Linear(1, 1, bias=False).double()
    data = torch.ones(2, 1, dtype=torch.float64), torch.tensor([0, 0])
    ends = torch.tensor([-1.0], dtype=torch.float64), torch.tensor([1.0], dtype=torch.float64)
    convex = barrier(model, lambda out, _: out[:, 0].square(), data, ends, subsets={"all": (0,)})
    assert (float(convex.barrier), float(convex.stderr), float(convex.at)) == (0, 0, 0)
    broken = barrier(model, lambda out, _: 1 / out[:, 0].square(), data, ends, subsets={"all": (0,)})
    assert float(broken.barrier) == math.inf
    assert float(broken.at) == 0.5


def test_refusals(conv: Case) -> None:
    a = ParameterSpace(conv.model).vector()
    with pytest.raises(InputError, match="three points or more"):
        barrier(conv.model, cross_entropy, conv.batches, (a, a), subsets=SUBSETS, points=2)
    with pytest.raises(InputError, match="of different networks"):
        barrier(conv.model, cross_entropy, conv.batches, (a, a[:-1]), subsets=SUBSETS)
    with pytest.raises(InputError, match="name one at least"):
        barrier(conv.model, cross_entropy, conv.batches, (a, a), subsets={})
    with pytest.raises(InputError, match="of one network of 3 parameters"):
        distances(torch.zeros(2, 4), torch.zeros(4), {"a": 3})
    with pytest.raises(ValueError, match="expected 2 steps"):
        distances(torch.zeros(2, 4), torch.zeros(4), {"a": 4}, [1])


def test_the_statistics_of_the_model_stay(conv: Case) -> None:
    before = copy.deepcopy(conv.model.state_dict())
    barrier(
        conv.model, cross_entropy, conv.batches, (ParameterSpace(conv.model).vector(), other_end(conv)), subsets=SUBSETS
    )
    for name, value in conv.model.state_dict().items():
        assert torch.equal(value, before[name]), name
