"""The published counts of CIFAR-10-LT and CIFAR-100-LT, the published subset protocol, and the groups."""

from __future__ import annotations

import numpy as np
import pytest

from landscape_lab.data import head_tail, long_tail_counts, long_tail_subset, shot_groups
from landscape_lab.data.profile import training_indices
from landscape_lab.errors import InputError

# (classes, ratio): counts, (many, med, few)
PUBLISHED = {
    (10, 200): (
        "5000 2775 1540 854 474 263 146 81 45 25",
        (7, 3, 0),
    ),
    (10, 100): (
        "5000 2997 1796 1077 645 387 232 139 83 50",
        (8, 2, 0),
    ),
    (10, 50): (
        "5000 3237 2096 1357 878 568 368 238 154 100",
        (9, 1, 0),
    ),
    (10, 20): (
        "5000 3584 2569 1842 1320 946 678 486 348 250",
        (10, 0, 0),
    ),
    (10, 10): (
        "5000 3871 2997 2320 1796 1391 1077 834 645 500",
        (10, 0, 0),
    ),
    (100, 200): (
        "500 473 449 425 403 382 362 343 325 308 292 277 263 249 236 224 212 201 190 180 171 162 154 146 "
        "138 131 124 117 111 105 100 95 90 85 81 76 72 69 65 62 58 55 52 50 47 44 42 40 38 36 34 32 30 29 "
        "27 26 24 23 22 21 20 19 18 17 16 15 14 13 13 12 11 11 10 10 9 9 8 8 7 7 6 6 6 5 5 5 5 4 4 4 4 3 "
        "3 3 3 3 2 2 2 2",
        (30, 31, 39),
    ),
    (100, 100): (
        "500 477 455 434 415 396 378 361 344 328 314 299 286 273 260 248 237 226 216 206 197 188 179 171 "
        "163 156 149 142 135 129 123 118 112 107 102 98 93 89 85 81 77 74 70 67 64 61 58 56 53 51 48 46 "
        "44 42 40 38 36 35 33 32 30 29 27 26 25 24 23 22 21 20 19 18 17 16 15 15 14 13 13 12 12 11 11 10 "
        "10 9 9 8 8 7 7 7 6 6 6 6 5 5 5 5",
        (35, 35, 30),
    ),
    (100, 50): (
        "500 480 462 444 426 410 394 379 364 350 336 323 311 299 287 276 265 255 245 235 226 218 209 201 "
        "193 186 178 172 165 158 152 146 141 135 130 125 120 115 111 107 102 98 95 91 87 84 81 78 75 72 "
        "69 66 64 61 59 56 54 52 50 48 46 44 43 41 39 38 36 35 34 32 31 30 29 27 26 25 24 23 22 22 21 20 "
        "19 18 18 17 16 16 15 14 14 13 13 12 12 11 11 10 10 10",
        (41, 41, 18),
    ),
    (100, 20): (
        "500 485 470 456 442 429 416 404 392 380 369 358 347 337 327 317 308 298 290 281 272 264 256 249 "
        "241 234 227 220 214 207 201 195 189 184 178 173 168 163 158 153 149 144 140 136 132 128 124 120 "
        "116 113 110 106 103 100 97 94 91 89 86 83 81 78 76 74 72 69 67 65 63 61 60 58 56 54 53 51 50 48 "
        "47 45 44 43 41 40 39 38 37 35 34 33 32 31 30 29 29 28 27 26 25 25",
        (53, 47, 0),
    ),
    (100, 10): (
        "500 488 477 466 455 445 434 424 415 405 396 387 378 369 361 352 344 336 328 321 314 306 299 292 "
        "286 279 273 266 260 254 248 243 237 232 226 221 216 211 206 201 197 192 188 183 179 175 171 167 "
        "163 159 156 152 149 145 142 139 135 132 129 126 123 121 118 115 112 110 107 105 102 100 98 95 93 "
        "91 89 87 85 83 81 79 77 75 74 72 70 69 67 66 64 63 61 60 58 57 56 54 53 52 51 50",
        (69, 31, 0),
    ),
}


