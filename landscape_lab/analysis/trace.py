"""The trace of an operator from a few products, with its standard error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from landscape_lab.analysis.operators import Operator
from landscape_lab.errors import InputError

__all__ = ["TraceEstimate", "trace"]

BLOCK = 8  # columns multiplied at a time, which share a forward pass


@dataclass(frozen=True, eq=False)
class TraceEstimate:
    """A trace and how far to trust it.

    Attributes:
        value: the mean of ``samples``.
        stderr: its standard error; zero if the trace is exact.
        samples: ``(m,)``, float64, the individual estimates.
        products: products with the operator that were spent.
        method: ``"xtrace"``, ``"hutchinson"``, or ``"exact"`` where unit vectors were affordable.
        seed: the seed of the test vectors.
    """

    value: float
    stderr: float
    samples: Tensor
    products: int
    method: str
    seed: int


def trace(
    op: Operator,
    *,
    products: int = 30,
    method: Literal["xtrace", "hutchinson"] = "xtrace",
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> TraceEstimate:
    r"""Estimate the trace without bias.

    Hutchinson's estimate averages :math:`z^\top H z` over random signs ``z``. XTrace spends half of its
    products on :math:`Y = H\Omega` with ``m`` Gaussian vectors and half on an orthonormal basis of ``Y``, and
    averages over ``i`` the estimates that leave :math:`\omega_i` out of the basis :math:`Q_i`,

    .. math:: \operatorname{tr}(Q_i^\top H Q_i) + \frac{P - m + 1}{\|u_i\|^2} \, u_i^\top H u_i,
              \qquad u_i = (I - Q_i Q_i^\top) \, \omega_i .

    Its error falls much faster with the products where few eigenvalues dominate. Its estimates share most of
    their test vectors, so that its standard error is rough. Measured on 15 Hessians of small networks (30
    products, 8 seeds): median error 2.0 %, Hutchinson's 9.2 %; for both the actual error was 1.3 times the
    standard error, root mean square. With ``P <= products`` the trace is computed exactly.

    Args:
        op: the operator.
        products: the number of products to spend; XTrace uses an even number.
        method: ``"xtrace"`` or ``"hutchinson"``.
        seed: of the test vectors, drawn on the CPU.
        progress: called with the number of products just done.

    Raises:
        InputError: too few products for a standard error.

    Reference: E. Epperly, J. Tropp, R. Webber, *XTrace: making the most of every sample in stochastic trace
    estimation*, SIAM J. Matrix Anal. Appl. 2024, arXiv:2301.07825, section 2.
    """
    if method not in ("xtrace", "hutchinson"):
        raise ValueError(f"method must be 'xtrace' or 'hutchinson', got {method!r}")
    least = 4 if method == "xtrace" else 2
    if products < least:
        raise InputError(f"products={products} is too small: {method} needs {least} for a standard error")
    size = op.shape[0]
    if size <= products:
        identity = torch.eye(size, dtype=op.dtype, device=op.device)
        samples = _multiplied(op, identity, progress).double().trace().cpu().reshape(1)
        return TraceEstimate(float(samples), 0.0, samples, size, "exact", seed)
    generator = torch.Generator().manual_seed(seed)
    if method == "hutchinson":
        samples = _hutchinson(op, products, generator, progress)
    else:
        products -= products % 2
        samples = _xtrace(op, products // 2, generator, progress)
    stderr = float(samples.std()) / len(samples) ** 0.5
    return TraceEstimate(float(samples.mean()), stderr, samples, products, method, seed)


def _hutchinson(
    op: Operator, probes: int, generator: torch.Generator, progress: Callable[[int], None] | None
) -> Tensor:
    samples = []
    for start in range(0, probes, BLOCK):
        shape = (min(BLOCK, probes - start), op.shape[0])
        signs = torch.randint(0, 2, shape, generator=generator).mul_(2).sub_(1).to(op.device, op.dtype)
        samples.append((signs * _multiplied(op, signs.T, progress).T).double().sum(1).cpu())
    return torch.cat(samples)


def _xtrace(op: Operator, m: int, generator: torch.Generator, progress: Callable[[int], None] | None) -> Tensor:
    size = op.shape[0]
    omega = torch.randn(m, size, generator=generator, dtype=torch.float64).to(op.device, op.dtype).T
    Q, R = torch.linalg.qr(_multiplied(op, omega, progress))
    # The matrices below are m by m, and in the coordinates of Q. Column i of S is the unit vector that spans
    # what the basis loses without sample i: orthogonal to all columns of R but the i-th.
    left, scales, right = torch.linalg.svd(R.double().cpu())
    rank = int((scales > m * torch.finfo(op.dtype).eps * scales[0]).sum())
    if rank == m:
        S = left @ (right / scales[:, None])
        S /= S.norm(dim=0)
    else:  # the other samples already span the range of the operator, so that nothing is lost
        Q = Q @ left[:, :rank].to(Q)
        R = left[:, :rank].T @ R.double().cpu()
        S = torch.zeros(rank, m, dtype=torch.float64)
    H = (Q.T @ _multiplied(op, Q, progress)).double().cpu()
    H = (H + H.T) / 2
    W = (Q.T @ omega).double().cpu()
    kept = W - S * (S * W).sum(0)  # Q_i^T omega_i, in the coordinates of Q
    # omega^T H omega = w . r and omega^T H Q = r, as H is symmetric and H Omega = Q R.
    remainder = (W * R).sum(0) - 2 * (R * kept).sum(0) + (kept * (H @ kept)).sum(0)
    length = omega.double().square().sum(0).cpu() - kept.square().sum(0)
    dimension = size - rank + (rank == m)
    samples: Tensor = H.trace() - (S * (H @ S)).sum(0) + dimension * remainder / length
    return samples


def _multiplied(op: Operator, columns: Tensor, progress: Callable[[int], None] | None) -> Tensor:
    parts = []
    for some in columns.split(BLOCK, dim=1):
        parts.append(op @ some)
        if progress:
            progress(some.shape[1])
    return torch.cat(parts, dim=1)
