"""A folder of images, one folder a class: the user's own data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from landscape_lab.data.dataset import Dataset, Split, channel_statistics
from landscape_lab.data.profile import ImbalanceRatio, training_indices
from landscape_lab.errors import InputError

__all__ = ["EXTENSIONS", "read_folder"]

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


def read_folder(
    root: Path | None, imbalance_ratio: ImbalanceRatio, subset_seed: int = 0, image_size: int | None = None
) -> Dataset:
    """``folder``: images in ``ROOT/train/<class>/`` and ``ROOT/test/<class>/`` (or ``val``), as RGB.

    Classes and files are taken in the order of their names.

    Args:
        root: the folder.
        imbalance_ratio: ``"natural"`` for all training images; a number for a long tail whose class 0 has as
            many images as the largest class.
        subset_seed: draws the long-tailed subset.
        image_size: side in pixels: the shorter side is brought to it, the middle of the longer one is kept.
            ``None`` keeps the images as they are, if they all have one size.

    Raises:
        InputError: a folder is missing or empty, test classes are not those of training, an image cannot be
            read, or sizes differ and ``image_size`` is not given.
    """
    if root is None:
        raise InputError("folder needs images: pass --data-root with a folder that holds train/ and test/")
    if image_size is not None and image_size < 1:
        raise InputError(f"the image size must be at least 1 pixel, got {image_size}; set data.image_size")
    root = Path(root).expanduser()
    train, test = root / "train", root / "test"
    if not test.is_dir() and (root / "val").is_dir():
        test = root / "val"
    for folder in (train, test):
        if not folder.is_dir():
            raise InputError(f"{folder} is missing: it should hold one folder of images a class")
    names = _classes(train)
    if len(names) < 2:
        raise InputError(f"{train} should hold one folder of images a class, at least two, and has {len(names)}")
    if unmatched := sorted(set(names) ^ set(_classes(test))):
        has, lacks = (train, test) if unmatched[0] in names else (test, train)
        raise InputError(f"{has} has a class {unmatched[0]!r} and {lacks} has not; the classes must be the same")

    paths, targets = _files(train, names)
    n_max = int(np.bincount(targets).max())
    kept = training_indices(targets, names, imbalance_ratio, n_max, subset_seed)
    images = _read([paths[i] for i in kept], image_size, None)
    test_paths, test_targets = _files(test, names)
    test_images = _read(test_paths, image_size, images.shape[2:])

    mean, std = channel_statistics(torch.from_numpy(images))
    return Dataset(
        name="folder",
        train=Split(torch.from_numpy(images), torch.from_numpy(targets[kept])),
        test=Split(torch.from_numpy(test_images), torch.from_numpy(test_targets)),
        class_names=names,
        mean=mean,
        std=std,
    )


def _classes(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")))


def _files(folder: Path, names: Sequence[str]) -> tuple[list[Path], npt.NDArray[np.int64]]:
    paths: list[Path] = []
    counts = []
    for name in names:
        own = sorted(
            path
            for path in (folder / name).iterdir()
            if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")
        )
        if not own:
            raise InputError(f"{folder / name} holds no images; add some, or remove the class everywhere")
        paths += own
        counts.append(len(own))
    return paths, np.repeat(np.arange(len(names)), counts)


def _read(paths: Sequence[Path], size: int | None, shape: tuple[int, ...] | None) -> npt.NDArray[np.uint8]:
    """All images as (N, 3, H, W); of ``shape`` (H, W), or of the first one's."""
    images = np.empty(0, np.uint8)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding releases the interpreter's lock
        for index, pixels in enumerate(pool.map(partial(_pixels, size=size), paths)):
            shape = shape or pixels.shape[:2]
            if pixels.shape[:2] != shape:
                raise InputError(
                    f"{paths[index]} has {_sides(pixels.shape)} pixels and others have {_sides(shape)}; "
                    "set data.image_size"
                )
            if not index:
                images = np.empty((len(paths), 3, *shape), np.uint8)
            images[index] = pixels.transpose(2, 0, 1)
    return images


def _pixels(path: Path, size: int | None) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(path) as opened:
            deep = opened.mode.startswith(("I", "F"))
            image = ImageOps.exif_transpose(opened).convert("RGB")
            if size is not None:
                image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()).replace(f" {str(path)!r}", "")
        raise InputError(f"{path} cannot be read as an image ({reason}); replace or remove it") from None
    if deep:  # its conversion would clip silently
        raise InputError(f"{path} has more than 8 bits a channel; save it with 8 bits")
    return np.asarray(image)


def _sides(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}"
