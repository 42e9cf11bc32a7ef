"""The handwritten digits that come with scikit-learn, long-tailed: real images, and nothing to download."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from landscape_lab.data.dataset import Dataset, Split, channel_statistics
from landscape_lab.data.profile import ImbalanceRatio, training_indices

__all__ = ["SIDE", "TEST_PER_CLASS", "read_digits"]

SIDE = 8
TEST_PER_CLASS = 50
SPLIT_SEED = 0


def read_digits(imbalance_ratio: ImbalanceRatio, subset_seed: int = 0) -> Dataset:
    """``digits-lt``: 8 x 8 grey images of the ten digits, with 50 test images a class.

    The test split is the same for all ratios and seeds. Of the other 1,297 images the smallest class has 124:
    that many class 0 keeps.

    Args:
        imbalance_ratio: largest class over smallest, or ``"natural"`` for all 1,297 images.
        subset_seed: draws the long-tailed subset.

    Raises:
        InputError: the ratio leaves a class without samples.
    """
    from sklearn.datasets import load_digits  # here, for it takes a second

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    targets = digits.target.astype(np.int64)
    names = tuple(map(str, range(10)))

    order = np.random.RandomState(SPLIT_SEED).permutation(len(targets))
    test = np.sort(np.concatenate([order[targets[order] == c][:TEST_PER_CLASS] for c in range(10)]))
    pool = np.setdiff1d(np.arange(len(targets)), test)
    n_max = int(np.bincount(targets[pool]).min())
    train = pool[training_indices(targets[pool], names, imbalance_ratio, n_max, subset_seed)]

    def split(indices: npt.NDArray[np.int64]) -> Split:
        return Split(torch.from_numpy(images[indices]), torch.from_numpy(targets[indices]))

    mean, std = channel_statistics(split(train).images)
    return Dataset("digits-lt", split(train), split(test), names, mean, std)
