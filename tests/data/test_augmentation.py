"""Crop, flip and cutout of a batch against one image at a time, and operations on some of its images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from landscape_lab.data import augmentation, crop_and_flip
from landscape_lab.data.augmentation import apply_where, cutout, uniform


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


@pytest.mark.parametrize("side", [0, 1, 3, 4, 20])
@pytest.mark.parametrize("shape", [(64, 3, 8, 8), (32, 1, 6, 9)])
def test_cutout_equals_the_naive_twin(side: int, shape: tuple[int, ...]) -> None:
    images = torch.randint(1, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(9))
    before = images.clone()
    out = cutout(images, torch.Generator().manual_seed(3), side)
    generator = torch.Generator().manual_seed(3)
    y, x = (torch.randint(size, (shape[0],), generator=generator).tolist() for size in shape[2:])
    expected = images.clone()
    for i in range(shape[0]):
        top, left = y[i] - side // 2, x[i] - side // 2
        expected[i, :, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = 0
    assert torch.equal(out, expected)
    assert torch.equal(images, before)


def test_the_centre_of_cutout_is_anywhere() -> None:
    """A square of one pixel is its centre."""
    images = torch.ones(10_000, 1, 5, 4, dtype=torch.uint8)
    black = cutout(images, torch.Generator().manual_seed(0), 1) == 0
    assert (black.sum((1, 2, 3)) == 1).all()
    assert stats.chisquare(black.sum((0, 1)).flatten().numpy()).pvalue > 1e-4


@pytest.mark.parametrize("chosen", [[], [2], [0, 3, 4], [0, 1, 2, 3, 4]])
@pytest.mark.parametrize("picks", [{"cpu"}, set()])
def test_an_operation_on_some_images(chosen: list[int], picks: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation, "_CAN_PICK", picks)
    images, amount = torch.arange(5 * 6).view(5, 1, 2, 3).byte(), torch.arange(5).byte() + 100
    before = images.clone()
    mask = torch.zeros(5, dtype=torch.bool).index_fill(0, torch.tensor(chosen, dtype=torch.int64), True)
    out = apply_where(mask, images, lambda x, a: x + a[:, None, None, None], amount)
    expected = [before[i] + (amount[i] if i in chosen else 0) for i in range(5)]
    assert torch.equal(out, torch.stack(expected))
    assert torch.equal(images, before)


def test_uniform_numbers() -> None:
    drawn = uniform(-0.5, 2.0, (2, 5000), torch.Generator().manual_seed(0))
    assert drawn.dtype == torch.float64
    assert stats.kstest(drawn.flatten().numpy(), stats.uniform(-0.5, 2.5).cdf).pvalue > 1e-4
