"""Colours and grey levels against Pillow, level for level."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from pillow_cases import ENHANCERS, SHAPES, by_pillow, grey, pictures, turn_hue

from landscape_lab.data.pixel_operations import (
    Enhancement,
    autocontrast,
    enhance,
    equalize,
    greyscale,
    invert,
    luma,
    posterize,
    sharpen,
    shift_hue,
    solarize,
)
from landscape_lab.errors import InputError

every_shape = pytest.mark.parametrize("shape", SHAPES)


def uniform(count: int, low: float, high: float) -> torch.Tensor:
    return torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(4)) * (high - low) + low


@every_shape
@pytest.mark.parametrize("kind", list(Enhancement))
def test_enhancements(shape: tuple[int, ...], kind: Enhancement) -> None:
    images, factor = pictures(shape), uniform(shape[0], 0, 2)
    factor[:2] = torch.tensor([0.0, 1.0])
    expected = by_pillow(images, lambda image, f: ENHANCERS[kind](image).enhance(f), factor.tolist())
    assert torch.equal(enhance(images, torch.full((shape[0],), int(kind)), factor), expected)


@every_shape
def test_sharpness(shape: tuple[int, ...]) -> None:
    images, factor = pictures(shape), uniform(shape[0], 0, 2)
    expected = by_pillow(images, lambda image, f: ImageEnhance.Sharpness(image).enhance(f), factor.tolist())
    assert torch.equal(sharpen(images, factor), expected)


@every_shape
def test_posterize_and_solarize(shape: tuple[int, ...]) -> None:
    images, bits = pictures(shape), torch.arange(shape[0]) % 8 + 1
    assert torch.equal(posterize(images, bits), by_pillow(images, ImageOps.posterize, bits.tolist()))
    threshold = uniform(shape[0], 0, 256)
    threshold[:4] = torch.tensor([0.0, 256, 128, 255])
    assert torch.equal(solarize(images, threshold), by_pillow(images, ImageOps.solarize, threshold.tolist()))


@every_shape
def test_operations_without_a_parameter(shape: tuple[int, ...]) -> None:
    images = pictures(shape)
    before = images.clone()
    for ours, theirs in (
        *((invert, ImageOps.invert), (autocontrast, ImageOps.autocontrast)),
        *((equalize, ImageOps.equalize), (greyscale, grey)),
    ):
        assert torch.equal(ours(images), by_pillow(images, theirs)), ours.__name__
    assert torch.equal(images, before)


@pytest.mark.parametrize("low", [0, 3, 100])
def test_autocontrast_of_every_span(low: int) -> None:
    """All levels between each darkest and brightest one, where truncation shows the least rounding."""
    spans = torch.arange(1, 256 - low)
    ramp = torch.minimum(torch.arange(256)[None], spans[:, None]) + low
    images = ramp.byte().view(-1, 1, 16, 16)
    assert torch.equal(autocontrast(images), by_pillow(images, ImageOps.autocontrast))


def test_equalize_beyond_the_brightest_level() -> None:
    """Few pixels over: the table passes 255, and Pillow stops there."""
    images = pictures((200, 1, 17, 23), seed=7)
    images[::2] = (torch.arange(17 * 23).view(17, 23) % 250).byte()
    assert torch.equal(equalize(images), by_pillow(images, ImageOps.equalize))


@every_shape
def test_hue(shape: tuple[int, ...]) -> None:
    images, shift = pictures(shape), torch.arange(shape[0]) - shape[0] // 2
    assert torch.equal(shift_hue(images, shift), by_pillow(images, turn_hue, shift.tolist()))


@pytest.mark.parametrize("red", [0, 1, 85, 128, 254, 255])
def test_hue_of_all_greens_and_blues(red: int) -> None:
    green, blue = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    images = torch.stack([torch.full_like(green, red), green, blue]).byte()[None]
    for shift in (0, -25, 11):
        assert torch.equal(shift_hue(images, torch.tensor([shift])), by_pillow(images, turn_hue, [shift]))


def test_luma_is_pillows() -> None:
    images = pictures((16, 3, 32, 32), seed=2)
    expected = by_pillow(images, lambda image: image.convert("L"))
    assert torch.equal(luma(images), expected.int())


@every_shape
def test_grey_images_are_colour_images_of_equal_channels(shape: tuple[int, ...]) -> None:
    images = pictures(shape)[:, :1]
    colour = images.expand(-1, 3, -1, -1).contiguous()
    factor, kind, shift = uniform(shape[0], 0, 2), torch.arange(shape[0]) % 3, torch.arange(shape[0]) - 5
    for operation, parameters in ((enhance, (kind, factor)), (shift_hue, (shift,)), (greyscale, ()), (equalize, ())):
        assert torch.equal(operation(images, *parameters).expand_as(colour), operation(colour, *parameters))


def test_two_channels_have_no_colour() -> None:
    images = torch.zeros(1, 2, 4, 4, dtype=torch.uint8)
    for operation in (greyscale, lambda x: shift_hue(x, torch.tensor([1]))):
        with pytest.raises(InputError, match="1 or 3 channels, got 2"):
            operation(images)


def test_the_oracle_turns_hues() -> None:
    """A third of a turn leads from red to green, in Pillow's circle of 255 hues."""
    red = Image.new("RGB", (1, 1), (255, 0, 0))
    assert np.asarray(turn_hue(red, 85)).tolist() == [[[0, 255, 0]]]
