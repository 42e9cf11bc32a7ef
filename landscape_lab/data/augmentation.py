"""Random crop, flip and cutout of a whole batch where it lies, and operations on some of its images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["apply_where", "crop_and_flip", "cutout", "uniform"]

_CAN_PICK = {"cpu"}
"""Devices that can pick rows by a mask without waiting: elsewhere, the host must first learn how many there are."""


def crop_and_flip(images: Tensor, generator: torch.Generator, padding: int, flip: bool) -> Tensor:
    """Pad each image with zeros, cut a window of its own size at a random place, mirror half of them.

    With ``dy, dx`` uniform on ``0 .. 2 * padding`` and ``s`` a fair coin, drawn for each image,
    ``out[y, x] = padded[y + dy, (W - 1 - x if s else x) + dx]``.

    Args:
        images: (B, C, H, W), any dtype; they are not changed.
        generator: on the images' device.
        padding: pixels on each side; 0 leaves the place alone.
        flip: whether to mirror left and right.

    Returns:
        (B, C, H, W), same dtype and device. Nothing waits for the device.
    """
    if padding == 0 and not flip:
        return images
    (batch, _, height, width), device = images.shape, images.device
    offsets = torch.randint(2 * padding + 1, (2, batch, 1), generator=generator, device=device)
    rows = torch.arange(height, device=device) + offsets[0]  # (B, H)
    columns = torch.arange(width, device=device).expand(batch, width)
    if flip:
        mirrored = torch.randint(2, (batch, 1), generator=generator, device=device).bool()
        columns = torch.where(mirrored, columns.flip(1), columns)
    columns = columns + offsets[1]  # (B, W)

    padded = F.pad(images, [padding] * 4)
    places = rows[:, :, None] * padded.shape[3] + columns[:, None, :]  # (B, H, W)
    places = places.reshape(batch, 1, -1).expand(-1, images.shape[1], -1)
    return padded.flatten(2).gather(2, places).view(images.shape)


def cutout(images: Tensor, generator: torch.Generator, side: int) -> Tensor:
    """Black out one square of each image (DeVries and Taylor 2017, arXiv 1708.04552).

    The square's centre is uniform over the image, so that a part of it may lie outside: with ``y`` uniform on
    ``0 .. H - 1``, it covers the rows ``y - side // 2`` to ``y - side // 2 + side - 1``, and columns likewise.

    Args:
        images: (B, C, H, W) uint8; they are not changed.
        generator: on the images' device.
        side: of the square, in pixels; 0 blacks out nothing.

    Returns:
        (B, C, H, W) uint8. Nothing waits for the device.
    """
    if side == 0:
        return images
    (batch, _, height, width), device = images.shape, images.device
    inside = []
    for size in (height, width):
        start = torch.randint(size, (batch, 1), generator=generator, device=device) - side // 2
        place = torch.arange(size, device=device)
        inside.append((place >= start) & (place < start + side))
    kept = ~(inside[0][:, None, :, None] & inside[1][:, None, None, :])
    return images * kept.to(images.dtype)


def apply_where(chosen: Tensor, images: Tensor, operation: Callable[..., Tensor], *parameters: Tensor) -> Tensor:
    """Apply an operation to some images of a batch and leave the others as they are.

    A CPU works on the chosen images alone; a GPU, which would have to wait to learn which they are, on all of
    them. The result is the same.

    Args:
        chosen: (B,) bool.
        images: (B, C, H, W).
        operation: ``operation(images, *parameters)`` gives images of the same shape and dtype, each from the image
            and the parameters in the same row alone.
        parameters: (B, ...) each.

    Returns:
        (B, C, H, W); the images given are not changed.
    """
    if images.device.type not in _CAN_PICK:
        return torch.where(chosen[:, None, None, None], operation(images, *parameters), images)
    rows = chosen.nonzero().squeeze(1)
    if not len(rows):
        return images
    changed = operation(images.index_select(0, rows), *(parameter[rows] for parameter in parameters))
    # Whole rows are copied: a fifth of index_copy's time.
    source = torch.arange(len(images)).index_copy_(0, rows, torch.arange(len(rows)) + len(images))
    return torch.cat([images, changed]).index_select(0, source)


def uniform(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Float64 numbers drawn uniformly from [low, high), on the generator's device."""
    drawn = torch.rand(shape, dtype=torch.float64, generator=generator, device=generator.device)
    return drawn.mul_(high - low).add_(low)
