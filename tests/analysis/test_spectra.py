from __future__ import annotations

import math

import pytest
import torch
from analysis_cases import Case, cross_entropy, planted
from scipy.stats import t as student
from scipy.stats import wasserstein_distance
from torch import Tensor

from landscape_lab.analysis.lanczos import top_eigenpairs
from landscape_lab.analysis.operators import Hessian
from landscape_lab.analysis.spectra import SpectralDensity, Spectrum, hessian_spectrum, spectral_density
from landscape_lab.analysis.trace import TraceEstimate, trace
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
        values = torch.tensor([density.moment(k).value for density in deflated])
        assert (values / truth - 1).abs().median() < 0.05


def test_plain_moments_are_unbiased_with_a_calibrated_error() -> None:
    A = planted(VALUES)
    densities = [spectral_density(A, products=32, probes=8, method="slq", seed=seed) for seed in range(100)]
    for k in (1, 2):
        moments = [density.moment(k) for density in densities]
        error = torch.tensor([moment.value for moment in moments]).double() - (VALUES**k).mean()
        assert error.mean().abs() <= 3.5 * error.std() / 10
        claimed = torch.tensor([moment.stderr for moment in moments]).square().mean().sqrt()
        assert 0.8 <= error.std() / claimed <= 1.25
    # A stated error that is itself steady: pooled with the variance that the quadrature implies.
    assert claimed > 0
    stated = torch.tensor([moment.stderr for moment in moments])
    assert stated.std() < 0.35 * stated.mean()


def density_of(
    nodes: list[list[float]], weights: list[list[float]], size: int, outliers: int = 0, method: str = "deflated"
) -> SpectralDensity:
    rows = (torch.tensor(part, dtype=torch.float64) for part in (nodes, weights))
    return SpectralDensity(*rows, size, 9, method, 0, outliers)


def test_grid_and_moments_by_hand() -> None:
    density = density_of([[0.0, 2.0], [1.0, 2.0]], [[0.5, 0.5], [1.0, 0.0]], 2, method="slq")
    first = density.moment(1)
    # Rows 1 and 1, variance 0. A random vector in two dimensions has 2/4 of (mean square 1.5 less square mean 1).
    assert first.value == 1.0
    assert first.stderr == pytest.approx(math.sqrt((1 * 0 + 8 * 0.25) / 9 / 2))
    second = density.moment(2)
    # Rows 2 and 1, variance 0.5; implied 2/4 of 4.5 - 1.5^2.
    assert second.value == 1.5
    assert second.stderr == pytest.approx(math.sqrt((1 * 0.5 + 8 * 1.125) / 9 / 2))
    # Central moments of the squares 0 (weight 1/4), 1 (1/2), 4 (1/4): 2.25 and 3; two dimensions, two rows.
    a, t = math.sqrt(8 / 2) * 3 / 2.25**1.5 / 3 / math.sqrt(2), student.ppf(0.975, 9)
    assert second.low == pytest.approx(1.5 - second.stderr * (1 - math.exp(-a * t)) / a)
    assert second.high == pytest.approx(1.5 + second.stderr * (math.exp(a * t) - 1) / a)

    def gauss(x: float) -> float:
        return math.exp(-0.5 * (x / 0.3) ** 2) / (0.3 * math.sqrt(2 * math.pi))

    first, second = 0.5 * gauss(0.5) + 0.5 * gauss(-1.5), gauss(-0.5)
    mean, stderr = density.on_grid(torch.tensor([0.5]), 0.3)
    assert mean.tolist() == pytest.approx([(first + second) / 2])
    assert stderr.tolist() == pytest.approx([abs(first - second) / 2])


def test_outliers_add_no_error() -> None:
    # One outlier of weight 1/4 in both rows; the rest, in three dimensions, differs.
    density = density_of([[8.0, 0.0, 1.0], [8.0, 0.0, 1.0]], [[0.25, 0.75, 0.0], [0.25, 0.25, 0.5]], 4, 1)
    moment = density.moment(1)
    assert moment.value == pytest.approx(2.25)
    # Rows of the rest 0 and 0.5, variance 1/8; shares 0 and 2/3: mean 1/3, of squares as well.
    implied = (3 / 4) ** 2 * 2 / 5 * (1 / 3 - 1 / 9)
    assert moment.stderr == pytest.approx(math.sqrt((0.125 + 8 * implied) / 9 / 2))


