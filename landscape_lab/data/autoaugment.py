"""AutoAugment's policy for CIFAR-10 (Cubuk et al., CVPR 2019, arXiv 1805.09501, Table 7), a whole batch at once."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from landscape_lab.data.augmentation import apply_where, uniform
from landscape_lab.data.pixel_operations import (
    Enhancement,
    autocontrast,
    enhance,
    equalize,
    invert,
    posterize,
    sharpen,
    solarize,
)
from landscape_lab.data.resampling import affine

__all__ = [
    "FILL",
    "OPERATIONS",
    "POLICY",
    "PolicyDraw",
    "apply_operation",
    "autoaugment",
    "draw_policy",
    "magnitude_of",
]

FILL = 128
"""The level of pixels that come from outside the image."""

OPERATIONS = (
    "shear-x",
    "shear-y",
    "translate-x",
    "translate-y",
    "rotate",
    "brightness",
    "contrast",
    "colour",
    "sharpness",
    "posterize",
    "solarize",
    "invert",
    "autocontrast",
    "equalize",
)
_NUMBER = {name: number for number, name in enumerate(OPERATIONS)}
NOTHING = -1
_SIGNED = _NUMBER["sharpness"]  # operations up to this one have a sign

POLICY: tuple[tuple[tuple[str, float, int], tuple[str, float, int]], ...] = (
    (("invert", 0.1, 7), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate-x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear-y", 0.5, 8), ("translate-y", 0.7, 9)),
    (("autocontrast", 0.5, 8), ("equalize", 0.9, 2)),
    (("shear-y", 0.2, 7), ("posterize", 0.3, 7)),
    (("colour", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 5), ("equalize", 0.5, 1)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("colour", 0.7, 7), ("translate-x", 0.5, 8)),
    (("equalize", 0.3, 7), ("autocontrast", 0.4, 8)),
    (("translate-y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("colour", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 3)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 8), ("equalize", 0.6, 4)),
    (("colour", 0.9, 9), ("equalize", 0.6, 6)),
    (("autocontrast", 0.8, 4), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("colour", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 3)),
    (("translate-y", 0.9, 9), ("translate-y", 0.7, 9)),
    (("autocontrast", 0.9, 2), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 8), ("invert", 0.1, 3)),
    (("translate-y", 0.7, 9), ("autocontrast", 0.9, 1)),
)
"""The 25 sub-policies: two operations each, with probability and level (0 to 9)."""


def magnitude_of(operation: str, level: int) -> float:
    """What a level (0 to 9) means: a shear, a share of the side, degrees, a change of a factor, bits, a threshold.

    Example:
        >>> magnitude_of("rotate", 9), magnitude_of("posterize", 7), magnitude_of("equalize", 5)
        (30.0, 5.0, 0.0)
    """
    part = level / 9
    if operation == "posterize":
        return float(round(8 - 4 * part))
    if operation == "solarize":
        return 256 - 256 * part
    kind = operation.partition("-")[0]
    largest = {"shear": 0.3, "translate": 150 / 331, "rotate": 30.0}
    enhancements = dict.fromkeys(("brightness", "contrast", "colour", "sharpness"), 0.9)
    return (largest | enhancements).get(kind, 0.0) * part


class PolicyDraw(NamedTuple):
    """What happens to each image of a batch, in two stages."""

    policy: Tensor  # (B,) int64: the sub-policy
    operation: Tensor  # (2, B) int64: number in OPERATIONS, or -1: none
    magnitude: Tensor  # (2, B) float64: as of magnitude_of, with its sign


def draw_policy(batch: int, generator: torch.Generator) -> PolicyDraw:
    """Draw for each image one of the 25 sub-policies, which of its two operations are done, and their signs."""
    device = generator.device
    operations, probabilities, magnitudes = _table(device)
    policy = torch.randint(len(POLICY), (batch,), generator=generator, device=device)
    done = uniform(0, 1, (2, batch), generator) < probabilities[:, policy]
    minus = torch.randint(2, (2, batch), generator=generator, device=device).bool()
    operation = operations[:, policy]
    magnitude = magnitudes[:, policy]
    magnitude = torch.where(minus & (operation <= _SIGNED), -magnitude, magnitude)
    return PolicyDraw(policy, torch.where(done, operation, NOTHING), magnitude)


def autoaugment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Apply a sub-policy of its own to each image.

    Args:
        images: (B, C, H, W) uint8, C 1 or 3; they are not changed.
        generator: on the images' device.

    Returns:
        (B, C, H, W) uint8, level for level what Pillow gives for the same draws. Nothing waits for the device.
    """
    draw = draw_policy(len(images), generator)
    for operation, magnitude in zip(draw.operation, draw.magnitude, strict=True):
        images = apply_operation(images, operation, magnitude)
    return images


def apply_operation(images: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """Apply to each image one of the 14 operations, or none.

    Args:
        images: (B, C, H, W) uint8.
        operation: (B,) int64, its number in :data:`OPERATIONS`; -1: none.
        magnitude: (B,) float64: shear, translation as a share of the side, degrees counter-clockwise, ``f - 1`` for
            enhancements by a factor f, bits, threshold; the other operations have none.

    Returns:
        (B, C, H, W) uint8.
    """
    chosen = {name: operation == number for name, number in _NUMBER.items()}
    moved = (operation >= 0) & (operation <= _NUMBER["rotate"])
    images = apply_where(moved, images, _move, operation, magnitude)
    enhancement = operation - _NUMBER["brightness"]
    enhanced = (enhancement >= Enhancement.BRIGHTNESS) & (enhancement <= Enhancement.COLOUR)
    images = apply_where(enhanced, images, enhance, enhancement, 1 + magnitude)
    images = apply_where(chosen["sharpness"], images, sharpen, 1 + magnitude)
    # On a GPU all images pass through: the clamp keeps bits in range where the magnitude is not theirs.
    images = apply_where(chosen["posterize"], images, posterize, magnitude.long().clamp(1, 8))
    images = apply_where(chosen["solarize"], images, solarize, magnitude)
    for name, change in (("invert", invert), ("autocontrast", autocontrast), ("equalize", equalize)):
        images = apply_where(chosen[name], images, change)
    return images


def _move(images: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """Shear, translate or rotate about the middle."""
    height, width = images.shape[2:]

    def of(name: str) -> Tensor:
        return torch.where(operation == _NUMBER[name], magnitude, 0)

    angle = of("rotate").deg2rad()
    cos, sin, x, y = angle.cos(), angle.sin(), width / 2, height / 2
    matrix = (
        *(cos, of("shear-x") - sin, x - cos * x + sin * y + of("translate-x") * width),
        *(of("shear-y") + sin, cos, y - sin * x - cos * y + of("translate-y") * height),
    )
    return affine(images, torch.stack(matrix, dim=1), FILL)


@functools.cache
def _table(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Operations, probabilities and magnitudes, each (2, 25), kept: copying them in each batch would wait."""
    stages = list(zip(*POLICY, strict=True))
    operations = [[_NUMBER[name] for name, _, _ in stage] for stage in stages]
    probabilities = [[probability for _, probability, _ in stage] for stage in stages]
    magnitudes = [[magnitude_of(name, level) for name, _, level in stage] for stage in stages]
    return (
        torch.tensor(operations, device=device),
        torch.tensor(probabilities, dtype=torch.float64, device=device),
        torch.tensor(magnitudes, dtype=torch.float64, device=device),
    )
