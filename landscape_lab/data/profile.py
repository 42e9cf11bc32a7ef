"""How many samples a class keeps, which ones, and how classes are grouped by their number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from landscape_lab.errors import InputError

__all__ = [
    "ImbalanceRatio",
    "head_tail",
    "long_tail_counts",
    "long_tail_subset",
    "shot_groups",
    "training_indices",
]

ImbalanceRatio = float | Literal["natural"]


def long_tail_counts(n_max: int, num_classes: int, ratio: float) -> tuple[int, ...]:
    """Numbers of samples a class that fall exponentially from ``n_max`` to ``n_max / ratio``.

    ``n_i = floor(n_max * (1 / ratio) ** (i / (C - 1)))`` for ``i = 0 .. C - 1``, in label order.

    Args:
        n_max: samples of class 0.
        num_classes: C.
        ratio: first class over last class, at least 1.

    Returns:
        C counts, each at least 1.

    Raises:
        InputError: the ratio is below 1 or not a number, or so large that a class would be empty.

    References:
        Cao et al., Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss, arXiv:1906.07413.

    Example:
        >>> long_tail_counts(5000, 10, 100)
        (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)
    """
    if not (math.isfinite(ratio) and ratio >= 1):
        raise InputError(f"the imbalance ratio must be a number of at least 1, got {ratio}; 1 means balanced")
    # The order of operations is the published one: truncation makes its rounding errors visible.
    counts = tuple(int(n_max * (1 / ratio) ** (i / max(num_classes - 1, 1))) for i in range(num_classes))
    if counts and counts[-1] < 1:
        raise InputError(
            f"class {counts.index(0)} would have no training samples at imbalance ratio {ratio:g}, "
            f"for the largest class has {n_max}; use a smaller ratio, or more images"
        )
    return counts


def long_tail_subset(
    targets: npt.ArrayLike, counts: Sequence[int], seed: int = 0, *, class_names: Sequence[str] | None = None
) -> npt.NDArray[np.int64]:
    """Indices of the samples that the published long-tailed sets keep.

    Classes in ascending order share one legacy MT19937 stream: the indices of a class, in file order, are
    shuffled, and the first ``counts[c]`` stay. So a class's subset depends on the classes before it.

    Args:
        targets: (N,) integer labels in file order.
        counts: samples to keep of class 0, 1, ...
        seed: of the stream, from 0 to 2**32 - 1; 0 is the published one.
        class_names: for messages; the labels if not given.

    Returns:
        (sum of counts,) indices, class after class.

    Raises:
        InputError: a class has fewer samples than its count, or the seed is out of range.
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"the subset's seed must be from 0 to 2**32 - 1, got {seed}")
    labels = np.asarray(targets)
    stream = np.random.RandomState(seed)
    kept = []
    for label, count in enumerate(counts):
        own = np.flatnonzero(labels == label)
        if len(own) < count:
            raise InputError(
                f"class {_name(label, class_names)} has {len(own)} training images and needs {count}; "
                'add images, or take the data as they lie with imbalance ratio "natural"'
            )
        stream.shuffle(own)
        kept.append(own[:count])
    return np.concatenate(kept).astype(np.int64) if kept else np.empty(0, np.int64)


def training_indices(
    targets: npt.ArrayLike, class_names: Sequence[str], ratio: ImbalanceRatio, n_max: int, seed: int = 0
) -> npt.NDArray[np.int64]:
    """Indices of a pool's samples that make the training split.

    Args:
        targets: (N,) labels of the pool in file order.
        class_names: C names.
        ratio: ``"natural"`` takes the whole pool in file order; a number the long-tailed subset.
        n_max: samples of class 0, for a number.
        seed: as in :func:`long_tail_subset`.

    Returns:
        (n,) indices.

    Raises:
        InputError: a class would have no training samples, fewer than it needs, or the ratio is neither.
    """
    labels = np.asarray(targets)
    if ratio == "natural":
        present = np.bincount(labels, minlength=len(class_names))
        if (present == 0).any():
            empty = _name(int(np.argmin(present)), class_names)
            raise InputError(f"class {empty} has no training images; add some, or take the class out")
        return np.arange(len(labels))
    if isinstance(ratio, str | bool) or not isinstance(ratio, int | float):
        raise InputError(f'the imbalance ratio must be a number or "natural", got {ratio!r}')
    counts = long_tail_counts(n_max, len(class_names), ratio)
    return long_tail_subset(labels, counts, seed, class_names=class_names)


def shot_groups(counts: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """The classes with many (more than 100), a medium number of (20 to 100) and few (below 20) samples.

    References:
        Liu et al., Large-Scale Long-Tailed Recognition in an Open World, arXiv:1904.05160.
    """
    return {
        "many": tuple(c for c, n in enumerate(counts) if n > 100),
        "med": tuple(c for c, n in enumerate(counts) if 20 <= n <= 100),
        "few": tuple(c for c, n in enumerate(counts) if n < 20),
    }


def head_tail(counts: Sequence[int], fraction: float = 0.2) -> dict[str, tuple[int, ...]]:
    """The classes with the most and with the fewest samples.

    Args:
        counts: C numbers of samples.
        fraction: of the classes, in either group; above 0 and at most 0.5.

    Returns:
        ``{"head": ..., "tail": ...}``, each of ``max(1, round(fraction * C))`` classes, most samples first;
        equal counts stay in label order.

    Raises:
        ValueError: the fraction is out of range.

    Example:
        >>> head_tail((50, 10, 40, 20, 30), 0.4)
        {'head': (0, 2), 'tail': (3, 1)}
    """
    if not 0 < fraction <= 0.5:
        raise ValueError(f"fraction must be above 0 and at most 0.5, got {fraction}")
    size = max(1, round(fraction * len(counts)))
    # One order for both ends keeps the groups apart when counts are equal.
    order = sorted(range(len(counts)), key=lambda c: -counts[c])
    return {"head": tuple(order[:size]), "tail": tuple(order[-size:])}


def _name(label: int, class_names: Sequence[str] | None) -> str:
    return str(label) if class_names is None or class_names[label] == str(label) else repr(class_names[label])
