"""The path of training, seen in a plane: which plane, and how far the path leaves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from landscape_lab.analysis.directions import orthogonalised, sign_fixed
from landscape_lab.analysis.surface import Plane
from landscape_lab.errors import InputError
from landscape_lab.tabular import Tabular

__all__ = ["JointTrajectory", "Trajectory", "joint_pca", "pca_plane", "plane_through", "project"]


@dataclass(frozen=True, eq=False)
class Trajectory(Tabular):
    """Checkpoints as seen in a plane. Where ``residuals`` are large, contours do not show their loss.

    Attributes:
        coordinates: ``(T, 2)``, float64, in units of the plane's axes.
        residuals: ``(T,)``, the Euclidean distances to the plane.
        norms: ``(T,)``, the Euclidean distances to the plane's origin.
        steps: the epoch or step of each checkpoint.
        explained_variance_ratio: of the plane's two axes, if it came from a principal component analysis.
        method: how the plane was chosen.
        losses: ``(T,)``, the loss at each checkpoint, if it was measured.
        plane_losses: ``(T,)``, the loss at its projection, which is what a surface over the plane shows there.
        subset: whose loss, with samples and BatchNorm policy, in words.
    """

    coordinates: Tensor
    residuals: Tensor
    norms: Tensor
    steps: tuple[int, ...]
    explained_variance_ratio: tuple[float, float] | None
    method: str
    losses: Tensor | None = None
    plane_losses: Tensor | None = None
    subset: str = ""


@dataclass(frozen=True, eq=False)
class JointTrajectory(Tabular):
    """Several runs' paths in one plane, that of a principal component analysis over all their checkpoints.

    Attributes:
        paths: run to path; its residuals are the distances off the common plane.
        explained_variance_ratio: of the plane's two axes, over all checkpoints of all runs.
        residual_ratio: the share of the variance that the plane does not show.
    """

    paths: dict[str, Trajectory]
    explained_variance_ratio: tuple[float, float]
    residual_ratio: float


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


def joint_pca(paths: Mapping[str, Tensor], block: int = 1 << 20) -> tuple[Plane, tuple[float, float]]:
    r"""The plane that fits the checkpoints of several runs best.

    It goes through their mean along the first two principal components of all of them; each checkpoint counts alike.
    The components follow from the :math:`N \times N` matrix of the checkpoints' inner products, summed over blocks of
    parameters, so that no float64 copy of all is made.

    Args:
        paths: run to checkpoints ``(T, P)``, all of one network; together three or more.
        block: parameters at a time.

    Returns:
        The plane, orthonormal axes in the dtype of the checkpoints on the CPU, the largest entry of each axis
        positive; and the fractions of the variance along them.

    Raises:
        InputError: too few checkpoints, all the same, or of networks of different sizes.

    Example:
        >>> a, b = torch.tensor([[3.0, 0, 1], [-3, 0, 1]]), torch.tensor([[0, 1.0, 1], [0, -1, 1]])
        >>> plane, (first, second) = joint_pca({"a": a, "b": b})
        >>> plane.origin, plane.x.abs(), round(first, 3), round(second, 3)
        (tensor([0., 0., 1.]), tensor([1., 0., 0.]), 0.9, 0.1)
    """
    sizes = {name: tuple(points.shape) for name, points in paths.items()}
    if any(len(size) != 2 for size in sizes.values()) or len({size[1] for size in sizes.values()}) != 1:
        raise InputError(f"joint paths need checkpoints (T, P) of one network, got shapes {sizes}")
    rows = [point for points in paths.values() for point in points]
    size = rows[0].numel()
    if len(rows) < 3 or size < 2:
        raise InputError(f"a plane needs three checkpoints or more, got {len(rows)} of {size} parameters")
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    mean = torch.empty(size, dtype=torch.float64)

    def centred(start: int) -> Tensor:
        part = torch.stack([row[start : start + block].double().cpu() for row in rows])
        mean[start : start + block] = part.mean(0)
        return part - part.mean(0)

    for start in range(0, size, block):
        part = centred(start)
        gram += part @ part.T
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    # Inner products of identical rows leave rounding, not zeros.
    if not values[0] > 1e-14 * max(float(mean.square().sum()), 1e-300):
        raise InputError("all checkpoints are the same: there is no path to look at")
    axes = torch.cat([vectors[:, :2].T @ centred(start) for start in range(0, size, block)], dim=1)
    if not values[1] > 1e-12 * values[0]:
        raise InputError("the checkpoints lie on one line: they span no plane")
    # The coefficients are nearly, not exactly, those of orthonormal axes.
    first = axes[0] / axes[0].norm()
    second = orthogonalised(axes[1], first)
    axes = sign_fixed(torch.stack([first, second / second.norm()])).to(rows[0].dtype)
    ratio = (values[:2] / values.sum()).tolist()
    return Plane(mean.to(rows[0].dtype), axes[0].clone(), axes[1].clone()), (ratio[0], ratio[1])
