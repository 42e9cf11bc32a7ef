"""SimAugment, the views that BCL contrasts (Chen et al., ICML 2020, arXiv 2002.05709, appendix A), a batch at once."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from landscape_lab.data.augmentation import apply_where, crop_and_flip, uniform
from landscape_lab.data.pixel_operations import Enhancement, enhance, greyscale, shift_hue
from landscape_lab.data.resampling import gaussian_blur, resized_crop

__all__ = ["JitterDraw", "color_jitter", "draw_boxes", "draw_jitter", "simaugment"]

_AREA = (0.2, 1.0)
_ASPECT = (3 / 4, 4 / 3)
_TRIALS = 10
_JITTER = 0.4  # of brightness, contrast and saturation
_HUE = 0.1  # of a turn
_HUE_PLACE = 3
_BLUR = (0.1, 2.0)  # pixels


def simaugment(images: Tensor, generator: torch.Generator, blur: bool = False) -> Tensor:
    """Resized crop, flip, colour jitter (4 of 5 images), greyscale (1 of 5) and, if asked for, blur (1 of 2).

    Args:
        images: (B, C, H, W) uint8, C 1 or 3; they are not changed.
        generator: on the images' device.
        blur: whether to blur half of them, sigma 0.1 to 2 pixels.

    Returns:
        (B, C, H, W) uint8, level for level what Pillow gives for the same draws. Nothing waits for the device.
    """
    batch, _, height, width = images.shape
    images = resized_crop(images, *draw_boxes(batch, height, width, generator))
    images = crop_and_flip(images, generator, padding=0, flip=True)
    images = color_jitter(images, draw_jitter(batch, generator))
    images = apply_where(uniform(0, 1, (batch,), generator) < 0.2, images, greyscale)
    if blur:
        sigma = uniform(*_BLUR, (batch,), generator)
        images = apply_where(uniform(0, 1, (batch,), generator) < 0.5, images, gaussian_blur, sigma)
    return images


def draw_boxes(batch: int, height: int, width: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Boxes of Inception crops (Szegedy et al. 2015): area 0.2 to 1 of the image, sides' ratio 3/4 to 4/3.

    Area (uniform) and ratio (uniform in its logarithm) are drawn up to ten times, until the box, its sides rounded,
    fits; then its place, uniformly. If none fits: the largest box about the middle with an admissible ratio.

    Returns:
        Top, left, height and width of each box, (B,) int64.
    """
    area = uniform(*_AREA, (batch, _TRIALS), generator) * (height * width)
    aspect = uniform(math.log(_ASPECT[0]), math.log(_ASPECT[1]), (batch, _TRIALS), generator).exp()
    rows, columns = (area / aspect).sqrt().round().long(), (area * aspect).sqrt().round().long()
    fits = (rows >= 1) & (rows <= height) & (columns >= 1) & (columns <= width)
    first = fits.int().argmax(1, keepdim=True)
    found = fits.gather(1, first).squeeze(1)
    whole_rows = min(height, round(width / _ASPECT[0]))
    whole_columns = min(width, round(height * _ASPECT[1]))
    rows = torch.where(found, rows.gather(1, first).squeeze(1), whole_rows)
    columns = torch.where(found, columns.gather(1, first).squeeze(1), whole_columns)
    place = uniform(0, 1, (2, batch), generator)
    top = torch.where(found, (place[0] * (height - rows + 1)).long(), (height - whole_rows) // 2)
    left = torch.where(found, (place[1] * (width - columns + 1)).long(), (width - whole_columns) // 2)
    return top, left, rows, columns


class JitterDraw(NamedTuple):
    """What colour jitter does to each image of a batch."""

    done: Tensor  # (B,) bool
    order: Tensor  # (B, 4) int64: what is done first, second, …: brightness, contrast, saturation (0, 1, 2), hue (3)
    factor: Tensor  # (B, 3) float64, 0.6 to 1.4: of brightness, contrast, saturation
    hue: Tensor  # (B,) int64, -25 to 25: 255ths of a turn


def draw_jitter(batch: int, generator: torch.Generator) -> JitterDraw:
    """Draw which images are changed (probability 0.8), in what order and by how much."""
    done = uniform(0, 1, (batch,), generator) < 0.8
    order = uniform(0, 1, (batch, 4), generator).argsort(1)
    factor = uniform(1 - _JITTER, 1 + _JITTER, (batch, 3), generator)
    hue = (uniform(-_HUE, _HUE, (batch,), generator) * 255).long()  # towards 0, as a cast to an integer goes
    return JitterDraw(done, order, factor, hue)


def color_jitter(images: Tensor, draw: JitterDraw) -> Tensor:
    """Change brightness, contrast, saturation and hue of the images drawn, each in its own order.

    Args:
        images: (B, C, H, W) uint8, C 1 or 3.
        draw: from :func:`draw_jitter`.

    Returns:
        (B, C, H, W) uint8.
    """
    return apply_where(draw.done, images, _jitter, draw.order, draw.factor, draw.hue)


def _jitter(images: Tensor, order: Tensor, factor: Tensor, hue: Tensor) -> Tensor:
    # Hue is the costly one: it is done once for all, between what comes before and what comes after it.
    hue_step = (order == _HUE_PLACE).int().argmax(1)
    kind = order.clamp_max(Enhancement.COLOUR)
    factor = factor.gather(1, kind)
    for step in range(3):
        images = apply_where(step < hue_step, images, enhance, kind[:, step], factor[:, step])
    images = shift_hue(images, hue)
    for step in range(1, 4):
        images = apply_where(step > hue_step, images, enhance, kind[:, step], factor[:, step])
    return images
