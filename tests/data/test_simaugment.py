"""SimAugment against Pillow for the same draws, and its draws against a literal loop."""

from __future__ import annotations

import math
import random
from itertools import permutations

import numpy as np
import pytest
import torch
from pillow_cases import ENHANCERS, blurred, grey, levels, picture, pictures, resized, turn_hue
from scipy import stats

from landscape_lab.data.simaugment import color_jitter, draw_boxes, draw_jitter, simaugment

N = 10_000
RARE = 1e-4
"""A p-value below which a test fails; seeds are fixed, so it either always does or never."""


def random_resized_crop(height: int, width: int, rng: random.Random) -> tuple[int, int, int, int]:
    """One box, as the textbook draws it."""
    for _ in range(10):
        area = height * width * rng.uniform(0.2, 1.0)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return rng.randint(0, height - h), rng.randint(0, width - w), h, w
    if width / height < 3 / 4:
        w, h = width, round(width / (3 / 4))
    elif width / height > 4 / 3:
        w, h = round(height * 4 / 3), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize(("height", "width"), [(32, 32), (8, 8), (12, 40), (40, 12)])
def test_boxes_are_distributed_as_those_of_the_loop(height: int, width: int) -> None:
    ours = torch.stack(draw_boxes(N, height, width, torch.Generator().manual_seed(0))).double().numpy()
    rng = random.Random(0)
    theirs = np.array([random_resized_crop(height, width, rng) for _ in range(N)], dtype=float).T
    top, left, rows, columns = ours
    assert (rows >= 1).all()
    assert (columns >= 1).all()
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + rows <= height).all()
    assert (left + columns <= width).all()

    def features(boxes: np.ndarray) -> list[np.ndarray]:
        top, left, rows, columns = boxes
        return [*boxes, rows * columns, np.log(rows / columns), top + rows, left + columns, top * rows, left * columns]

    for mine, other in zip(features(ours), features(theirs), strict=True):
        assert stats.ks_2samp(mine, other, method="asymp").pvalue > RARE


def test_a_box_may_lie_anywhere() -> None:
    """Of the boxes of the commonest height, each first row is equally likely, and rows and columns are independent."""
    top, left, rows, columns = draw_boxes(10 * N, 32, 32, torch.Generator().manual_seed(1))
    height = int(rows.bincount().argmax())
    counts = torch.bincount(top[rows == height], minlength=33 - height)
    assert len(counts) == 33 - height
    assert stats.chisquare(counts.numpy()).pvalue > RARE
    square = (rows == columns) & (rows < 30)
    assert abs(np.corrcoef((top / (32 - rows))[square], (left / (32 - rows))[square])[0, 1]) < 5 / square.sum() ** 0.5


def test_where_no_box_fits_the_middle_is_taken() -> None:
    top, left, rows, columns = (part.tolist() for part in draw_boxes(50, 2, 200, torch.Generator().manual_seed(0)))
    assert set(zip(top, left, rows, columns, strict=True)) == {(0, 98, 2, 3)}  # 2 rows admit at most 2 · 4/3 columns


def test_jitter_is_drawn_as_said() -> None:
    draw = draw_jitter(N, torch.Generator().manual_seed(2))
    assert stats.binomtest(int(draw.done.sum()), N, 0.8).pvalue > RARE
    orders = [tuple(order) for order in draw.order.tolist()]
    counts = [orders.count(order) for order in permutations(range(4))]
    assert sum(counts) == N
    assert stats.chisquare(counts).pvalue > RARE
    for factor in draw.factor.T:
        assert stats.kstest(factor.numpy(), stats.uniform(0.6, 0.8).cdf).pvalue > RARE
    # 25.5 (2 u - 1) towards zero: zero has two intervals, the ends half of one.
    expected = np.ones(51)
    expected[[0, 25, 50]] = 0.5, 2, 0.5
    counts = torch.bincount(draw.hue + 25, minlength=51).numpy()
    assert stats.chisquare(counts, expected / expected.sum() * N).pvalue > RARE
    together = np.corrcoef(np.stack([*draw.factor.T.numpy(), draw.hue.numpy(), draw.done.numpy()]))
    assert np.abs(together - np.eye(5)).max() < 5 / N**0.5


@pytest.mark.parametrize("shape", [(300, 3, 16, 16), (100, 1, 8, 8)])
def test_jitter_equals_one_image_at_a_time(shape: tuple[int, ...]) -> None:
    images = pictures(shape)
    draw = draw_jitter(len(images), torch.Generator().manual_seed(3))
    out = color_jitter(images, draw)
    for i, image in enumerate(images):
        expected = picture(image)
        for kind in draw.order[i].tolist() if draw.done[i] else ():
            if kind == 3:
                expected = turn_hue(expected, int(draw.hue[i]))
            else:
                expected = ENHANCERS[kind](expected).enhance(float(draw.factor[i, kind]))
        assert torch.equal(out[i], levels(expected)), i


@pytest.mark.parametrize("blur", [False, True])
@pytest.mark.parametrize("shape", [(200, 3, 32, 32), (100, 1, 8, 8)])
def test_equals_one_image_at_a_time(shape: tuple[int, ...], blur: bool) -> None:
    """The same draws in the same order, then Pillow."""
    images = pictures(shape)
    before, batch = images.clone(), shape[0]
    out = simaugment(images, torch.Generator().manual_seed(4), blur)
    generator = torch.Generator().manual_seed(4)
    boxes = draw_boxes(batch, *shape[2:], generator)
    torch.randint(1, (2, batch, 1), generator=generator)  # crop_and_flip draws the place of its crop of 0 pixels
    flipped = torch.randint(2, (batch,), generator=generator)
    jitter = draw_jitter(batch, generator)
    greyed = torch.rand(batch, dtype=torch.float64, generator=generator) < 0.2
    sigma = 0.1 + 1.9 * torch.rand(batch, dtype=torch.float64, generator=generator)
    smoothed = torch.rand(batch, dtype=torch.float64, generator=generator) < 0.5
    for i, image in enumerate(images):
        expected = resized(picture(image), *(int(part[i]) for part in boxes))
        if flipped[i]:
            expected = picture(levels(expected).flip(2))
        one = type(jitter)(*(part[i : i + 1] for part in jitter))
        expected = picture(color_jitter(levels(expected)[None], one)[0])
        if greyed[i]:
            expected = grey(expected)
        if blur and smoothed[i]:
            expected = blurred(expected, float(sigma[i]))
        assert torch.equal(out[i], levels(expected)), i
    assert torch.equal(images, before)


def test_half_are_mirrored_and_a_fifth_grey() -> None:
    """Seen on the images: red grows to the right, and without colour all channels are equal."""
    images = torch.zeros(N, 3, 8, 8, dtype=torch.uint8)
    images[:, 0] = torch.arange(60, 220, 20)
    images[:, 1] = 20
    out = torch.cat([simaugment(part, torch.Generator().manual_seed(i)) for i, part in enumerate(images.split(500))])
    colourless = (out == out[:, :1]).all((1, 2, 3))
    assert stats.binomtest(int(colourless.sum()), N, 0.2).pvalue > RARE
    total = out.sum((1, 2), dtype=torch.int64)  # (N, 8)
    mirrored = total[:, :4].sum(1) > total[:, 4:].sum(1)
    assert stats.binomtest(int(mirrored.sum()), N, 0.5).pvalue > RARE
    assert stats.binomtest(int((mirrored & colourless).sum()), N, 0.1).pvalue > RARE
