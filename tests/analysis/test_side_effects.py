"""One law for every analysis: the caller's model and random generators are left exactly as they were."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from analysis_cases import Case, cross_entropy
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from landscape_lab.analysis import (
    Hessian,
    Line,
    encode,
    evaluate,
    filter_normalised,
    gradient_similarity,
    hessian_spectrum,
    layer_normalised,
    random_direction,
    spectral_density,
    top_eigenpairs,
    trace,
)
from landscape_lab.analysis.adaptive import evaluate_adaptively, nested_axis
from landscape_lab.analysis.batches import Batches, Loss
from landscape_lab.analysis.planes import mean_gradient, random_plane
from landscape_lab.parameters import ParameterSpace


def _surface(model: nn.Module, loss: Loss, batches: Batches, **options: Any) -> None:
    space = ParameterSpace(model)
    line = Line(space.vector(), random_direction(space))
    subsets = {"all": [0, 1, 2]}
    evaluate(model, loss, batches, line, x=torch.linspace(-1, 1, 3), subsets=subsets, num_classes=3, **options)


ANALYSES: dict[str, Callable[[nn.Module, Loss, Batches], object]] = {
    "product": lambda m, f, b: (op := Hessian(m, f, b)) @ torch.ones(op.shape[0], dtype=op.dtype),
    "dense": lambda m, f, b: Hessian(m, f, b).dense(),
    "scipy": lambda m, f, b: (op := Hessian(m, f, b)).to_scipy().matvec(np.ones(op.shape[0])),
    "eigenpairs": lambda m, f, b: top_eigenpairs(Hessian(m, f, b), 2, which="BE"),
    "xtrace": lambda m, f, b: trace(Hessian(m, f, b), products=6),
    "hutchinson": lambda m, f, b: trace(Hessian(m, f, b), products=6, method="hutchinson"),
    "deflated": lambda m, f, b: spectral_density(Hessian(m, f, b), products=20),
    "slq": lambda m, f, b: spectral_density(Hessian(m, f, b), products=8, method="slq"),
    "spectrum": lambda m, f, b: hessian_spectrum(Hessian(m, f, b), trace_products=4, density_products=10),
    "similarity": lambda m, f, b: gradient_similarity(m, f, b),
    "surface": _surface,
    "surface by batch": lambda m, f, b: _surface(m, f, b, batch_norm="batch"),
    "surface, re-estimated": lambda m, f, b: _surface(m, f, b, batch_norm="reestimated"),
    "adaptive surface": lambda m, f, b: evaluate_adaptively(
        m,
        f,
        b,
        random_plane(ParameterSpace(m)),
        x=nested_axis(-1, 1, 9),
        y=nested_axis(-1, 1, 9),
        subsets={"all": [0, 1, 2]},
        num_classes=3,
    ),
    "mean gradient": lambda m, f, b: mean_gradient(m, f, b, ParameterSpace(m)),
    "encode": lambda m, f, b: encode(m, b),
    "filter normalised": lambda m, f, b: filter_normalised(random_direction(ParameterSpace(m)), ParameterSpace(m)),
    "layer normalised": lambda m, f, b: layer_normalised(random_direction(ParameterSpace(m)), ParameterSpace(m)),
}


class Snapshot:
    """All that a caller could notice."""

    def __init__(self, model: nn.Module) -> None:
        self.tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self.values = {name: tensor.detach().clone() for name, tensor in self.tensors.items()}
        self.memory = {name: tensor.data_ptr() for name, tensor in self.tensors.items()}
        self.grads = {name: p.grad for name, p in model.named_parameters()}
        self.grad_values = {name: None if g is None else g.clone() for name, g in self.grads.items()}
        self.wanted = {name: p.requires_grad for name, p in model.named_parameters()}
        self.modes = [module.training for module in model.modules()]
        self.tracked = [getattr(module, "track_running_stats", None) for module in model.modules()]
        self.random = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()

    def assert_same(self, model: nn.Module) -> None:
        now = Snapshot(model)
        assert now.tensors.keys() == self.tensors.keys()
        for name, tensor in now.tensors.items():
            assert tensor is self.tensors[name], name
            assert torch.equal(tensor, self.values[name]), name
        assert now.memory == self.memory
        for name, gradient in now.grads.items():
            assert gradient is self.grads[name], name
            assert gradient is None or torch.equal(gradient, self.grad_values[name]), name
        assert (now.wanted, now.modes, now.tracked) == (self.wanted, self.modes, self.tracked)
        assert torch.equal(now.random[0], self.random[0])
        assert now.random[1:] == self.random[1:]


def _unusual(model: nn.Module) -> nn.Module:
    """A state that a careless library would tidy up: mixed modes, gradients on some parameters."""
    model.train()
    model.norm.eval()
    model.head.weight.grad = torch.full_like(model.head.weight, 3.0)
    return model


@pytest.mark.parametrize("loader", [False, True], ids=["tensors", "shuffled loader"])
@pytest.mark.parametrize("analysis", ANALYSES.values(), ids=ANALYSES.keys())
def test_nothing_changes(conv: Case, analysis: Callable[..., object], loader: bool) -> None:
    model = _unusual(conv.model)
    batches: Batches = conv.batches
    if loader:
        batches = DataLoader(TensorDataset(*conv.batches), batch_size=7, shuffle=True)
    before = Snapshot(model)
    first = analysis(model, cross_entropy, batches)
    before.assert_same(model)
    if isinstance(first, Tensor):
        again = analysis(model, cross_entropy, batches)
        assert torch.equal(torch.as_tensor(again), first)


@pytest.mark.parametrize("analysis", ["product", "similarity", "surface", "surface by batch"])
def test_nothing_changes_when_the_loss_fails(conv: Case, analysis: str) -> None:
    model = _unusual(conv.model)
    before = Snapshot(model)

    def failing(output: Tensor, target: Tensor) -> Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        ANALYSES[analysis](model, failing, conv.batches)
    before.assert_same(model)
