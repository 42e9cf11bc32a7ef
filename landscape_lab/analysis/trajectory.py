"""The path of training, seen in a plane: which plane, and how far the path leaves it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from landscape_lab.analysis.directions import orthogonalised, sign_fixed
from landscape_lab.analysis.surface import Plane
from landscape_lab.errors import InputError

__all__ = ["Trajectory", "pca_plane", "plane_through", "project"]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Checkpoints as seen in a plane. Where ``residuals`` are large, contours do not show their loss.

    Attributes:
        coordinates: ``(T, 2)``, float64, in units of the plane's axes.
        residuals: ``(T,)``, the Euclidean distances to the plane.
        norms: ``(T,)``, the Euclidean distances to the plane's origin.
        steps: the epoch or step of each checkpoint.
        explained_variance_ratio: of the plane's two axes, if it came from a principal component analysis.
        method: how the plane was chosen.
    """

    coordinates: Tensor
    residuals: Tensor
    norms: Tensor
    steps: tuple[int, ...]
    explained_variance_ratio: tuple[float, float] | None
    method: str


def pca_plane(points: Tensor, origin: Literal["last", "first"] = "last") -> tuple[Plane, tuple[float, float]]:
    r"""The plane through a checkpoint along the two principal components of the path.

    The components are those of the rows :math:`\theta_t - \theta_T` of all checkpoints but the origin itself,
    with the mean of the rows taken out, as in the paper's trajectories. For a path that leaves the plane, the
    plane through the origin is therefore not the best-fitting one. The differences take ``8 T P`` bytes.

    Args:
        points: ``(T, P)`` checkpoints in order, at least three.
        origin: the checkpoint that the plane passes through.

    Returns:
        The plane, with orthonormal axes in the dtype of ``points``, the largest entry of each axis positive;
        and the fractions of the rows' variance along its axes.

    Raises:
        InputError: fewer than three checkpoints, or all the same.

    Reference: Li et al., *Visualizing the loss landscape of neural nets*, NeurIPS 2018, arXiv:1712.09913,
    section 7.

    Example:
        >>> path = torch.tensor([[4.0, 0, 1], [-4, 0, 1], [0, 2, 1], [0, -2, 1], [0, 0, 1]])
        >>> plane, (first, second) = pca_plane(path)
        >>> plane.x.abs(), plane.y.abs(), round(first, 3), round(second, 3)
        (tensor([1., 0., 0.]), tensor([0., 1., 0.]), 0.8, 0.2)
    """
    if origin not in ("last", "first"):
        raise ValueError(f"origin must be 'last' or 'first', got {origin!r}")
    if points.dim() != 2 or len(points) < 3 or points.shape[1] < 2:
        raise InputError(f"a plane needs three checkpoints or more, got points of shape {tuple(points.shape)}")
    last = origin == "last"
    centre = points[-1 if last else 0]
    rows = (points[:-1] if last else points[1:]).double() - centre.double()
    rows -= rows.mean(0)
    _, scales, components = torch.linalg.svd(rows, full_matrices=False)
    variances = scales.square()
    if not variances.sum() > 0:
        raise InputError("all checkpoints are the same: there is no path to look at")
    axes = sign_fixed(components[:2]).to(points.dtype).cpu()
    first, second = (variances[:2] / variances.sum()).tolist()
    return Plane(centre.cpu().clone(), axes[0].clone(), axes[1].clone()), (first, second)


def plane_through(a: Tensor, b: Tensor, c: Tensor) -> Plane:
    """The plane through three points ``(P,)``: origin ``a``, first axis towards ``b``, orthonormal axes.

    ``b`` lies on the positive first axis and ``c`` on the side of the positive second axis; with PCA such a
    plane would miss all three points but the origin.

    Raises:
        InputError: the points lie on one line.
    """
    towards_b, towards_c = b.double() - a.double(), c.double() - a.double()
    if not towards_b.any():
        raise InputError("the first two points are the same: they span no plane")
    try:
        across = orthogonalised(towards_c, towards_b)
    except InputError:
        raise InputError("the three points lie on one line: they span no plane") from None
    x, y = (direction / direction.norm() for direction in (towards_b, across))
    return Plane(a.cpu().clone(), x.to(a.dtype).cpu(), y.to(a.dtype).cpu())


def project(
    points: Tensor,
    plane: Plane,
    steps: Sequence[int] | None = None,
    *,
    explained_variance_ratio: tuple[float, float] | None = None,
    method: str = "projection",
) -> Trajectory:
    """Project checkpoints onto a plane, by least squares, and measure what the projection hides.

    Args:
        points: ``(T, P)``.
        plane: any plane of the same space; the axes need not be orthonormal.
        steps: the epoch or step of each checkpoint (``None``: 0, 1, 2, …).
        explained_variance_ratio: as :func:`pca_plane` gave it, to keep with the result.
        method: how the plane was chosen, to keep with the result.
    """
    steps = range(len(points)) if steps is None else steps
    if len(steps) != len(points):
        raise ValueError(f"expected {len(points)} steps, one for each point, got {len(steps)}")
    origin = plane.origin.double().cpu()
    coordinates, residuals = plane.nearest(points)
    return Trajectory(
        coordinates=coordinates,
        residuals=residuals,
        norms=torch.stack([(point.double().cpu() - origin).norm() for point in points]),
        steps=tuple(int(step) for step in steps),
        explained_variance_ratio=explained_variance_ratio,
        method=method,
    )
