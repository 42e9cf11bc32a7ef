"""Groups: affinities by hand, NCut on planted partitions, the two ablations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from landscape_lab.training.grouping import (
    affinity,
    frequency_groups,
    ncut,
    ncut_groups,
    random_groups,
    spectral_embedding,
)
from landscape_lab.training.memory import MemoryBank

KINDS = ["cosine", "centred-cosine", "rbf"]
P = 60


def bank_of(vectors: NDArray[np.float64], epochs: list[int]) -> MemoryBank:
    """A bank in which class c holds ``vectors[epochs[c]]``."""
    bank = MemoryBank(len(epochs))
    for epoch in sorted(set(epochs)):
        quality = [1.0 if own == epoch else math.nan for own in epochs]
        bank.update(epoch, quality, (torch.from_numpy(vectors[epoch]), torch.zeros(0)))
    assert bank.epochs == epochs
    return bank


def as_partition(labels: list[int]) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(np.array(labels) == label).tolist()) for label in set(labels)}


# -- affinities ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # of (1, 0), (0, 1) and (-1, 0); the mean is (0, 1/3)
        ("cosine", (0.5, 0.0, 0.5)),
        ("centred-cosine", ((1 - 1 / math.sqrt(10)) / 2, 0.1, (1 - 1 / math.sqrt(10)) / 2)),
        ("rbf", (math.exp(-1 / 2), math.exp(-1), math.exp(-1 / 2))),  # distances √2, 2, √2
    ],
)
def test_affinity_by_hand(kind: str, expected: tuple[float, float, float]) -> None:
    vectors = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    result = affinity(vectors @ vectors.T, kind)
    assert result.diagonal().tolist() == [1.0, 1.0, 1.0]
    assert (result[0, 1], result[0, 2], result[1, 2]) == pytest.approx(expected, rel=1e-12)


def test_rbf_width_is_the_median_distance() -> None:
    # Of 0, 1, 3, 7 on a line the six distances are 1, 2, 3, 4, 6, 7: their median is 3.5.
    points = np.array([[0.0], [1.0], [3.0], [7.0]])
    result = affinity(points @ points.T, "rbf")
    for a in range(4):
        for b in range(4):
            distance = points[a, 0] - points[b, 0]
            assert result[a, b] == pytest.approx(math.exp(-(distance**2) / (2 * 3.5**2)), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("near", [1.0, 1e-4])
def test_affinity_is_symmetric_within_bounds_and_one_on_the_diagonal(kind: str, near: float) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=P) + near * rng.normal(size=(9, P))
    vectors[4] = vectors[2]
    gram = vectors @ vectors.T
    result = affinity(gram, kind)
    assert result.dtype == np.float64
    np.testing.assert_array_equal(result, result.T)
    np.testing.assert_array_equal(result.diagonal(), np.ones(9))
    assert result.min() >= 0
    assert result.max() <= 1
    assert result[2, 4] == pytest.approx(1.0, abs=1e-9)
    direct = vectors - (vectors.mean(0) if kind == "centred-cosine" else 0)
    if kind != "rbf":
        direct /= np.linalg.norm(direct, axis=1, keepdims=True)
        np.testing.assert_allclose(result, (direct @ direct.T + 1) / 2, atol=1e-6)
    assert np.isfinite(result).all()
    np.testing.assert_array_equal(gram, vectors @ vectors.T)  # left as it was


@pytest.mark.parametrize("kind", KINDS)
def test_affinity_of_equal_vectors_is_finite(kind: str) -> None:
    result = affinity(np.full((3, 3), 2.0), kind)
    assert np.isfinite(result).all()
    assert result.min() >= 0
    assert result.max() <= 1


# -- NCut ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_ncut_finds_planted_blocks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    planted = rng.permutation(np.repeat(np.arange(4), [9, 6, 5, 4])).tolist()
    inside = np.equal.outer(planted, planted)
    weights = np.where(inside, 0.8, 0.25) + 0.1 * rng.uniform(-1, 1, inside.shape)
    weights = (weights + weights.T) / 2
    np.fill_diagonal(weights, 1.0)
    assert as_partition(ncut(weights, 4, seed)) == as_partition(planted)


def test_ncut_cuts_where_the_normalised_cut_is_smallest() -> None:
    """Against all bipartitions of a small graph (Shi and Malik's criterion)."""
    rng = np.random.default_rng(3)
    points = np.concatenate([rng.normal(0, 0.5, (5, 2)), rng.normal(2.5, 0.5, (4, 2))])
    squared = ((points[:, None] - points[None]) ** 2).sum(-1)
    weights = np.exp(-squared / 2)

    def cost(members: NDArray[np.bool_]) -> float:
        cut = weights[members][:, ~members].sum()
        return float(cut / weights[members].sum() + cut / weights[~members].sum())

    codes = [np.array([bool(code >> i & 1) for i in range(9)]) for code in range(1, 2**8)]
    best = min(codes, key=cost)
    assert as_partition(ncut(weights, 2)) == as_partition(best.astype(int).tolist())


def test_ncut_limits() -> None:
    weights = np.full((5, 5), 0.5) + 0.5 * np.eye(5)
    assert ncut(weights, 1) == [0] * 5
    assert ncut(weights, 5) == ncut(weights, 8) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("apart", [1.0, 0.03])
def test_ncut_groups_finds_planted_clusters(kind: str, apart: float) -> None:
    """Encoders are one common vector, plus what a group shares, plus what each class has by itself."""
    rng = np.random.default_rng(1)
    planted = [0, 1, 0, 2, 2, 1, 0, 2, 1, 0, 0, 2]
    centres, own = rng.normal(size=(3, P)), rng.normal(size=(12, P))
    common = rng.normal(size=P) * (0.0 if apart == 1.0 else 1.0)
    vectors = common + apart * (centres[planted] + 0.3 * own)
    groups = ncut_groups(bank_of(vectors, list(range(12))), 3, kind)
    assert groups == ((0, 2, 6, 9, 10), (1, 5, 8), (3, 4, 7, 11))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [3, 4, 7])
