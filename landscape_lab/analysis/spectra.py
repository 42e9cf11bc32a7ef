"""The distribution of an operator's eigenvalues: outliers one by one, the bulk by quadrature."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from landscape_lab.analysis.estimates import (
    DataError,
    Estimate,
    clipped,
    linearised_estimate,
    mean_estimate,
)
from landscape_lab.analysis.lanczos import Krylov, normal_vector, ritz_eigenpairs, search_space, settled
from landscape_lab.analysis.operators import Operator
from landscape_lab.analysis.trace import TraceEstimate, deflated_trace
from landscape_lab.errors import InputError
from landscape_lab.tabular import Tabular

__all__ = ["SpectralDensity", "Spectrum", "hessian_spectrum", "spectral_density"]

Row = tuple[Tensor, Tensor]  # one probe's nodes and weights

# The quadrature tells a probe's variance about as well as so many further probes. Measured with 0, 4, 6 and 8: wide
# intervals become shorter by a third and more, and hold the truth as often.
_PRIOR = 8

# To reach a tolerance at the ends of a spectrum, a Krylov space grows to so many dimensions; each takes a vector.
_END_STEPS = 200


@dataclass(frozen=True, eq=False)
class SpectralDensity(Tabular):
    """The eigenvalue distribution as seen by each of several random probes.

    What it says about the spectrum as a whole (:meth:`moment`, :meth:`negative_mass`, ...) comes with a 95 % interval
    over the probes by Student's distribution, where the spread between the few probes is pooled with the variance
    that a random vector has on such a spectrum, and the interval is as skewed as it makes them. A single probe has no
    error: ``nan``.

    Attributes:
        nodes: ``(probes, m)``, float64, eigenvalues.
        weights: ``(probes, m)``, fractions of all eigenvalues, each row summing to 1; padding has weight 0.
        size: the number of eigenvalues ``P``.
        products: products with the operator that were spent.
        method: ``"deflated"`` or ``"slq"``.
        seed: the seed of the probes.
        outliers: how many eigenvalues were found one by one; the first nodes of every row, of weight ``1 /
            P``.
    """

    nodes: Tensor
    weights: Tensor
    size: int
    products: int
    method: str
    seed: int
    outliers: int = 0

    def on_grid(self, grid: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor]:
        """The density smoothed by a Gaussian, and its standard error over the probes.

        Args:
            grid: ``(n,)`` points.
            sigma: the Gaussian's standard deviation; a tensor ``(n,)`` for one at each point.

        Returns:
            Two ``(n,)`` float64 tensors; the standard error is ``nan`` for a single probe.
        """
        grid = grid.double().cpu()
        sigma = torch.as_tensor(sigma, dtype=torch.float64)
        if not (sigma > 0).all():
            raise ValueError(f"sigma must be positive, got {float(sigma.min())}")
        scale = sigma * math.sqrt(2 * math.pi)
        curves = torch.stack(
            [
                torch.exp(-0.5 * ((grid[:, None] - nodes) / sigma.reshape(-1, 1)).square()) @ weights / scale
                for nodes, weights in zip(self.nodes, self.weights, strict=True)
            ]
        )
        return curves.mean(0), _stderr(curves)

    def moment(self, k: int) -> Estimate:
        r"""The mean ``k``-th power of the eigenvalues, :math:`\int \lambda^k`; the first is the trace over ``P``."""
        powers = self.nodes**k
        return self._estimate(float(self._integrals(powers).mean()), powers)

    def negative_mass(self) -> Estimate:
        r"""The share of the absolute curvature that is negative.

        .. math:: \int \max(-\lambda, 0) \Big/ \int |\lambda|

        Eigenvalues near zero, whose sign nothing can tell, add next to nothing: this is the number to report of a
        spectrum's negative side. ``nan`` where all eigenvalues are zero.
        """
        negative, absolute = (-self.nodes).clamp(min=0), self.nodes.abs()
        whole = self._integrals(absolute).mean()
        share = self._integrals(negative).mean() / whole
        return clipped(self._estimate(float(share), (negative - share * absolute) / whole), 0.0, 1.0)

    def negative_fraction(self) -> Estimate:
        r"""How many of the eigenvalues are negative, as a fraction of ``P``: a bracket, and usually a wide one.

        A Gauss quadrature tells its measure's share below zero only to within the weights of zero's two neighbours:
        the share is at least the weights of all nodes below without the last, and at most those of all nodes below
        and the next one (Chebyshev, Markov, Stieltjes). ``low`` and ``high`` are these bounds, averaged over the
        probes and moved outwards by Student's interval; ``value`` is the middle between the averages, ``stderr``
        the standard error of the middle. Most eigenvalues of a network are nearly zero, where one node stands for
        most of the weight: at 25 steps the bracket spans 0.6 to 0.9 of everything. Report :meth:`negative_mass`.

        Reference: G. Szegő, *Orthogonal polynomials*, AMS 1975, section 3.41.
        """
        rows = zip(self.nodes, self.weights, strict=True)
        bounds = torch.tensor([self._below_zero(*row) for row in rows], dtype=torch.float64)
        below, above, middle = (mean_estimate(part) for part in (bounds[:, 0], bounds[:, 1], bounds.mean(1)))
        return clipped(Estimate(middle.value, middle.stderr, below.low, above.high), 0.0, 1.0)

    def effective_rank(self) -> Estimate:
        r"""How many eigenvalues of one magnitude would have the same first and second absolute moments.

        .. math:: \Big(\sum_i |\lambda_i|\Big)^2 \Big/ \sum_i \lambda_i^2
                  = P \, \Big(\int |\lambda|\Big)^2 \Big/ \int \lambda^2

        The error is to first order in the two integrals (delta method). ``nan`` where all eigenvalues are zero.
        """
        absolute, square = self.nodes.abs(), self.nodes.square()
        first, second = self._integrals(absolute).mean(), self._integrals(square).mean()
        rank = self.size * first**2 / second
        return clipped(self._estimate(float(rank), rank * (2 * absolute / first - square / second)), 1.0, self.size)

    def bulk_edge(self) -> float:
        """The largest eigenvalue that is no positive outlier.

        Of the eigenvalues that were found one by one above everything else, and the next below them, the outliers
        are those before the largest relative gap. Where none was found so, the edge is the largest node. ``nan`` for
        ``"slq"``, which finds none one by one.
        """
        return self._bulk()[0]

    def bulk_outliers(self) -> int:
        """The number of eigenvalues above :meth:`bulk_edge`."""
        return self._bulk()[1]

    def _integrals(self, values: Tensor) -> Tensor:
        return (self.weights * values).sum(1)

    def _estimate(self, value: float, influence: Tensor) -> Estimate:
        r"""A number whose change, to first order, is the integral of ``influence``, given at the nodes as ``g``.

        What a probe sees of it, uniform among the unit vectors of a ``d``-dimensional space, has the variance
        :math:`2 \mu_2 / (d + 2)` and nearly the skewness :math:`\sqrt{8 / d} \, \mu_3 / \mu_2^{3/2}`, with the
        central moments :math:`\mu` of ``g`` over that space's eigenvalues. The quadrature tells them.
        """
        rest = self.weights[:, self.outliers :]
        dimension = self.size - self.outliers
        variance = skewness = 0.0
        if dimension:
            shares = rest / rest.sum()
            bulk = influence[:, self.outliers :]
            bulk = bulk - (shares * bulk).sum()
            second, third = (float((shares * bulk**power).sum()) for power in (2, 3))
            variance = (dimension / self.size) ** 2 * 2 / (dimension + 2) * second
            if second > 0:
                skewness = math.sqrt(8 / dimension) * third / second**1.5
        samples = self._integrals(influence)
        return linearised_estimate(value, samples, variance=variance, skewness=skewness, weight=_PRIOR)

    def _below_zero(self, nodes: Tensor, weights: Tensor) -> tuple[float, float]:
        """Bounds on the share of negative eigenvalues by one row: outliers are counted, the rest is a quadrature."""
        # The sign of an outlier this small may be rounding, in single precision.
        tiny = 1e-6 * float(self.nodes.abs().max())
        known = nodes[: self.outliers]
        low, high = (float((known < bound).sum()) / self.size for bound in (-tiny, tiny))
        real = weights[self.outliers :] > 0  # no padding
        rest, order = nodes[self.outliers :][real].sort()
        cumulative = torch.cat([weights.new_zeros(1), weights[self.outliers :][real][order].cumsum(0)])
        below = int((rest < 0).sum())
        return low + float(cumulative[max(below - 1, 0)]), high + float(cumulative[min(below + 1, len(rest))])

    def _bulk(self) -> tuple[float, int]:
        if self.method == "slq":
            return math.nan, 0
        # What is below rounding is no eigenvalue to be a multiple of.
        floor = 1e-12 * float(self.nodes.abs().max())
        rest = self.nodes[:, self.outliers :][self.weights[:, self.outliers :] > 0].tolist()
        known = self.nodes[0, : self.outliers].tolist()
        edge = max([floor, *rest])
        ladder = sorted((value for value in known if value > edge), reverse=True)
        below = [*rest, *(value for value in known if value <= edge)]
        if below:
            ladder.append(max(below))
        gaps = [upper / max(lower, floor) for upper, lower in itertools.pairwise(ladder)]
        split = gaps.index(max(gaps)) + 1 if gaps else 0
        return ladder[split], split


def _stderr(samples: Tensor) -> Tensor:
    """The standard error of the mean over the first dimension."""
    if len(samples) < 2:
        return torch.full_like(samples[0], torch.nan)
    return samples.std(0).div(len(samples) ** 0.5)


def spectral_density(
    op: Operator,
    *,
    products: int = 100,
    probes: int | None = None,
    method: Literal["deflated", "slq"] = "deflated",
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> SpectralDensity:
    r"""Estimate the density of eigenvalues :math:`\frac1P \sum_i \delta(\lambda - \lambda_i)`.

    ``"slq"`` is stochastic Lanczos quadrature: a random unit vector sees the eigenvalues with weights whose
    mean is :math:`1/P`, and its Krylov space of ``m`` steps gives the Gauss quadrature :math:`\sum_j s_{1j}^2
    \, \delta(\lambda - \theta_j)` of that measure. With few probes the weights of the few large eigenvalues
    carry most of the error.

    ``"deflated"`` spends 60 % of the products on one deep Krylov space. Its converged Ritz pairs (the
    outliers) get their exact weight :math:`1/P`, the rest of its quadrature is rescaled to the rest of the
    weight, :math:`(P - k)/P`, and is the first probe. Further probes are projected onto the outliers'
    complement, so that their quadratures see the bulk alone. Measured on the Hessians of five small networks
    over all samples, a head class and a tail class (1,362 to 2,902 parameters, float32, 8 seeds; the median
    Wasserstein-1 error in units of the spectrum's span, and the median error of the trace that the density
    implies):

    ======================  ========  ===========  =====
    method                  products  Wasserstein  trace
    ======================  ========  ===========  =====
    deflated                     100       1.7e-4    3 %
    deflated, probes=1           100       1.0e-4    2 %
    slq, probes=1                100       7.9e-4   36 %
    slq, probes=10               500       3.9e-4   14 %
    ======================  ========  ===========  =====

    A single deep probe is the nearest, but has no standard error. Which pairs converge depends a little on the
    deep space's own start vector, which biased the implied trace by -0.8 %; for the trace itself use
    :func:`~landscape_lab.analysis.trace.trace`.

    Args:
        op: the operator.
        products: the number of products to spend at most.
        probes: rows of the result (default 3 for ``"deflated"``, 4 for ``"slq"``). Two give a first standard
            error.
        method: ``"deflated"`` or ``"slq"``.
        seed: of the probes.
        progress: called with 1 after each product.

    Raises:
        InputError: fewer products than probes.

    Reference: S. Ubaru, J. Chen, Y. Saad, *Fast estimation of tr(f(A)) via stochastic Lanczos quadrature*,
    SIAM J. Matrix Anal. Appl. 2017; for deflation V. Papyan, *Measurements of three-level hierarchical
    structure in the outliers in the spectrum of deepnet Hessians*, ICML 2019, arXiv:1901.08244.
    """
    if method not in ("deflated", "slq"):
        raise ValueError(f"method must be 'deflated' or 'slq', got {method!r}")
    probes = probes or (3 if method == "deflated" else 4)
    if not 1 <= probes <= products:
        raise InputError(f"{products} products are too few for {probes} probes: give more of them, or fewer probes")
    generator = torch.Generator().manual_seed(seed)
    if method == "slq":
        rows, spent = _probes(op, probes, products // probes, None, generator, progress)
        return _density(op, rows, spent, method, seed)
    steps = _deep_steps(products, probes)
    deep = _split(Krylov(op, normal_vector(op, generator)).run(steps, progress), op.shape[0], products, probes)
    return _deflated(op, deep, products, probes, seed, generator, progress)


def _deep_steps(products: int, probes: int) -> int:
    return products if probes == 1 else max(1, min(products * 3 // 5, products - probes + 1))


class _Deep(NamedTuple):
    """What a deep Krylov space says about the spectrum."""

    known: Row  # the outliers
    locked: Tensor  # their vectors, as rows
    seen: Row  # the quadrature of the rest, its weights summing to 1; empty if nothing is left
    steps: int


def _split(krylov: Krylov, size: int, products: int, probes: int) -> _Deep:
    ritz, steps = krylov.ritz(), krylov.steps
    weights = ritz.vectors[0].square()
    # An outlier is told apart from its neighbours: its residual is small beside the distance to them. Of the
    # factors 0.1, 0.3, 1 and 2 the second was the largest that cost no more bias, on the spectra above.
    edges = torch.full((1,), torch.inf, dtype=torch.float64)
    gaps = torch.cat([edges, ritz.values.diff(), edges])
    converged = ritz.bounds <= 0.3 * torch.minimum(gaps[:-1], gaps[1:])
    # A single eigenvector's share of a random vector is chi-squared / P: beyond 20 / P (once in 1e5) it is a
    # cluster, whose weight the quadrature knows better.
    converged &= weights <= 20 / size
    if converged.all() and steps < size and products - steps < probes:
        converged.zero_()  # too few products are left for looking at the complement
    known = ritz.values[converged], torch.full((int(converged.sum()),), 1 / size, dtype=torch.float64)
    seen = ritz.values[~converged], weights[~converged] / weights[~converged].sum()
    return _Deep(known, krylov.lifted(ritz.vectors[:, converged]), seen, steps)


def _deflated(
    op: Operator,
    deep: _Deep,
    products: int,
    probes: int,
    seed: int,
    generator: torch.Generator,
    progress: Callable[[int], None] | None,
) -> SpectralDensity:
    """The density from a deep Krylov space, and from probes on the complement of what converged there."""
    size, outliers = op.shape[0], len(deep.locked)
    if outliers == size:  # the whole spectrum is known, and every probe would see the same
        return _density(op, [deep.known] * probes, deep.steps, "deflated", seed, outliers)
    rows = [deep.seen] if len(deep.seen[0]) else []
    further = probes - len(rows)
    spent = 0
    if further:
        steps = (products - deep.steps) // further
        others, spent = _probes(op, further, steps, deep.locked, generator, progress)
        rows += others
    rest = (size - outliers) / size
    values, shares = deep.known
    rows = [(torch.cat([values, nodes]), torch.cat([shares, rest * weights])) for nodes, weights in rows]
    return _density(op, rows, deep.steps + spent, "deflated", seed, outliers)


def _probes(
    op: Operator,
    count: int,
    steps: int,
    locked: Tensor | None,
    generator: torch.Generator,
    progress: Callable[[int], None] | None,
) -> tuple[list[Row], int]:
    """The quadratures of ``count`` random vectors of ``steps`` products each, and the products spent."""
    rows, spent = [], 0
    for _ in range(count):
        krylov = Krylov(op, normal_vector(op, generator), locked).run(steps, progress)
        ritz = krylov.ritz()
        rows.append((ritz.values, ritz.vectors[0].square()))
        spent += krylov.steps
    return rows, spent


def _density(
    op: Operator, rows: list[Row], products: int, method: str, seed: int, outliers: int = 0
) -> SpectralDensity:
    """Rows of unequal length as one table; the padding repeats a node, with weight 0."""
    width = max(len(nodes) for nodes, _ in rows)
    nodes = torch.stack([torch.cat([row, row[-1:].expand(width - len(row))]) for row, _ in rows])
    weights = torch.stack([torch.cat([row, row.new_zeros(width - len(row))]) for _, row in rows])
    return SpectralDensity(nodes, weights, op.shape[0], products, method, seed, outliers)


@dataclass(frozen=True, eq=False)
class Spectrum(Tabular):
    """What the Hessian of one set of samples looks like.

    Attributes:
        lambda_max: the largest eigenvalue found.
        lambda_max_residual: the norm of ``H v - lambda v`` for it: an eigenvalue lies that near.
        lambda_min: the smallest eigenvalue found; negative at a saddle.
        lambda_min_residual: as above.
        converged: whether both residuals are at most the tolerance (1e-3 by default) times the largest magnitude.
        trace: the trace, with its standard error.
        density: the distribution of eigenvalues, if it was asked for.
        samples: the number of samples the loss is averaged over; 0 if the operator does not say.
        parameters: ``P``.
        batch_norm: how BatchNorm normalised; ``"none"`` if the operator does not say.
        operator: the operator's name.
        lambda_max_upper: the largest eigenvalue that there is lies between ``lambda_max`` and this, with a
            probability of 95 %.
        lambda_min_lower: the smallest one lies between this and ``lambda_min``, likewise.
        products: all products that were spent; those for a trace that was given are not counted.
        vectors: ``(P, 2)``, the eigenvectors of ``lambda_max`` and ``lambda_min``, if they were to be kept.
        data: the errors from the draw of the samples, if they were asked for.
    """

    lambda_max: float
    lambda_max_residual: float
    lambda_min: float
    lambda_min_residual: float
    converged: bool
    trace: TraceEstimate
    density: SpectralDensity | None
    samples: int
    parameters: int
    batch_norm: str
    operator: str = "hessian"
    lambda_max_upper: float = math.nan
    lambda_min_lower: float = math.nan
    products: int = 0
    vectors: Tensor | None = None
    data: DataError | None = None

    @property
    def bulk_ratio(self) -> float:
        """``lambda_max`` over the density's bulk edge; ``nan`` without a density, infinite if no bulk is positive."""
        edge = self.density.bulk_edge() if self.density else math.nan
        if math.isnan(edge) or edge > 0:
            return self.lambda_max / edge
        return math.inf if self.lambda_max > 0 else math.nan


