"""Classes into groups: Normalised Cuts on the memory bank (GKP+GSA, Eq. 2), and two ablations."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import SpectralClustering

from landscape_lab.training.memory import MemoryBank

__all__ = ["Groups", "affinity", "frequency_groups", "ncut", "ncut_groups", "random_groups"]

Groups = tuple[tuple[int, ...], ...]
"""The classes of each group, ascending; the groups in the order of their smallest class."""


def affinity(gram: NDArray[np.float64], kind: str = "cosine") -> NDArray[np.float64]:
    """Similarity of classes from the inner products of their parameter vectors.

    Args:
        gram: ``(C, C)`` inner products.
        kind: ``cosine``: (cos + 1) / 2; ``centred-cosine``: the same after subtracting the classes' mean
            vector; ``rbf``: ``exp(-d² / (2 m²))`` with m the median distance of distinct vectors.

    Returns:
        ``(C, C)`` symmetric, in [0, 1], diagonal 1.
    """
    if kind == "rbf":
        norms = np.diag(gram)
        squared = np.maximum(norms[:, None] + norms[None, :] - 2 * gram, 0.0)
        distinct = squared[squared > 0]
        width = np.median(np.sqrt(distinct)) ** 2 if distinct.size else 1.0
        result = np.exp(-squared / (2 * width))
    else:
        if kind == "centred-cosine":
            rows = gram.mean(axis=0)
            gram = gram - rows[:, None] - rows[None, :] + gram.mean()
        norms = np.sqrt(np.maximum(np.diag(gram), 1e-300))
        result = (np.clip(gram / np.outer(norms, norms), -1.0, 1.0) + 1) / 2
    result = (result + result.T) / 2
    np.fill_diagonal(result, 1.0)
    return np.asarray(result, dtype=np.float64)


def ncut(weights: NDArray[np.float64], count: int, seed: int = 0) -> list[int]:
    """Normalised Cuts (Shi and Malik 2000) by spectral clustering.

    Args:
        weights: ``(C, C)`` symmetric non-negative affinities.
        count: number of groups, at most C.
        seed: of k-means in the spectral embedding.

    Returns:
        The group of each node, length C.
    """
    if count == 1:
        return [0] * len(weights)
    if count >= len(weights):
        return list(range(len(weights)))
    clustering = SpectralClustering(count, affinity="precomputed", assign_labels="kmeans", random_state=seed)
    with warnings.catch_warnings():
        # Duplicate points (classes that share an epoch) may leave a cluster empty; the caller counts them.
        warnings.simplefilter("ignore")
        return [int(label) for label in clustering.fit_predict(weights)]


def ncut_groups(bank: MemoryBank, count: int, kind: str = "cosine", seed: int = 0) -> Groups:
    """Group classes whose best encoders are alike (Eq. 2).

    Fewer groups come back than asked for where the bank holds fewer distinct encoders.
    """
    if count >= len(set(bank.epochs)):
        # One group for each encoder: here spectral clustering may split equals and join others instead.
        return _canonical(bank.epochs)
    return _canonical(ncut(affinity(bank.gram(), kind), count, seed))


def random_groups(num_classes: int, count: int, seed: int = 0) -> Groups:
    """Groups of equal sizes (to within one class) at random."""
    order = np.random.default_rng(seed).permutation(num_classes)
    return _from_parts(np.array_split(order, min(count, num_classes)))


def frequency_groups(class_counts: Sequence[int], count: int) -> Groups:
    """Groups of equal sizes (to within one class) from the most to the least frequent classes."""
    order = np.argsort(-np.asarray(class_counts), kind="stable")
    return _from_parts(np.array_split(order, min(count, len(class_counts))))


def _canonical(labels: Sequence[int]) -> Groups:
    return _from_parts([np.flatnonzero(np.asarray(labels) == label) for label in set(labels)])


def _from_parts(parts: Sequence[NDArray[np.int64]]) -> Groups:
    return tuple(sorted(tuple(sorted(int(c) for c in part)) for part in parts))
