"""Extreme eigenpairs by the Lanczos method, with their residuals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from scipy.special import betaincinv
from torch import Tensor

from landscape_lab.analysis.directions import sign_fixed
from landscape_lab.analysis.operators import Operator
from landscape_lab.errors import InputError
from landscape_lab.tabular import Tabular

__all__ = [
    "Eigenpairs",
    "Krylov",
    "Ritz",
    "Which",
    "normal_vector",
    "ritz_eigenpairs",
    "search_space",
    "settled",
    "top_eigenpairs",
]

Array = np.ndarray[Any, np.dtype[np.float64]]
Which = Literal["LA", "SA", "BE", "LM"]

# What to rank the eigenvalues by: one score for each end that is asked for.
_SCORES: dict[str, tuple[Callable[[Tensor], Tensor], ...]] = {
    "LA": (lambda values: values,),
    "SA": (lambda values: -values,),
    "BE": (lambda values: values, lambda values: -values),
    "LM": (torch.abs,),
}


@dataclass(frozen=True, eq=False)
class Eigenpairs(Tabular):
    """Eigenvalues and eigenvectors, each with the residual that was measured.

    An eigenvalue of the matrix lies within ``residuals[i]`` of ``values[i]``.

    Attributes:
        values: ``(k,)``, float64, in the order that was asked for; ``(2k,)`` for both ends.
        vectors: ``(P, k)`` orthonormal columns in the operator's dtype, the largest entry of each positive.
        residuals: ``(k,)``, float64, the norms of ``H v - value * v``, by one product each at the end.
        converged: whether each residual is at most ``tolerance`` times the largest magnitude of an
            eigenvalue.
        products: products with the operator that were spent, the residuals included.
        seed: the seed of the starting vector.
        upper: with a probability of 95 % no eigenvalue of the matrix is larger, see :meth:`Krylov.limits`.
        lower: with a probability of 95 % none is smaller.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    converged: tuple[bool, ...]
    products: int
    seed: int
    upper: float = math.nan
    lower: float = math.nan


@dataclass(frozen=True, eq=False)
class Ritz:
    """The eigenpairs of an operator's projection on a Krylov space of dimension ``m``, ascending.

    Attributes:
        values: ``(m,)``, float64.
        vectors: ``(m, m)``, columns, in the coordinates of the basis.
        bounds: ``(m,)``, the residual norms that the recurrence implies, without a product.
    """

    values: Tensor
    vectors: Tensor
    bounds: Tensor