def test_negative_mass_and_effective_rank_by_hand() -> None:
    density = density_of([[-1.0, 3.0], [-1.0, 3.0]], [[0.5, 0.5], [0.25, 0.75]], 10, method="slq")
    mass = density.negative_mass()
    # Negative parts 0.5 and 0.25, absolute values 2 and 2.5: 0.375 / 2.25.
    assert mass.value == pytest.approx(1 / 6)
    rows = [(0.5 - 2 / 6) / 2.25, (0.25 - 2.5 / 6) / 2.25]
    at = [(1 - 1 / 6) / 2.25, -3 / 6 / 2.25]  # the influence at the nodes
    share = [0.375, 0.625]
    mean = sum(w * g for w, g in zip(share, at, strict=True))
    implied = 2 / 12 * (sum(w * g * g for w, g in zip(share, at, strict=True)) - mean**2)
    variance = (rows[0] - rows[1]) ** 2 / 2
    assert mass.stderr == pytest.approx(math.sqrt((variance + 8 * implied) / 9 / 2))
    rank = density.effective_rank()
    # Mean square: rows 5 and 7, so 6.
    assert rank.value == pytest.approx(10 * 2.25**2 / 6)
    r = rank.value
    at = [r * (2 * 1 / 2.25 - 1 / 6), r * (2 * 3 / 2.25 - 9 / 6)]
    mean = sum(w * g for w, g in zip(share, at, strict=True))
    implied = 2 / 12 * (sum(w * g * g for w, g in zip(share, at, strict=True)) - mean**2)
    variance = (0.25 * (at[0] - at[1])) ** 2 / 2
    assert rank.stderr == pytest.approx(math.sqrt((variance + 8 * implied) / 9 / 2))


def test_the_negative_fraction_is_a_bracket_by_hand() -> None:
    rows = [[-2.0, -1.0, 1.0, 2.0]] * 2
    fraction = density_of(rows, [[0.1, 0.2, 0.3, 0.4]] * 2, 100, method="slq").negative_fraction()
    assert (fraction.low, fraction.value, fraction.high) == pytest.approx((0.1, 0.35, 0.6))
    assert fraction.stderr == pytest.approx(0, abs=1e-15)
    # Two rows that differ are widened by Student's interval.
    fraction = density_of(rows, [[0.1, 0.2, 0.3, 0.4], [0.12, 0.2, 0.28, 0.4]], 100, method="slq").negative_fraction()
    assert fraction.low == pytest.approx(max(0, 0.11 - student.ppf(0.975, 1) * 0.01))
    assert fraction.value == pytest.approx((0.11 + 0.6) / 2)
    assert fraction.high == pytest.approx(0.6)
    # Padding, which repeats a node without weight, is no neighbour of zero.
    padded = density_of([[1.0, -2.0, -1.0, -1.0]] * 2, [[0.3, 0.5, 0.2, 0.0]] * 2, 100, method="slq")
    assert (padded.negative_fraction().low, padded.negative_fraction().high) == pytest.approx((0.5, 1.0))
    # All nodes on one side.
    above = density_of([[1.0, 2.0]] * 2, [[0.4, 0.6]] * 2, 100, method="slq").negative_fraction()
    below = density_of([[-2.0, -1.0]] * 2, [[0.4, 0.6]] * 2, 100, method="slq").negative_fraction()
    assert (above.low, above.high) == pytest.approx((0, 0.4))
    assert (below.low, below.high) == pytest.approx((0.4, 1))
    # Outliers are counted one by one, those without a sign on neither side for sure.
    known = density_of([[-5.0, 1e-9, 9.0, -1.0, 0.5]] * 2, [[0.1, 0.1, 0.1, 0.3, 0.4]] * 2, 10, 3).negative_fraction()
    assert (known.low, known.high) == pytest.approx((0.1, 0.2 + 0.7))


