"""The embedded digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from landscape_lab.data import Dataset, load_dataset, long_tail_counts
from landscape_lab.errors import InputError


def load(ratio: Any, seed: int = 0) -> Dataset:
    return load_dataset("digits-lt", imbalance_ratio=ratio, subset_seed=seed)


def rows(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_counts_and_balanced_test_split() -> None:
    dataset = load(50)
    assert dataset.class_counts == long_tail_counts(124, 10, 50)
    assert torch.bincount(dataset.test.targets).tolist() == [50] * 10
    assert dataset.train.images.shape == (sum(dataset.class_counts), 1, 8, 8)
    assert dataset.class_names == tuple("0123456789")


def test_natural_and_test_are_the_whole_set_once() -> None:
    dataset = load("natural")
    assert len(dataset.train) + len(dataset.test) == 1797
    assert min(dataset.class_counts) == 124
    assert not rows(dataset.train.images) & rows(dataset.test.images)
    original = np.rint(load_digits().images / 16 * 255).astype(np.uint8)
    assert rows(torch.cat([dataset.train.images, dataset.test.images])) == {i.tobytes() for i in original}
    scores = dataset.normalise(dataset.train.images)
    assert abs(scores.mean().item()) < 1e-5
    assert abs(scores.std().item() - 1) < 1e-4


def test_ratio_and_seed_change_the_training_split_alone() -> None:
    first, other, seeded = load(10), load(20), load(10, seed=1)
    assert load(10).fingerprint == first.fingerprint
    assert len({d.fingerprint for d in (first, other, seeded)}) == 3
    for dataset in (other, seeded):
        assert torch.equal(dataset.test.images, first.test.images)


def test_too_large_a_ratio() -> None:
    with pytest.raises(InputError, match="class 9 would have no training samples"):
        load(125)
