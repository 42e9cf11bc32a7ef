"""Splits, data sets and the names by which they are loaded."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest
import torch

from landscape_lab.data import Dataset, Split, load_dataset
from landscape_lab.data.dataset import channel_statistics
from landscape_lab.errors import InputError


@pytest.fixture
def dataset() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    splits = [
        Split(
            torch.randint(256, (n, 3, 5, 4), dtype=torch.uint8, generator=generator),
            torch.randint(3, (n,), generator=generator),
        )
        for n in (20, 10)
    ]
    return Dataset("toy", *splits, ("a", "b", "c"), (0.1, 0.5, 0.9), (0.2, 0.3, 0.4))


def test_only_keeps_order_and_labels(dataset: Dataset) -> None:
    split = dataset.train
    part = split.only([2, 0])
    places = [i for i, target in enumerate(split.targets.tolist()) if target != 1]
    assert part.targets.tolist() == [split.targets[i].item() for i in places]
    assert torch.equal(part.images, split.images[places])
    assert len(split.only([])) == 0


def test_split_refuses_other_shapes_and_types() -> None:
    images, targets = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    for wrong in (
        (images.float(), targets),
        (images[0], targets),
        (images, targets[:1]),
        (images, targets.int()),
    ):
        with pytest.raises(ValueError, match="must be"):
            Split(*wrong)


def test_normalise_is_its_formula(dataset: Dataset) -> None:
    images = dataset.train.images
    scores = dataset.normalise(images)
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (dataset.mean, dataset.std))
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.double(), (images.double() / 255 - mean) / std, rtol=1e-6, atol=1e-6)
    assert torch.equal(dataset.normalise(images[3]), scores[3])
    assert dataset.normalise(images.to("meta")).device.type == "meta"


def test_counts(dataset: Dataset) -> None:
    assert dataset.num_classes == 3
    assert dataset.class_counts == tuple(dataset.train.targets.tolist().count(c) for c in range(3))


def test_fingerprint_sees_every_pixel_label_and_shape(dataset: Dataset) -> None:
    digest = hashlib.sha256()
    for split in (dataset.train, dataset.test):
        digest.update(f"uint8 {tuple(split.images.shape)} int64 {tuple(split.targets.shape)}\n".encode())
        digest.update(split.images.numpy().tobytes() + split.targets.numpy().tobytes())
    assert dataset.fingerprint == digest.hexdigest() == dataset.to("cpu").fingerprint

    images, targets = dataset.test.images.clone(), dataset.test.targets.clone()
    images[9, 2, 4, 3] ^= 1
    targets[0] = (targets[0] + 1) % 3
    others = [
        Split(images, dataset.test.targets),
        Split(dataset.test.images, targets),
        Split(dataset.test.images.transpose(2, 3), dataset.test.targets),
    ]
    prints = {dataclasses.replace(dataset, test=test).fingerprint for test in others}
    assert len(prints) == 3
    assert dataset.fingerprint not in prints


def test_channel_statistics() -> None:
    images = torch.randint(256, (300, 3, 4, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    images[:, 2] = 51
    mean, std = channel_statistics(images)
    pixels = images.numpy() / 255
    np.testing.assert_allclose(mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std[:2], pixels.std((0, 2, 3))[:2], rtol=1e-10)
    assert std[2] == 1 / 255


def test_unknown_names_and_sizes() -> None:
    with pytest.raises(InputError, match=r"no data set 'cifar100' \(did you mean 'cifar100-lt'\?\)"):
        load_dataset("cifar100", imbalance_ratio=10)
    with pytest.raises(InputError, match="digits-lt has images of 8 x 8 pixels, got image size 32"):
        load_dataset("digits-lt", imbalance_ratio=10, image_size=32)
