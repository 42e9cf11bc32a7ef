"""The numbers themselves: against dense Hessians, leave-one-out, and the model left as it was."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from guard_cases import SUBSETS, Encoder, cross_entropy, drawn, samples, trained
from guard_fixtures import COUNTS, QUICK, everything, measured
from torch import Tensor, nn
from torch.func import functional_call, hessian

from landscape_lab.errors import InputError
from landscape_lab.guard import GuardSettings, Measurement, draw, measure
from landscape_lab.guard.samples import same_data, sketch
from landscape_lab.parameters import ParameterSpace


def dense(net: nn.Module, inputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The Hessian of a weighted mean, by torch.func."""
    space = ParameterSpace(net)

    def loss(vector: Tensor) -> Tensor:
        return (
            F.cross_entropy(functional_call(net, space.views(vector), (inputs,)), targets, reduction="none")
        ) @ weights

    return hessian(loss)(space.vector())


def number(measurement: Measurement, metric: str, subset: str) -> float:
    (one,) = [one for one in measurement.metrics if (one.metric, one.subset) == (metric, subset)]
    return one.value


def test_curvature_is_that_of_the_dense_hessian(quick: Measurement) -> None:
    inputs, targets = samples(COUNTS, 0)
    exact = GuardSettings(metrics=("trace",), probes=60, deflation=30, deflated=10)
    traces = measured(trained(0), everything(), exact)
    for name, classes in SUBSETS.items():
        member = torch.isin(targets, torch.tensor(classes))
        H = dense(
            trained(0),
            inputs[member],
            targets[member],
            torch.full((int(member.sum()),), 1 / int(member.sum())).double(),
        )
        assert number(quick, "lambda_max", name) == pytest.approx(float(torch.linalg.eigvalsh(H)[-1]), rel=1e-4)
        (one,) = [one for one in traces.metrics if one.subset == name]
        assert abs(one.value - float(H.trace())) < 4 * traces.spread(one).variance ** 0.5


def test_classes_weigh_what_they_stand_for() -> None:
    inputs, targets = samples(COUNTS, 0)
    chosen = draw(inputs, targets, targets, per_class=5)
    weights = torch.tensor([COUNTS[int(c)] / sum(COUNTS) / 5 for c in chosen.labels], dtype=torch.float64)
    H = dense(trained(0), chosen.inputs, chosen.targets, weights)
    found = measure(trained(0), cross_entropy, chosen, {"all": (0, 1, 2)}, GuardSettings(metrics=("lambda_max",)))
    assert found.metrics[0].value == pytest.approx(float(torch.linalg.eigvalsh(H)[-1]), rel=1e-4)
    assert [chosen.unseen(c) for c in range(3)] == pytest.approx([25 / 30, 15 / 20, 5 / 10])


@pytest.mark.parametrize("metric", ["lambda_max", "average", "quality"])
def test_influences_tell_what_a_sample_adds(metric: str) -> None:
    """Leave one out: the class's mean of the influences changes as the number does, to first order."""
    inputs, targets = samples((120, 120, 120), 3)
    net, settings = trained(1), GuardSettings(metrics=(metric,), directions=3, tolerance=1e-8)
    subsets = {"all": (0, 1, 2)}

    def value(keep: Tensor, influences: bool = False) -> Tensor | float:
        data = draw(inputs[keep], targets[keep], targets[keep], population={0: 1.0, 1: 1.0, 2: 1.0})
        (one,) = measure(net, cross_entropy, data, subsets, settings, encoder=Encoder(net)).metrics
        return one.influences if influences else one.value

    every = torch.ones(360, dtype=torch.bool)
    whole, told = value(every), value(every, influences=True)
    expected, seen = [], []
    for i in range(0, 360, 47):
        keep = every.clone()
        keep[i] = False
        own = told[targets == targets[i]]
        expected.append(float((own.sum() - told[i]) / 119 - own.mean()))
        seen.append(value(keep) - whole)
    both = torch.tensor([expected, seen], dtype=torch.float64)
    assert float((both[0] - both[1]).norm() / both[1].norm()) < 0.15


def test_more_probes_begin_with_the_same_ones(quick: Measurement) -> None:
    wanted = [("trace", "all"), ("average", "tail"), ("epsilon", "head")]
    more = measured(trained(0), everything(), wanted=wanted, spend=2)
    assert {(one.metric, one.subset) for one in more.metrics} == set(wanted)
    for one in more.metrics:
        (old,) = [other for other in quick.metrics if (other.metric, other.subset) == (one.metric, one.subset)]
        assert len(one.probes) == 2 * len(old.probes)
        assert torch.allclose(one.probes[: len(old.probes)], old.probes)


def test_the_model_is_left_as_it_was() -> None:
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)).double()
    net.train()
    net[0].bias.requires_grad_(False)
    state, rng = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    measure(net, nn.CrossEntropyLoss(), everything(), SUBSETS, QUICK)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in state.items())
    assert all(module.training for module in net.modules())
    assert not net[0].bias.requires_grad
    assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(rng, torch.get_rng_state())


def test_a_mean_loss_gives_the_same_as_one_for_each_sample(quick: Measurement) -> None:
    found = measure(trained(0), nn.CrossEntropyLoss(), everything(), SUBSETS, QUICK, wanted=[("average", "tail")])
    assert found.metrics[0].value == pytest.approx(number(quick, "average", "tail"))


def test_a_diverged_model_is_refused() -> None:
    net = trained(0)
    with torch.no_grad():
        net.first.weight.fill_(float("nan"))
    with pytest.raises(InputError, match="not finite"):
        measured(net, everything())


def test_a_subset_without_samples_is_refused() -> None:
    with pytest.raises(InputError, match="'rare' holds no samples"):
        measure(trained(0), cross_entropy, everything(), {"rare": (7,)}, QUICK)


def test_a_sketch_notices_other_samples() -> None:
    one = sketch(drawn(0))
    assert same_data(one, sketch(drawn(0))) == ""
    assert same_data(one, sketch(drawn(1))) == "the inputs"
    data = drawn(0)
    data.inputs[5, 2] += 0.01
    assert same_data(one, sketch(data)) == "the inputs"
    data = drawn(0)
    data.targets[5] = 1
    assert same_data(one, sketch(data)) == "the targets"
    data = drawn(0)
    data.inputs.mul_(1 + 1e-9)  # as another device would round
    assert same_data(one, sketch(data)) == ""
