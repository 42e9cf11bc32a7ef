"""Extreme eigenpairs by the Lanczos method, with their residuals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from landscape_lab.analysis.directions import sign_fixed
from landscape_lab.analysis.operators import Operator
from landscape_lab.errors import InputError

__all__ = ["Eigenpairs", "Krylov", "Ritz", "Which", "normal_vector", "ritz_eigenpairs", "top_eigenpairs"]

Which = Literal["LA", "SA", "BE", "LM"]

# What to rank the eigenvalues by: one score for each end that is asked for.
_SCORES: dict[str, tuple[Callable[[Tensor], Tensor], ...]] = {
    "LA": (lambda values: values,),
    "SA": (lambda values: -values,),
    "BE": (lambda values: values, lambda values: -values),
    "LM": (torch.abs,),
}


@dataclass(frozen=True, eq=False)
class Eigenpairs:
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
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    converged: tuple[bool, ...]
    products: int
    seed: int


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
    copies of converged eigenvalues appear. A basis of ``m`` vectors takes ``m P`` numbers of memory.

    Args:
        op: the operator.
        start: ``(P,)``, any length but zero.
        locked: ``(k, P)`` orthonormal rows to stay orthogonal to: the operator is then its own compression to
            their complement.
    """

    def __init__(self, op: Operator, start: Tensor, locked: Tensor | None = None) -> None:
        self._op = op
        self._locked = 0 if locked is None else len(locked)
        self._rows = start.new_empty(self._locked + 8, len(start))
        if locked is not None:
            self._rows[: self._locked] = locked
        self._scale = 0.0
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
        return self._locked + self.steps >= self._rows.shape[1]

    def restart(self, start: Tensor) -> None:
        """Go on from a new vector, after the space was exhausted; its part within the space is taken out."""
        self.segment = self.steps
        start, length = self._orthogonalised(start / start.norm(), self._locked + self.steps)
        self._append(start / length)

    def step(self) -> None:
        """Grow the space by one dimension, for one product."""
        count = self._locked + self.steps
        vector = self._rows[count]
        product = self._op @ vector
        self.alphas.append(float(vector @ product))
        self._scale = max(self._scale, float(product.norm()))
        rest, beta = self._orthogonalised(product, count + 1)
        # What rounding leaves of a vector within the space is a few eps long.
        if self.complete or beta <= 10 * torch.finfo(rest.dtype).eps * self._scale:
            self.betas.append(0.0)
        else:
            self.betas.append(beta)
            self._append(rest / beta)

    def run(self, steps: int, progress: Callable[[int], None] | None = None) -> Krylov:
        """Grow to ``steps`` dimensions, or until the space is exhausted."""
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
        basis = self._rows[self._locked : self._locked + self.steps]
        return coordinates.T.to(basis.device, basis.dtype) @ basis

    def _orthogonalised(self, vector: Tensor, count: int) -> tuple[Tensor, float]:
        rows = self._rows[:count]
        for _ in range(2):
            vector = torch.addmv(vector, rows.T, rows @ vector, alpha=-1)
        return vector, float(vector.norm())

    def _append(self, vector: Tensor) -> None:
        count = self._locked + self.steps
        if count == len(self._rows):
            grown = self._rows.new_empty(2 * count, self._rows.shape[1])
            grown[:count] = self._rows
            self._rows = grown
        self._rows[count] = vector


def top_eigenpairs(
    op: Operator,
    k: int = 1,
    *,
    which: Which = "LA",
    tolerance: float = 1e-3,
    max_products: int = 200,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Eigenpairs:
    r"""The extreme eigenpairs of a symmetric operator.

    The Krylov space of a random vector grows until for all wanted Ritz pairs the residual bound
    :math:`|\beta_m s_{mi}|` is at most ``tolerance`` times the largest :math:`|\lambda|`; the eigenvalue's
    own error is of second order in it. The residuals reported are then measured by products. From one
    starting vector a multiple eigenvalue is found once, unless the space becomes invariant: then the search
    goes on from a new vector until no eigenvalue outside is more extreme than those found.

    Args:
        op: the operator.
        k: how many.
        which: ``"LA"`` the largest, descending; ``"SA"`` the smallest, ascending; ``"BE"`` the ``k`` largest
            and then the ``k`` smallest, from one space; ``"LM"`` the largest in magnitude, descending.
        tolerance: relative residual to reach.
        max_products: products to stop after, converged or not.
        seed: of the starting vector.
        progress: called with 1 after each product.

    Raises:
        InputError: ``k`` or ``max_products`` does not fit.

    Reference: B. Parlett, *The symmetric eigenvalue problem*, SIAM 1998, chapter 13.
    """
    if which not in _SCORES:
        raise ValueError(f"which must be one of {', '.join(_SCORES)}, got {which!r}")
    if not 1 <= k <= op.shape[0]:
        raise InputError(f"k must lie between 1 and the number of parameters, {op.shape[0]}, got {k}")
    spare = max_products - k * len(_SCORES[which])
    if spare < k:
        raise InputError(f"max_products={max_products} is too small: {k} eigenpairs need {max_products - spare + k}")
    generator = torch.Generator().manual_seed(seed)
    krylov = Krylov(op, normal_vector(op, generator))
    while krylov.steps < spare and not _settled(krylov, k, which, tolerance):
        if krylov.exhausted:
            krylov.restart(normal_vector(op, generator))
        krylov.step()
        if progress:
            progress(1)
    return ritz_eigenpairs(op, krylov, k, which, tolerance, seed, progress)


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
    return Eigenpairs(
        values=values,
        vectors=rows.T.cpu(),
        residuals=residuals,
        converged=tuple(bool(flag) for flag in converged),
        products=krylov.steps + len(chosen),
        seed=seed,
    )


def normal_vector(op: Operator, generator: torch.Generator) -> Tensor:
    """A standard normal ``(P,)``, drawn on the CPU in float64: one seed, one vector, on any device."""
    return torch.randn(op.shape[0], generator=generator, dtype=torch.float64).to(op.device, op.dtype)


def _settled(krylov: Krylov, k: int, which: Which, tolerance: float) -> bool:
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
