"""Other programs give the same numbers as the exact matrix, and leave everything as it was."""

from __future__ import annotations

import gc
import math
import sys
import warnings
import weakref

import pytest
import torch
from analysis_cases import Case, ConvNet, cross_entropy, planted
from scipy.stats import wasserstein_distance
from test_side_effects import Snapshot, _unusual
from torch import Tensor, nn
from torch.nn.functional import cross_entropy as mean_cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from landscape_lab.analysis import Hessian, SpectralDensity, Spectrum, TraceEstimate, hessian_spectrum
from landscape_lab.analysis import backends as module
from landscape_lab.analysis.backends import Reference, compare, pyhessian_reference, scipy_reference
from landscape_lab.errors import InputError

pyhessian = pytest.importorskip("pyhessian")


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for the gradient graphs of few samples only, so that PyHessian gets a loader."""
    budget = module.GraphBudget
    monkeypatch.setattr(module, "GraphBudget", lambda device: budget(device, 100_000))


@pytest.fixture
def by_loader(request: pytest.FixtureRequest) -> bool:
    if request.param:
        request.getfixturevalue("small_memory")
    return bool(request.param)


both_paths = pytest.mark.parametrize("by_loader", [False, True], indirect=True, ids=["data", "loader"])


@both_paths
def test_pyhessian_finds_the_exact_numbers(mlp: Case, mlp_hessian: Tensor, by_loader: bool) -> None:
    values = torch.linalg.eigvalsh(mlp_hessian)
    found = pyhessian_reference(mlp.model, cross_entropy, mlp.batches, trace_products=100, density_steps=40)
    assert abs(found.lambda_max - float(values[-1])) <= 3 * found.lambda_error <= 0.03 * float(values[-1])
    assert found.lambda_min is None
    assert abs(found.trace - float(values.sum())) <= 4 * found.trace_stderr
    density = found.density
    span = float(values[-1] - values[0])
    assert wasserstein_distance(values, density.nodes[0], None, density.weights[0]) <= 0.02 * span
    assert torch.allclose(density.weights.sum(1), torch.ones(1, dtype=torch.float64), atol=1e-5)
    assert (density.products, density.method, density.size) == (40, "pyhessian", 443)
    assert found.products >= 142
    assert found.seconds > 0


@both_paths
@pytest.mark.parametrize("kind", ["per sample", "sum", "class weights"])
def test_uneven_batches_average_right(mlp: Case, mlp_hessian: Tensor, kind: str, by_loader: bool) -> None:
    weights = torch.tensor([1.0, 2.0, 5.0, 9.0, 20.0], dtype=torch.float64)
    losses = {
        "per sample": cross_entropy,
        "sum": nn.CrossEntropyLoss(reduction="sum"),
        "class weights": nn.CrossEntropyLoss(weight=weights),
    }
    sizes = [64, 64, 19, 3]
    batches = list(zip(mlp.inputs.split(sizes), mlp.targets.split(sizes), strict=True))
    if kind == "class weights":
        op = Hessian(mlp.model, lambda o, t: weights[t] * cross_entropy(o, t), mlp.batches)
        H = op.dense() * len(mlp.targets) / weights[mlp.targets].sum()
    else:
        H = mlp_hessian * (len(mlp.targets) if kind == "sum" else 1)
    found = pyhessian_reference(mlp.model, losses[kind], batches, trace_products=2, density_steps=0, tolerance=1e-6)
    assert found.lambda_max == pytest.approx(float(torch.linalg.eigvalsh(H)[-1]), rel=1e-4)
    assert found.density is None


def test_all_trace_products_are_spent_on_a_negative_trace(mlp: Case, mlp_hessian: Tensor) -> None:
    found = pyhessian_reference(
        mlp.model, lambda o, t: -cross_entropy(o, t), mlp.batches, trace_products=50, density_steps=0
    )
    assert found.lambda_max is None
    assert found.lambda_min == pytest.approx(-float(torch.linalg.eigvalsh(mlp_hessian)[-1]), rel=0.01)
    assert abs(found.trace + float(mlp_hessian.trace())) <= 4 * found.trace_stderr
    power = found.products - 50
    assert 2 <= power <= 100


@both_paths
def test_nothing_changes(mlp: Case, by_loader: bool) -> None:
    model = mlp.model
    model.train()
    model[1].eval()
    model[2].bias.requires_grad_(False)
    model[4].weight.grad = torch.full_like(model[4].weight, 3.0)
    source, eig = dict(vars(pyhessian.hessian)), getattr(torch, "eig", None)
    before = Snapshot(model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loader = DataLoader(TensorDataset(*mlp.batches), batch_size=40, shuffle=True)
            first = pyhessian_reference(model, cross_entropy, loader, trace_products=3, density_steps=3)
            again = pyhessian_reference(model, cross_entropy, mlp.batches, trace_products=3, density_steps=3)
        before.assert_same(model)
        assert dict(vars(pyhessian.hessian)) == source
        assert getattr(torch, "eig", None) is eig
        assert again.trace == pytest.approx(first.trace, rel=1e-5)

        def failing(output: Tensor, target: Tensor) -> Tensor:
            raise RuntimeError("out of memory")

        with pytest.raises(RuntimeError, match="out of memory"):
            pyhessian_reference(model, failing, mlp.batches)
        before.assert_same(model)
    finally:
        model.eval().requires_grad_(True).zero_grad()


def test_its_graph_is_set_free(mlp: Case) -> None:
    seen: list[weakref.ref[Tensor]] = []

    def watched(output: Tensor, target: Tensor) -> Tensor:
        if output.requires_grad:
            seen.append(weakref.ref(output))
        return cross_entropy(output, target)

    pyhessian_reference(mlp.model, watched, mlp.batches, trace_products=2, density_steps=2)
    gc.collect()
    assert seen
    assert all(reference() is None for reference in seen)


def test_attention_works() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.head = nn.Linear(4, 12), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(nn.functional.scaled_dot_product_attention(*self.qkv(x).chunk(3, dim=-1)).mean(1))

    generator = torch.Generator().manual_seed(0)
    batches = torch.randn(12, 5, 4, generator=generator), torch.arange(12) % 3
    model = Attention()
    found = pyhessian_reference(model, cross_entropy, batches, trace_products=2, density_steps=0, tolerance=1e-5)
    exact = torch.linalg.eigvalsh(Hessian(model, cross_entropy, batches).dense())[-1]
    assert found.lambda_max == pytest.approx(float(exact), rel=1e-3)


def test_an_unused_parameter_is_named(conv: Case) -> None:
    before = Snapshot(_unusual(conv.model))
    with pytest.raises(InputError, match=r"'unused\.weight' is not used by the loss; set its requires_grad to False"):
        pyhessian_reference(conv.model, cross_entropy, conv.batches)
    before.assert_same(conv.model)
    conv.model.unused.requires_grad_(False)
    found = pyhessian_reference(conv.model, cross_entropy, conv.batches, trace_products=2, density_steps=500)
    assert found.density.size == found.density.products == 123 - 6


def test_bad_input_is_one_clear_line(mlp: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="needs 2"):
        pyhessian_reference(mlp.model, cross_entropy, mlp.batches, trace_products=1)
    with pytest.raises(InputError, match="only linearly"):
        pyhessian_reference(nn.Linear(2, 1), lambda o, t: o[:, 0], (torch.ones(3, 2), torch.zeros(3)))
    with pytest.raises(InputError, match="does not depend"):
        pyhessian_reference(mlp.model, lambda o, t: cross_entropy(o.detach(), t), mlp.batches)
    with pytest.raises(InputError, match="not finite"):
        pyhessian_reference(mlp.model, lambda o, t: cross_entropy(o, t) * math.nan, mlp.batches, density_steps=0)
    with pytest.raises(InputError, match="three parameters"):
        scipy_reference(torch.eye(2))
    monkeypatch.setitem(sys.modules, "pyhessian", None)
    with pytest.raises(InputError, match=r"pip install pyhessian==0\.1"):
        pyhessian_reference(mlp.model, cross_entropy, mlp.batches)


def test_scipy_finds_both_ends(mlp: Case, mlp_hessian: Tensor) -> None:
    values = torch.linalg.eigvalsh(mlp_hessian)
    found = scipy_reference(Hessian(mlp.model, cross_entropy, mlp.batches))
    assert abs(found.lambda_max - float(values[-1])) <= found.lambda_error == 1e-4 * found.lambda_max
    assert abs(found.lambda_min - float(values[0])) <= found.lambda_error
    assert (found.backend, found.trace, found.density) == ("scipy", None, None)
    again = scipy_reference(mlp_hessian)
    assert again.lambda_max == pytest.approx(found.lambda_max, rel=1e-6)
    assert again.products == found.products > 2


def test_scipy_says_what_it_did_not_find(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 20)
    values = torch.cat([torch.linspace(-1e-3, 1e-3, 300, dtype=torch.float64), torch.tensor([50.0]).double()])
    for sign in (1, -1):
        found = scipy_reference(planted(sign * values), tolerance=1e-8)
        ends = found.lambda_max, found.lambda_min
        assert ends[sign < 0] == pytest.approx(50.0 * sign)
        assert ends[sign > 0] is None


def test_ours_agrees_with_both(mlp: Case) -> None:
    op = Hessian(mlp.model, cross_entropy, mlp.batches)
    spectrum = hessian_spectrum(op)
    references = pyhessian_reference(mlp.model, cross_entropy, mlp.batches), scipy_reference(op)
    found = compare(spectrum, references)
    assert [(c.backend, c.quantity) for c in found] == [
        ("pyhessian", "lambda_max"),
        ("pyhessian", "trace"),
        ("pyhessian", "density"),
        ("scipy", "lambda_max"),
        ("scipy", "lambda_min"),
    ]
    assert all(comparison.agrees for comparison in found), found
    trace = found[1]
    assert trace.difference == pytest.approx(trace.ours - trace.theirs)
    assert (trace.ours_error, trace.theirs_error) == (spectrum.trace.stderr, references[0].trace_stderr)
    assert found[2].theirs_error is None
    assert 0 < found[2].difference < 0.01


def _density(*nodes: float) -> SpectralDensity:
    values = torch.tensor([nodes], dtype=torch.float64)
    return SpectralDensity(
        nodes=values, weights=torch.full_like(values, 1 / len(nodes)), size=9, products=2, method="slq", seed=0
    )


def test_a_disagreement_is_told() -> None:
    trace = TraceEstimate(10.0, 0.3, torch.tensor([9.7, 10.3]), 2, "hutchinson", 0)
    ours = Spectrum(5.0, 0.1, -1.0, 0.1, True, trace, _density(0.0, 5.0), 3, 9, "running")

    def agreement(**changed: object) -> dict[str, bool]:
        fields = {
            "lambda_max": 5.2,
            "lambda_min": -1.1,
            "trace": 11.1,
            "trace_stderr": 0.4,
            "density": _density(0.1, 5.0),
        }
        theirs = Reference(**{"backend": "other", "products": 3, "seconds": 1.0, **fields, **changed})
        return {comparison.quantity: comparison.agrees for comparison in compare(ours, [theirs])}

    assert agreement() == dict.fromkeys(("lambda_max", "lambda_min", "trace", "density"), True)
    assert agreement(lambda_max=5.4, trace=11.6) == {
        "lambda_max": False,
        "lambda_min": True,
        "trace": False,
        "density": True,
    }
    assert agreement(lambda_max=5.4, lambda_error=0.1)["lambda_max"]
    assert not agreement(density=_density(0.2, 5.0))["density"]
    assert agreement(lambda_max=None, lambda_min=None, trace=None, density=None) == {}


def test_mean_loss_of_one_batch(conv: Case) -> None:
    model = ConvNet().double().eval()
    model.unused.requires_grad_(False)
    a = pyhessian_reference(model, mean_cross_entropy, conv.batches, trace_products=2, density_steps=0)
    b = pyhessian_reference(model, cross_entropy, conv.batches, trace_products=2, density_steps=0)
    assert a.trace == pytest.approx(b.trace, rel=1e-9)
