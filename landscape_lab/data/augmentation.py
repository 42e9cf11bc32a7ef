"""Random crop and flip of a whole batch, where the batch lies."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["crop_and_flip"]


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