@pytest.mark.parametrize("seed", range(6))
def test_the_bracket_holds_for_every_quadrature(seed: int) -> None:
    generator = torch.Generator().manual_seed(100 + seed)
    values = torch.randn(60, generator=generator, dtype=torch.float64) ** 3 - 0.1
    values[:20] *= 1e-3
    for steps in (1, 2, 5, 12, 30):
        density = spectral_density(torch.diag(values), products=2 * steps, probes=2, method="slq", seed=seed)
        generator.manual_seed(seed)
        for row in range(2):
            z = torch.randn(60, generator=generator, dtype=torch.float64)
            below = float((z.square() / z.square().sum())[values < 0].sum())
            low, high = density._below_zero(density.nodes[row], density.weights[row])
            assert low - 1e-12 <= below <= high + 1e-12


def test_a_single_probe_has_values_without_errors() -> None:
    density = spectral_density(planted(VALUES), probes=1)
    for estimate in (
        density.moment(2),
        density.negative_mass(),
        density.negative_fraction(),
        density.effective_rank(),
    ):
        assert math.isfinite(estimate.value)
        assert all(map(math.isnan, (estimate.stderr, estimate.low, estimate.high)))


@pytest.mark.parametrize("method", ["deflated", "slq"])
def test_intervals_hold(method: str) -> None:
    A = planted(VALUES)
    absolute = float(VALUES.abs().sum())
    truths = [float((VALUES**k).mean()) for k in (1, 2, 3, 4)]
    truths += [float(-VALUES.clamp(max=0).sum()) / absolute, absolute**2 / float(VALUES.square().sum())]
    held = torch.zeros(6)
    for seed in range(40):
        density = spectral_density(A, products=60, seed=seed, method=method)
        estimates = [density.moment(k) for k in (1, 2, 3, 4)] + [density.negative_mass(), density.effective_rank()]
        held += torch.tensor([e.low <= truth <= e.high for e, truth in zip(estimates, truths, strict=True)]).float()
        assert 0 <= estimates[4].low <= estimates[4].high <= 1 <= estimates[5].low <= estimates[5].high <= 400
        fraction = density.negative_fraction()
        assert fraction.low <= float((VALUES < 0).double().mean()) <= fraction.high
    # A few probes see five outliers rarely and then much of them, so that plain moments are skewed.
    assert (held >= (35 if method == "deflated" else 30)).all(), held


def test_the_bulk_edge_by_hand() -> None:
    def edge(known: list[float], rest: list[float], size: int = 20) -> tuple[float, int]:
        weights = [1 / size] * len(known) + [(1 - len(known) / size) / max(len(rest), 1)] * len(rest)
        density = density_of([known + rest] * 2, [weights] * 2, size, len(known))
        return density.bulk_edge(), density.bulk_outliers()

    assert edge([-3.0, 5.0, 7.0, 40.0, 50.0], [-1.0, 0.0, 4.0]) == (7.0, 2)
    assert edge([5.0, 7.0, 8.0], [-1.0, 0.5]) == (0.5, 3)
    # Eigenvalues known one by one within the bulk are part of it.
    assert edge([0.2, 5.0], [-1.0, 0.5]) == (0.5, 1)
    assert edge([-9.0, -3.0], [-1.0, 0.5]) == (0.5, 0)
    assert edge([], [-1.0, 0.5]) == (0.5, 0)
    assert edge([1.0, 2.0, 10.0], [], size=3) == (2.0, 1)
    assert edge([3.0], [], size=1) == (3.0, 0)
    # Rounding below the outliers counts as zero, and no ratio among such counts.
    assert edge([1e-15, 2.0, 3.0], [-1e-16, 1e-17]) == (1e-15, 2)
    assert edge([2.0, 3.0], [-1.0]) == (-1.0, 2)
    padded = density_of([[5.0, 0.5, 2.0]] * 2, [[0.1, 0.9, 0.0]] * 2, 10, 1)
    assert padded.bulk_edge() == 0.5
    assert math.isnan(density_of([[5.0, 0.5]], [[0.1, 0.9]], 10, method="slq").bulk_edge())


