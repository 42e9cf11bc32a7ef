"""Operations on colours and grey levels, each image of a batch with a parameter of its own, rounded as Pillow does.

All take images (B, C, H, W) uint8 of one channel (grey) or three (red, green, blue) and give new ones of the same
shape. They equal Pillow's ImageEnhance, ImageOps and HSV conversion level for level; a grey image is treated as a
colour image of three equal channels.
"""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor

from landscape_lab.errors import InputError

__all__ = [
    "Enhancement",
    "autocontrast",
    "enhance",
    "equalize",
    "greyscale",
    "invert",
    "luma",
    "posterize",
    "sharpen",
    "shift_hue",
    "solarize",
]


class Enhancement(IntEnum):
    """What :func:`enhance` changes."""

    BRIGHTNESS = 0
    CONTRAST = 1
    COLOUR = 2


def luma(images: Tensor) -> Tensor:
    """Grey levels after ITU-R 601, in Pillow's 16-bit fixed point.

    Args:
        images: (B, C, H, W) uint8, C 1 or 3.

    Returns:
        (B, 1, H, W) int32, 0 to 255.

    Raises:
        InputError: there are neither one nor three channels.
    """
    levels = images.int()
    if _is_grey(images):
        return levels
    red, green, blue = levels.split(1, dim=1)
    grey: Tensor = (red * 19595).add_(green, alpha=38470).add_(blue, alpha=7471)
    return grey.add_(32768).bitwise_right_shift_(16)


def greyscale(images: Tensor) -> Tensor:
    """Each channel becomes the grey level of :func:`luma`."""
    return luma(images).to(torch.uint8).expand_as(images)


def enhance(images: Tensor, kind: Tensor, factor: Tensor) -> Tensor:
    """Lead away from, or towards, black, the image's mean grey, or its grey version: ``g + factor (x - g)``.

    Args:
        images: (B, C, H, W) uint8.
        kind: (B,) int64, an :class:`Enhancement` for each image.
        factor: (B,) at least 0; 1 changes nothing.
    """
    grey = luma(images)
    pixels = grey[0].numel()
    # ⌊mean + 1/2⌋ in whole numbers
    mean = (2 * grey.sum((1, 2, 3), dtype=torch.int64) + pixels) // (2 * pixels)
    kind = kind[:, None, None, None]
    plain = grey.float() * (kind == Enhancement.COLOUR)
    plain += mean[:, None, None, None] * (kind == Enhancement.CONTRAST)
    return _blend(plain, images, factor)


def sharpen(images: Tensor, factor: Tensor) -> Tensor:
    """Lead away from (``factor`` > 1) or towards (< 1) the image smoothed by the kernel (1 1 1; 1 5 1; 1 1 1) / 13.

    Args:
        images: (B, C, H, W) uint8; their outermost pixels stay as they are.
        factor: (B,) at least 0.
    """
    levels = images.int()
    columns = levels[..., :-2] + levels[..., 1:-1] + levels[..., 2:]
    total = columns[..., :-2, :] + columns[..., 1:-1, :] + columns[..., 2:, :]
    total += 4 * levels[..., 1:-1, 1:-1]
    smooth = levels.float()
    smooth[..., 1:-1, 1:-1] = (total.float() / smooth.new_full((), 13)).round_()
    return _blend(smooth, images, factor)


def invert(images: Tensor) -> Tensor:
    """``255 - x``."""
    return 255 - images


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the upper ``bits`` (B,) int64, 1 to 8, of each level."""
    mask = 256 - (torch.ones_like(bits) << (8 - bits))
    return images & mask.to(torch.uint8)[:, None, None, None]


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert the levels that are at least ``threshold`` (B,)."""
    bright = images >= threshold[:, None, None, None]
    return images ^ (bright.to(torch.uint8) * 255)  # 255 - x is x with all bits turned


