from __future__ import annotations

import pytest
import torch
from analysis_cases import Case, cross_entropy, planted
from torch import Tensor

from landscape_lab.analysis.operators import Hessian
from landscape_lab.analysis.trace import trace
from landscape_lab.errors import InputError

# A few outliers, a bulk, a negative tail: the shape of a network's Hessian. Its trace is 23.
VALUES = torch.cat([torch.tensor([12.0, 6.0, 4.0, 2.0, -1.0]), torch.linspace(-0.5, 0.5, 115)]).double()


def naive_xtrace(A: Tensor, m: int, seed: int) -> Tensor:
    """The definition, one basis for each test vector left out."""
    size = len(A)
    generator = torch.Generator().manual_seed(seed)
    omega = torch.randn(m, size, generator=generator, dtype=torch.float64).T
    Y = A @ omega
    estimates = []
    for i in range(m):
        Q, _ = torch.linalg.qr(torch.cat([Y[:, :i], Y[:, i + 1 :]], dim=1))
        u = omega[:, i] - Q @ (Q.T @ omega[:, i])
        u = (size - m + 1) ** 0.5 * u / u.norm()
        estimates.append((Q.T @ A @ Q).trace() + u @ A @ u)
    return torch.stack(estimates)


@pytest.mark.parametrize("products", [4, 5, 30, 60])
@pytest.mark.parametrize("seed", [0, 1])
def test_xtrace_is_its_naive_twin(products: int, seed: int) -> None:
    A = planted(VALUES)
    estimate = trace(A, products=products, seed=seed)
    torch.testing.assert_close(estimate.samples, naive_xtrace(A, products // 2, seed), rtol=1e-9, atol=1e-9)
    assert estimate.value == pytest.approx(float(estimate.samples.mean()))
    assert estimate.products == products - products % 2


def test_hutchinson_is_its_naive_twin() -> None:
    A = planted(VALUES)
    estimate = trace(A, products=5, method="hutchinson", seed=3)
    z = torch.randint(0, 2, (5, 120), generator=torch.Generator().manual_seed(3)).double() * 2 - 1
    torch.testing.assert_close(estimate.samples, torch.einsum("ki,ij,kj->k", z, A, z))
    assert estimate.stderr == pytest.approx(float(estimate.samples.std()) / 5**0.5)


@pytest.mark.parametrize("method", ["xtrace", "hutchinson"])
def test_unbiased_with_a_calibrated_error(method: str) -> None:
    A = planted(VALUES)
    estimates = [trace(A, products=20, method=method, seed=seed) for seed in range(300)]
    errors = torch.tensor([estimate.value - float(VALUES.sum()) for estimate in estimates])
    assert errors.mean().abs() <= 3.5 * errors.std() / 300**0.5
    claimed = torch.tensor([estimate.stderr for estimate in estimates]).square().mean().sqrt()
    assert 0.75 <= errors.std() / claimed <= 1.35


def test_xtrace_beats_hutchinson_where_few_eigenvalues_dominate() -> None:
    A, exact = planted(VALUES), float(VALUES.sum())
    errors = {
        method: torch.tensor([trace(A, products=30, method=method, seed=s).value - exact for s in range(60)]).std()
        for method in ("xtrace", "hutchinson")
    }
    assert errors["xtrace"] < 0.35 * errors["hutchinson"]


@pytest.mark.parametrize("rank", [0, 1, 3, 14])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_low_rank_is_exact(rank: int, dtype: torch.dtype) -> None:
    values = torch.cat([torch.linspace(1, 5, rank), torch.zeros(100 - rank)]).double()
    estimate = trace(planted(values).to(dtype), products=30)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    assert estimate.value == pytest.approx(float(values.sum()), abs=tolerance)
    assert estimate.stderr <= tolerance


@pytest.mark.parametrize("method", ["xtrace", "hutchinson"])
def test_small_matrices_are_summed_exactly(method: str) -> None:
    A = planted(VALUES[:10])
    estimate = trace(A, products=10, method=method)
    assert estimate.value == pytest.approx(float(VALUES[:10].sum()))
    assert (estimate.stderr, estimate.products, estimate.method) == (0.0, 10, "exact")


@pytest.mark.parametrize("method", ["xtrace", "hutchinson"])
def test_on_a_network(conv: Case, method: str) -> None:
    op = Hessian(conv.model, cross_entropy, conv.batches)
    done: list[int] = []
    estimate = trace(op, products=60, method=method, progress=done.append)
    assert sum(done) == estimate.products == 60
    assert abs(estimate.value - float(conv.dense().trace())) <= 4 * estimate.stderr
    assert estimate.value == trace(op, products=60, method=method).value
    assert estimate.value != trace(op, products=60, method=method, seed=1).value


def test_too_few_products() -> None:
    with pytest.raises(InputError, match="xtrace needs 4"):
        trace(planted(VALUES), products=3)
    with pytest.raises(InputError, match="hutchinson needs 2"):
        trace(planted(VALUES), products=1, method="hutchinson")
    with pytest.raises(ValueError, match="method must be"):
        trace(planted(VALUES), method="xdiag")
