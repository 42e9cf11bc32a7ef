"""Crop and flip of a batch against one image at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from landscape_lab.data import crop_and_flip


def naive(images: Tensor, seed: int, padding: int, flip: bool) -> Tensor:
    """The same draws, then padding, slicing and mirroring of each image by numpy."""
    generator = torch.Generator().manual_seed(seed)
    batch, _, height, width = images.shape
    offsets = torch.randint(2 * padding + 1, (2, batch, 1), generator=generator)
    coins = torch.randint(2, (batch, 1), generator=generator) if flip else torch.zeros(batch, 1)
    out = []
    for i, image in enumerate(images.numpy()):
        padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
        y, x = offsets[:, i, 0].tolist()
        window = padded[:, y : y + height, x : x + width]
        out.append(window[:, :, ::-1] if coins[i] else window)
    return torch.from_numpy(np.stack(out).copy())


@pytest.mark.parametrize(("padding", "flip"), [(4, True), (4, False), (0, True), (1, True)])
@pytest.mark.parametrize("shape", [(64, 3, 8, 8), (5, 1, 6, 9)])
def test_equals_the_naive_twin(padding: int, flip: bool, shape: tuple[int, ...]) -> None:
    images = torch.randint(1, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(9))
    before = images.clone()
    out = crop_and_flip(images, torch.Generator().manual_seed(3), padding, flip)
    assert out.dtype == torch.uint8
    assert torch.equal(out, naive(images, 3, padding, flip))
    assert torch.equal(images, before)


def test_nothing_to_do_draws_nothing() -> None:
    images, generator = torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.Generator().manual_seed(0)
    state = generator.get_state()
    assert crop_and_flip(images, generator, 0, False) is images
    assert torch.equal(generator.get_state(), state)


def test_every_place_is_equally_likely() -> None:
    """One bright pixel in the middle lands on each of the 9 places equally often, and mirrors by half."""
    images = torch.zeros(90_000, 1, 3, 3, dtype=torch.uint8)
    images[:, 0, 1, 1] = 1
    out = crop_and_flip(images, torch.Generator().manual_seed(0), 1, False).sum(0, dtype=torch.int64)
    assert ((out - 10_000).abs() < 5 * (90_000 * 8 / 81) ** 0.5).all()
    images[:, 0, 1, 0] = 1
    mirrored = crop_and_flip(images, torch.Generator().manual_seed(0), 0, True)[:, 0, 1, 2].sum().item()
    assert abs(mirrored - 45_000) < 5 * 150
