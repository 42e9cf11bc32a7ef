from __future__ import annotations

import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from landscape_lab.analysis.surface import Plane
from landscape_lab.analysis.trajectory import pca_plane, plane_through, project
from landscape_lab.errors import InputError


def planted_path(size: int = 300, steps: int = 12) -> tuple[Tensor, Tensor, Plane]:
    """A spiral in a random plane: the points, their coordinates, the plane."""
    generator = torch.Generator().manual_seed(0)
    Q, _ = torch.linalg.qr(torch.randn(size, 2, generator=generator, dtype=torch.float64))
    plane = Plane(torch.randn(size, generator=generator, dtype=torch.float64), Q[:, 0], Q[:, 1])
    t = torch.linspace(0, 3, steps, dtype=torch.float64)
    coordinates = torch.stack([(3 - t) * t.cos(), 0.5 * (3 - t) * t.sin()], dim=1)
    return torch.stack([plane.point(a, b) for a, b in coordinates.tolist()]), coordinates, plane


def test_a_planted_plane_is_recovered() -> None:
    points, coordinates, planted = planted_path()
    plane, ratio = pca_plane(points)
    assert torch.equal(plane.origin, points[-1])
    path = project(points, plane, range(0, 120, 10), explained_variance_ratio=ratio, method="pca")
    assert float(path.residuals.max()) < 1e-10
    assert sum(ratio) == pytest.approx(1.0, abs=1e-12)
    # The axes are the planted ones up to a rotation: distances within the plane are kept.
    torch.testing.assert_close(torch.cdist(path.coordinates, path.coordinates), torch.cdist(coordinates, coordinates))
    torch.testing.assert_close(planted.coordinates(points), coordinates, rtol=0, atol=1e-10)
    torch.testing.assert_close(path.norms, (coordinates - coordinates[-1]).norm(dim=1), rtol=0, atol=1e-10)
    assert path.steps == tuple(range(0, 120, 10))
    assert (path.explained_variance_ratio, path.method) == (ratio, "pca")


@pytest.mark.parametrize("origin", ["last", "first"])
def test_axes_agree_with_scikit_learn(origin: str) -> None:
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(9, 40, generator=generator, dtype=torch.float64).cumsum(0)
    plane, ratio = pca_plane(points, origin)
    centre, others = (points[-1], points[:-1]) if origin == "last" else (points[0], points[1:])
    reference = PCA(n_components=2, svd_solver="full").fit((others - centre).numpy())
    assert torch.equal(plane.origin, centre)
    assert list(ratio) == pytest.approx(list(reference.explained_variance_ratio_))
    for axis, component in zip((plane.x, plane.y), reference.components_, strict=True):
        assert abs(float(axis @ torch.from_numpy(component))) == pytest.approx(1)
        assert axis[axis.abs().argmax()] > 0
    axes = torch.stack([plane.x, plane.y])
    torch.testing.assert_close(axes @ axes.T, torch.eye(2, dtype=torch.float64))


def test_the_residual_is_what_the_plane_does_not_explain() -> None:
    points, coordinates, planted = planted_path()
    generator = torch.Generator().manual_seed(3)
    away = torch.randn(300, generator=generator, dtype=torch.float64)
    away -= (away @ planted.x) * planted.x + (away @ planted.y) * planted.y
    heights = torch.linspace(0, 2, 12, dtype=torch.float64)
    lifted = points + heights[:, None] * away / away.norm()
    path = project(lifted, planted)
    torch.testing.assert_close(path.residuals, heights, rtol=0, atol=1e-10)
    torch.testing.assert_close(path.coordinates, coordinates, rtol=0, atol=1e-10)
    squares = path.coordinates.square().sum(1) + path.residuals.square()
    torch.testing.assert_close(path.norms.square(), squares)
    assert path.steps == tuple(range(12))
    assert path.explained_variance_ratio is None


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_the_plane_through_three_points_holds_them(dtype: torch.dtype, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b, c = torch.randn(3, 1000, generator=generator, dtype=torch.float64).to(dtype)
    plane = plane_through(a, b, c)
    assert plane.x.dtype == dtype
    coordinates = plane.coordinates(torch.stack([a, b, c]))
    assert float(plane.residual(torch.stack([a, b, c])).max()) < 10 * tolerance
    assert coordinates[0].tolist() == [0.0, 0.0]
    assert float(coordinates[1, 0]) == pytest.approx(float((b - a).norm()), rel=1e-5)
    assert abs(float(coordinates[1, 1])) < 10 * tolerance
    assert float(coordinates[2, 1]) > 0
    for point, (u, v) in zip((a, b, c), coordinates.tolist(), strict=True):
        torch.testing.assert_close(plane.point(u, v), point, rtol=0, atol=tolerance)
    gram = torch.stack([plane.x, plane.y]) @ torch.stack([plane.x, plane.y]).T
    torch.testing.assert_close(gram, torch.eye(2, dtype=dtype), rtol=0, atol=tolerance)


def test_a_straight_path_has_all_its_variance_on_one_axis() -> None:
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(30, generator=generator, dtype=torch.float64)
    points = torch.arange(5.0, dtype=torch.float64)[:, None] * direction
    plane, ratio = pca_plane(points)
    assert ratio == pytest.approx((1.0, 0.0))
    assert abs(float(plane.x @ direction)) == pytest.approx(float(direction.norm()))


def test_float32_paths_give_float32_planes() -> None:
    points, coordinates, _ = planted_path()
    plane, _ = pca_plane(points.float())
    assert plane.x.dtype == torch.float32
    path = project(points.float(), plane)
    assert path.coordinates.dtype == torch.float64
    distances = torch.cdist(coordinates, coordinates)
    torch.testing.assert_close(torch.cdist(path.coordinates, path.coordinates), distances, rtol=0, atol=1e-5)


def test_bad_input() -> None:
    points, _, plane = planted_path()
    with pytest.raises(InputError, match="three checkpoints or more"):
        pca_plane(points[:2])
    with pytest.raises(InputError, match="all checkpoints are the same"):
        pca_plane(points[:1].expand(4, -1))
    with pytest.raises(ValueError, match="origin must be"):
        pca_plane(points, "middle")
    with pytest.raises(InputError, match="on one line"):
        plane_through(points[0], points[1], 2 * points[1] - points[0])
    with pytest.raises(InputError, match="are the same"):
        plane_through(points[0], points[0], points[1])
    with pytest.raises(ValueError, match="expected 12 steps, one for each point, got 3"):
        project(points, plane, [1, 2, 3])