@pytest.mark.parametrize("near", [1.0, 1e-2])
def test_fewer_encoders_than_groups(kind: str, count: int, near: float) -> None:
    """Classes that share an encoder cannot be told apart: one group for each encoder."""
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=P) + near * rng.normal(size=(3, P))
    epochs = [2, 0, 2, 1, 1, 2, 0]
    groups = ncut_groups(bank_of(vectors, epochs), count, kind)
    assert groups == ((0, 2, 5), (1, 6), (3, 4))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(8))
def test_classes_of_one_encoder_stay_together(kind: str, seed: int) -> None:
    """Encoders along a path; with nearly as many groups as encoders, spectral clustering of classes may split them."""
    rng = np.random.default_rng(seed)
    vectors = 3 * rng.normal(size=300) + np.cumsum(0.1 * rng.normal(size=(6, 300)), axis=0)
    epochs = [*range(6), *rng.integers(0, 6, 4).tolist()]
    for count in (2, 4, 5, 6, 7):
        groups = ncut_groups(bank_of(vectors, epochs), count, kind)
        assert len(groups) == min(count, 6)
        held = [{epochs[c] for c in group} for group in groups]
        assert sum(map(len, held)) == 6


@pytest.mark.parametrize("kind", KINDS)
def test_one_encoder_is_one_group(kind: str) -> None:
    bank = bank_of(np.ones((1, P)), [0] * 5)
    assert ncut_groups(bank, 4, kind) == ((0, 1, 2, 3, 4),)


@pytest.mark.parametrize("kind", KINDS)
def test_groups_are_a_partition_and_deterministic(kind: str) -> None:
    rng = np.random.default_rng(4)
    bank = bank_of(rng.normal(size=P) + 0.1 * rng.normal(size=(8, P)), rng.integers(0, 8, 30).tolist())
    state, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    groups = ncut_groups(bank, 4, kind, seed=5)
    assert sorted(c for group in groups for c in group) == list(range(30))
    assert [group[0] for group in groups] == sorted(group[0] for group in groups)
    assert all(list(group) == sorted(group) for group in groups)
    assert ncut_groups(bank, 4, kind, seed=5) == groups
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], legacy)  # type: ignore[index]


# -- classes that share an encoder, against a node for every class --------------------------------------------


def naive_affinity(vectors: NDArray[np.float64], kind: str) -> NDArray[np.float64]:
    """Of a vector for every class, as the definitions say."""
    classes = range(len(vectors))
    if kind == "rbf":
        apart = {(a, b): float(np.linalg.norm(vectors[a] - vectors[b])) for a in classes for b in classes}
        width = np.median([d for d in apart.values() if d > 0])
        return np.array([[np.exp(-(apart[a, b] ** 2) / (2 * width**2)) for b in classes] for a in classes])
    if kind == "centred-cosine":
        vectors = vectors - vectors.mean(0)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray((unit @ unit.T + 1) / 2)


