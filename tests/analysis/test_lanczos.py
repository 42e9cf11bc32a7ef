from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from analysis_cases import Case, cross_entropy, planted
from scipy import stats
from scipy.sparse.linalg import eigsh
from torch import Tensor

from landscape_lab.analysis.lanczos import Krylov, top_eigenpairs
from landscape_lab.analysis.operators import Hessian
from landscape_lab.errors import InputError

# An indefinite spectrum: outliers at both ends of a bulk, the largest magnitude negative.
VALUES = torch.cat([torch.tensor([-9.0, -4.0, 3.0, 5.0, 8.0]), torch.linspace(-1, 1, 95)]).to(torch.float64)

EXPECTED = {
    "LA": [8.0, 5.0, 3.0],
    "SA": [-9.0, -4.0, -1.0],
    "BE": [8.0, 5.0, 3.0, -9.0, -4.0, -1.0],
    "LM": [-9.0, 8.0, 5.0],
}


class Counting:
    """A matrix that counts the columns it was multiplied with."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self.shape, self.dtype, self.device = matrix.shape, matrix.dtype, matrix.device
        self.products = 0

    def __matmul__(self, v: Tensor) -> Tensor:
        self.products += 1 if v.dim() == 1 else v.shape[1]
        return self.matrix @ v


@pytest.mark.parametrize("which", list(EXPECTED))
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_planted_spectrum(which: str, seed: int) -> None:
    A, done = Counting(planted(VALUES)), []
    pairs = top_eigenpairs(A, 3, which=which, tolerance=1e-7, seed=seed, progress=done.append)
    expected = torch.tensor(EXPECTED[which], dtype=torch.float64)
    torch.testing.assert_close(pairs.values, expected, rtol=1e-10, atol=1e-10)
    V = pairs.vectors
    torch.testing.assert_close(V.T @ V, torch.eye(len(expected), dtype=torch.float64))
    residuals = (A.matrix @ V - V * pairs.values).norm(dim=0)
    torch.testing.assert_close(pairs.residuals, residuals, rtol=1e-6, atol=1e-13)
    assert all(pairs.converged)
    assert (residuals <= 1e-7 * 9).all()
    assert pairs.products == A.products == sum(done) < 100


@pytest.mark.parametrize("which", list(EXPECTED))
def test_agrees_with_dense_and_arpack_on_a_network(conv: Case, which: str) -> None:
    op = Hessian(conv.model, cross_entropy, conv.batches)
    pairs = top_eigenpairs(op, 2, which=which, tolerance=1e-6)
    dense = torch.linalg.eigvalsh(conv.dense())
    wanted = {
        "LA": dense.flip(0)[:2],
        "SA": dense[:2],
        "BE": torch.cat([dense.flip(0)[:2], dense[:2]]),
        "LM": dense[dense.abs().argsort(descending=True)[:2]],
    }[which]
    torch.testing.assert_close(pairs.values, wanted, rtol=1e-9, atol=1e-9)
    if which != "BE":
        arpack = torch.from_numpy(eigsh(op.to_scipy(), k=2, which=which, return_eigenvectors=False))
        torch.testing.assert_close(pairs.values.sort().values, arpack.sort().values, rtol=1e-7, atol=1e-9)


def test_eigenvectors_have_a_fixed_sign() -> None:
    A = planted(VALUES)
    vectors = [top_eigenpairs(A, 2, which="BE", tolerance=1e-9, seed=seed).vectors for seed in range(4)]
    for V in vectors:
        torch.testing.assert_close(V, vectors[0], rtol=0, atol=1e-7)
        assert (V.gather(0, V.abs().argmax(0, keepdim=True)) > 0).all()


def test_the_residual_bounds_the_error_and_a_looser_tolerance_costs_less() -> None:
    A = planted(VALUES)
    loose, tight = (top_eigenpairs(A, 2, tolerance=tolerance) for tolerance in (1e-1, 1e-8))
    assert loose.products < tight.products
    for pairs in (loose, tight):
        nearest = (pairs.values[:, None] - VALUES).abs().min(dim=1).values
        assert (nearest <= pairs.residuals + 1e-12).all()


def test_what_has_not_converged_says_so() -> None:
    values = torch.linspace(0, 1, 300, dtype=torch.float64)
    pairs = top_eigenpairs(torch.diag(values), 2, tolerance=1e-8, max_products=12)
    assert pairs.products == 12
    assert pairs.converged == (False, False)
    assert (pairs.residuals > 1e-8).all()


@pytest.mark.parametrize("which", list(EXPECTED))
def test_the_identity_breaks_down_at_once(which: str) -> None:
    pairs = top_eigenpairs(2.5 * torch.eye(6, dtype=torch.float64), 3, which=which)
    torch.testing.assert_close(pairs.values, torch.full_like(pairs.values, 2.5))
    torch.testing.assert_close(pairs.vectors[:, :3].T @ pairs.vectors[:, :3], torch.eye(3, dtype=torch.float64))
    assert all(pairs.converged)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_copy_of_a_multiple_eigenvalue_is_found(seed: int, dtype: torch.dtype) -> None:
    values = torch.tensor([5.0] * 3 + [4.0] + [1.0] * 20 + [0.0] * 30 + [-2.0] * 2)
    for which, expected in {
        "LA": [5.0, 5.0, 5.0, 4.0, 1.0],
        "SA": [-2.0, -2.0, 0.0, 0.0, 0.0],
        "BE": [5.0, 5.0, 5.0, 4.0, 1.0, -2.0, -2.0, 0.0, 0.0, 0.0],
        "LM": [5.0, 5.0, 5.0, 4.0, -2.0],
    }.items():
        pairs = top_eigenpairs(torch.diag(values.to(dtype)), 5, which=which, seed=seed)
        torch.testing.assert_close(pairs.values, torch.tensor(expected).double(), rtol=1e-5, atol=1e-5)
        assert all(pairs.converged)


def test_a_zero_matrix_and_a_single_parameter() -> None:
    zero = top_eigenpairs(torch.zeros(7, 7, dtype=torch.float64), 2)
    assert not zero.values.any()
    assert zero.converged == (True, True)
    one = top_eigenpairs(torch.tensor([[-3.0]]), 1, which="BE")
    assert one.values.tolist() == [-3.0, -3.0]


def test_all_eigenvalues_of_a_small_matrix() -> None:
    values = torch.tensor([3.0, 1.0, 0.5, -2.0], dtype=torch.float64)
    torch.testing.assert_close(top_eigenpairs(planted(values), 4, tolerance=1e-12).values, values)


def test_one_seed_one_answer() -> None:
    A = planted(VALUES)
    first, again, other = (top_eigenpairs(A, 2, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.vectors, again.vectors)
    assert not torch.equal(first.vectors, other.vectors)


def test_the_basis_stays_orthonormal_in_float32() -> None:
    values = torch.cat([torch.logspace(3, 0, 20), torch.linspace(-0.01, 0.01, 480)])
    krylov = Krylov(planted(values.double()).float(), torch.randn(500, generator=torch.Generator().manual_seed(0)))
    krylov.run(120)
    Q = krylov.lifted(torch.eye(120, dtype=torch.float64)).double()
    torch.testing.assert_close(Q @ Q.T, torch.eye(120, dtype=torch.float64), rtol=0, atol=1e-5)


def test_locked_vectors_are_left_alone() -> None:
    A = planted(VALUES)
    outliers = top_eigenpairs(A, 2, which="LM", tolerance=1e-12)
    start = torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ritz = Krylov(A, start, outliers.vectors.T).run(60).ritz()
    torch.testing.assert_close(ritz.values[[0, -1]], torch.tensor([-4.0, 5.0], dtype=torch.float64))


def random_vector(seed: int, size: int = 100) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive_christoffel(krylov: Krylov, at: float) -> float:
    """K_m by solving (at - T) x = e_m: the polynomials are proportional to x, and p_0 = 1."""
    alphas, betas = np.array(krylov.alphas), np.array(krylov.betas)
    T = np.diag(alphas) + np.diag(betas[:-1], 1) + np.diag(betas[:-1], -1)
    x = np.linalg.solve(at * np.eye(len(T)) - T, np.eye(len(T))[-1])
    return float(((x / x[0]) ** 2).sum() + 1 / (betas[-1] * x[0]) ** 2)


@pytest.mark.parametrize("steps", [1, 2, 5, 9])
@pytest.mark.parametrize("level", [0.95, 0.5])
def test_limits_are_where_the_christoffel_function_says(steps: int, level: float) -> None:
    krylov = Krylov(planted(VALUES), random_vector(3)).run(steps)
    ritz, point = krylov.ritz(), stats.beta.ppf(1 - level, 0.5, 99 / 2)
    for end, limit in zip((0, -1), krylov.limits(level), strict=True):
        weight = float(ritz.vectors[0, end] ** 2)
        if weight <= point:  # an unlucky start: the function is above already at the Ritz value
            assert abs(limit - float(ritz.values[end])) < 1e-9
            continue
        assert naive_christoffel(krylov, limit) == pytest.approx(1 / point, rel=1e-6)
        assert (limit - float(ritz.values[end])) * (1 if end else -1) > 0


def test_an_unlucky_start_shows_in_the_residual() -> None:
    start = random_vector(0)
    start[-1] = 1e-4 * start.norm()
    values = torch.cat([torch.linspace(-1, 1, 99), torch.tensor([2.0])]).double()
    krylov = Krylov(torch.diag(values), start).run(9)
    ritz = krylov.ritz()
    assert 1.1 < float(ritz.values[-1]) < 1.999  # on its way from the bulk to the outlier, its weight tiny
    assert krylov.limits()[1] < 2 < float(ritz.values[-1] + ritz.bounds[-1])


def test_the_default_limits_are_those_of_95_percent() -> None:
    krylov = Krylov(planted(VALUES), random_vector(3)).run(5)
    assert krylov.limits() == krylov.limits(0.95)
    assert krylov.limits(0.5)[1] < krylov.limits(0.95)[1] < krylov.limits(0.99)[1]
    pairs = top_eigenpairs(planted(VALUES), max_products=6, tolerance=0, seed=4)
    krylov = Krylov(planted(VALUES), random_vector(4)).run(5)
    assert (pairs.lower, pairs.upper) == pytest.approx(krylov.limits(), rel=1e-12)


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("steps", [2, 4])
def test_limits_hold_in_95_percent(warm: bool, steps: int) -> None:
    values = torch.cat([torch.linspace(-1, 1, 57), torch.tensor([1.2, 1.3, -1.4])]).double()
    A = torch.diag(values)
    misleading = torch.eye(60, dtype=torch.float64)[57] if warm else None
    pairs = [top_eigenpairs(A, max_products=steps + 1, tolerance=0, start=misleading, seed=seed) for seed in range(200)]
    above = sum(pair.upper >= 1.3 for pair in pairs) / 200
    below = sum(pair.lower <= -1.4 for pair in pairs) / 200
    assert above >= 0.92  # 95 % less two standard errors
    assert below >= 0.92


def test_limits_are_not_wide_for_nothing() -> None:
    # One eigenvalue far from the others: |<start, u>| decides, and the bound is nearly an equality.
    values = torch.cat([torch.linspace(-0.01, 0.01, 59), torch.tensor([1.0])]).double()
    pairs = [top_eigenpairs(torch.diag(values), max_products=3, tolerance=0, seed=s) for s in range(300)]
    share = sum(pair.upper >= 1 for pair in pairs) / 300
    assert 0.925 <= share <= 0.985


def test_limits_close_in_on_the_ends() -> None:
    A = planted(VALUES)
    widths = [Krylov(A, random_vector(1)).run(steps).limits()[1] - 8 for steps in (4, 8, 16, 32)]
    assert widths == sorted(widths, reverse=True)
    assert 0 < widths[-1] < 1e-10
    # A space as large as the matrix, and one just short of it.
    for steps in (99, 100):
        assert Krylov(A, random_vector(1)).run(steps).limits() == pytest.approx((-9, 8), abs=1e-12)


@pytest.mark.parametrize("scale", [1e-100, 1e-12, 1e12, 1e100])
def test_limits_scale_with_the_matrix(scale: float) -> None:
    lower, upper = Krylov(planted(VALUES), random_vector(2)).run(20).limits()
    scaled = Krylov(scale * planted(VALUES), random_vector(2)).run(20).limits()
    assert scaled == pytest.approx((scale * lower, scale * upper), rel=1e-9)


def test_limits_in_single_precision_allow_for_its_rounding() -> None:
    A = planted(VALUES).float()
    for seed in range(10):
        lower, upper = Krylov(A, random_vector(seed).float()).run(40).limits()
        assert -9 - 1e-3 < lower <= -9
        assert 8 <= upper < 8 + 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_limits_where_the_space_ended_early(dtype: torch.dtype) -> None:
    values = torch.tensor([5.0] * 3 + [4.0] + [1.0] * 20 + [-2.0] * 2, dtype=dtype)
    room = 1e-4 if dtype == torch.float32 else 1e-12
    for k in (1, 5):  # five take restarts
        pairs = top_eigenpairs(torch.diag(values), k)
        assert 5 <= pairs.upper <= 5 + room
        assert -2 - room <= pairs.lower <= -2
    one = top_eigenpairs(2.5 * torch.eye(6, dtype=dtype))
    assert 2.5 - 5 * room <= one.lower <= 2.5 <= one.upper <= 2.5 + 5 * room
    zero = top_eigenpairs(torch.zeros(7, 7, dtype=dtype))
    assert (zero.lower, zero.upper) == (0, 0)


def test_no_limits_without_a_random_start_in_the_whole_space() -> None:
    A = planted(VALUES)
    assert Krylov(A, random_vector(0)).limits() == (-math.inf, math.inf)
    locked = top_eigenpairs(A, 2, tolerance=1e-12).vectors.T
    with pytest.raises(ValueError, match="without locked vectors"):
        Krylov(A, random_vector(0), locked).run(3).limits()


def test_a_warm_start_saves_products() -> None:
    bulk = torch.linspace(-1, 1, 397)
    A = Counting(planted(torch.cat([torch.tensor([1.25, 1.2, -1.3]), bulk]).double()))
    cold = top_eigenpairs(A, which="BE", tolerance=1e-3)
    near = cold.vectors + 0.003 * torch.randn(400, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    before = A.products
    warm = top_eigenpairs(A, which="BE", tolerance=1e-3, start=near, seed=1)
    assert A.products - before == warm.products < 0.8 * cold.products
    assert all(warm.converged)
    torch.testing.assert_close(warm.values, torch.tensor([1.25, -1.3]).double(), rtol=0, atol=1e-4)
    summed = top_eigenpairs(A, which="BE", tolerance=1e-3, start=near.sum(1), seed=1)
    torch.testing.assert_close(summed.values, warm.values, rtol=1e-9, atol=0)
    scaled = top_eigenpairs(A, which="BE", tolerance=1e-3, start=1e6 * near, seed=1)
    torch.testing.assert_close(scaled.values, warm.values, rtol=1e-9, atol=0)


def test_half_of_a_warm_start_is_random() -> None:
    A = planted(VALUES)
    warm = torch.linalg.eigh(A).eigenvectors[:, 0]
    pairs = top_eigenpairs(A, max_products=2, tolerance=0, start=warm, seed=6)
    z = random_vector(6)
    start = warm + z / z.norm()
    krylov = Krylov(A, start, share=1 / float(start @ start)).run(1)
    assert float(pairs.values[0]) == pytest.approx(krylov.alphas[0])
    assert pairs.upper == pytest.approx(krylov.limits()[1])
    point = stats.beta.ppf(0.05, 0.5, 99 / 2) / float(start @ start)
    assert naive_christoffel(krylov, pairs.upper) == pytest.approx(1 / point, rel=1e-6)


def test_a_wrong_start_hides_nothing() -> None:
    A = planted(VALUES)
    vectors = torch.linalg.eigh(A).eigenvectors
    for column in (0, 40, 98):
        pairs = top_eigenpairs(A, 2, start=vectors[:, column], tolerance=1e-6)
        torch.testing.assert_close(pairs.values, torch.tensor([8.0, 5.0]).double())


def test_memory_is_taken_once() -> None:
    A = planted(VALUES)
    krylov = Krylov(A, random_vector(0))
    first = krylov._blocks[0].data_ptr()
    krylov.run(40)
    assert krylov._blocks[0].data_ptr() == first
    assert sum(map(len, krylov._blocks)) == 41
    for _ in range(40):
        krylov.step()
    assert 81 <= sum(map(len, krylov._blocks)) <= 100
    assert krylov._blocks[0].data_ptr() == first
    krylov.run(100)
    assert sum(map(len, krylov._blocks)) == 100
    locked = top_eigenpairs(A, 3, tolerance=1e-12).vectors.T
    assert Krylov(A, random_vector(0), locked)._blocks[0] is locked


def test_the_complement_of_a_space() -> None:
    A = planted(VALUES)
    locked = torch.linalg.eigh(A).eigenvectors[:, :2].T.contiguous()
    krylov = Krylov(A, random_vector(0), locked).run(30)
    Q = torch.cat([locked, krylov.lifted(torch.eye(30, dtype=torch.float64))]).T
    Z = torch.randn(100, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(krylov.complement(Z), Z - Q @ (Q.T @ Z), rtol=1e-10, atol=1e-12)


def test_impossible_requests() -> None:
    A = torch.eye(4)
    with pytest.raises(InputError, match="k must lie between 1 and the number of parameters, 4, got 5"):
        top_eigenpairs(A, 5)
    with pytest.raises(InputError, match="2 eigenpairs need 6"):
        top_eigenpairs(A, 2, which="BE", max_products=5)
    with pytest.raises(InputError, match=r"start must be \(4,\) or \(4, n\), got \(5,\)"):
        top_eigenpairs(A, start=torch.ones(5))
    with pytest.raises(InputError, match=r"start must be \(4,\) or \(4, n\), got \(4, 1, 1\)"):
        top_eigenpairs(A, start=torch.ones(4, 1, 1))
    for bad in (torch.zeros(4), torch.full((4,), torch.nan)):
        with pytest.raises(InputError, match="start must be finite and not zero"):
            top_eigenpairs(A, start=bad)
    with pytest.raises(ValueError, match="which must be one of LA, SA, BE, LM"):
        top_eigenpairs(A, which="XX")
