"""A loss over many batches is the loss over one batch of all samples, however it averages."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from analysis_cases import Case
from torch import Tensor, nn
from torch.func import functional_call, hessian
from torch.utils.data import DataLoader, TensorDataset

from landscape_lab.analysis.losses import objective_of
from landscape_lab.analysis.operators import Fisher, Hessian
from landscape_lab.errors import InputError
from landscape_lab.parameters import ParameterSpace

WEIGHTS = torch.tensor([1.0, 4.0, 11.0], dtype=torch.float64)


def brier(output: Tensor, target: Tensor) -> Tensor:
    return (output.softmax(1) - F.one_hot(target, 3)).square().sum(1)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": nn.CrossEntropyLoss(),
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "weighted mean": nn.CrossEntropyLoss(weight=WEIGHTS),
    "weighted sum": nn.CrossEntropyLoss(weight=WEIGHTS, reduction="sum"),
    "smoothed": nn.CrossEntropyLoss(weight=WEIGHTS, label_smoothing=0.2),
    "one class ignored": nn.CrossEntropyLoss(ignore_index=1),
    "function": F.cross_entropy,
    "partial": partial(F.cross_entropy, weight=WEIGHTS, label_smoothing=0.1),
    "partial sum": partial(F.cross_entropy, reduction="sum"),
    "own mean": lambda output, target: brier(output, target).mean(),
    "own sum": lambda output, target: brier(output, target).sum(),
    "mean over elements": lambda output, target: F.mse_loss(output, F.one_hot(target, 3).double()),
}


def full_batch(case: Case, loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    space = ParameterSpace(case.model)

    def value(vector: Tensor) -> Tensor:
        return loss(functional_call(case.model, space.views(vector), (case.inputs,)), case.targets)

    return hessian(value)(space.vector())


@pytest.mark.parametrize("batch_size", [2, 5, 24])
@pytest.mark.parametrize("name", LOSSES)
def test_the_hessian_is_that_of_one_batch_of_everything(conv: Case, name: str, batch_size: int) -> None:
    expected = full_batch(conv, LOSSES[name])
    V = torch.randn(123, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    op = Hessian(conv.model, LOSSES[name], conv.batches, batch_size=batch_size)
    torch.testing.assert_close(op @ V, expected @ V, rtol=1e-8, atol=1e-10)


def test_ragged_loaders_too(conv: Case) -> None:
    data = TensorDataset(conv.inputs, conv.targets)
    batches = [
        (conv.inputs[:9], conv.targets[:9]),
        (conv.inputs[9:10], conv.targets[9:10]),
        (conv.inputs[10:], conv.targets[10:]),
    ]
    v = torch.randn(123, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for name in ("weighted mean", "sum", "own mean"):
        expected = full_batch(conv, LOSSES[name]) @ v
        for some in (batches, DataLoader(data, batch_size=7), DataLoader(data, batch_size=7, shuffle=True)):
            torch.testing.assert_close(Hessian(conv.model, LOSSES[name], some) @ v, expected, rtol=1e-8, atol=1e-10)


def test_soft_targets_are_averaged_over_samples(conv: Case) -> None:
    soft = torch.rand(24, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(1)
    case = Case(conv.model, conv.inputs, soft)
    loss = nn.CrossEntropyLoss(weight=WEIGHTS)
    op = Hessian(conv.model, loss, (conv.inputs, soft), batch_size=7)
    torch.testing.assert_close(op.dense(), full_batch(case, loss), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda output, target: F.cross_entropy(output, target, weight=WEIGHTS), "neither the mean nor the sum"),
        (lambda output, target: F.cross_entropy(output, target, reduction="sum") + 5, "neither the mean nor the sum"),
        (lambda output, target: output, "reduce each sample to one number"),
        (lambda output, target: 3.0, "must return a tensor"),
        (lambda output, target: F.cross_entropy(output, target) * torch.nan, "is nan"),
        (lambda output, target: F.cross_entropy(output.detach(), target), "does not depend on the parameters"),
    ],
)
def test_what_cannot_be_averaged_is_refused(conv: Case, loss: Callable[[Tensor, Tensor], Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Hessian(conv.model, loss, conv.batches)


def test_class_weights_show_behind_a_first_batch_of_one_class() -> None:
    torch.manual_seed(0)
    output, target = torch.randn(12, 3).double(), torch.tensor([0] * 6 + [1] * 6)
    parts = [(output[:6], target[:6]), (output[5:], target[5:])]
    with pytest.raises(InputError, match="class weights"):
        objective_of(lambda o, t: F.cross_entropy(o, t, weight=WEIGHTS), parts)


def test_weights_of_zero_have_no_mean(conv: Case) -> None:
    with pytest.raises(InputError, match="weights of all samples are zero"):
        Hessian(conv.model, nn.CrossEntropyLoss(weight=torch.zeros(3).double()), conv.batches)


def test_a_scalar_loss_has_values_for_each_sample(conv: Case) -> None:
    output = conv.model.eval()(conv.inputs)
    for name in ("mean", "own mean", "own sum", "weighted mean"):
        objective = objective_of(LOSSES[name], [(output, conv.targets)])
        total = objective.total(output, conv.targets)
        torch.testing.assert_close(objective.per_sample(output, conv.targets).sum(), total)
    plain = Fisher(conv.model, nn.CrossEntropyLoss(reduction="none"), conv.batches).dense()
    own = Fisher(conv.model, lambda output, target: F.cross_entropy(output, target), conv.batches).dense()
    torch.testing.assert_close(own, plain)
