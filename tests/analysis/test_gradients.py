from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from analysis_cases import Case, cross_entropy
from torch import Tensor, nn

from landscape_lab.analysis import gradients
from landscape_lab.analysis.gradients import gradient_similarity
from landscape_lab.analysis.memory import GraphBudget
from landscape_lab.errors import InputError
from landscape_lab.parameters import ParameterSpace


def naive(case: Case, batch_size: int, label: int, prefix: str = "") -> list[float]:
    """The cosines of one class, by a forward and a backward pass of the whole batch for every gradient."""
    cosines = []
    for inputs, targets in zip(case.inputs.split(batch_size), case.targets.split(batch_size), strict=True):
        member = targets == label
        if member.any():
            ours = naive_gradient(case.model, inputs, targets, member, prefix)
            whole = naive_gradient(case.model, inputs, targets, torch.ones_like(member), prefix)
            cosines.append(float(F.cosine_similarity(ours, whole, dim=0)))
    return cosines


def naive_gradient(model: nn.Module, inputs: Tensor, targets: Tensor, member: Tensor, prefix: str = "") -> Tensor:
    model = copy.deepcopy(model).eval()
    losses = F.cross_entropy(model(inputs), targets, reduction="none")
    (losses[member].sum() / member.sum()).backward()
    named = [p for name, p in model.named_parameters() if p.grad is not None and name.startswith(prefix)]
    return torch.cat([p.grad.flatten() for p in named])


@pytest.mark.parametrize("classes", [None, [0, 1, 2], [2], [1, 0]])
@pytest.mark.parametrize("batch_size", [5, 24])
def test_against_a_backward_pass_for_each_class(conv: Case, classes: list[int] | None, batch_size: int) -> None:
    done: list[int] = []
    result = gradient_similarity(
        conv.model, cross_entropy, conv.batches, classes, batch_size=batch_size, progress=done.append
    )
    assert result.classes == tuple(classes or (0, 1, 2))
    assert result.batches == len(done) == math.ceil(24 / batch_size)
    for k, label in enumerate(result.classes):
        cosines = torch.tensor(naive(conv, batch_size, label), dtype=torch.float64)
        assert int(result.present[k]) == len(cosines)
        assert float(result.mean[k]) == pytest.approx(float(cosines.mean()), rel=1e-10)
        if len(cosines) > 1:
            assert float(result.std[k]) == pytest.approx(float(cosines.std()), rel=1e-8)
            assert float(result.stderr[k]) == pytest.approx(float(cosines.std()) / len(cosines) ** 0.5)
        else:
            assert result.std[k].isnan()


def test_absent_classes_are_counted_and_skipped(conv: Case) -> None:
    order = conv.targets.argsort()
    sorted_case = Case(conv.model, conv.inputs[order], conv.targets[order])
    result = gradient_similarity(conv.model, cross_entropy, sorted_case.batches, [0, 1, 2, 9], batch_size=9)
    # In order: 9 of class 0; 5 of class 0 and 4 of class 1; 3 of class 1 and 3 of class 2.
    assert result.present.tolist() == [2, 2, 1, 0]
    assert result.batches == 3
    assert result.mean[3].isnan()
    mixed = naive(sorted_case, 9, 0)[1]
    assert float(result.mean[0]) == pytest.approx((1.0 + mixed) / 2)  # alone, a class is the whole batch
    assert result.std.isnan().tolist() == [False, False, True, True]


@pytest.mark.parametrize("classes", [None, [2, 0]])
def test_class_against_class(conv: Case, classes: list[int] | None) -> None:
    result = gradient_similarity(conv.model, cross_entropy, conv.batches, classes, between=True, batch_size=5)
    assert result.between is not None
    labels = classes or [0, 1, 2]
    for a, one in enumerate(labels):
        for b, other in enumerate(labels):
            cosines = []
            for inputs, targets in zip(conv.inputs.split(5), conv.targets.split(5), strict=True):
                if (targets == one).any() and (targets == other).any():
                    g, h = (naive_gradient(conv.model, inputs, targets, targets == label) for label in (one, other))
                    cosines.append(float(F.cosine_similarity(g, h, dim=0)))
            assert int(result.between.present[a, b]) == len(cosines)
            assert float(result.between.mean[a, b]) == pytest.approx(sum(cosines) / len(cosines), abs=1e-9)
            expected = float(torch.tensor(cosines, dtype=torch.float64).std())
            assert float(result.between.std[a, b]) == pytest.approx(expected, abs=1e-9)
    alone = gradient_similarity(conv.model, cross_entropy, conv.batches, classes, batch_size=5)
    assert alone.between is None
    torch.testing.assert_close(alone.mean, result.mean)


