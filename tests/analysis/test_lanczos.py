from __future__ import annotations

import pytest
import torch
from analysis_cases import Case, cross_entropy, planted
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


def test_impossible_requests() -> None:
    A = torch.eye(4)
    with pytest.raises(InputError, match="k must lie between 1 and the number of parameters, 4, got 5"):
        top_eigenpairs(A, 5)
    with pytest.raises(InputError, match="2 eigenpairs need 6"):
        top_eigenpairs(A, 2, which="BE", max_products=5)
    with pytest.raises(ValueError, match="which must be one of LA, SA, BE, LM"):
        top_eigenpairs(A, which="XX")
