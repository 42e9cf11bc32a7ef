"""Partitions against literal counts, scipy's exact tests and known cases."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import f_oneway, false_discovery_control, permutation_test

from landscape_lab.analysis import partitions
from landscape_lab.analysis.multiplicity import holm
from landscape_lab.analysis.partitions import (
    agreement,
    explained,
    labels_of,
    pair_contrast,
    random_partitions,
)
from landscape_lab.errors import InputError

A = [0, 0, 1, 1, 1, 2]
B = [0, 1, 1, 1, 0, 2]


def rand_by_pairs(a, b):
    """The adjusted Rand index from its definition: pairs together in both, against what sizes alone give."""
    pairs = list(itertools.combinations(range(len(a)), 2))
    both = sum(a[i] == a[j] and b[i] == b[j] for i, j in pairs)
    first, second = sum(a[i] == a[j] for i, j in pairs), sum(b[i] == b[j] for i, j in pairs)
    expected = first * second / len(pairs)
    return (both - expected) / ((first + second) / 2 - expected)


def test_rand_index_and_its_exact_p_value():
    found = agreement(A, B)
    assert found.rand == pytest.approx(rand_by_pairs(A, B))
    orders = set(itertools.permutations(A))
    values = [rand_by_pairs(order, B) for order in orders]
    assert found.test.exact
    assert found.test.partitions == len(orders) == 60
    assert found.test.p_value == pytest.approx(sum(v >= found.rand - 1e-12 for v in values) / 60)
    assert found.test.expected == pytest.approx(np.mean(values), abs=1e-12)
    assert found.test.low == pytest.approx(np.quantile(values, 0.025))


def test_names_of_groups_do_not_matter():
    one, other = agreement(A, B), agreement([7, 7, 3, 3, 3, 0], [2, 9, 9, 9, 2, 4])
    assert (one.rand, one.mutual) == pytest.approx((other.rand, other.mutual))
    assert one.test.p_value == other.test.p_value


def test_trivial_partitions_prove_nothing():
    assert agreement([0] * 6, [0] * 6).test.p_value == 1.0
    assert agreement([0] * 6, A).test.p_value == 1.0


def test_all_partitions_are_listed_once():
    found, exact = random_partitions(np.array(A))
    assert exact
    assert {tuple(row) for row in found} == set(itertools.permutations(A))
    assert len(found) == 60


def test_drawn_partitions_keep_sizes_and_seed():
    labels = np.repeat(np.arange(5), 20)
    found, exact = random_partitions(labels, seed=3)
    assert not exact
    assert len(found) == partitions.DRAWN
    assert (np.sort(found, axis=1) == labels).all()
    assert (found == random_partitions(labels, seed=3)[0]).all()
    assert (found != random_partitions(labels, seed=4)[0]).any()


def test_contrast_against_a_loop_and_scipys_permutation_test():
    values = np.random.default_rng(0).random((7, 7))
    labels = [0, 0, 0, 1, 1, 2, 2]
    found = pair_contrast(values, labels)
    pairs = list(itertools.combinations(range(7), 2))
    inside = [(values[i, j] + values[j, i]) / 2 for i, j in pairs if labels[i] == labels[j]]
    across = [(values[i, j] + values[j, i]) / 2 for i, j in pairs if labels[i] != labels[j]]
    assert found.within == pytest.approx(np.mean(inside))
    assert found.between == pytest.approx(np.mean(across))
    assert found.share == pytest.approx(sum(inside) / (sum(inside) + sum(across)))

    def statistic(order):
        symmetric = (values + values.T) / 2
        same = np.equal.outer(order, order)[np.triu_indices(7, 1)]
        upper = symmetric[np.triu_indices(7, 1)]
        return upper[same].mean() - upper[~same].mean()

    theirs = permutation_test(
        (labels,), statistic, permutation_type="pairings", alternative="greater", n_resamples=np.inf, vectorized=False
    )
    assert found.test.p_value == pytest.approx(theirs.pvalue)
    assert found.expected_share == pytest.approx(len(inside) / len(pairs))


def test_contrast_leaves_out_what_is_not_there():
    values = np.random.default_rng(0).random((5, 5))
    values[4] = np.nan
    four = pair_contrast(values[:4, :4], [0, 0, 1, 1])
    five = pair_contrast(values, [0, 0, 1, 1, 1])
    assert (five.within, five.between) == (four.within, four.between)


def test_contrast_without_pairs_inside_is_no_question():
    found = pair_contrast(np.ones((3, 3)), [0, 1, 2])
    assert math.isnan(found.test.p_value)


def test_negative_values_have_no_share():
    assert math.isnan(pair_contrast(-np.ones((4, 4)), [0, 0, 1, 1]).share)


def test_explained_variance_is_that_of_an_anova():
    values = np.array([1.0, 2.0, 1.5, 7.0, 6.0])
    labels = [0, 0, 0, 1, 1]
    found = explained(values, labels)
    ratio = f_oneway(values[:3], values[3:]).statistic
    assert found.share == pytest.approx(ratio / (ratio + 3))
    orders = list(itertools.permutations(range(5)))
    more = 0
    for order in orders:
        moved = values[list(order)]
        other = f_oneway(moved[:3], moved[3:]).statistic
        more += other >= ratio - 1e-9
    assert found.test.p_value == pytest.approx(more / len(orders))


def test_false_alarms_stay_below_their_level():
    stream = np.random.default_rng(1)
    labels = np.arange(9) % 2
    p = [pair_contrast(stream.standard_normal((9, 9)), labels).test.p_value for _ in range(300)]
    assert np.mean(np.array(p) <= 0.05) <= 0.08  # 0.05 + 2.4 standard errors
    assert np.mean(np.array(p) <= 0.5) == pytest.approx(0.5, abs=0.09)


def test_holm_is_bonferroni_for_the_smallest_and_ordered():
    p = {"a": 0.004, "b": 0.03, "c": 0.02, "d": 0.9, "e": math.nan}
    found = holm(p)
    assert found["a"] == pytest.approx(0.016)
    assert found["c"] == pytest.approx(0.06)
    assert found["b"] == pytest.approx(0.06)  # not below c's
    assert found["d"] == pytest.approx(0.9)
    assert math.isnan(found["e"])
    # Never below what controls the false discovery rate alone.
    weaker = false_discovery_control([0.004, 0.03, 0.02, 0.9])
    assert all(found[name] >= q - 1e-12 for name, q in zip("abcd", weaker, strict=True))


def test_labels():
    assert labels_of([(0, 3), (1,)], 5).tolist() == [0, 1, -1, 0, -1]
    with pytest.raises(InputError, match="class 1 is not one once"):
        labels_of([(0, 1), (1,)], 3)
    with pytest.raises(InputError, match="class 3"):
        labels_of([(3,)], 3)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="same classes"):
        agreement([0, 1], [0, 1, 2])
    with pytest.raises(InputError, match="need values"):
        pair_contrast(np.ones((3, 2)), [0, 1, 1])
    with pytest.raises(InputError, match="as many values"):
        explained([1.0], [0, 1])