class Krylov:
    """An orthonormal basis grown by one product at a time, in which the operator is tridiagonal.

    Every new vector is orthogonalised against all earlier ones, twice, by two matrix products: without that,
    copies of converged eigenvalues appear. A basis of ``m`` vectors takes ``m P`` numbers of memory, which is
    never copied: it grows by blocks of rows.

    Args:
        op: the operator.
        start: ``(P,)``, any length but zero.
        locked: ``(k, P)`` orthonormal rows to stay orthogonal to: the operator is then its own compression to
            their complement.
        share: the part of ``start`` that is random, as a fraction of its squared length: what :meth:`limits`
            trusts. The random part must be uniform in direction and independent of the operator and the rest.
    """

    def __init__(self, op: Operator, start: Tensor, locked: Tensor | None = None, *, share: float = 1.0) -> None:
        self._op = op
        self._size = len(start)
        self._locked = 0 if locked is None else len(locked)
        self._blocks: list[Tensor] = [] if locked is None else [locked]
        self._share = share
        self._scale = 0.0
        self._first = 0  # the dimension at which the first start vector's space ended
        self.alphas: list[float] = []
        self.betas: list[float] = []  # betas[j] couples vectors j and j + 1
        self.segment = 0  # where the latest start vector lies
        self.restart(start)

    @property
    def steps(self) -> int:
        """The dimension of the space, equal to the number of products spent."""
        return len(self.alphas)

    @property
    def exhausted(self) -> bool:
        """Whether the space is invariant: no further vector follows from it."""
        return bool(self.betas) and self.betas[-1] == 0

    @property
    def complete(self) -> bool:
        """Whether the space, with the locked vectors, is the whole space."""
        return self._locked + self.steps >= self._size

    def restart(self, start: Tensor) -> None:
        """Go on from a new vector, after the space was exhausted; its part within the space is taken out."""
        self._first = self._first or self.steps
        self.segment = self.steps
        start, length = self._orthogonalised(start / start.norm(), self._locked + self.steps)
        self._append(start / length)

    def step(self) -> None:
        """Grow the space by one dimension, for one product."""
        count = self._locked + self.steps
        vector = self._row(count)
        product = self._op @ vector
        self.alphas.append(float(vector @ product))
        self._scale = max(self._scale, float(product.norm()))
        rest, beta = self._orthogonalised(product, count + 1)
        if self.complete or beta <= self._rounding(rest.dtype):
            self.betas.append(0.0)
        else:
            self.betas.append(beta)
            self._append(rest / beta)

    def run(self, steps: int, progress: Callable[[int], None] | None = None) -> Krylov:
        """Grow to ``steps`` dimensions, or until the space is exhausted."""
        # A step appends the vector of the next one.
        self._reserve(min(self._locked + steps + 1, self._size))
        while self.steps < steps and not self.exhausted:
            self.step()
            if progress:
                progress(1)
        return self

    def ritz(self, first: int = 0) -> Ritz:
        """The Ritz pairs of the basis vectors from ``first`` on."""
        alphas, betas = np.array(self.alphas[first:]), np.array(self.betas[first:])
        values, vectors = (torch.from_numpy(part) for part in eigh_tridiagonal(alphas, betas[:-1]))
        return Ritz(values, vectors, (betas[-1] * vectors[-1]).abs())

    def lifted(self, coordinates: Tensor) -> Tensor:
        """Vectors ``(m, k)`` in the coordinates of the basis as ``(k, P)`` orthonormal rows."""
        some = self._blocks[0]
        rows = coordinates.T.to(some.device, some.dtype)
        result = some.new_zeros(len(rows), self._size)
        for place, block in self._rows(self._locked, self._locked + self.steps):
            at = place - self._locked
            result.addmm_(rows[:, at : at + len(block)], block)
        return result

    def complement(self, columns: Tensor) -> Tensor:
        """``(P, K)`` columns less their part within the space (locked vectors included)."""
        for _ in range(2):
            for _, block in self._rows(0, self._locked + self.steps):
                columns = torch.addmm(columns, block.T, block @ columns, alpha=-1)
        return columns

    def limits(self, level: float = 0.95) -> tuple[float, float]:
        r"""Bounds on all eigenvalues of the operator, each of which holds with a probability of ``level``.

        A unit eigenvector :math:`u` of an eigenvalue :math:`\lambda` has :math:`\langle q_j, u \rangle =
        p_j(\lambda) \, \langle q_0, u \rangle` with the basis vectors :math:`q_j`, where :math:`p_j` are the
        orthonormal polynomials of the recurrence; as :math:`\sum_j \langle q_j, u \rangle^2 \le 1`,

        .. math:: \langle q_0, u \rangle^2 \le 1 / K_m(\lambda), \qquad
                  K_m(\lambda) = \sum_{j=0}^{m} p_j(\lambda)^2 .

        For the random start :math:`q_0` the left side follows Beta(1/2, (P - 1)/2). With ``q`` its 5 % point,
        :math:`K_m(\lambda_{\max}) \le 1/q` therefore has a probability of at least 95 %, and :math:`K_m` grows
        beyond the largest Ritz value. The bound fails in at most one case of twenty: where the start has too small a
        part of the eigenvector, which the residual mostly shows. Where only a share ``f`` of the squared length is
        random, the point is ``f q``: a symmetric unimodal law is most concentrated at zero when it is centred there
        (Anderson).

        Returns:
            The lower bound and the upper one, ten roundings of the largest magnitude beyond the roots.

        Raises:
            ValueError: vectors are locked.

        Reference: J. van Dorsselaer, M. Hochstenbach, H. van der Vorst, *Computing probabilistic bounds for
        extreme eigenvalues of symmetric matrices with the Lanczos method*, SIAM J. Matrix Anal. Appl. 2000,
        who use :math:`p_m` alone; the sum is sharper.
        """
        if self._locked:
            raise ValueError("limits are for a space without locked vectors")
        if not self.steps:
            return -math.inf, math.inf
        rounding = self._rounding(self._blocks[0].dtype)
        values = self.ritz().values
        low, high = float(values[0]) - rounding, float(values[-1]) + rounding
        # After a restart the first vector's space is the only one whose start is random in the whole space.
        first = self._first or self.steps
        if rounding == 0 or first >= self._size:
            return low, high
        point = float(betaincinv(0.5, (self._size - 1) / 2, 1 - level)) * self._share
        alphas, betas = np.array(self.alphas[:first]), np.array(self.betas[:first])
        # Where the space ended, the vector that would have followed was shorter than this, not zero.
        betas[-1] = betas[-1] or rounding
        upper = _christoffel_root(alphas, betas, point, rounding)
        lower = -_christoffel_root(-alphas, betas, point, rounding)
        return min(low, lower - rounding), max(high, upper + rounding)

    def _rounding(self, dtype: torch.dtype) -> float:
        """What rounding leaves of a vector within the space is a few eps long."""
        return 10 * torch.finfo(dtype).eps * self._scale

    def _orthogonalised(self, vector: Tensor, count: int) -> tuple[Tensor, float]:
        for _ in range(2):
            for _, rows in self._rows(0, count):
                vector = torch.addmv(vector, rows.T, rows @ vector, alpha=-1)
        return vector, float(vector.norm())

    def _rows(self, first: int, last: int) -> Iterator[tuple[int, Tensor]]:
        """The rows from ``first`` to before ``last``, block by block, each with the place of its first row."""
        place = 0
        for block in self._blocks:
            start, stop = max(first - place, 0), min(last - place, len(block))
            if start < stop:
                yield place + start, block[start:stop]
            place += len(block)

    def _row(self, index: int) -> Tensor:
        ((_, rows),) = self._rows(index, index + 1)
        return rows[0]

    def _append(self, vector: Tensor) -> None:
        count = self._locked + self.steps
        if count == sum(map(len, self._blocks)):
            # A quarter more: few blocks, and little memory in vain.
            self._blocks.append(vector.new_empty(min(max(8, count // 4), self._size - count), self._size))
        self._row(count).copy_(vector)

    def _reserve(self, count: int) -> None:
        missing = count - sum(map(len, self._blocks))
        if missing > 0:
            self._blocks.append(self._blocks[0].new_empty(missing, self._size))


def _christoffel_root(alphas: Array, betas: Array, point: float, smallest: float) -> float:
    """Where the Christoffel function, beyond the largest Ritz value, equals ``1 / point``."""
    edge = float(eigh_tridiagonal(alphas, betas[:-1], eigvals_only=True)[-1])
    target = -math.log(point)
    steps = list(zip(alphas.tolist(), betas.tolist(), strict=True))
    low, high = 0.0, smallest
    while _log_christoffel(steps, edge + high) < target:
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        if _log_christoffel(steps, edge + middle) < target:
            low = middle
        else:
            high = middle
    return edge + high


def _log_christoffel(steps: list[tuple[float, float]], at: float) -> float:
    """The logarithm of ``K_m``, beyond the largest Ritz value, from the ratios of successive polynomials."""
    ratio, before = math.inf, 0.0
    logs = [0.0]
    for alpha, beta in steps:
        ratio = (at - alpha - before / ratio) / beta
        if ratio <= 0:  # rounding: the polynomials are positive there, but for this close to the Ritz value
            return -math.inf
        logs.append(logs[-1] + 2 * math.log(ratio))
        before = beta
    largest = max(logs)
    return largest + math.log(sum(math.exp(value - largest) for value in logs))


def top_eigenpairs(
    op: Operator,
    k: int = 1,
    *,
    which: Which = "LA",
    tolerance: float = 1e-3,
    max_products: int = 200,
    start: Tensor | None = None,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Eigenpairs:
    r"""The extreme eigenpairs of a symmetric operator.

    The Krylov space of a random vector grows until for all wanted Ritz pairs the residual bound
    :math:`|\beta_m s_{mi}|` is at most ``tolerance`` times the largest :math:`|\lambda|`; the eigenvalue's
    own error is of second order in it. The residuals reported are then measured by products. From one
    starting vector a multiple eigenvalue is found once, unless the space becomes invariant: then the search
    goes on from a new vector until no eigenvalue outside is more extreme than those found. Between the largest
    eigenvalue found and ``upper`` lies the largest one that there is, with a probability of 95 %.

    Args:
        op: the operator.
        k: how many.
        which: ``"LA"`` the largest, descending; ``"SA"`` the smallest, ascending; ``"BE"`` the ``k`` largest
            and then the ``k`` smallest, from one space; ``"LM"`` the largest in magnitude, descending.
        tolerance: relative residual to reach.
        max_products: products to stop after, converged or not.
        start: ``(P,)`` or ``(P, n)``, vectors near those wanted, as of an earlier checkpoint. Half of the starting
            vector (in squared length) is their sum, half is random: a wrong guess cannot hide an eigenvalue.
        seed: of the starting vector.
        progress: called with 1 after each product.

    Raises:
        InputError: ``k``, ``max_products`` or ``start`` does not fit.

    Reference: B. Parlett, *The symmetric eigenvalue problem*, SIAM 1998, chapter 13.
    """
    krylov = search_space(op, k, which, tolerance, max_products, start, seed, progress)
    return ritz_eigenpairs(op, krylov, k, which, tolerance, seed, progress)


def search_space(
    op: Operator,
    k: int,
    which: Which,
    tolerance: float,
    max_products: int,
    start: Tensor | None,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> Krylov:
    """The space in which :func:`top_eigenpairs` finds the wanted pairs; their residuals are still to be paid for."""
    if which not in _SCORES:
        raise ValueError(f"which must be one of {', '.join(_SCORES)}, got {which!r}")
    if not 1 <= k <= op.shape[0]:
        raise InputError(f"k must lie between 1 and the number of parameters, {op.shape[0]}, got {k}")
    spare = max_products - k * len(_SCORES[which])
    if spare < k:
        raise InputError(f"max_products={max_products} is too small: {k} eigenpairs need {max_products - spare + k}")
    generator = torch.Generator().manual_seed(seed)
    krylov = _started(op, start, generator)
    while krylov.steps < spare and not settled(krylov, k, which, tolerance):
        if krylov.exhausted:
            krylov.restart(normal_vector(op, generator))
        krylov.step()
        if progress:
            progress(1)
    return krylov


def ritz_eigenpairs(
    op: Operator,
    krylov: Krylov,
    k: int,
    which: Which,
    tolerance: float,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> Eigenpairs:
    """The wanted pairs of a Krylov space as it stands; measuring their residuals takes a product each."""
    ritz = krylov.ritz()
    chosen = torch.cat([score(ritz.values).argsort(descending=True, stable=True)[:k] for score in _SCORES[which]])
    values = ritz.values[chosen]
    rows = sign_fixed(krylov.lifted(ritz.vectors[:, chosen]))
    differences = op @ rows.T - rows.T * values.to(rows)
    if progress:
        progress(len(chosen))
    residuals = differences.norm(dim=0).double().cpu()
    converged = residuals <= tolerance * ritz.values.abs().max()
    lower, upper = krylov.limits()
    return Eigenpairs(
        values=values,
        vectors=rows.T.cpu(),
        residuals=residuals,
        converged=tuple(bool(flag) for flag in converged),
        products=krylov.steps + len(chosen),
        seed=seed,
        upper=upper,
        lower=lower,
    )


def normal_vector(op: Operator, generator: torch.Generator) -> Tensor:
    """A standard normal ``(P,)``, drawn on the CPU in float64: one seed, one vector, on any device."""
    return torch.randn(op.shape[0], generator=generator, dtype=torch.float64).to(op.device, op.dtype)


def _started(op: Operator, warm: Tensor | None, generator: torch.Generator) -> Krylov:
    random = normal_vector(op, generator)
    if warm is None:
        return Krylov(op, random)
    if warm.shape[:1] != op.shape[:1] or warm.dim() > 2:
        raise InputError(f"start must be ({op.shape[0]},) or ({op.shape[0]}, n), got {tuple(warm.shape)}")
    warm = warm.to(random)
    if warm.dim() == 2:
        warm = warm.sum(1)
    length = float(warm.norm())
    if not 0 < length < math.inf:
        raise InputError(f"start must be finite and not zero, but its length is {length}")
    start = warm / length + random / random.norm()
    return Krylov(op, start, share=1 / float(start.norm()) ** 2)


def settled(krylov: Krylov, k: int, which: Which, tolerance: float) -> bool:
    """Whether the wanted pairs have converged, and nothing outside of the space is more extreme."""
    if krylov.steps < k:
        return False
    if krylov.complete:
        return True
    ritz = krylov.ritz()
    # Nine tenths leave room for rounding between the bound and the residual measured at the end.
    limit = 0.9 * tolerance * float(ritz.values.abs().max())
    for score in _SCORES[which]:
        order = score(ritz.values).argsort(descending=True)
        if (ritz.bounds[order[:k]] > limit).any():
            return False
        if krylov.segment == 0:
            if krylov.exhausted:  # eigenvalues of the rest of the space may be as extreme
                return False
            continue
        # The latest start vector knows nothing of what was found before it: once its own extreme value has
        # converged and is no better than the k-th, the complement holds nothing better either.
        outside = krylov.ritz(krylov.segment)
        extreme = score(outside.values).argmax()
        excess = score(outside.values)[extreme] - score(ritz.values)[order[k - 1]]
        if outside.bounds[extreme] > limit or excess > 1e-9 * limit:  # the excess over itself is rounding
            return False
    return True
