from __future__ import annotations

import math
import re

import pytest
import torch
from analysis_cases import Case, cross_entropy, planted
from scipy import stats
from torch import Tensor

from landscape_lab.analysis.lanczos import Krylov
from landscape_lab.analysis.operators import Hessian
from landscape_lab.analysis.trace import deflated_samples, deflated_trace, reached, trace
from landscape_lab.errors import InputError

METHODS = ["deflated", "xtrace", "hutch++", "hutchinson"]

# A few outliers, a bulk, a negative tail: the shape of a network's Hessian. Its trace is 23.
VALUES = torch.cat([torch.tensor([12.0, 6.0, 4.0, 2.0, -1.0]), torch.linspace(-0.5, 0.5, 115)]).double()


class Counting:
    """A matrix that counts its products and the widest block."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self.shape, self.dtype, self.device = matrix.shape, matrix.dtype, matrix.device
        self.products, self.widest = 0, 0

    def __matmul__(self, v: Tensor) -> Tensor:
        columns = 1 if v.dim() == 1 else v.shape[1]
        self.products += columns
        self.widest = max(self.widest, columns)
        return self.matrix @ v


def naive_complement(A: Tensor, V: Tensor, Z: Tensor) -> Tensor:
    """The definition, with the projector formed: V by an independent route, each z by itself."""
    size = len(A)
    Q = torch.linalg.svd(V, full_matrices=False).U
    projector = torch.eye(size, dtype=A.dtype) - Q @ Q.T
    estimates = []
    for z in Z.T:
        u = projector @ z
        u = u * ((size - V.shape[1]) ** 0.5 / u.norm())
        estimates.append((Q.T @ A @ Q).trace() + u @ A @ u)
    return torch.stack(estimates)


@pytest.mark.parametrize(("products", "dimension"), [(3, 1), (4, 1), (5, 2), (30, 12), (60, 24)])
@pytest.mark.parametrize("seed", [0, 1])
def test_deflated_is_its_naive_twin(products: int, dimension: int, seed: int) -> None:
    A = planted(VALUES)
    estimate = trace(A, products=products, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    power = [torch.randn(120, generator=generator, dtype=torch.float64)]
    for _ in range(dimension - 1):  # the Krylov space, orthonormal after each power as rounding demands
        basis = torch.linalg.qr(torch.stack(power, 1)).Q
        power = [*basis.T, A @ basis[:, -1]]
    draws, left = [], products - dimension
    while left:
        draws.append(torch.randn(min(8, left), 120, generator=generator, dtype=torch.float64).T)
        left -= draws[-1].shape[1]
    expected = naive_complement(A, torch.stack(power, 1), torch.cat(draws, 1))
    torch.testing.assert_close(estimate.samples, expected, rtol=1e-8, atol=1e-8)
    assert estimate.value == pytest.approx(float(expected.mean()))
    assert estimate.stderr == pytest.approx(float(expected.std()) / len(expected) ** 0.5)
    assert (estimate.products, estimate.method, estimate.seed) == (products, "deflated", seed)


@pytest.mark.parametrize(("products", "sketch"), [(4, 1), (30, 10), (32, 10)])
def test_hutch_pp_is_its_naive_twin(products: int, sketch: int) -> None:
    A = planted(VALUES)
    estimate = trace(A, products=products, method="hutch++", seed=2)
    generator = torch.Generator().manual_seed(2)
    omega = torch.randn(sketch, 120, generator=generator, dtype=torch.float64).T
    draws, left = [], products - 2 * sketch
    while left:
        draws.append(torch.randn(min(8, left), 120, generator=generator, dtype=torch.float64).T)
        left -= draws[-1].shape[1]
    expected = naive_complement(A, A @ omega, torch.cat(draws, 1))
    torch.testing.assert_close(estimate.samples, expected, rtol=1e-8, atol=1e-8)
    assert estimate.products == products


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
    estimate = trace(A, products=products, method="xtrace", seed=seed)
    torch.testing.assert_close(estimate.samples, naive_xtrace(A, products // 2, seed), rtol=1e-9, atol=1e-9)
    assert estimate.value == pytest.approx(float(estimate.samples.mean()))
    assert estimate.products == products - products % 2


def test_hutchinson_is_its_naive_twin() -> None:
    A = planted(VALUES)
    estimate = trace(A, products=5, method="hutchinson", seed=3)
    z = torch.randint(0, 2, (5, 120), generator=torch.Generator().manual_seed(3)).double() * 2 - 1
    torch.testing.assert_close(estimate.samples, torch.einsum("ki,ij,kj->k", z, A, z))
    assert estimate.stderr == pytest.approx(float(estimate.samples.std()) / 5**0.5)


@pytest.mark.parametrize("method", METHODS)
def test_unbiased_with_a_calibrated_error(method: str) -> None:
    A = planted(VALUES)
    estimates = [trace(A, products=20, method=method, seed=seed) for seed in range(300)]
    errors = torch.tensor([estimate.value - float(VALUES.sum()) for estimate in estimates])
    assert errors.mean().abs() <= 3.5 * errors.std() / 300**0.5
    claimed = torch.tensor([estimate.stderr for estimate in estimates]).square().mean().sqrt()
    assert 0.75 <= errors.std() / claimed <= 1.35


def test_what_is_gained_where_few_eigenvalues_dominate() -> None:
    A, exact = planted(VALUES), float(VALUES.sum())
    errors = {
        method: torch.tensor([trace(A, products=30, method=method, seed=s).value - exact for s in range(60)]).std()
        for method in METHODS
    }
    assert errors["xtrace"] < 0.35 * errors["hutchinson"]
    assert errors["hutch++"] < 0.5 * errors["hutchinson"]
    assert errors["deflated"] < 0.35 * errors["hutchinson"]


@pytest.mark.parametrize("method", ["deflated", "hutch++"])
def test_the_interval_is_honest(method: str) -> None:
    A, exact = planted(VALUES), float(VALUES.sum())
    estimates = [trace(A, products=15, method=method, seed=seed) for seed in range(300)]
    held = sum(estimate.low <= exact <= estimate.high for estimate in estimates) / 300
    assert held == pytest.approx(0.95, abs=0.03)


def test_the_interval_is_students_over_the_samples() -> None:
    estimate = trace(planted(VALUES), products=10)
    assert len(estimate.samples) == 6
    half = stats.t.ppf(0.975, 5) * estimate.stderr
    assert (estimate.low, estimate.high) == pytest.approx((estimate.value - half, estimate.value + half))


@pytest.mark.parametrize("method", ["deflated", "xtrace", "hutch++"])
@pytest.mark.parametrize("rank", [0, 1, 3, 9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_low_rank_is_exact(method: str, rank: int, dtype: torch.dtype) -> None:
    values = torch.cat([torch.linspace(1, 5, rank), torch.zeros(100 - rank)]).double()
    estimate = trace(planted(values).to(dtype), products=30, method=method)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    assert estimate.value == pytest.approx(float(values.sum()), abs=tolerance)
    assert estimate.stderr <= tolerance
    assert estimate.products == 30


@pytest.mark.parametrize("seed", range(4))
def test_a_krylov_space_that_ends_sees_one_copy_and_the_probes_the_others(seed: int) -> None:
    values = torch.tensor([5.0] * 4 + [1.0] * 30 + [0.0] * 66).double()
    A = Counting(torch.diag(values))
    estimate = trace(A, seed=seed)
    # Three distinct eigenvalues: three dimensions, and all other products are samples.
    assert len(estimate.samples) == 27
    assert A.products == estimate.products == 30
    assert estimate.low <= 50 <= estimate.high
    assert abs(estimate.value - 50) <= 4 * estimate.stderr


@pytest.mark.parametrize("method", METHODS)
def test_small_matrices_are_summed_exactly(method: str) -> None:
    A = planted(VALUES[:10])
    estimate = trace(A, products=10, method=method)
    assert estimate.value == pytest.approx(float(VALUES[:10].sum()))
    assert (estimate.stderr, estimate.products, estimate.method) == (0.0, 10, "exact")
    assert estimate.low == estimate.value == estimate.high
    assert trace(planted(VALUES[:11]), products=10, method=method).method == method


@pytest.mark.parametrize("method", METHODS)
def test_on_a_network(conv: Case, method: str) -> None:
    op = Hessian(conv.model, cross_entropy, conv.batches)
    done: list[int] = []
    estimate = trace(op, products=60, method=method, progress=done.append)
    assert sum(done) == estimate.products == 60
    assert abs(estimate.value - float(conv.dense().trace())) <= 4 * estimate.stderr
    assert estimate.value == trace(op, products=60, method=method).value
    assert estimate.value != trace(op, products=60, method=method, seed=1).value


@pytest.mark.parametrize("method", METHODS)
def test_columns_are_multiplied_in_blocks(method: str) -> None:
    A = Counting(planted(VALUES))
    estimate = trace(A, products=30, method=method)
    assert A.products == estimate.products == 30
    assert A.widest == 8
    B = Counting(planted(VALUES[:10]))
    trace(B, products=10)
    assert (B.products, B.widest) == (10, 8)


@pytest.mark.parametrize("method", ["deflated", "hutch++", "hutchinson"])
def test_goes_on_until_the_error_is_reached(method: str) -> None:
    A, done = Counting(planted(VALUES)), []
    first = trace(planted(VALUES), products=12, method=method)
    # 120 unit vectors are out of reach.
    loose = trace(A, products=12, error=0.06, max_products=119, method=method, progress=done.append)
    assert sum(done) == loose.products == A.products
    before = first.products - len(first.samples)
    assert loose.products == before + len(loose.samples)
    torch.testing.assert_close(loose.samples[: len(first.samples)], first.samples)
    assert (len(loose.samples) - len(first.samples)) % 8 == 0 or loose.products == 119
    if loose.products < 119:
        assert loose.stderr <= 0.06 * loose.value
        assert len(loose.samples) >= 16
        earlier = loose.samples[:-8]
        if len(earlier) >= 16:
            assert float(earlier.std()) / len(earlier) ** 0.5 > 0.06 * float(earlier.mean())


def test_more_is_spent_on_a_smaller_error_and_never_more_than_allowed() -> None:
    A = planted(torch.cat([VALUES, torch.linspace(-0.5, 0.5, 900).double()]))
    spent = [trace(A, error=error, max_products=400).products for error in (0.5, 0.1, 0.05)]
    assert spent[0] == 30  # already reached by the 18 samples to begin with
    assert spent[0] < spent[1] < spent[2] <= 400
    hopeless = trace(A, error=1e-6, max_products=401)
    assert hopeless.products == 401
    assert hopeless.stderr > 1e-6 * hopeless.value


def test_unit_vectors_where_they_are_cheaper() -> None:
    A = Counting(planted(VALUES))
    estimate = trace(A, error=1e-6)
    assert estimate.method == "exact"
    assert estimate.products == A.products == 30 + 120
    assert estimate.value == pytest.approx(float(VALUES.sum()), rel=1e-12)
    assert (estimate.low, estimate.high) == (estimate.value, estimate.value)
    assert trace(planted(VALUES), error=1e-6, max_products=149).method == "deflated"


def test_no_stopping_by_luck() -> None:
    close = torch.tensor([1.0, 1.001] * 8).double()
    assert not reached(close[:15], 0.1)
    assert reached(close, 0.1)
    wide = torch.tensor([1.0, 3.0] * 8).double()  # 2 with standard error sqrt(16/15) / 4
    assert reached(wide, 0.1292)
    assert not reached(wide, 0.1290)
    assert reached(-wide, 0.1292)


def test_coverage_does_not_suffer_much_from_stopping() -> None:
    A, exact = planted(VALUES), float(VALUES.sum())
    estimates = [trace(A, products=6, error=0.05, max_products=110, seed=seed) for seed in range(150)]
    assert len({estimate.products for estimate in estimates}) > 3
    held = sum(estimate.low <= exact <= estimate.high for estimate in estimates) / 150
    assert 0.90 <= held <= 0.99


def test_the_arithmetic_of_deflation() -> None:
    samples = deflated_samples(3.0, torch.tensor([0.5, -0.25]), 10, 4)
    assert samples.tolist() == [6.0, 1.5]
    assert samples.dtype == torch.float64


def test_a_space_that_is_there_already() -> None:
    A = Counting(planted(VALUES))
    start = torch.randn(120, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    krylov = Krylov(A, start).run(40)
    deep = deflated_trace(A, krylov, probes=30, seed=1)
    assert A.products == 40 + deep.products == 70
    assert deep.stderr < 0.6 * trace(A, products=70, seed=1, method="hutchinson").stderr
    assert deflated_trace(A, krylov, probes=10, spent=40).products == 50
    whole = deflated_trace(A, krylov.run(120), probes=30, spent=120)
    assert (whole.method, whole.products, whole.stderr) == ("exact", 120, 0.0)
    assert whole.value == pytest.approx(float(VALUES.sum()), rel=1e-10)
    small = planted(VALUES[:10])
    units = deflated_trace(small, Krylov(small, start[:10]).run(2), probes=10)
    assert (units.method, units.products) == ("exact", 10)
    with pytest.raises(InputError, match="1 test vectors are too few"):
        deflated_trace(A, krylov, probes=1)


def test_nothing_to_estimate() -> None:
    zero = trace(torch.zeros(200, 200, dtype=torch.float64), error=0.01)
    assert (zero.value, zero.stderr, zero.products) == (0.0, 0.0, 30)
    # A trace of zero: no relative error can be reached, but unit vectors are affordable.
    balanced = planted(torch.cat([torch.ones(50), -torch.ones(50)]).double())
    assert trace(balanced, error=0.1).value == pytest.approx(0, abs=1e-10)
    assert not math.isnan(trace(balanced, error=0.1, max_products=60).stderr)


def test_too_few_products() -> None:
    for method, least in {"deflated": 3, "xtrace": 4, "hutch++": 4, "hutchinson": 2}.items():
        with pytest.raises(InputError, match=f"{re.escape(method)} needs {least}"):
            trace(planted(VALUES), products=least - 1, method=method)
        estimate = trace(planted(VALUES), products=least, method=method)
        assert estimate.products == least
        assert len(estimate.samples) == 2
    with pytest.raises(InputError, match="xtrace cannot go on"):
        trace(planted(VALUES), method="xtrace", error=0.1)
    with pytest.raises(InputError, match="error must be positive, got 0"):
        trace(planted(VALUES), error=0)
    with pytest.raises(InputError, match="max_products=20 is less than the 30"):
        trace(planted(VALUES), error=0.1, max_products=20)
    with pytest.raises(ValueError, match="method must be"):
        trace(planted(VALUES), method="xdiag")