def autocontrast(images: Tensor) -> Tensor:
    """Stretch each channel so that its darkest level becomes 0 and its brightest 255; a flat channel stays."""
    low, high = images.amin((2, 3), keepdim=True).double(), images.amax((2, 3), keepdim=True).double()
    flat = high <= low
    span = (high - low).masked_fill_(flat, 255)
    scale = torch.full_like(span, 255) / span  # 255 / span would multiply by a rounded reciprocal
    offset = (low * scale).masked_fill_(flat, 0)
    return images.double().mul_(scale).sub_(offset).clamp_(0, 255).to(torch.uint8)


def equalize(images: Tensor) -> Tensor:
    """Equalise each channel's histogram.

    With ``n`` pixels, of which ``m`` have the brightest level present, and ``s = ⌊(n - m) / 255⌋``, level ``v`` becomes
    ``⌊(⌊s / 2⌋ + #{x < v}) / s⌋``, at most 255; where ``s`` is 0, nothing changes.
    """
    levels = images.flatten(2).long()  # (B, C, P)
    counts = levels.new_zeros(*levels.shape[:2], 256).scatter_add_(2, levels, torch.ones_like(levels))
    brightest = counts.gather(2, levels.amax(2, keepdim=True))
    step = (levels.shape[2] - brightest) // 255
    below = counts.cumsum(2) - counts
    table = ((step // 2 + below) // step.clamp_min(1)).clamp_max(255).to(torch.uint8)
    table = torch.where(step > 0, table, torch.arange(256, dtype=torch.uint8, device=images.device))
    return table.gather(2, levels).view(images.shape)


def shift_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue, through Pillow's 8-bit HSV and back; grey stays grey.

    Args:
        images: (B, C, H, W) uint8.
        shift: (B,) int64, in 255ths of a full turn, of either sign; hues are taken modulo 256 (as uint8 wraps).
    """
    if _is_grey(images):
        return images
    hue, saturation, value = _hue_saturation_value(images)
    place = (((hue + shift[:, None, None].int()) & 255) * 2).float()  # of 510 around the circle of colours
    result = torch.empty_like(images)
    # How far a channel falls from v towards (1 - s / 255) v, in 85ths, is a trapezium about the complementary colour.
    for channel, complement in enumerate((255, 425, 85)):
        fall = place.sub(complement).abs_().sub_(255).abs_().sub_(85).clamp_(0, 85)
        # v (1 - s / 255 · fall / 85), rounded, in whole numbers below 2²⁴; there are no ties, for 255 · 85 is odd.
        level = fall.mul_(saturation).neg_().add_(21675).mul_(value).div_(place.new_full((), 21675)).round_()
        result[:, channel] = level.int()
    return result


def _is_grey(images: Tensor) -> bool:
    if images.shape[1] not in (1, 3):
        raise InputError(f"operations on colours need images of 1 or 3 channels, got {images.shape[1]}")
    return images.shape[1] == 1


def _hue_saturation_value(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """RGB to Pillow's HSV (after colorsys), each (B, H, W), 0 to 255: hue int32, the others float32."""
    levels = images.float()
    value = levels.amax(1)
    chroma = value - levels.amin(1)
    # Pillow's order of single and double precision, because it truncates.
    red, green, blue = ((value[:, None] - levels) / chroma.clamp_min(1)[:, None]).unbind(1)
    is_red = (red == 0).float()
    is_green = (green == 0).float() * (1 - is_red)
    after_green = (2 + red.double()).sub_(blue).float()
    after_blue = (4 + green.double()).sub_(red).float()
    # A sum with one term that is not 0: a quarter of the time of two calls of where.
    sixths = (blue - green).mul_(is_red).add_(after_green.mul_(is_green))
    sixths.add_(after_blue.mul_(1 - is_red - is_green))
    turn = sixths.double().div_(sixths.new_full((), 6, dtype=torch.float64)).add_(1).frac_().float()
    saturation = (chroma / value.clamp_min(1)).double().mul_(255).floor_().float()
    return turn.double().mul_(255).int(), saturation, value


def _blend(start: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    """``start + factor (images - start)`` in single precision, cut to 0 .. 255 and truncated."""
    factor = factor[:, None, None, None].float()
    # Apart, because a fused multiply-add rounds differently.
    return (images.float() - start).mul_(factor).add_(start).clamp_(0, 255).int().to(torch.uint8)
