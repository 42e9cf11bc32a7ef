"""Pictures for the tests of augmentation, and the way to Pillow and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor

SHAPES = [(48, 3, 32, 32), (48, 1, 8, 8), (24, 3, 9, 14), (16, 1, 2, 3), (8, 3, 1, 1)]


def pictures(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Noise, ramps, low contrast, few levels, and flat images, (B, C, H, W) uint8."""
    batch, channels, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    across, down = torch.linspace(0, 1, width), torch.linspace(0.3, 1, height)[:, None]
    ramps = 255 * across * down * torch.rand(batch, channels, 1, 1, generator=generator)
    kind = torch.arange(batch) % 8
    images[kind == 1] = ramps[kind == 1].byte()
    images[kind == 2] = images[kind == 2] // 16 + 100
    images[kind == 3] = images[kind == 3] // 64 * 80
    images[kind == 4] = torch.maximum(images[kind == 4], torch.tensor(240, dtype=torch.uint8))
    images[kind == 5] = images[kind == 5] // 200 * 255
    images[kind == 6, :1] = 77  # one flat channel, or all
    images[-1], images[0] = 0, 255
    return images


def picture(image: Tensor) -> Image.Image:
    """(C, H, W) uint8 as an image of mode L or RGB."""
    array = image.permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if len(image) == 1 else array)


def levels(image: Image.Image) -> Tensor:
    array = np.asarray(image)
    return torch.from_numpy(array[None].copy() if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def by_pillow(images: Tensor, operation: Callable[..., Image.Image], *parameters: Iterable[Any]) -> Tensor:
    """One image at a time."""
    rows = zip(images, *parameters, strict=True)
    return torch.stack([levels(operation(picture(image), *values)) for image, *values in rows])


def turn_hue(image: Image.Image, shift: int) -> Image.Image:
    if image.mode == "L":
        return image
    array = np.array(image.convert("HSV"))
    array[..., 0] += np.uint8(shift % 256)
    return Image.merge("HSV", [Image.fromarray(np.ascontiguousarray(array[..., i])) for i in range(3)]).convert("RGB")


def grey(image: Image.Image) -> Image.Image:
    return image.convert("L").convert(image.mode)


def blurred(image: Image.Image, sigma: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(sigma))


def resized(image: Image.Image, top: int, left: int, height: int, width: int) -> Image.Image:
    box = image.crop((left, top, left + width, top + height))
    return box.resize(image.size, Image.Resampling.BILINEAR)


def transformed(image: Image.Image, matrix: Iterable[float]) -> Image.Image:
    fill = 128 if image.mode == "L" else (128, 128, 128)
    return image.transform(image.size, Image.Transform.AFFINE, tuple(matrix), fillcolor=fill)


ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def autoaugmented(image: Image.Image, name: str, m: float) -> Image.Image:
    """An operation of AutoAugment, as its public implementations call Pillow."""
    fill = 128 if image.mode == "L" else (128, 128, 128)
    width, height = image.size
    if name in ("shear-x", "shear-y", "translate-x", "translate-y"):
        matrix = {
            "shear-x": (1, m, 0, 0, 1, 0),
            "shear-y": (1, 0, 0, m, 1, 0),
            "translate-x": (1, 0, m * width, 0, 1, 0),
            "translate-y": (1, 0, 0, 0, 1, m * height),
        }[name]
        return transformed(image, matrix)
    if name == "rotate":
        return image.rotate(m, Image.Resampling.NEAREST, fillcolor=fill)
    names = ("brightness", "contrast", "colour", "sharpness")
    enhancers = dict(zip(names, (*ENHANCERS, ImageEnhance.Sharpness), strict=True))
    if name in enhancers:
        return enhancers[name](image).enhance(1 + m)
    if name == "posterize":
        return ImageOps.posterize(image, int(m))
    if name == "solarize":
        return ImageOps.solarize(image, m)  # type: ignore[arg-type]
    return {"invert": ImageOps.invert, "autocontrast": ImageOps.autocontrast, "equalize": ImageOps.equalize}[name](
        image
    )
