from __future__ import annotations

import math

import pytest
import torch
from analysis_cases import Case, cross_entropy, planted
from scipy.stats import wasserstein_distance
from torch import Tensor

from landscape_lab.analysis.operators import Hessian
from landscape_lab.analysis.spectra import SpectralDensity, hessian_spectrum, spectral_density
from landscape_lab.analysis.trace import trace
from landscape_lab.errors import InputError

VALUES = torch.cat([torch.tensor([30.0, 18.0, 11.0, 7.0, -4.0]), torch.linspace(-0.8, 0.8, 395)]).double()


def distance(density: SpectralDensity, exact: Tensor) -> float:
    """Wasserstein-1 distance to the exact spectrum, in units of its span."""
    weights = density.weights.flatten() / len(density.weights)
    span = float(exact.max() - exact.min())
    return wasserstein_distance(exact.numpy(), density.nodes.flatten().numpy(), None, weights.numpy()) / span


@pytest.mark.parametrize("method", ["deflated", "slq"])
@pytest.mark.parametrize("probes", [1, 2, 5])
def test_every_row_is_a_distribution(method: str, probes: int) -> None:
    done: list[int] = []
    density = spectral_density(planted(VALUES), products=60, probes=probes, method=method, progress=done.append)
    assert density.nodes.shape == density.weights.shape
    assert len(density.nodes) == probes
    assert (density.weights >= 0).all()
    torch.testing.assert_close(density.weights.sum(1), torch.ones(probes, dtype=torch.float64))
    assert sum(done) == density.products <= 60
    assert (density.size, density.method) == (400, method)


def test_a_plain_row_is_the_gauss_quadrature_of_its_probe() -> None:
    A = planted(VALUES)
    density = spectral_density(A, products=18, probes=2, method="slq", seed=5)
    generator = torch.Generator().manual_seed(5)
    for nodes, weights in zip(density.nodes, density.weights, strict=True):
        z = torch.randn(400, generator=generator, dtype=torch.float64)
        z /= z.norm()
        power = z
        for k in range(18):  # 9 nodes integrate polynomials to degree 17
            assert float((weights * nodes**k).sum()) == pytest.approx(float(z @ power), rel=1e-8)
            power = A @ power


def test_deflation_finds_the_outliers_and_gives_them_their_weight() -> None:
    density = spectral_density(planted(VALUES))
    assert density.outliers >= 5
    for nodes, weights in zip(density.nodes, density.weights, strict=True):
        for value in VALUES[:5]:
            near = (nodes - value).abs() < 1e-6
            assert float(weights[near].sum()) == pytest.approx(1 / 400, rel=1e-9)


def test_deflation_is_nearer_to_the_spectrum_than_plain_quadrature() -> None:
    A = planted(VALUES)
    deflated = torch.tensor([distance(spectral_density(A, seed=seed), VALUES) for seed in range(7)])
    plain = torch.tensor(
        [
            distance(spectral_density(A, seed=seed, method="slq", probes=probes), VALUES)
            for seed in range(7)
            for probes in (1, 4)
        ]
    )
    assert deflated.median() < 0.4 * plain.median()
    assert deflated.max() < 1e-2


def test_against_the_dense_spectrum_of_a_network(mlp_hessian: Tensor) -> None:
    exact = torch.linalg.eigvalsh(mlp_hessian)
    deflated = [spectral_density(mlp_hessian, seed=seed) for seed in range(5)]
    plain = [spectral_density(mlp_hessian, seed=seed, method="slq", probes=1) for seed in range(5)]
    errors, others = (torch.tensor([distance(d, exact) for d in some]) for some in (deflated, plain))
    assert errors.median() < 0.5 * others.median()
    assert errors.max() < 3e-3
    for k in (1, 2, 3):
        truth = float((exact**k).mean())
        values = torch.tensor([density.moment(k)[0] for density in deflated])
        assert (values / truth - 1).abs().median() < 0.05


def test_plain_moments_are_unbiased_with_a_calibrated_error() -> None:
    A = planted(VALUES)
    densities = [spectral_density(A, products=32, probes=8, method="slq", seed=seed) for seed in range(100)]
    for k in (1, 2):
        values, claimed = torch.tensor([density.moment(k) for density in densities]).double().T
        error = values - (VALUES**k).mean()
        assert error.mean().abs() <= 3.5 * error.std() / 10
        assert 0.7 <= error.std() / claimed.square().mean().sqrt() <= 1.4


def test_grid_and_moments_by_hand() -> None:
    density = SpectralDensity(
        nodes=torch.tensor([[0.0, 2.0], [1.0, 2.0]]).double(),
        weights=torch.tensor([[0.5, 0.5], [1.0, 0.0]]).double(),
        size=2,
        products=4,
        method="slq",
        seed=0,
    )
    assert density.moment(1) == (1.0, 0.0)
    assert density.moment(2) == pytest.approx((1.5, 0.5))

    def gauss(x: float) -> float:
        return math.exp(-0.5 * (x / 0.3) ** 2) / (0.3 * math.sqrt(2 * math.pi))

    first, second = 0.5 * gauss(0.5) + 0.5 * gauss(-1.5), gauss(-0.5)
    mean, stderr = density.on_grid(torch.tensor([0.5]), 0.3)
    assert mean.tolist() == pytest.approx([(first + second) / 2])
    assert stderr.tolist() == pytest.approx([abs(first - second) / 2])


