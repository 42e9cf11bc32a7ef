"""Classes into groups: Normalised Cuts on the memory bank (GKP+GSA, Eq. 2), and two ablations."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from landscape_lab.training.memory import MemoryBank

__all__ = ["Groups", "affinity", "frequency_groups", "ncut", "ncut_groups", "random_groups", "spectral_embedding"]

Groups = tuple[tuple[int, ...], ...]
"""The classes of each group, ascending; the groups in the order of their smallest class."""

STARTS = 100
"""Starts of k-means; with 10, it missed the best clustering of nine encoders in one of 54 cases."""


def affinity(
    gram: NDArray[np.float64], kind: str = "cosine", multiplicity: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """Similarity of encoders from the inner products of their parameter vectors.

    Args:
        gram: ``(T, T)`` inner products.
        kind: ``cosine``: (cos + 1) / 2; ``centred-cosine``: the same after subtracting the classes' mean
            vector; ``rbf``: ``exp(-d² / (2 m²))`` with m the median distance of classes whose vectors differ.
        multiplicity: ``(T,)``, the classes that hold each vector; ``None``: one.

    Returns:
        ``(T, T)`` symmetric, in [0, 1], diagonal 1: of two classes what theirs is of the two vectors they hold.
    """
    count = np.ones(len(gram)) if multiplicity is None else multiplicity.astype(np.float64)
    if kind == "rbf":
        norms = np.diag(gram)
        squared = np.maximum(norms[:, None] + norms[None, :] - 2 * gram, 0.0)
        apart = squared > 0
        width = _median(np.sqrt(squared[apart]), np.outer(count, count)[apart]) ** 2 if apart.any() else 1.0
        result = np.exp(-squared / (2 * width))
    else:
        if kind == "centred-cosine":
            share = count / count.sum()
            rows = gram @ share
            gram = gram - rows[:, None] - rows[None, :] + rows @ share
        norms = np.sqrt(np.maximum(np.diag(gram), 1e-300))
        result = (np.clip(gram / np.outer(norms, norms), -1.0, 1.0) + 1) / 2
    result = (result + result.T) / 2
    np.fill_diagonal(result, 1.0)
    return np.asarray(result, dtype=np.float64)


def spectral_embedding(
    weights: NDArray[np.float64], count: int, multiplicity: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """The relaxation of Normalised Cuts: leading eigenvectors of the random walk on a graph, equal nodes at once.

    With ``m_t`` nodes alike, ``d_t = Σ_s m_s W_ts`` is a node's degree, and where ``q`` is an eigenvector of
    ``M½ D^-½ W D^-½ M½``, ``q_t / √(m_t d_t)`` is the entry of each such node in the eigenvector of the whole graph,
    in which a node's affinity to itself and to its equals counts.

    Args:
        weights: ``(T, T)`` symmetric non-negative affinities, the diagonal positive.
        count: number of eigenvectors k.
        multiplicity: ``(T,)``, the nodes that each row stands for; ``None``: one.

    Returns:
        ``(T, k)``.
    """
    nodes = np.ones(len(weights)) if multiplicity is None else multiplicity.astype(np.float64)
    degree = weights @ nodes
    scale = np.sqrt(nodes / degree)
    _, vectors = np.linalg.eigh(scale[:, None] * weights * scale[None, :])  # ascending
    return np.asarray(vectors[:, -count:] / np.sqrt(nodes * degree)[:, None])


def ncut(
    weights: NDArray[np.float64], count: int, seed: int = 0, multiplicity: NDArray[np.int64] | None = None
) -> list[int]:
    """Normalised Cuts: k-means in the :func:`spectral_embedding`.

    Args:
        weights: ``(T, T)`` symmetric non-negative affinities, the diagonal positive.
        count: number of groups.
        seed: of k-means.
        multiplicity: ``(T,)``, the nodes that each row stands for; ``None``: one.

    Returns:
        The group of each row, length T.

    References:
        Shi, Malik 2000, *Normalized cuts and image segmentation*, IEEE TPAMI 22 (8).
    """
    if count == 1:
        return [0] * len(weights)
    if count >= len(weights):
        return list(range(len(weights)))
    with warnings.catch_warnings():
        # Where rows coincide there may be fewer clusters than asked for; the caller counts them.
        warnings.simplefilter("ignore", ConvergenceWarning)
        means = KMeans(count, n_init=STARTS, random_state=seed)
        labels = means.fit_predict(spectral_embedding(weights, count, multiplicity), sample_weight=multiplicity)
    return [int(label) for label in labels]


def ncut_groups(bank: MemoryBank, count: int, kind: str = "cosine", seed: int = 0) -> Groups:
    """Group classes whose best encoders are alike (Eq. 2).

    Classes that hold the same encoder stay together, so fewer groups come back than asked for where the bank holds
    fewer distinct encoders.
    """
    distinct = bank.distinct
    if count >= len(distinct):
        return _canonical(bank.epochs)
    multiplicity = bank.multiplicity
    labels = ncut(affinity(bank.gram(), kind, multiplicity), count, seed, multiplicity)
    label = dict(zip(distinct, labels, strict=True))
    return _canonical([label[epoch] for epoch in bank.epochs])


def random_groups(num_classes: int, count: int, seed: int = 0) -> Groups:
    """Groups of equal sizes (to within one class) at random."""
    order = np.random.default_rng(seed).permutation(num_classes)
    return _from_parts(np.array_split(order, min(count, num_classes)))


def frequency_groups(class_counts: Sequence[int], count: int) -> Groups:
    """Groups of equal sizes (to within one class) from the most to the least frequent classes."""
    order = np.argsort(-np.asarray(class_counts), kind="stable")
    return _from_parts(np.array_split(order, min(count, len(class_counts))))


def _median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """The median of values each of which occurs ``weight`` times."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    half = reached[-1] / 2
    low, high = np.searchsorted(reached, half, side="left"), np.searchsorted(reached, half, side="right")
    return float(values[order[low]] + values[order[high]]) / 2


def _canonical(labels: Sequence[int]) -> Groups:
    return _from_parts([np.flatnonzero(np.asarray(labels) == label) for label in set(labels)])


def _from_parts(parts: Sequence[NDArray[np.int64]]) -> Groups:
    return tuple(sorted(tuple(sorted(int(c) for c in part)) for part in parts))