def test_the_bulk_edge_of_a_planted_spectrum() -> None:
    density = spectral_density(planted(VALUES))
    assert density.bulk_outliers() == 4
    assert density.bulk_edge() == pytest.approx(0.8, abs=1e-2)
    assert hessian_spectrum(planted(VALUES)).bulk_ratio == pytest.approx(30 / density.bulk_edge())


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
        value = density.moment(1).value
        # The second copy of an eigenvalue is seen by the complement's probes, with a random weight.
        assert value == pytest.approx(float(exact.mean()), rel=0.5 if 5.0 in values else 1e-9)


@pytest.mark.parametrize("probes", [1, 2, 3])
@pytest.mark.parametrize("products", [3, 40])
def test_a_narrow_spectrum_where_everything_converges_at_once(probes: int, products: int) -> None:
    exact = torch.linspace(0.98, 1.02, 200, dtype=torch.float64)
    density = spectral_density(planted(exact), products=products, probes=probes)
    torch.testing.assert_close(density.weights.sum(1), torch.ones(probes, dtype=torch.float64))
    assert density.products <= products
    assert density.moment(1).value == pytest.approx(1.0, abs=2e-3)


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
    assert density.moment(1).value == pytest.approx(float(exact.mean()), abs=0.06)


def test_a_whole_small_spectrum_is_exact() -> None:
    exact = torch.linspace(-1, 3, 20, dtype=torch.float64)
    density = spectral_density(planted(exact), products=100)
    torch.testing.assert_close(density.nodes, exact.expand(3, 20))
    moment = density.moment(1)
    assert (moment.value, moment.stderr, moment.low, moment.high) == pytest.approx((1.0, 0.0, 1.0, 1.0))
    fraction, below = density.negative_fraction(), float((exact < 0).double().mean())
    assert (fraction.low, fraction.value, fraction.high) == pytest.approx((below, below, below))
    assert density.negative_mass().value == pytest.approx(float(-exact.clamp(max=0).sum() / exact.abs().sum()))
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
    assert sum(done) == spectrum.products == 30 + 2 + spectrum.density.products <= 132
    assert spectrum.lambda_max == pytest.approx(float(exact[-1]), rel=1e-6)
    assert spectrum.lambda_min == pytest.approx(float(exact[0]), rel=1e-6)
    assert spectrum.converged
    assert max(spectrum.lambda_max_residual, spectrum.lambda_min_residual) <= 1e-3 * float(exact.abs().max())
    room = 1e-10 * float(exact.abs().max())
    assert spectrum.lambda_max <= spectrum.lambda_max_upper <= float(exact[-1]) + room
    assert float(exact[0]) - room <= spectrum.lambda_min_lower <= spectrum.lambda_min
    assert abs(spectrum.trace.value - float(exact.sum())) <= 4 * spectrum.trace.stderr
    assert (spectrum.trace.products, len(spectrum.trace.samples), spectrum.trace.method) == (30, 30, "deflated")
    alone = spectral_density(op)
    assert torch.equal(spectrum.density.nodes, alone.nodes)
    assert torch.equal(spectrum.density.weights, alone.weights)
    assert distance(alone, exact) < 5e-3
    assert (spectrum.samples, spectrum.parameters, spectrum.batch_norm) == (24, 123, "running")
    assert (spectrum.operator, spectrum.vectors, spectrum.data) == ("hessian", None, None)


def test_the_trace_gains_from_the_deep_space() -> None:
    values = torch.cat([VALUES, torch.logspace(0.8, -1, 40).double()])
    A, exact = planted(values), float(values.sum())
    together = torch.tensor([hessian_spectrum(A, seed=seed).trace.value - exact for seed in range(25)])
    alone = torch.tensor([trace(A, seed=seed).value - exact for seed in range(25)])
    assert together.std() < 0.6 * alone.std()
    assert together.mean().abs() <= 3.5 * together.std() / 25**0.5
    # Its test vectors are not those of the density's start.
    assert hessian_spectrum(A, seed=0).trace.value != hessian_spectrum(A, seed=1).trace.value


def test_a_trace_that_is_known_costs_nothing() -> None:
    given = TraceEstimate(1.5, 0.1, torch.tensor([1.4, 1.6]).double(), 30, "deflated", 0)
    for density_products in (0, 60):
        done: list[int] = []
        spectrum = hessian_spectrum(
            planted(VALUES), trace_estimate=given, trace_products=0, density_products=density_products,
            progress=done.append,
        )  # fmt: skip
        assert spectrum.trace is given
        assert spectrum.products == sum(done) <= 62


