"""Geometry and blur against Pillow, level for level."""

from __future__ import annotations

import pytest
import torch
from pillow_cases import SHAPES, blurred, by_pillow, pictures, resized, transformed

from landscape_lab.data.resampling import affine, gaussian_blur, resized_crop

every_shape = pytest.mark.parametrize("shape", SHAPES)


@every_shape
def test_affine_maps(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    size = torch.tensor([0.3, 0.3, 5.0, 0.3, 0.3, 5.0])
    matrices = torch.randn(shape[0], 6, generator=generator, dtype=torch.float64) * size
    matrices += torch.tensor([1.0, 0, 0, 0, 1, 0])
    images = pictures(shape)
    assert torch.equal(affine(images, matrices, 128), by_pillow(images, transformed, matrices.tolist()))


def test_maps_by_whole_and_half_pixels() -> None:
    """Where a pixel's centre falls on a border between two pixels."""
    shifts = torch.arange(-8, 9, dtype=torch.float64) / 2
    matrices = torch.tensor([1.0, 0, 0, 0, 1, 0], dtype=torch.float64).repeat(len(shifts) * 2, 1)
    matrices[: len(shifts), 2] = matrices[len(shifts) :, 5] = shifts
    images = pictures((len(matrices), 3, 6, 5))
    assert torch.equal(affine(images, matrices, 128), by_pillow(images, transformed, matrices.tolist()))


@every_shape
def test_resized_crops(shape: tuple[int, ...]) -> None:
    batch, _, height, width = shape
    generator = torch.Generator().manual_seed(2)

    def draw(limit: torch.Tensor | int) -> torch.Tensor:
        return (torch.rand(batch, generator=generator) * limit).long()

    rows, columns = draw(height) + 1, draw(width) + 1
    rows[0], columns[0] = height, width
    boxes = draw(height - rows + 1), draw(width - columns + 1), rows, columns
    images = pictures(shape)
    expected = by_pillow(images, resized, *(part.tolist() for part in boxes))
    assert torch.equal(resized_crop(images, *boxes), expected)
    assert torch.equal(expected[0], images[0])


@every_shape
def test_blur(shape: tuple[int, ...]) -> None:
    sigma = torch.linspace(0.1, 2.39, shape[0], dtype=torch.float64)
    images = pictures(shape)
    assert torch.equal(gaussian_blur(images, sigma), by_pillow(images, blurred, sigma.tolist()))
