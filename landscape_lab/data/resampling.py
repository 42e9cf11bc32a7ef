"""Geometry and smoothing of a batch, each image with parameters of its own, rounded as Pillow does."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["affine", "gaussian_blur", "resized_crop"]

_PASSES = 3  # of the box blur

# Divisors are tensors where rounding matters: a GPU divides by a number as it multiplies by its rounded reciprocal.


def affine(images: Tensor, matrices: Tensor, fill: int) -> Tensor:
    """Move pixels by an affine map, nearest neighbour: ``Image.transform`` with ``AFFINE``.

    The pixel at column x and row y is taken from the column ``⌊a (x + ½) + b (y + ½) + c⌋`` and the row
    ``⌊d (x + ½) + e (y + ½) + f⌋``, in 16-bit fixed point.

    Args:
        images: (B, C, H, W) uint8.
        matrices: (B, 6) float64: a, b, c, d, e, f.
        fill: the level of what comes from outside the image.

    Returns:
        (B, C, H, W) uint8.
    """
    batch, channels, height, width = images.shape
    shift = matrices[:, 2::3] + (matrices[:, 0::3] + matrices[:, 1::3]) / 2
    across, down, start = (
        torch.floor(part * 65536 + 0.5).long() for part in (matrices[:, 0::3], matrices[:, 1::3], shift)
    )  # (B, 2): for the column and for the row
    x = torch.arange(width, device=images.device)
    y = torch.arange(height, device=images.device)[:, None]
    column, row = (
        (start[:, i, None, None] + across[:, i, None, None] * x + down[:, i, None, None] * y) >> 16 for i in (0, 1)
    )  # (B, H, W)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    place = torch.where(inside, row * width + column, height * width).view(batch, 1, -1).expand(-1, channels, -1)
    outside = images.new_full((batch, channels, 1), fill)
    return torch.cat([images.flatten(2), outside], dim=2).gather(2, place).view(images.shape)


def resized_crop(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Cut a box out of each image and enlarge it to the image's size: ``crop``, then ``resize`` with ``BILINEAR``.

    Columns first, rounded to levels, then rows; weights in 22-bit fixed point.

    Args:
        images: (B, C, H, W) uint8.
        top: (B,) int64, the first row of the box, which lies within the image; ``left`` its first column.
        left: likewise.
        height: (B,) int64, rows of the box, 1 to H; ``width`` its columns, 1 to W.
        width: likewise.

    Returns:
        (B, C, H, W) uint8.
    """
    widened = _stretch(images.transpose(2, 3).contiguous(), left, width)
    return _stretch(widened.transpose(2, 3).contiguous(), top, height)


def _stretch(images: Tensor, start: Tensor, length: Tensor) -> Tensor:
    """Interpolate the ``length`` rows from ``start`` on to all rows."""
    batch, channels, size, _ = images.shape
    length = length[:, None]
    places = torch.arange(size, dtype=torch.float64, device=images.device) + 0.5
    centre = places * (length / places.new_full((), size))  # (B, size)
    lower = (centre - 0.5).clamp_min(0).floor()
    upper = torch.minimum(lower + 1, length - 1.0)
    weight = 1 - (lower + 0.5 - centre).abs()
    other = (1 - (lower + 1.5 - centre).abs()).clamp_min(0) * (lower + 1 < length)
    total = weight + other
    # Whole rows are copied: a tenth of the time of gathering pixels.
    rows = images.reshape(batch * channels * size, -1)
    first = torch.arange(0, len(rows), size, device=images.device).view(batch, channels, 1) + start[:, None, None]

    def term(index: Tensor, part: Tensor) -> Tensor:
        picked = rows.index_select(0, (first + index.long()[:, None]).flatten()).view(images.shape)
        return picked.int().mul_((part / total * 2**22 + 0.5).int()[:, None, :, None])

    levels = term(lower, weight).add_(term(upper, other)).add_(2**21)
    return levels.bitwise_right_shift_(22).to(torch.uint8)


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur by three box blurs along each axis (Gwosdek et al. 2011): ``ImageFilter.GaussianBlur``.

    Args:
        images: (B, C, H, W) uint8; beyond the border, the outermost pixel goes on.
        sigma: (B,) standard deviation in pixels, above 0 and below 2.4 (where boxes reach two pixels to each side).

    Returns:
        (B, C, H, W) uint8.
    """
    # A box of half-width r = ⌊r⌋ + a: weight `whole` on the inner pixels, `edge` on the two outermost; Pillow's floats.
    variance = sigma.float().square() / sigma.new_full((), _PASSES, dtype=torch.float32)
    least = (((12 * variance.double() + 1).sqrt().float().double() - 1) / 2).floor().float()
    part = (2 * least + 1) * (least * (least + 1) - 3 * variance) / (6 * (variance - (least + 1).square()))
    whole = (2**24 / ((least + part) * 2 + 1)).long()
    edge = (2**24 - (2 * least.long() + 1) * whole) // 2
    wide = least > 0
    near, far = torch.where(wide, whole, edge), torch.where(wide, edge, 0)
    # Products with 24-bit weights, exact in double precision.
    whole, near, far = (weight.double()[:, None, None, None] / 2**24 for weight in (whole, near, far))
    for axis in (3, 2):
        size = images.shape[axis]
        around = torch.arange(-2, size + 2, device=images.device).clamp_(0, size - 1)
        for _ in range(_PASSES):
            padded = images.index_select(axis, around).int()
            outer, inner, middle, inner_too, outer_too = (padded.narrow(axis, i, size) for i in range(5))
            total = (middle * whole).add_((inner + inner_too) * near).add_((outer + outer_too) * far)
            images = total.add_(0.5).int().to(torch.uint8)
    return images