def naive_embedding(weights: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Leading eigenvectors of the random walk ``D⁻¹ W`` with every node's affinity to itself; unit in norm D."""
    degree = weights.sum(1)
    _, vectors = np.linalg.eigh(weights / np.sqrt(np.outer(degree, degree)))
    return np.asarray(vectors[:, -count:] / np.sqrt(degree)[:, None])


def shared_encoders(seed: int, encoders: int = 9, classes: int = 40) -> tuple[NDArray[np.float64], list[int]]:
    """Encoders along a path, as training leaves them, and the one that each class holds."""
    rng = np.random.default_rng(seed)
    vectors = 3 * rng.normal(size=P) + np.cumsum(rng.normal(size=(encoders, P)), axis=0)
    return vectors, [*range(encoders), *rng.choice(encoders, classes - encoders, p=rng.dirichlet(np.ones(encoders)))]


def distances(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(((points[:, None] - points[None]) ** 2).sum(-1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_affinity_and_embedding_are_those_of_a_node_for_every_class(kind: str, seed: int) -> None:
    vectors, epochs = shared_encoders(seed)
    bank = bank_of(vectors, epochs)
    assert len(bank.gram()) == 9
    assert max(bank.multiplicity) > 3
    weights = affinity(bank.gram(), kind, bank.multiplicity)
    naive = naive_affinity(vectors[epochs], kind)
    np.testing.assert_allclose(weights[np.ix_(epochs, epochs)], naive, atol=1e-10)
    for count in (2, 4, 8):
        found = spectral_embedding(weights, count, bank.multiplicity)[epochs]
        # Eigenvectors have no sign, and equal eigenvalues no order: k-means sees distances alone.
        np.testing.assert_allclose(distances(found), distances(naive_embedding(naive, count)), atol=1e-9)


def inertia(points: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    return sum(float(((own - own.mean(0)) ** 2).sum()) for own in (points[labels == label] for label in set(labels)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_groups_are_as_good_as_those_of_a_node_for_every_class(kind: str, seed: int) -> None:
    """Judged by k-means' own measure, in the naive embedding."""
    vectors, epochs = shared_encoders(seed)
    bank = bank_of(vectors, epochs)
    naive = naive_affinity(vectors[epochs], kind)
    for count in (2, 4, 8):
        points = naive_embedding(naive, count)
        best = KMeans(count, n_init=30, random_state=1).fit(points)
        labels = np.array(ncut(affinity(bank.gram(), kind, bank.multiplicity), count, 0, bank.multiplicity))[epochs]
        assert len(set(labels)) == count
        assert inertia(points, labels) <= inertia(points, best.labels_) * (1 + 1e-9)
        groups = ncut_groups(bank, count, kind)
        assert as_partition(labels.tolist()) == {frozenset(group) for group in groups}


@pytest.mark.parametrize("seed", range(8))
def test_the_cut_of_a_small_graph_with_equal_nodes_is_the_smallest(seed: int) -> None:
    """Two clusters of encoders; against all bipartitions of the classes, which keep equals together by themselves."""
    rng = np.random.default_rng(seed)
    points = np.concatenate([rng.normal(0, 0.4, (3, 2)), rng.normal(2.5, 0.4, (2, 2))])
    epochs = [*range(5), *rng.integers(0, 5, 5).tolist()]
    multiplicity = np.bincount(epochs)
    weights = np.exp(-distances(points) / 2)
    whole = weights[np.ix_(epochs, epochs)]

    def cost(members: NDArray[np.bool_]) -> float:
        cut = whole[members][:, ~members].sum()
        return float(cut / whole[members].sum() + cut / whole[~members].sum())

    codes = [np.array([bool(code >> i & 1) for i in range(10)]) for code in range(1, 2**9)]
    best = min(codes, key=cost)
    labels = np.array(ncut(weights, 2, 0, multiplicity))[epochs]
    assert as_partition(labels.tolist()) == as_partition(best.astype(int).tolist())


def test_how_many_classes_hold_an_encoder_matters() -> None:
    """Three encoders on a line; the middle one goes with the side that has fewer classes to pull it away from."""
    weights = np.array([[1.0, 0.5, 0.05], [0.5, 1.0, 0.5], [0.05, 0.5, 1.0]])
    partitions = {counts: as_partition(ncut(weights, 2, 0, np.array(counts))) for counts in [(20, 5, 2), (2, 5, 20)]}
    for counts, found in partitions.items():
        epochs = np.repeat(np.arange(3), counts)
        whole = weights[np.ix_(epochs, epochs)]
        costs = {}
        for alone in range(3):
            members = epochs == alone
            cut = whole[members][:, ~members].sum()
            costs[alone] = cut / whole[members].sum() + cut / whole[~members].sum()
        alone = min(costs, key=costs.__getitem__)
        assert found == {frozenset({alone}), frozenset({0, 1, 2} - {alone})}
    assert partitions[20, 5, 2] != partitions[2, 5, 20]


# -- ablations -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "count"), [(10, 4), (100, 6), (3, 7), (8, 1)])
def test_random_groups_have_equal_sizes(classes: int, count: int) -> None:
    groups = random_groups(classes, count, seed=1)
    assert sorted(c for group in groups for c in group) == list(range(classes))
    assert len(groups) == min(count, classes)
    sizes = [len(group) for group in groups]
    assert max(sizes) - min(sizes) <= 1
    assert random_groups(classes, count, seed=1) == groups
    if classes > count > 1:
        assert random_groups(classes, count, seed=2) != groups


def test_frequency_groups_follow_the_counts() -> None:
    counts = [5, 50, 20, 5, 100, 20, 7]
    # By count: 4 | 1 | 2, 5 (a tie: file order) | 6 | 0, 3
    assert frequency_groups(counts, 3) == ((0, 3), (1, 2, 4), (5, 6))
    assert frequency_groups(counts, 1) == (tuple(range(7)),)
    assert frequency_groups([3, 2], 5) == ((0,), (1,))
    assert frequency_groups([4] * 6, 3) == ((0, 1), (2, 3), (4, 5))