def hessian_spectrum(
    op: Operator,
    *,
    trace_products: int = 30,
    density_products: int = 100,
    trace_estimate: TraceEstimate | None = None,
    error: float | None = None,
    max_products: int = 2000,
    start: Tensor | None = None,
    keep_vectors: bool = False,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Spectrum:
    """Measure the extreme eigenvalues, the trace and the density of a Hessian, or of any operator.

    One Krylov space serves all three. It is the density's deep space; its ends are the spectrum's, whose residuals
    take two products more; and the trace on it is known, so that the trace's products all see what lies outside.
    On the Hessians of :func:`~landscape_lab.analysis.trace.trace`, 30 products so give the trace a median error of
    0.9 % instead of 3.0 %.

    Args:
        op: the operator.
        trace_products: test vectors for the trace, two at least.
        density_products: see :func:`spectral_density`. With 0 there is no density, and the space only grows until
            both ends have converged.
        trace_estimate: the trace, where it is known already: nothing is spent on it.
        error: the standard error of the trace to reach, relative to the trace, and the residual of both ends to
            reach, relative to the largest magnitude (1e-3 by default, but then the density's space does not grow
            for it). The trace spends at most ``max_products``; the space, each dimension of which takes a vector of
            memory, grows to at most 200.
        max_products: see ``error``.
        start: vectors near those of the ends, ``(P, 2)``, as of an earlier checkpoint. Not used where there is a
            density, whose first vector must be random.
        keep_vectors: whether the result has the eigenvectors of both ends.
        seed: of all random vectors.
        progress: called with the number of products just done; ``trace_products + density_products + 2`` in
            all, or fewer, unless ``error`` asks for more.

    Raises:
        InputError: the products or ``error`` do not fit.
    """
    probes = 3
    if density_products and density_products < probes:
        raise InputError(f"density_products={density_products} is too small: {probes} probes need one each (0: none)")
    if trace_estimate is None and trace_products < 2:
        raise InputError(f"trace_products={trace_products} is too small: a standard error needs 2")
    tolerance = 1e-3 if error is None else error
    generator = torch.Generator().manual_seed(seed)
    budget = density_products
    if density_products:
        steps = _deep_steps(density_products, probes)
        krylov = Krylov(op, normal_vector(op, generator)).run(steps, progress)
        if error is not None:
            while krylov.steps < _END_STEPS and not krylov.exhausted and not settled(krylov, 1, "BE", tolerance):
                krylov.step()
                if progress:
                    progress(1)
            budget += max(0, krylov.steps - steps)
    else:
        krylov = search_space(op, 1, "BE", tolerance, min(_END_STEPS, max_products), start, seed, progress)
    ends = ritz_eigenpairs(op, krylov, 1, "BE", tolerance, seed, progress)
    products = ends.products
    if trace_estimate is None:
        trace_estimate = deflated_trace(
            op,
            krylov,
            probes=trace_products,
            error=error,
            max_products=max_products,
            seed=seed,
            generator=_independent(seed),
            progress=progress,
        )
        products += trace_estimate.products
    density = None
    if density_products:
        deep = _split(krylov, op.shape[0], budget, probes)
        del krylov  # it holds a vector for each of its steps
        density = _deflated(op, deep, budget, probes, seed, generator, progress)
        products += density.products - deep.steps
    largest, smallest = ends.values.tolist()
    residual_largest, residual_smallest = ends.residuals.tolist()
    return Spectrum(
        lambda_max=largest,
        lambda_max_residual=residual_largest,
        lambda_min=smallest,
        lambda_min_residual=residual_smallest,
        converged=all(ends.converged),
        trace=trace_estimate,
        density=density,
        samples=getattr(op, "samples", 0),
        parameters=op.shape[0],
        batch_norm=getattr(op, "batch_norm", "none"),
        operator=getattr(op, "name", "hessian") or "hessian",
        lambda_max_upper=ends.upper,
        lambda_min_lower=ends.lower,
        products=products,
        vectors=ends.vectors if keep_vectors else None,
    )


def _independent(seed: int) -> torch.Generator:
    """Numbers independent of those of a generator of the same seed, from which the Krylov space's start is drawn."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence((abs(seed), 1)).generate_state(1)[0]))
