from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from landscape_lab.analysis.trajectory import joint_pca, project
from landscape_lab.errors import InputError


def walks(size: int = 70, lengths: tuple[int, ...] = (9, 6)) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        f"run {k}": torch.randn(length, size, generator=generator, dtype=torch.float64).cumsum(0) + 5
        for k, length in enumerate(lengths)
    }


@pytest.mark.parametrize("block", [1 << 20, 16, 1])
def test_the_plane_is_scikit_learns(block: int) -> None:
    paths = walks()
    plane, ratio = joint_pca(paths, block=block)
    rows = torch.cat([*paths.values()]).numpy()
    reference = PCA(n_components=2, svd_solver="full").fit(rows)
    np.testing.assert_allclose(plane.origin.numpy(), reference.mean_)
    assert list(ratio) == pytest.approx(list(reference.explained_variance_ratio_))
    for axis, component in zip((plane.x, plane.y), reference.components_, strict=True):
        assert abs(float(axis @ torch.from_numpy(component))) == pytest.approx(1)
        assert axis[axis.abs().argmax()] > 0
    axes = torch.stack([plane.x, plane.y])
    torch.testing.assert_close(axes @ axes.T, torch.eye(2, dtype=torch.float64))
    # Coordinates and what the plane leaves out, against scikit-learn's.
    for points in paths.values():
        path = project(points, plane)
        scores = reference.transform(points.numpy())
        np.testing.assert_allclose(path.coordinates.abs().numpy(), np.abs(scores), atol=1e-9)
        rest = points.numpy() - reference.inverse_transform(scores)
        np.testing.assert_allclose(path.residuals.numpy(), np.linalg.norm(rest, axis=1))


def test_planted_paths_in_one_plane_are_recovered() -> None:
    generator = torch.Generator().manual_seed(0)
    Q, _ = torch.linalg.qr(torch.randn(500, 2, generator=generator, dtype=torch.float64))
    t = torch.linspace(0, 1, 8, dtype=torch.float64)
    planted = {"a": torch.stack([t, t**2], 1), "b": torch.stack([-2 * t, t.sin()], 1)}
    origin = torch.randn(500, generator=generator, dtype=torch.float64)
    plane, ratio = joint_pca({name: origin + points @ Q.T for name, points in planted.items()})
    assert sum(ratio) == pytest.approx(1, abs=1e-12)
    found = torch.cat([project(origin + points @ Q.T, plane).coordinates for points in planted.values()])
    together = torch.cat([*planted.values()])
    # Up to a rotation: distances are kept, between runs as well.
    torch.testing.assert_close(torch.cdist(found, found), torch.cdist(together, together), rtol=0, atol=1e-9)


def test_one_result_whatever_the_order_of_runs_and_the_dtype() -> None:
    paths = walks()
    plane, _ = joint_pca(paths)
    turned, _ = joint_pca(dict(reversed(paths.items())))
    torch.testing.assert_close(plane.x, turned.x)
    torch.testing.assert_close(plane.y, turned.y)
    single, ratio = joint_pca({name: points.float() for name, points in paths.items()})
    assert single.x.dtype == torch.float32
    torch.testing.assert_close(single.x.double(), plane.x, rtol=0, atol=1e-5)
    assert 0 < sum(ratio) < 1


def test_refusals() -> None:
    point = torch.arange(5.0)
    with pytest.raises(InputError, match="three checkpoints or more, got 2"):
        joint_pca({"a": point[None], "b": point[None]})
    with pytest.raises(InputError, match="of one network"):
        joint_pca({"a": torch.zeros(3, 4), "b": torch.zeros(3, 5)})
    with pytest.raises(InputError, match="all checkpoints are the same"):
        joint_pca({"a": point.expand(3, -1), "b": point.expand(2, -1)})
    with pytest.raises(InputError, match="on one line"):
        joint_pca({"a": torch.arange(4.0)[:, None] * point})
