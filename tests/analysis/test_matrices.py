"""Gauss-Newton and Fisher matrices, BatchNorm policies and kernels against torch.func and loops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from analysis_cases import Case, cross_entropy
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, jacrev

from landscape_lab.analysis.operators import Combination, Fisher, GaussNewton, Hessian
from landscape_lab.analysis.sample_operator import SampleOperator
from landscape_lab.errors import InputError
from landscape_lab.parameters import ParameterSpace, eval_mode, reestimated_statistics, swapped_statistics

WEIGHTS = torch.tensor([1.0, 4.0, 11.0], dtype=torch.float64)


def jacobian(case: Case) -> Tensor:
    """``(samples, outputs, P)``."""
    space = ParameterSpace(case.model)
    return jacrev(lambda v: functional_call(case.model.eval(), space.views(v), (case.inputs,)))(space.vector())


def test_gauss_newton(conv: Case) -> None:
    J, shares = jacobian(conv), conv.model.eval()(conv.inputs).softmax(1).detach()
    B = torch.diag_embed(shares) - shares[:, :, None] * shares[:, None, :]
    expected = torch.einsum("nip,nij,njq->pq", J, B, J) / 24
    torch.testing.assert_close(GaussNewton(conv.model, cross_entropy, conv.batches, batch_size=7).dense(), expected)
    torch.testing.assert_close(Fisher(conv.model, cross_entropy, conv.batches, kind="true").dense(), expected)


def test_gauss_newton_of_a_weighted_mean(conv: Case) -> None:
    J, shares = jacobian(conv), conv.model.eval()(conv.inputs).softmax(1).detach()
    B = (torch.diag_embed(shares) - shares[:, :, None] * shares[:, None, :]) * WEIGHTS[conv.targets][:, None, None]
    expected = torch.einsum("nip,nij,njq->pq", J, B, J) / WEIGHTS[conv.targets].sum()
    op = GaussNewton(conv.model, nn.CrossEntropyLoss(weight=WEIGHTS), conv.batches, batch_size=7)
    torch.testing.assert_close(op.dense(), expected)


def test_gauss_newton_of_squares_is_linear_regression(conv: Case) -> None:
    J = jacobian(conv).reshape(-1, 123)
    op = GaussNewton(conv.model, lambda f, y: f.square().sum(1), conv.batches)
    torch.testing.assert_close(op.dense(), 2 * J.T @ J / 24)


def test_empirical_fisher_is_the_mean_of_outer_products(conv: Case) -> None:
    J, shares = jacobian(conv), conv.model.eval()(conv.inputs).softmax(1).detach()
    g = torch.einsum("nc,ncp->np", shares - F.one_hot(conv.targets, 3), J)
    op = Fisher(conv.model, cross_entropy, conv.batches, batch_size=7)
    torch.testing.assert_close(op.dense(), g.T @ g / 24)
    assert op.name == "fisher"


def test_true_fisher_sums_over_classes_with_the_losses_own_gradients(conv: Case) -> None:
    J, shares = jacobian(conv), conv.model.eval()(conv.inputs).softmax(1).detach()
    loss = nn.CrossEntropyLoss(weight=WEIGHTS, reduction="none")
    expected = torch.zeros(123, 123, dtype=torch.float64)
    for c in range(3):
        g = WEIGHTS[c] * torch.einsum("nc,ncp->np", shares - F.one_hot(torch.full((24,), c), 3), J)
        expected += (shares[:, c, None] * g).T @ g / 24
    torch.testing.assert_close(Fisher(conv.model, loss, conv.batches, kind="true").dense(), expected)
    with pytest.raises(InputError, match="logits"):
        Fisher(conv.model, lambda f, y: f.square().sum(1), (conv.inputs, torch.rand(24, 3)), kind="true")


@pytest.mark.parametrize("kind", [Hessian, GaussNewton, Fisher, lambda *a, **k: Fisher(*a, kind="true", **k)])
def test_the_forms_of_the_samples(conv: Case, kind: type[SampleOperator]) -> None:
    v = torch.randn(123, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    loss = nn.CrossEntropyLoss(weight=WEIGHTS)
    whole = kind(conv.model, loss, conv.batches, batch_size=7)
    forms = whole.quadratic_forms(v)
    for i in (0, 3, 23):
        one = kind(conv.model, loss, (conv.inputs[i : i + 1], conv.targets[i : i + 1]))
        scale = 24 * float(WEIGHTS[conv.targets[i]]) / whole.weight
        torch.testing.assert_close(forms[i], scale * (v @ (one @ v)))
    torch.testing.assert_close(forms.mean(), v @ (whole @ v))


def test_a_combination_weighs_its_parts(conv: Case) -> None:
    whole = Hessian(conv.model, cross_entropy, conv.batches)
    parts = [whole.over((conv.inputs[conv.targets == c], conv.targets[conv.targets == c])) for c in range(3)]
    joint = Combination(parts, [14 / 24, 7 / 24, 3 / 24])
    V = torch.randn(123, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(joint @ V, whole @ V)
    assert joint.samples == 24
    forms = joint.quadratic_forms(V[:, 0])
    torch.testing.assert_close(forms.sort().values, whole.quadratic_forms(V[:, 0]).sort().values)


# -- BatchNorm -------------------------------------------------------------------------------------------------------


class Normalised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(torch.tanh(self.norm(self.conv(x))).mean((2, 3))))


def by_hand(model: Normalised, x: Tensor, y: Tensor) -> Tensor:
    """The Hessian with each batch's own statistics, written out."""
    space = ParameterSpace(model)

    def value(vector: Tensor) -> Tensor:
        p = space.views(vector)
        h = F.conv2d(x, p["conv.weight"])
        mean, var = h.mean((0, 2, 3), keepdim=True), h.var((0, 2, 3), unbiased=False, keepdim=True)
        h = (h - mean) / (var + 1e-5).sqrt() * p["norm.weight"].view(1, -1, 1, 1) + p["norm.bias"].view(1, -1, 1, 1)
        return F.cross_entropy(F.linear(torch.tanh(h).mean((2, 3)), p["head.weight"], p["head.bias"]), y)

    return hessian(value)(space.vector())


