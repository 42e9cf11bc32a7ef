"""The bank by reference against one that keeps a copy for every class."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from landscape_lab.training.memory import MemoryBank, Snapshot

C, P, S = 12, 9, 4


class NaiveBank:
    """Every class's own copy, as Eq. 1 has it."""

    def __init__(self) -> None:
        self.stored: list[tuple[int, float, Tensor, Tensor] | None] = [None] * C

    def update(self, epoch: int, quality: list[float], snapshot: Snapshot) -> None:
        for c, q in enumerate(quality):
            kept = self.stored[c]
            if kept is None:
                take, q = True, (-math.inf if math.isnan(q) else q)
            else:
                take = q > kept[1]
            if take:
                self.stored[c] = (epoch, q, snapshot[0].clone(), snapshot[1].clone())


def snapshot(generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Snapshot:
    return torch.randn(P, generator=generator, dtype=dtype), torch.randn(S, generator=generator, dtype=dtype)


def random_quality(rng: np.random.Generator) -> list[float]:
    """From few values, so that ties are frequent; a fifth NaN."""
    values = rng.integers(-3, 12, C).astype(float)
    values[rng.random(C) < 0.2] = math.nan
    return list(values)


def compare(bank: MemoryBank, naive: NaiveBank) -> None:
    stored = [entry for entry in naive.stored if entry is not None]
    assert bank.epochs == [entry[0] for entry in stored]
    assert bank.quality == [entry[1] for entry in stored]
    vectors = np.stack([entry[2].double().numpy() for entry in stored])
    np.testing.assert_allclose(bank.gram(), vectors @ vectors.T, rtol=1e-12, atol=1e-12)
    # Only what some class refers to is kept.
    assert set(bank.snapshots) == set(bank.epochs)
    assert bank.nbytes == len(set(bank.epochs)) * (P + S) * 4
    for epoch, _, parameters, statistics in stored:
        assert torch.equal(bank.snapshots[epoch][0], parameters)
        assert torch.equal(bank.snapshots[epoch][1], statistics)
    for group in (range(C), [0], [3, 1, 7], [5, 5, 2]):  # Eq. 3
        for part in (0, 1):
            exact = torch.stack([stored[c][2 + part].double() for c in group]).mean(0)
            mean = bank.mean(list(group))[part]
            assert mean.dtype == torch.float32
            assert torch.allclose(mean.double(), exact, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("seed", range(5))
def test_equals_a_bank_of_copies(seed: int) -> None:
    bank, naive = MemoryBank(C), NaiveBank()
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    shared = 0
    for epoch in range(1, 31):
        quality, current = random_quality(rng), snapshot(generator)
        before = list(bank.epochs)
        naive.update(epoch, quality, current)
        assert bank.update(epoch, quality, current) == (bank.epochs != before)
        for tensor in current:
            tensor.fill_(99.0)  # training goes on and overwrites it
        compare(bank, naive)
        shared += len(set(bank.epochs)) < C
    assert shared > 20
    assert len(set(bank.epochs)) > 2


def test_restored_it_goes_on_the_same() -> None:
    bank, naive = MemoryBank(C), NaiveBank()
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    for epoch in range(1, 21):
        quality, current = random_quality(rng), snapshot(generator)
        naive.update(epoch, quality, current)
        bank.update(epoch, quality, current)
        if epoch % 5 == 0:
            again = MemoryBank(C)
            again.restore(bank.epochs, bank.quality, dict(bank.snapshots))
            np.testing.assert_array_equal(again.gram(), bank.gram())
            assert all(map(torch.equal, again.mean([0, 4, 5]), bank.mean([0, 4, 5])))
            bank = again
        compare(bank, naive)


def test_restoring_does_not_share_its_lists() -> None:
    epochs, quality = [1, 1], [0.0, 0.5]
    bank = MemoryBank(2)
    bank.restore(epochs, quality, {1: snapshot(torch.Generator())})
    bank.update(2, [9.0, 0.0], snapshot(torch.Generator()))
    assert (epochs, quality) == ([1, 1], [0.0, 0.5])
    assert bank.epochs == [2, 1]


def test_only_strictly_better_replaces() -> None:
    bank, generator = MemoryBank(3), torch.Generator().manual_seed(0)
    assert bank.epochs == [-1, -1, -1]
    assert bank.update(1, [1.0, 2.0, 3.0], snapshot(generator))
    assert not bank.update(2, [1.0, 1.9, math.nan], snapshot(generator))
    assert bank.epochs == [1, 1, 1]
    assert list(bank.snapshots) == [1]
    above = math.nextafter(2.0, 3.0)
    assert bank.update(3, [1.0, above, 3.0], snapshot(generator))
    assert bank.epochs == [1, 3, 1]
    assert bank.quality == [1.0, above, 3.0]
    assert bank.update(4, [5.0, 0.0, 5.0], snapshot(generator))
    assert sorted(bank.snapshots) == [3, 4]


def test_a_class_without_quality_takes_the_first_encoder_and_the_first_known_quality() -> None:
    bank, generator = MemoryBank(2), torch.Generator().manual_seed(0)
    bank.update(1, [math.nan, 1.0], snapshot(generator))
    bank.update(2, [math.nan, 1.0], snapshot(generator))
    assert bank.epochs == [1, 1]
    bank.update(3, [-100.0, 1.0], snapshot(generator))
    assert bank.epochs == [3, 1]


def test_gram_keeps_what_distinguishes_nearly_parallel_encoders() -> None:
    """Late in training; in float32 the cosines of these would all be 1."""
    bank = MemoryBank(2)
    base, other = torch.full((P,), 1.0), torch.full((P,), 1.0)
    other[0] += 1e-4
    bank.update(1, [1.0, 1.0], (base, base))
    bank.update(2, [2.0, 0.0], (other, other))
    gram = bank.gram()
    sine_squared = 1 - gram[0, 1] ** 2 / (gram[0, 0] * gram[1, 1])
    exact = (float(other[0]) - 1) ** 2 * (P - 1) / P / (P + 2e-4)
    assert sine_squared == pytest.approx(exact, rel=1e-3)