@pytest.mark.parametrize(("classes", "ratio"), PUBLISHED)
def test_published_counts_and_groups(classes: int, ratio: int) -> None:
    listed, groups = PUBLISHED[classes, ratio]
    counts = long_tail_counts(50000 // classes, classes, ratio)
    assert counts == tuple(map(int, listed.split()))
    shots = shot_groups(counts)
    assert tuple(len(shots[name]) for name in ("many", "med", "few")) == groups


@pytest.mark.parametrize(("classes", "total"), [(10, 12406), (100, 10847)])
def test_published_totals(classes: int, total: int) -> None:
    assert sum(long_tail_counts(50000 // classes, classes, 100)) == total


def test_ratio_one_is_balanced_and_one_class_is_a_class() -> None:
    assert long_tail_counts(7, 3, 1) == (7, 7, 7)
    assert long_tail_counts(7, 1, 5) == (7,)


@pytest.mark.parametrize("ratio", [0.5, 0, -1, float("nan"), float("inf")])
def test_ratio_out_of_range(ratio: float) -> None:
    with pytest.raises(InputError, match="at least 1"):
        long_tail_counts(10, 3, ratio)


def test_a_ratio_that_empties_a_class() -> None:
    with pytest.raises(InputError, match=r"class 2 would have no training samples .* use a smaller ratio"):
        long_tail_counts(10, 3, 50)


def published_subset(targets: np.ndarray, counts: tuple[int, ...], seed: int) -> list[int]:
    """What the long-tailed CIFAR of the literature does, word for word, with the global generator."""
    state = np.random.get_state()
    np.random.seed(seed)
    kept: list[int] = []
    for label, count in zip(np.unique(targets), counts, strict=True):
        own = np.where(targets == label)[0]
        np.random.shuffle(own)
        kept += own[:count].tolist()
    np.random.set_state(state)
    return kept


@pytest.mark.parametrize("seed", [0, 3])
def test_subset_is_the_published_one(seed: int) -> None:
    targets = np.random.default_rng(1).permutation(np.repeat(np.arange(10), 60))
    counts = long_tail_counts(60, 10, 20)
    state = np.random.get_state()
    kept = long_tail_subset(targets, counts, seed)
    assert kept.tolist() == published_subset(targets, counts, seed)
    assert targets[kept].tolist() == np.repeat(np.arange(10), counts).tolist()
    after = np.random.get_state()
    assert state[2] == after[2]
    assert np.array_equal(state[1], after[1])


def test_a_class_with_too_few_images_is_named() -> None:
    with pytest.raises(InputError, match="class 'cat' has 2 training images and needs 3"):
        long_tail_subset([0, 0, 0, 1, 1], (3, 3), class_names=("dog", "cat"))
    with pytest.raises(InputError, match="class 1 has 2 training images and needs 3"):
        long_tail_subset([0, 0, 0, 1, 1], (3, 3))


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_subset_seed_out_of_range(seed: int) -> None:
    with pytest.raises(InputError, match="seed"):
        long_tail_subset([0], (1,), seed)


def test_natural_keeps_everything_in_file_order() -> None:
    assert training_indices([1, 0, 1], ("a", "b"), "natural", 1).tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="class 'b' has no training images"):
        training_indices([0, 2], ("a", "b", "c"), "natural", 1)


@pytest.mark.parametrize("ratio", ["nature", True, None])
def test_ratio_of_another_kind(ratio: object) -> None:
    with pytest.raises(InputError, match='a number or "natural"'):
        training_indices([0, 1], ("a", "b"), ratio, 1)  # type: ignore[arg-type]


def test_shot_groups_at_their_bounds() -> None:
    assert shot_groups((101, 100, 20, 19, 0)) == {"many": (0,), "med": (1, 2), "few": (3, 4)}


def test_head_tail() -> None:
    counts = long_tail_counts(5000, 10, 100)
    assert head_tail(counts) == {"head": (0, 1), "tail": (8, 9)}
    assert head_tail(counts[::-1]) == {"head": (9, 8), "tail": (1, 0)}
    assert head_tail((5, 5, 5), 0.1) == {"head": (0,), "tail": (2,)}
    assert head_tail((5,) * 4, 0.5) == {"head": (0, 1), "tail": (2, 3)}
    for fraction in (0, 0.6):
        with pytest.raises(ValueError, match="fraction"):
            head_tail(counts, fraction)