def test_classes_that_never_meet(conv: Case) -> None:
    order = conv.targets.argsort()
    batches = conv.inputs[order], conv.targets[order]
    result = gradient_similarity(conv.model, cross_entropy, batches, [0, 2], between=True, batch_size=14)
    assert result.between is not None
    assert result.between.present.tolist() == [[1, 0], [0, 1]]
    assert result.between.mean.isnan().tolist() == [[False, True], [True, False]]


def test_every_sample_goes_forward_and_backward_once(conv: Case) -> None:
    seen: list[int] = []
    conv.model.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    passes: list[int] = []
    conv.model.head.register_full_backward_hook(lambda module, given, got: passes.append(len(got[0])))
    gradient_similarity(conv.model, cross_entropy, conv.batches, between=True, batch_size=12)
    assert sum(passes) == 24
    assert sum(seen) == 24 + 2 * 12  # and the first batch's trial whether samples act on each other


def test_samples_that_act_on_each_other() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6, track_running_stats=False), nn.ReLU(), nn.Linear(6, 3)
    ).double()
    inputs, targets = torch.randn(30, 4, dtype=torch.float64), torch.arange(30) % 3
    result = gradient_similarity(model, cross_entropy, (inputs, targets), between=True, batch_size=30)
    rows = [naive_gradient(model, inputs, targets, targets == label) for label in range(3)]
    whole = naive_gradient(model, inputs, targets, targets >= 0)
    assert result.between is not None
    for a in range(3):
        assert float(result.mean[a]) == pytest.approx(float(F.cosine_similarity(rows[a], whole, dim=0)), rel=1e-9)
        for b in range(3):
            expected = float(F.cosine_similarity(rows[a], rows[b], dim=0))
            assert float(result.between.mean[a, b]) == pytest.approx(expected, rel=1e-9)


def test_the_model_is_left_as_it_was(conv: Case) -> None:
    conv.model.train()
    conv.model.drop.eval()
    conv.model.head.weight.grad = torch.ones_like(conv.model.head.weight)
    before = {name: value.clone() for name, value in conv.model.state_dict().items()}
    modes = [module.training for module in conv.model.modules()]
    needs = [parameter.requires_grad for parameter in conv.model.parameters()]
    state = torch.get_rng_state()
    gradient_similarity(conv.model, cross_entropy, conv.batches, between=True, batch_size=7)
    assert all(torch.equal(value, before[name]) for name, value in conv.model.state_dict().items())
    assert [module.training for module in conv.model.modules()] == modes
    assert [parameter.requires_grad for parameter in conv.model.parameters()] == needs
    assert torch.equal(conv.model.head.weight.grad, torch.ones_like(conv.model.head.weight))
    assert conv.model.head.bias.grad is None
    assert torch.equal(torch.get_rng_state(), state)


def test_gradients_that_do_not_fit_are_refused(conv: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "ROOM", 100)
    monkeypatch.setattr(gradients, "GraphBudget", lambda device: GraphBudget(device, limit=1000))
    with pytest.raises(InputError, match=r"more than half of the free memory.*fewer classes"):
        gradient_similarity(conv.model, cross_entropy, conv.batches)


def test_part_of_the_parameters(conv: Case) -> None:
    encoder = ParameterSpace(conv.model, where=lambda name: name.startswith("conv"))
    result = gradient_similarity(conv.model, cross_entropy, conv.batches, [2], parameters=encoder, batch_size=8)
    cosines = naive(conv, 8, 2, "conv")
    assert float(result.mean[0]) == pytest.approx(sum(cosines) / len(cosines))


def test_training_mode_does_not_matter(conv: Case) -> None:
    results = [gradient_similarity(conv.model.train(mode), cross_entropy, conv.batches).mean for mode in (True, False)]
    assert torch.equal(*results)


def test_a_zero_gradient_counts_as_zero() -> None:
    model = nn.Linear(2, 1, bias=False)
    data = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1])
    result = gradient_similarity(model, lambda output, target: output[:, 0], data)
    assert result.mean.tolist() == [1.0, 0.0]


def test_bad_input(conv: Case) -> None:
    with pytest.raises(InputError, match="no classes"):
        gradient_similarity(conv.model, cross_entropy, conv.batches, [])
    with pytest.raises(InputError, match="holds no samples"):
        gradient_similarity(conv.model, cross_entropy, (conv.inputs[:0], conv.targets[:0]))
    with pytest.raises(InputError, match="reduction='none'"):
        gradient_similarity(conv.model, nn.CrossEntropyLoss(), conv.batches)