@pytest.fixture
def normalised() -> tuple[Normalised, Tensor, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Normalised().double(), 2 + 3 * torch.randn(10, 1, 4, 4).double(), torch.arange(10) % 3


def test_the_statistics_of_each_batch(normalised: tuple[Normalised, Tensor, Tensor]) -> None:
    model, x, y = normalised
    batches = [(x[:6], y[:6]), (x[6:], y[6:])]
    op = Hessian(model, cross_entropy, batches, batch_norm="batch")
    expected = 0.6 * by_hand(model, *batches[0]) + 0.4 * by_hand(model, *batches[1])
    torch.testing.assert_close(op.dense(), expected)
    assert op.batch_norm == "batch"
    with pytest.raises(InputError, match="no matrix of its own"):
        op.quadratic_forms(torch.ones(op.shape[0]).double())


def test_statistics_estimated_again(normalised: tuple[Normalised, Tensor, Tensor]) -> None:
    model, x, y = normalised
    before = {name: value.clone() for name, value in model.state_dict().items()}
    op = Hessian(model, cross_entropy, (x, y), batch_norm="reestimated")
    result = op.dense()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    h = F.conv2d(x, model.conv.weight).detach()
    model.norm.running_mean.copy_(h.mean((0, 2, 3)))
    model.norm.running_var.copy_(h.var((0, 2, 3)))
    torch.testing.assert_close(result, Hessian(model, cross_entropy, (x, y)).dense())


def test_swapped_statistics_come_back_after_an_error(normalised: tuple[Normalised, Tensor, Tensor]) -> None:
    model, x, _ = normalised
    kept = model.norm.running_mean
    statistics = reestimated_statistics(model, [x])

    def fail() -> None:
        with swapped_statistics(model, statistics), eval_mode(model):
            assert model.norm.running_mean is statistics["norm.running_mean"]
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert model.norm.running_mean is kept
    assert model.norm.momentum == 0.1


# -- kernels ---------------------------------------------------------------------------------------------------------

LAYERS = {
    "plain": (nn.Conv2d(2, 4, 3), (2, 5, 5)),
    "strided, padded, with groups": (nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), (2, 5, 5)),
    "dilated, uneven": (nn.Conv2d(2, 3, (1, 3), dilation=(1, 2), padding=(0, 2), bias=False), (2, 4, 6)),
    "padding by name": (nn.Conv2d(2, 3, 3, padding="same"), (2, 4, 4)),
    "reflected": (nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 4, 4)),
    "one dimension": (nn.Conv1d(2, 4, 3, padding=1), (2, 6)),
    "three dimensions": (nn.Conv3d(1, 2, 2), (1, 3, 3, 3)),
    "transposed": (nn.ConvTranspose2d(2, 3, 2, stride=2), (2, 3, 3)),
    "norm without weights": (nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3, affine=False)), (2, 6)),
    "norm without statistics": (
        nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3, track_running_stats=False)),
        (2, 6),
    ),
    "norm alone": (nn.BatchNorm1d(7), (7,)),
    "norm in 3d": (nn.BatchNorm3d(2), (2, 2, 2, 2)),
    "layer norm": (nn.LayerNorm(7), (7,)),
    "layer norm of rows": (nn.LayerNorm((2, 3), elementwise_affine=False), (2, 2, 3)),
    "group norm": (nn.GroupNorm(2, 4), (4, 3)),
    "instance norm": (nn.InstanceNorm1d(2, affine=True), (2, 4)),
    "pooling": (nn.Sequential(nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1)), (2, 4, 4)),
    "smooth": (nn.Sequential(nn.GELU(), nn.Linear(5, 5), nn.Softplus()), (5,)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("frozen", [False, True])
def test_every_kind_of_layer(name: str, frozen: bool) -> None:
    layer, shape = LAYERS[name]
    torch.manual_seed(0)
    # Something trainable before and behind, so that all mixed derivatives are seen.
    model = nn.Sequential(nn.Flatten(), nn.Linear(int(torch.tensor(shape).prod()), int(torch.tensor(shape).prod())))
    model = nn.Sequential(model, nn.Unflatten(1, shape), layer, nn.Tanh(), nn.Flatten()).double()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    for parameter in layer.parameters():
        parameter.requires_grad_(not frozen)
    x = torch.randn(3, *shape, dtype=torch.float64)
    space = ParameterSpace(model.eval())

    def value(vector: Tensor) -> Tensor:
        return functional_call(model, space.views(vector), (x,)).pow(3).sum(1).mean()

    V = torch.randn(space.size, 2, dtype=torch.float64)
    # Not torch.func.hessian: its forward mode loses a term of LayerNorm's weight (seen with torch 2.13).
    expected = jacrev(grad(value))(space.vector()) @ V
    op = Hessian(model, lambda f, y: f.pow(3).sum(1), (x, torch.zeros(3)))
    torch.testing.assert_close(op @ V, expected, rtol=1e-9, atol=1e-9)
    if "norm without statistics" not in name:  # where samples are not independent
        torch.testing.assert_close(op.quadratic_forms(V[:, 0]).mean(), V[:, 0] @ expected[:, 0])
    outer = GaussNewton(model, lambda f, y: f.pow(3).sum(1), (x, torch.zeros(3)))
    J = jacrev(lambda vector: functional_call(model, space.views(vector), (x,)))(space.vector())
    bend = 6 * model(x).detach()
    expected = torch.einsum("nop,no,noq->pq", J, bend, J) / 3 @ V
    torch.testing.assert_close(outer @ V, expected, rtol=1e-9, atol=1e-9)