def test_without_a_density_both_ends_are_searched_for() -> None:
    A, done = planted(VALUES), []
    spectrum = hessian_spectrum(A, density_products=0, keep_vectors=True, progress=done.append)
    pairs = top_eigenpairs(A, which="BE")
    assert spectrum.density is None
    assert math.isnan(spectrum.bulk_ratio)
    assert (spectrum.lambda_max, spectrum.lambda_min) == tuple(pairs.values.tolist())
    assert (spectrum.lambda_max_upper, spectrum.lambda_min_lower) == (pairs.upper, pairs.lower)
    assert torch.equal(spectrum.vectors, pairs.vectors)
    assert spectrum.products == sum(done) == pairs.products + 30
    assert abs(spectrum.trace.value - float(VALUES.sum())) <= 4 * spectrum.trace.stderr
    warm = hessian_spectrum(A, density_products=0, start=spectrum.vectors, seed=1)
    cold = hessian_spectrum(A, density_products=0, seed=1)
    assert warm.products < cold.products
    assert warm.lambda_max == pytest.approx(30, rel=1e-5)


def test_the_error_that_was_asked_for() -> None:
    values = torch.cat([torch.tensor([1.1, 1.05, -1.06]), torch.linspace(-1, 1, 597)]).double() + 1
    A, done = planted(values), []
    spectrum = hessian_spectrum(
        A, density_products=12, trace_products=10, error=1e-5, max_products=40, progress=done.append
    )
    assert spectrum.products == sum(done)
    assert spectrum.converged  # 12 products would not do
    assert max(spectrum.lambda_max_residual, spectrum.lambda_min_residual) <= 1e-5 * 2.1
    assert spectrum.density.products > 30
    assert len(spectrum.density.nodes) == 3
    torch.testing.assert_close(spectrum.density.weights.sum(1), torch.ones(3, dtype=torch.float64))
    assert spectrum.trace.products == 40  # out of reach
    assert not hessian_spectrum(A, density_products=12).converged
    assert not hessian_spectrum(A, density_products=0, error=1e-5, max_products=20, trace_products=10).converged
    loose = hessian_spectrum(A, density_products=12, error=0.2, trace_products=20)
    assert loose.converged
    assert loose.trace.products == 20
    assert loose.trace.stderr <= 0.2 * loose.trace.value
    assert loose.products == 20 + 2 + loose.density.products


def test_a_plain_matrix_and_one_that_ends_early() -> None:
    spectrum = hessian_spectrum(
        torch.diag(torch.tensor([5.0, 5.0, 1.0, 0.0, 0.0, -2.0])), error=0.01, keep_vectors=True
    )
    assert (spectrum.samples, spectrum.batch_norm, spectrum.operator) == (0, "none", "hessian")
    assert spectrum.vectors.shape == (6, 2)
    assert spectrum.trace.value == pytest.approx(9.0)
    assert spectrum.trace.method == "exact"
    assert (spectrum.lambda_max, spectrum.lambda_min) == pytest.approx((5.0, -2.0))


@pytest.mark.parametrize(("largest", "edge", "ratio"), [(6.0, 2.0, 3.0), (6.0, -1.0, math.inf), (-2.0, -2.0, math.nan)])
def test_bulk_ratio(largest: float, edge: float, ratio: float) -> None:
    density = density_of([[largest, edge]] * 2, [[0.1, 0.9]] * 2, 10, 1)
    some = TraceEstimate(0.0, 0.0, torch.zeros(1), 0, "exact", 0)
    spectrum = Spectrum(largest, 0.0, edge, 0.0, True, some, density, 1, 10, "none")
    assert spectrum.bulk_ratio == pytest.approx(ratio, nan_ok=True)


def test_impossible_budgets() -> None:
    with pytest.raises(InputError, match="density_products=2 is too small"):
        hessian_spectrum(planted(VALUES), density_products=2)
    with pytest.raises(InputError, match="trace_products=1 is too small"):
        hessian_spectrum(planted(VALUES), trace_products=1)
    with pytest.raises(InputError, match="error must be positive"):
        hessian_spectrum(planted(VALUES), error=-1.0)
