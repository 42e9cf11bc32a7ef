"""A folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from landscape_lab.data import Dataset, load_dataset
from landscape_lab.errors import InputError

COUNTS = {"cat": 4, "dog": 3, "eel": 2}


def pixels(seed: int, height: int = 6, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    seed = 0
    for split in ("train", "test"):
        for name, count in COUNTS.items():
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(pixels(seed)).save(folder / f"{index}.{('png', 'bmp', 'PNG')[index % 3]}")
                seed += 1
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "train" / "cat" / "._0.png").write_text("left by a file manager")
    (tmp_path / "train" / ".hidden").mkdir()
    return tmp_path


def load(root: Path | None, ratio: Any = "natural", **options: Any) -> Dataset:
    return load_dataset("folder", root=root, imbalance_ratio=ratio, **options)


def test_as_it_lies(root: Path) -> None:
    dataset = load(root)
    assert dataset.class_names == ("cat", "dog", "eel")
    assert dataset.class_counts == (4, 3, 2)
    assert dataset.train.targets.tolist() == [0] * 4 + [1] * 3 + [2] * 2
    expected = np.stack([pixels(seed) for seed in range(9)]).transpose(0, 3, 1, 2)
    assert np.array_equal(dataset.train.images.numpy(), expected)
    assert np.array_equal(dataset.test.images[0].numpy(), pixels(9).transpose(2, 0, 1))
    np.testing.assert_allclose(dataset.mean, (expected / 255).mean((0, 2, 3)))
    np.testing.assert_allclose(dataset.std, (expected / 255).std((0, 2, 3)))


def test_val_stands_in_for_test(root: Path) -> None:
    before = load(root).fingerprint
    (root / "test").rename(root / "val")
    assert load(root).fingerprint == before


def test_a_long_tail(root: Path) -> None:
    assert load(root, 2).class_counts == (4, 2, 2)
    with pytest.raises(InputError, match="class 'dog' has 3 training images and needs 4"):
        load(root, 1)


def test_sizes(root: Path) -> None:
    odd = root / "test" / "dog" / "1.bmp"
    Image.fromarray(pixels(99, 12, 20)).save(odd)
    with pytest.raises(InputError, match=r"dog/1\.bmp has 20 x 12 pixels .* set data\.image_size"):
        load(root)
    dataset = load(root, image_size=6)
    assert dataset.train.images.shape == (9, 3, 6, 6)
    # 8 x 6: the shorter side has the size already, so the middle is cut out.
    assert np.array_equal(dataset.train.images[0].numpy(), pixels(0)[:, 1:7].transpose(2, 0, 1))
    with pytest.raises(InputError, match="image size"):
        load(root, image_size=0)


def test_grey_palette_and_turned_images_become_rgb(root: Path) -> None:
    folder = root / "train" / "cat"
    grey, upright = pixels(50)[:, :, 0], pixels(51)
    Image.fromarray(grey).save(folder / "0.png")
    turned = Image.fromarray(np.rot90(upright))
    exif = turned.getexif()
    exif[0x0112] = 6  # to be shown turned by a quarter, clockwise
    turned.save(folder / "2.PNG", exif=exif)
    images = load(root).train.images.numpy()
    by_name = {path.name: i for i, path in enumerate(sorted(folder.glob("[0-9]*")))}
    assert np.array_equal(images[by_name["0.png"]], np.stack([grey] * 3))
    assert np.array_equal(images[by_name["2.PNG"]], upright.transpose(2, 0, 1))


def test_unreadable_images_are_named(root: Path) -> None:
    path = root / "train" / "dog" / "1.bmp"
    whole = (root / "train" / "dog" / "0.png").read_bytes()
    for content in (b"", b"not an image\n", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"dog/1\.bmp cannot be read as an image \(.*\)") as damage:
            load(root)
        assert "\n" not in str(damage.value)
        assert str(damage.value).count(str(path)) == 1
    path.unlink()
    Image.fromarray(np.full((6, 8), 40000, np.uint16)).save(root / "train" / "dog" / "1.png")
    with pytest.raises(InputError, match=r"dog/1\.png has more than 8 bits"):
        load(root)


def test_folders_that_do_not_fit(root: Path) -> None:
    with pytest.raises(InputError, match="pass --data-root"):
        load(None)
    (root / "test" / "fox").mkdir()
    with pytest.raises(InputError, match=r"test has a class 'fox' and .*train has not"):
        load(root)
    (root / "train" / "fox").mkdir()
    with pytest.raises(InputError, match="train/fox holds no images"):
        load(root)
    for name in ("cat", "dog", "eel"):
        (root / "train" / name).rename(root / f"{name} away")
    with pytest.raises(InputError, match="at least two, and has 1"):
        load(root)
    (root / "train").rename(root / "training")
    with pytest.raises(InputError, match="train is missing"):
        load(root)


def test_on_the_cpu_as_bytes(root: Path) -> None:
    assert load(root).train.images.dtype == torch.uint8
