"""Partitions of classes into groups: whether they agree, and whether classes of a group are alike, against chance.

Chance is a random partition of the same classes into groups of the same sizes. Where there are few of them, all are
looked at and the p-value is exact; else a sample is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

from landscape_lab.errors import InputError
from landscape_lab.tabular import Tabular

__all__ = [
    "AgainstRandom",
    "Agreement",
    "Contrast",
    "Explained",
    "against_random",
    "agreement",
    "explained",
    "labels_of",
    "pair_contrast",
    "random_partitions",
]

Labels = NDArray[np.int64]
Values = NDArray[np.float64]
Statistic = Callable[[Labels], Values]

EXACT = 20_000
"""So many partitions are looked at one by one; of more, :data:`DRAWN` are drawn."""
DRAWN = 9_999
CHUNK = 500  # partitions at a time: of 100 classes they have 4,950 pairs each


@dataclass(frozen=True)
class AgainstRandom(Tabular):
    """A statistic of a partition beside the same statistic of random partitions into groups of the same sizes.

    Attributes:
        value: of the partition.
        expected: its mean over random partitions.
        low: 2.5 % of the random partitions have less.
        high: 2.5 % have more.
        p_value: how often a random partition has at least as much; exact, or ``(1 + hits) / (1 + drawn)``.
        partitions: how many were looked at.
        exact: whether these are all that there are.
    """

    value: float
    expected: float
    low: float
    high: float
    p_value: float
    partitions: int
    exact: bool


@dataclass(frozen=True)
class Agreement(Tabular):
    """How far two partitions of the same classes agree.

    Attributes:
        rand: the adjusted Rand index: 1 if they are the same, 0 on average for random groups (Hubert and Arabie 1985).
        mutual: the adjusted mutual information, likewise (Vinh, Epps and Bailey 2010, normalised by the mean entropy).
        test: of ``rand``; with sizes fixed, both indices order partitions by how many pairs, or how much information,
            they share, and the Rand index is the one that is tested.
    """

    rand: float
    mutual: float
    test: AgainstRandom


@dataclass(frozen=True)
class Contrast(Tabular):
    """Whether pairs of classes in one group are more alike than pairs across groups.

    Attributes:
        within: mean over the pairs inside groups; ``nan`` if there are none.
        between: mean over the pairs across groups; ``nan`` if there are none.
        share: what of the sum over all pairs lies inside groups; ``nan`` where a value is negative or all are zero.
        expected_share: that of random groups of the same sizes.
        test: of ``within - between``.
    """

    within: float
    between: float
    share: float
    expected_share: float
    test: AgainstRandom


@dataclass(frozen=True)
class Explained(Tabular):
    """How much of a number's variance over classes lies between the groups.

    Attributes:
        share: the correlation ratio eta squared, in [0, 1]; it grows with the number of groups, hence ``test``.
        test: of ``share``.
    """

    share: float
    test: AgainstRandom


def labels_of(groups: Sequence[Sequence[int]], num_classes: int) -> Labels:
    """The group of each class, ``(C,)`` int64; -1 for a class in no group.

    Raises:
        InputError: a class is in two groups, or there is no such class.
    """
    labels = np.full(num_classes, -1, dtype=np.int64)
    for g, classes in enumerate(groups):
        for c in classes:
            if not 0 <= c < num_classes or labels[c] >= 0:
                raise InputError(f"groups must part the classes 0 to {num_classes - 1}, and class {c} is not one once")
            labels[c] = g
    return labels


def agreement(first: Sequence[int] | Labels, second: Sequence[int] | Labels, *, seed: int = 0) -> Agreement:
    """Compare two partitions of the same classes, and with random partitions of the first one's sizes.

    Args:
        first: ``(C,)`` group numbers.
        second: likewise; the numbers themselves mean nothing.
        seed: of the random partitions, where there are too many to look at all.

    Raises:
        InputError: they are not of the same classes.

    Example:
        >>> found = agreement([0, 0, 1, 1, 2, 2], [5, 5, 3, 3, 4, 4])
        >>> found.rand, found.test.partitions, round(found.test.p_value * 90)
        (1.0, 90, 6)
    """
    a, b = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
    if a.shape != b.shape or a.ndim != 1:
        raise InputError(f"two partitions must be of the same classes, got {a.shape} and {b.shape}")
    i, j = np.triu_indices(len(a), 1)
    together = (b[i] == b[j]).astype(np.float64)
    inside, pairs = float((a[i] == a[j]).sum()), max(len(i), 1)
    # Hubert and Arabie's index is linear in the number of pairs that are together in both.
    expected = inside * together.sum() / pairs
    span = (inside + together.sum()) / 2 - expected

    def rand(partitions: Labels) -> Values:
        both = (partitions[:, i] == partitions[:, j]) @ together
        return (both - expected) / span if span else np.ones(len(partitions))

    return Agreement(
        rand=float(adjusted_rand_score(a, b)),
        mutual=float(adjusted_mutual_info_score(a, b)),
        test=against_random(rand, a, seed),
    )


def pair_contrast(values: NDArray[np.float64], labels: Sequence[int] | Labels, *, seed: int = 0) -> Contrast:
    """Compare the pairs inside groups with those across, and with random groups of the same sizes.

    Args:
        values: ``(C, C)``; of a pair, the mean of both entries counts. Pairs that are not finite are left out.
        labels: ``(C,)`` group numbers.
        seed: as for :func:`agreement`.

    Raises:
        InputError: the shapes do not fit.
    """
    labels = np.asarray(labels, dtype=np.int64)
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (len(labels), len(labels)):
        raise InputError(f"{len(labels)} classes need values ({len(labels)}, {len(labels)}), got {values.shape}")
    i, j = np.triu_indices(len(labels), 1)
    pairs = (values[i, j] + values[j, i]) / 2
    there = np.isfinite(pairs)
    i, j, pairs = i[there], j[there], pairs[there]
    total, count = float(pairs.sum()), len(pairs)

    def means(partitions: Labels) -> tuple[Values, Values, Values]:
        same = partitions[:, i] == partitions[:, j]
        inside, size = same @ pairs, same.sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return inside / size, (total - inside) / (count - size), inside / total

    within, between, share = (float(part[0]) for part in means(labels[None]))
    expected = math.nan
    if count and (pairs >= 0).all() and total > 0:
        sums = [means(part)[2] for part in _chunks(random_partitions(labels, seed)[0])]
        expected = float(np.concatenate(sums).mean())
    else:
        share = math.nan

    def difference(partitions: Labels) -> Values:
        inside, across, _ = means(partitions)
        return inside - across

    return Contrast(within, between, share, expected, against_random(difference, labels, seed))


def explained(values: Sequence[float] | Values, labels: Sequence[int] | Labels, *, seed: int = 0) -> Explained:
    r"""How much of the variance of ``values`` the groups explain: :math:`\eta^2 = 1 - SS_{within} / SS_{total}`.

    Args:
        values: ``(C,)`` numbers; classes whose number is not finite are left out.
        labels: ``(C,)`` group numbers.
        seed: as for :func:`agreement`.
    """
    numbers, groups = np.asarray(values, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if numbers.shape != groups.shape:
        raise InputError(f"{len(groups)} classes need as many values, got {numbers.shape}")
    there = np.isfinite(numbers)
    centred, groups = numbers[there] - numbers[there].mean() if there.any() else numbers[there], groups[there]
    total = float((centred**2).sum())

    def share(partitions: Labels) -> Values:
        between = np.zeros(len(partitions))
        for g in np.unique(groups):
            member = partitions == g
            between += (member @ centred) ** 2 / np.maximum(member.sum(1), 1)
        return between / total if total else np.full(len(partitions), math.nan)

    test = against_random(share, groups, seed)
    return Explained(test.value, test)


def against_random(statistic: Statistic, labels: Labels, seed: int = 0) -> AgainstRandom:
    """Compare a statistic of a partition with that of all, or of many random, partitions of the same sizes.

    Args:
        statistic: ``(R, C)`` labels to ``(R,)`` numbers, of which large ones are remarkable; ``nan``: not defined.
        labels: ``(C,)`` of the partition.
        seed: of the random partitions, where not all are looked at.
    """
    value = float(statistic(labels[None])[0]) if len(labels) else math.nan
    if math.isnan(value):
        return AgainstRandom(math.nan, math.nan, math.nan, math.nan, math.nan, 0, False)
    partitions, exact = random_partitions(labels, seed)
    found = np.concatenate([statistic(part) for part in _chunks(partitions)])
    found = found[~np.isnan(found)]
    hits = int((found >= value - 1e-9 * max(1.0, abs(value))).sum())  # sums in another order are equal, too
    p_value = hits / len(found) if exact else (1 + hits) / (1 + len(found))
    low, high = np.quantile(found, [0.025, 0.975])
    return AgainstRandom(value, float(found.mean()), float(low), float(high), p_value, len(found), exact)


def random_partitions(labels: Labels, seed: int = 0) -> tuple[Labels, bool]:
    """Partitions into groups of the same sizes: ``(R, C)`` labels, and whether these are all that there are.

    All, the given one among them, where there are at most :data:`EXACT`; else :data:`DRAWN` at random.
    """
    _, sizes = np.unique(labels, return_counts=True)
    count = math.factorial(len(labels)) // math.prod(math.factorial(int(n)) for n in sizes)
    if count <= EXACT:
        return np.array(list(_arrangements(labels)), dtype=np.int64).reshape(count, len(labels)), True
    stream = np.random.default_rng(seed)
    return stream.permuted(np.tile(labels, (DRAWN, 1)), axis=1), False


def _arrangements(labels: Labels) -> Iterator[Labels]:
    """All distinct orders of ``labels``."""
    numbers, sizes = np.unique(labels, return_counts=True)

    def place(result: Labels, free: tuple[int, ...], g: int) -> Iterator[Labels]:
        if g == len(numbers):
            yield result.copy()
            return
        for chosen in combinations(free, int(sizes[g])):
            result[list(chosen)] = numbers[g]
            yield from place(result, tuple(c for c in free if c not in chosen), g + 1)

    yield from place(labels.copy(), tuple(range(len(labels))), 0)


def _chunks(partitions: Labels) -> Iterator[Labels]:
    for start in range(0, len(partitions), CHUNK):
        yield partitions[start : start + CHUNK]
