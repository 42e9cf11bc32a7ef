"""Operators under trouble: random models, changed weights, no memory, no second derivative."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from analysis_cases import Case, cross_entropy
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from landscape_lab.analysis.memory import GraphBudget, graph_bytes
from landscape_lab.analysis.operators import Fisher, GaussNewton, Hessian
from landscape_lab.errors import InputError


def vector(size: int = 123, seed: int = 0) -> Tensor:
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", [Hessian, GaussNewton, Fisher])
def test_kept_and_rebuilt_graphs_give_the_same_bits(conv: Case, kind: type[Hessian]) -> None:
    kept = kind(conv.model, cross_entropy, conv.batches, batch_size=5)
    rebuilt = kind(conv.model, cross_entropy, conv.batches, batch_size=5, memory_limit=0)
    some = kind(conv.model, cross_entropy, conv.batches, batch_size=5, memory_limit=kept.graph_bytes // 2)
    for seed in range(3):
        expected = rebuilt @ vector(seed=seed)
        assert torch.equal(kept @ vector(seed=seed), expected)
        assert torch.equal(some @ vector(seed=seed), expected)
    assert (len(kept._graphs), len(some._graphs), len(rebuilt._graphs)) == (5, 2, 0)


def test_one_budget_for_several_operators(conv: Case) -> None:
    size = Hessian(conv.model, cross_entropy, conv.batches).graph_bytes
    budget = GraphBudget(torch.device("cpu"), size + 1)
    first = Hessian(conv.model, cross_entropy, conv.batches, memory_limit=budget)
    second = Hessian(conv.model, cross_entropy, conv.batches, memory_limit=budget)
    _ = first @ vector(), second @ vector()
    assert (len(first._graphs), len(second._graphs), budget.left) == (1, 0, 1)
    del first
    assert budget.left == size + 1
    _ = second @ vector()
    assert budget.left == 1
    with pytest.raises(InputError, match="memory_limit"):
        Hessian(conv.model, cross_entropy, conv.batches, memory_limit=-1)


def test_a_graph_counts_each_tensor_once() -> None:
    x = torch.randn(10, 10, requires_grad=True)
    y = x * 2
    assert graph_bytes(lambda: y * y) == 400  # both operands are one tensor
    assert graph_bytes(lambda: (y * y, x * y)) == 800


@pytest.mark.parametrize("how", ["step", "data", "load", "buffer", "copy"])
def test_the_product_follows_the_model(conv: Case, how: str) -> None:
    op = Hessian(conv.model, cross_entropy, conv.batches)
    before = op @ vector()
    with torch.no_grad():
        if how == "step":
            conv.model.head.weight.add_(vector(81).reshape(3, 27))
        elif how == "data":
            conv.model.head.weight.data.mul_(1.5)
        elif how == "load":
            conv.model.load_state_dict({k: v * 1.1 for k, v in conv.model.state_dict().items()})
        elif how == "buffer":
            conv.model.norm.running_mean.add_(1)
        else:
            conv.model.head.weight = nn.Parameter(conv.model.head.weight * 2)
            op = Hessian(conv.model, cross_entropy, conv.batches)
    after = op @ vector()
    assert not torch.allclose(after, before)
    torch.testing.assert_close(after, conv.dense() @ vector())


class Hungry(nn.Module):
    """Needs more memory than there is for more than ``most`` samples."""

    def __init__(self, model: nn.Module, most: int) -> None:
        super().__init__()
        self.model, self.most, self.largest = model, most, 0

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: ...")
        self.largest = max(self.largest, len(x))
        return self.model(x)


def test_out_of_memory_halves_the_part(conv: Case) -> None:
    hungry = Hungry(conv.model, 100)
    op = Hessian(hungry, cross_entropy, conv.batches, batch_size=24)
    hungry.most, hungry.largest = 7, 0
    torch.testing.assert_close(op @ vector(), conv.dense() @ vector())
    assert hungry.largest == 6
    hungry.most = 0
    with pytest.raises(InputError, match="out of memory with a part of 1 samples"):
        op @ vector()
    with pytest.raises(InputError, match="out of memory"):
        Hessian(hungry, cross_entropy, conv.batches)


class Flickering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(F.dropout(x, 0.5))  # also in evaluation mode


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return torch.full((4,), float(i)) + 0.1 * torch.randn(4), torch.tensor(i % 3)


def test_random_targets_are_refused() -> None:
    X, y = torch.randn(6, 4), torch.arange(6) % 3
    state = torch.get_rng_state()
    with pytest.raises(InputError, match="different outputs for the same inputs"):
        Hessian(Flickering(), cross_entropy, (X, y))
    with pytest.raises(InputError, match="random augmentation"):
        Hessian(nn.Linear(4, 3), cross_entropy, DataLoader(Noisy(), batch_size=2))
    with torch.random.fork_rng():
        torch.set_rng_state(state)  # the layers above drew their weights
        Flickering(), nn.Linear(4, 3)
        expected = torch.get_rng_state()
    assert torch.equal(torch.get_rng_state(), expected)
    quiet = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3)).train()
    Hessian(quiet, cross_entropy, (X, y))


class Once(torch.autograd.Function):
    """``|x|^2``, whose gradient cannot be differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square().sum(1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 2 * g[:, None] * ctx.saved_tensors[0]


def test_a_loss_without_a_second_derivative() -> None:
    data, model = (torch.randn(6, 4), torch.zeros(6)), nn.Linear(4, 3)
    for loss in (lambda f, y: Once.apply(f), lambda f, y: (f * f.detach()).sum(1)):
        with pytest.raises(InputError, match="no second derivative"):
            Hessian(model, loss, data)
    Hessian(model, lambda f, y: f.abs().sum(1), data)  # piecewise linear: there is none, and none is missed

    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(1, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(Once.apply(self.a(x))[:, None])

    with pytest.raises(InputError, match="no second derivative"):
        Hessian(Inside(), cross_entropy, (data[0], torch.arange(6) % 3)) @ torch.ones(21)


def test_no_samples_and_diverged_models(conv: Case) -> None:
    none = conv.targets == 7
    with pytest.raises(InputError, match="holds no samples"):
        Hessian(conv.model, cross_entropy, (conv.inputs[none], conv.targets[none]))
    op = Hessian(conv.model, cross_entropy, conv.batches)
    with torch.no_grad():
        conv.model.head.weight.fill_(torch.nan)
    with pytest.raises(InputError, match="not finite"):
        op @ vector()
    with pytest.raises(InputError, match=r"the loss of the first 24 samples is nan"):
        Hessian(conv.model, cross_entropy, conv.batches)


class Viewing(nn.Module):
    """Has view() where only the usual layout of images has one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 4, 3), nn.Linear(4 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x).relu()
        return self.head(h.view(len(h), -1))


def test_layouts_that_a_model_cannot_take_are_left_alone(conv: Case) -> None:
    op = Hessian(Viewing(), cross_entropy, (torch.randn(6, 2, 4, 4), torch.arange(6) % 3))
    assert not op.channels_last
    assert (op @ torch.ones(op.shape[0])).any()
    assert Hessian(conv.model, cross_entropy, conv.batches).channels_last


def test_nothing_stays_behind(conv: Case) -> None:
    def tensors() -> int:
        gc.collect()
        return sum(type(thing) is Tensor for thing in gc.get_objects())

    def use() -> None:
        for kind in (Hessian, GaussNewton, Fisher):
            op = kind(conv.model, cross_entropy, conv.batches)
            _ = op @ vector()

    use()  # what PyTorch itself sets up once
    before = tensors()
    use()
    assert tensors() == before


def test_parts_grow_as_the_model_shrinks() -> None:
    class Wide(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 1, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x).flatten(1)[:, :3]

    data = torch.randn(4, 1, 16, 16), torch.arange(4) % 3
    sizes = [Hessian(Wide(width), cross_entropy, data).batch_size for width in (1, 600, 4000)]
    assert sizes[0] == 256
    assert 16 <= sizes[2] < sizes[1] < 256