def test_the_smoothed_density_integrates_to_one(mlp_hessian: Tensor) -> None:
    density = spectral_density(mlp_hessian)
    low, high = float(density.nodes.min()), float(density.nodes.max())
    sigma = 0.01 * (high - low)
    grid = torch.linspace(low - 10 * sigma, high + 10 * sigma, 4001, dtype=torch.float64)
    mean, stderr = density.on_grid(grid, sigma)
    assert float(torch.trapezoid(mean, grid)) == pytest.approx(1, abs=1e-6)
    varying, _ = density.on_grid(grid, torch.full_like(grid, sigma))
    torch.testing.assert_close(varying, mean)
    assert (stderr >= 0).all()
    # The outliers are the same in every row.
    assert float(stderr[grid > high - sigma].max()) <= 1e-6 * float(mean.max())
    assert spectral_density(mlp_hessian, probes=1).on_grid(grid, sigma)[1].isnan().all()
    with pytest.raises(ValueError, match="sigma must be positive"):
        density.on_grid(grid, 0.0)


@pytest.mark.parametrize("method", ["deflated", "slq"])
@pytest.mark.parametrize(
    "values",
    [[3.0], [2.0, -1.0], [0.0] * 5, [1.0] * 30, [5.0, 5.0, 1.0, 0.0, 0.0, 0.0], [4.0, 2.0] + [0.0] * 200],
    ids=["one", "two", "zero", "identity", "degenerate", "low rank"],
)
@pytest.mark.parametrize("probes", [1, 3])
def test_spaces_that_end_early(method: str, values: list[float], probes: int) -> None:
    exact = torch.tensor(values).double()
    density = spectral_density(planted(exact), products=90, probes=probes, method=method)
    assert len(density.nodes) >= 1
    torch.testing.assert_close(density.weights.sum(1), torch.ones(len(density.nodes), dtype=torch.float64))
    assert density.weights.isfinite().all()
    near = (density.nodes[..., None] - exact).abs().min(dim=-1).values
    assert float(near[density.weights > 1e-9].max()) < 1e-6
    if method == "deflated":
        value, _ = density.moment(1)
        # The second copy of an eigenvalue is seen by the complement's probes, with a random weight.
        assert value == pytest.approx(float(exact.mean()), rel=0.5 if 5.0 in values else 1e-9)


@pytest.mark.parametrize("probes", [1, 2, 3])
@pytest.mark.parametrize("products", [3, 40])
def test_a_narrow_spectrum_where_everything_converges_at_once(probes: int, products: int) -> None:
    exact = torch.linspace(0.98, 1.02, 200, dtype=torch.float64)
    density = spectral_density(planted(exact), products=products, probes=probes)
    torch.testing.assert_close(density.weights.sum(1), torch.ones(probes, dtype=torch.float64))
    assert density.products <= products
    assert density.moment(1)[0] == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shift", [0.0, 1.0, -3.0])
def test_clusters_keep_their_weight(seed: int, shift: float) -> None:
    # Ritz pairs converge to a narrow cluster as to one eigenvalue; it must not count as one.
    parts = [torch.linspace(0.99, 1.01, 300), torch.linspace(-1e-5, 1e-5, 95), torch.tensor([9.0, 7, 6, 5, -4])]
    exact = torch.cat(parts).double() + shift
    density = spectral_density(planted(exact), seed=seed)
    near_one = ((density.nodes - 1 - shift).abs() < 0.1).double()
    masses = (near_one * density.weights).sum(1)
    assert float((masses - 300 / 400).abs().max()) < 0.1
    assert density.moment(1)[0] == pytest.approx(float(exact.mean()), abs=0.06)


def test_a_whole_small_spectrum_is_exact() -> None:
    exact = torch.linspace(-1, 3, 20, dtype=torch.float64)
    density = spectral_density(planted(exact), products=100)
    torch.testing.assert_close(density.nodes, exact.expand(3, 20))
    assert density.moment(1) == pytest.approx((1.0, 0.0))
    assert density.products == 20


def test_budgets() -> None:
    with pytest.raises(InputError, match="2 products are too few for 3 probes"):
        spectral_density(planted(VALUES), products=2)
    for products in range(3, 12):
        density = spectral_density(planted(VALUES), products=products)
        assert density.products <= products
        assert len(density.nodes) == 3
    with pytest.raises(ValueError, match="method must be"):
        spectral_density(planted(VALUES), method="kpm")


def test_hessian_spectrum_against_the_dense_matrix(conv: Case) -> None:
    op = Hessian(conv.model, cross_entropy, conv.batches)
    done: list[int] = []
    spectrum = hessian_spectrum(op, progress=done.append)
    exact = torch.linalg.eigvalsh(conv.dense())
    assert sum(done) == 30 + 2 + spectrum.density.products <= 132
    assert spectrum.lambda_max == pytest.approx(float(exact[-1]), rel=1e-6)
    assert spectrum.lambda_min == pytest.approx(float(exact[0]), rel=1e-6)
    assert spectrum.converged
    assert max(spectrum.lambda_max_residual, spectrum.lambda_min_residual) <= 1e-3 * float(exact.abs().max())
    assert spectrum.trace.value == trace(op).value
    alone = spectral_density(op)
    assert torch.equal(spectrum.density.nodes, alone.nodes)
    assert torch.equal(spectrum.density.weights, alone.weights)
    assert distance(alone, exact) < 5e-3
    assert (spectrum.samples, spectrum.parameters, spectrum.batch_norm) == (24, 123, "running")
