"""The bank by reference against one that keeps a copy for every class, in memory and on the disk."""

from __future__ import annotations

import math
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from landscape_lab.errors import InputError
from landscape_lab.files import read_tensors, write_tensors
from landscape_lab.training import memory
from landscape_lab.training.memory import MemoryBank, Snapshot

C, P, S = 12, 9, 4
SIZE = (P + S) * 4
LIMITS = [None, 0, SIZE, 3 * SIZE + 1]


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

    @property
    def entries(self) -> list[tuple[int, float, Tensor, Tensor]]:
        return [entry for entry in self.stored if entry is not None]


def snapshot(generator: torch.Generator, length: int = P) -> Snapshot:
    return torch.randn(length, generator=generator), torch.randn(S, generator=generator)


def random_quality(rng: np.random.Generator) -> list[float]:
    """From few values, so that ties are frequent; a fifth NaN."""
    values = rng.integers(-3, 12, C).astype(float)
    values[rng.random(C) < 0.2] = math.nan
    return list(values)


def by_class(bank: MemoryBank) -> np.ndarray[Any, Any]:
    """The Gram matrix with a row for each class."""
    place = {epoch: i for i, epoch in enumerate(bank.distinct)}
    rows = [place[epoch] for epoch in bank.epochs]
    return bank.gram()[np.ix_(rows, rows)]


def compare(bank: MemoryBank, naive: NaiveBank) -> None:
    entries = naive.entries
    assert bank.epochs == [entry[0] for entry in entries]
    assert bank.quality == [entry[1] for entry in entries]
    assert bank.distinct == tuple(sorted({entry[0] for entry in entries}))
    assert bank.multiplicity.tolist() == [sum(entry[0] == epoch for entry in entries) for epoch in bank.distinct]
    parts = [torch.cat(entry[2 : 4 if bank.statistics else 3]) for entry in entries]
    vectors = np.stack([part.double().numpy() for part in parts])
    np.testing.assert_allclose(by_class(bank), vectors @ vectors.T, rtol=1e-12, atol=1e-12)
    for epoch, _, parameters, statistics in entries:
        assert torch.equal(bank.snapshot(epoch)[0], parameters)
        assert torch.equal(bank.snapshot(epoch)[1], statistics)
    for group in (range(C), [0], [3, 1, 7], [5, 5, 2]):  # Eq. 3
        means = bank.mean(list(group))
        for part in (0, 1):
            exact = torch.stack([entries[c][2 + part].double() for c in group]).mean(0)
            assert means[part].dtype == torch.float32
            assert torch.allclose(means[part].double(), exact, rtol=1e-6, atol=1e-7)


def files(folder: Path) -> set[int]:
    return {int(path.stem.removeprefix("bank-")) for path in folder.glob("*")}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("statistics", [False, True])
def test_equals_a_bank_of_copies(seed: int, statistics: bool) -> None:
    bank, naive = MemoryBank(C, statistics=statistics), NaiveBank()
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    shared = 0
    for epoch in range(1, 31):
        quality, current = random_quality(rng), snapshot(generator)
        before = list(bank.epochs)
        naive.update(epoch, quality, current)
        assert bank.update(epoch, quality, current) == (bank.epochs != before)
        for tensor in current:
            tensor.fill_(99.0)  # training goes on and overwrites it
        bank.save()  # there is no folder: nothing to do
        bank.prune()
        compare(bank, naive)
        assert bank.nbytes == len(bank.distinct) * SIZE  # only what some class refers to is kept
        assert bank.bytes_on_disk == 0
        shared += len(bank.distinct) < C
    assert shared > 20
    assert len(bank.distinct) > 2


@pytest.mark.parametrize("limit", LIMITS)
def test_on_the_disk_it_is_the_same(limit: int | None, tmp_path: Path) -> None:
    bank, naive, plain = MemoryBank(C, tmp_path, limit), NaiveBank(), MemoryBank(C)
    rng, generator = np.random.default_rng(1), torch.Generator().manual_seed(1)
    for epoch in range(1, 31):
        quality, current = random_quality(rng), snapshot(generator)
        naive.update(epoch, quality, current)
        assert plain.update(epoch, quality, current) == bank.update(epoch, quality, current)
        if limit is not None:
            assert bank.nbytes <= max(limit, SIZE)  # room is made before the new one comes
        bank.save()
        assert bank.nbytes <= (len(bank.distinct) * SIZE if limit is None else limit)
        bank.prune()
        assert files(tmp_path) == set(bank.distinct)
        assert bank.bytes_on_disk == sum(path.stat().st_size for path in tmp_path.glob("*")) > 0
        if epoch % 4 == 0:
            compare(bank, naive)
            np.testing.assert_array_equal(bank.gram(), plain.gram())
            assert all(map(torch.equal, bank.mean([0, 4, 5]), plain.mean([0, 4, 5])))
    if limit is not None:
        assert len(bank.distinct) * SIZE > limit


def test_the_newest_stay_in_memory(tmp_path: Path) -> None:
    bank, generator = MemoryBank(4, tmp_path, 2 * SIZE), torch.Generator().manual_seed(0)
    for epoch in range(4):
        bank.update(epoch, [9.0 if c == epoch else 0.0 for c in range(4)], snapshot(generator))
        bank.save()
    assert bank.distinct == (0, 1, 2, 3)
    for path in tmp_path.glob("*"):
        path.unlink()
    assert bank.snapshot(3)[0].shape == bank.snapshot(2)[0].shape == (P,)
    with pytest.raises(InputError, match=r"bank-0001\.safetensors does not exist"):
        bank.snapshot(1)


def test_what_is_not_on_the_disk_yet_stays_in_memory(tmp_path: Path) -> None:
    bank, generator = MemoryBank(3, tmp_path, 0), torch.Generator().manual_seed(0)
    for epoch in range(3):
        bank.update(epoch, [9.0 if c == epoch else 0.0 for c in range(3)], snapshot(generator))
    assert bank.nbytes == 3 * SIZE
    assert files(tmp_path) == set()
    bank.save()
    assert bank.nbytes == 0
    assert files(tmp_path) == {0, 1, 2}


# -- going on ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", LIMITS)
def test_restored_it_goes_on_the_same(limit: int | None, tmp_path: Path) -> None:
    bank, whole, naive = MemoryBank(C, tmp_path / "a", limit), MemoryBank(C, tmp_path / "b", limit), NaiveBank()
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    for epoch in range(1, 21):
        quality, current = random_quality(rng), snapshot(generator)
        for each in (naive, bank, whole):
            each.update(epoch, quality, current)
        for each in (bank, whole):
            each.save()
            each.prune()
            if epoch % 3 == 0:
                each.gram()
        if epoch % 5 == 0:
            write_tensors(tmp_path / "state", bank.state())
            bank = MemoryBank(C, tmp_path / "a", limit)
            bank.restore(read_tensors(tmp_path / "state")[0])
        # What is held is part of the state, too: metrics that name it do not depend on interruptions.
        assert bank.nbytes == whole.nbytes
        assert all(torch.equal(t.nan_to_num(7.0), whole.state()[k].nan_to_num(7.0)) for k, t in bank.state().items())
    compare(bank, naive)
    np.testing.assert_array_equal(bank.gram(), whole.gram())
    assert all(map(torch.equal, bank.mean([0, 4, 5]), whole.mean([0, 4, 5])))


@pytest.mark.parametrize("limit", [None, 0])
def test_a_kill_between_any_two_steps_does_no_harm(limit: int | None, tmp_path: Path) -> None:
    """Of every moment of 12 epochs a copy is kept, restored and brought to the end."""
    rng, generator = np.random.default_rng(5), torch.Generator().manual_seed(5)
    offers = [(random_quality(rng), snapshot(generator)) for _ in range(12)]

    def go_on(folder: Path, after: Callable[[], Any]) -> MemoryBank:
        bank, state, start = MemoryBank(C, folder / "bank", limit), folder / "state", 0
        if state.exists():
            tensors, notes = read_tensors(state)
            start = int(notes["epoch"])
            bank.restore(tensors)
        for epoch in range(start + 1, 13):
            if epoch % 3 == 0:
                bank.gram()
                after()
            bank.update(epoch, *offers[epoch - 1])
            after()
            bank.save()
            after()
            write_tensors(state, bank.state(), {"epoch": str(epoch)})
            after()
            bank.prune()
            after()
        return bank

    copies: list[Path] = []

    def keep() -> None:
        copies.append(tmp_path / f"copy-{len(copies)}")
        shutil.copytree(tmp_path / "whole", copies[-1])

    (tmp_path / "whole").mkdir()
    bank = go_on(tmp_path / "whole", keep)
    assert len(copies) == 12 * 4 + 4
    assert 1 < len(bank.distinct) < 12  # some files were deleted
    contents = {path.relative_to(tmp_path / "whole"): path.read_bytes() for path in (tmp_path / "whole").glob("*/*")}
    for copy in copies:
        again = go_on(copy, lambda: None)
        np.testing.assert_array_equal(again.gram(), bank.gram())
        assert {path.relative_to(copy): path.read_bytes() for path in copy.glob("*/*")} == contents
        assert (copy / "state").read_bytes() == (tmp_path / "whole" / "state").read_bytes()


def test_a_leftover_of_an_epoch_that_did_not_happen_is_overwritten(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    stale, fresh = snapshot(generator), snapshot(generator)
    write_tensors(tmp_path / "bank-0001.safetensors", {"parameters": stale[0], "statistics": stale[1]})
    bank = MemoryBank(1, tmp_path, 0)
    bank.update(1, [1.0], fresh)
    bank.save()
    assert bank.nbytes == 0
    assert torch.equal(bank.snapshot(1)[0], fresh[0])


def test_the_same_epoch_once_more_is_another_encoder(tmp_path: Path) -> None:
    bank, generator = MemoryBank(2, tmp_path, 0), torch.Generator().manual_seed(0)
    for quality in (1.0, 2.0):
        current = snapshot(generator)
        bank.update(1, [quality, quality], current)
        bank.save()
        assert bank.gram().item() == pytest.approx(current[0].double().square().sum().item(), rel=1e-12)
    assert torch.equal(bank.snapshot(1)[0], current[0])


def test_pruning_deletes_what_no_class_refers_to(tmp_path: Path) -> None:
    bank, generator = MemoryBank(2, tmp_path), torch.Generator().manual_seed(0)
    (tmp_path / "bank-0077.safetensors").write_text("of a run that was killed")
    (tmp_path / "state.safetensors").write_text("not the bank's")
    for epoch in (1, 2):
        bank.update(epoch, [epoch, epoch], snapshot(generator))
        bank.save()
    names = {path.name for path in tmp_path.glob("*")}
    assert {"bank-0001.safetensors", "bank-0002.safetensors", "bank-0077.safetensors"} < names
    bank.prune()
    assert {path.name for path in tmp_path.glob("*")} == {"bank-0002.safetensors", "state.safetensors"}


def saved(folder: Path, limit: int | None = None) -> dict[str, Tensor]:
    bank, generator = MemoryBank(3, folder, limit), torch.Generator().manual_seed(0)
    for epoch in range(3):
        bank.update(epoch, [9.0 if c == epoch else 0.0 for c in range(3)], snapshot(generator))
        bank.save()
    return bank.state()


@pytest.mark.parametrize("limit", [None, 0])
def test_damage_is_refused(limit: int | None, tmp_path: Path) -> None:
    state = saved(tmp_path, limit)
    with pytest.raises(InputError, match="does not fit 4 classes"):
        MemoryBank(4, tmp_path, limit).restore(state)
    for key in state:
        with pytest.raises(InputError, match=f"'{key}' is missing"):
            MemoryBank(3, tmp_path, limit).restore({name: t for name, t in state.items() if name != key})
    content = (tmp_path / "bank-0001.safetensors").read_bytes()
    (tmp_path / "bank-0001.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match=r"bank-0001\.safetensors is damaged"):  # noqa: PT012 - when it is first read
        bank = MemoryBank(3, tmp_path, limit)
        bank.restore(state)
        bank.mean([0, 1])
    (tmp_path / "bank-0001.safetensors").unlink()
    with pytest.raises(InputError, match=r"bank-0001\.safetensors does not exist"):
        MemoryBank(3, tmp_path, limit).restore(state)
    write_tensors(tmp_path / "bank-0001.safetensors", {"parameters": torch.zeros(P)})
    with pytest.raises(InputError, match=r"bank-0001\.safetensors is damaged: 'statistics' is missing"):  # noqa: PT012
        bank = MemoryBank(3, tmp_path, limit)
        bank.restore(state)
        bank.mean([0, 1])


def test_the_state_before_the_first_update() -> None:
    bank = MemoryBank(3)
    bank.restore(MemoryBank(3).state())
    assert bank.epochs == [-1] * 3
    assert bank.distinct == ()
    assert bank.gram().size == 0


# -- Eq. 1 ---------------------------------------------------------------------------------------------------


def test_only_strictly_better_replaces() -> None:
    bank, generator = MemoryBank(3), torch.Generator().manual_seed(0)
    assert bank.epochs == [-1, -1, -1]
    assert bank.update(1, [1.0, 2.0, 3.0], snapshot(generator))
    assert not bank.update(2, [1.0, 1.9, math.nan], snapshot(generator))
    assert bank.epochs == [1, 1, 1]
    assert bank.distinct == (1,)
    above = math.nextafter(2.0, 3.0)
    assert bank.update(3, [1.0, above, 3.0], snapshot(generator))
    assert bank.epochs == [1, 3, 1]
    assert bank.quality == [1.0, above, 3.0]
    assert bank.update(4, [5.0, 0.0, 5.0], snapshot(generator))
    assert bank.distinct == (3, 4)
    assert bank.multiplicity.tolist() == [1, 2]


def test_a_class_without_quality_takes_the_first_encoder_and_the_first_known_quality() -> None:
    bank, generator = MemoryBank(2), torch.Generator().manual_seed(0)
    bank.update(1, [math.nan, 1.0], snapshot(generator))
    bank.update(2, [math.nan, 1.0], snapshot(generator))
    assert bank.epochs == [1, 1]
    bank.update(3, [-100.0, 1.0], snapshot(generator))
    assert bank.epochs == [3, 1]


# -- Gram matrix ---------------------------------------------------------------------------------------------


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


def test_the_sum_over_chunks_is_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CHUNK", 4)  # of 9 and 4
    test_equals_a_bank_of_copies(0, True)


class Reads:
    """Counts what the bank reads, and how much of it is in memory at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.most, self.alive = 0, 0, weakref.WeakSet[Tensor]()
        monkeypatch.setattr(memory, "read_tensors", self.read)

    def read(self, path: Path) -> Any:
        tensors, notes = read_tensors(path)
        self.count += 1
        self.alive.add(tensors["parameters"])
        self.most = max(self.most, len(self.alive))
        return tensors, notes


def test_each_product_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, generator = Reads(monkeypatch), torch.Generator().manual_seed(0)
    bank = MemoryBank(30, tmp_path, 4 * SIZE)
    for epoch in range(20):
        bank.update(epoch, [9.0 if c == epoch else 0.0 for c in range(30)], snapshot(generator))
        bank.save()
    bank.gram()
    bank.save()
    reads.count = 0
    bank.gram()
    assert reads.count == 0
    for epoch in range(20, 23):
        bank.update(epoch, [9.0 if c == epoch else 0.0 for c in range(30)], snapshot(generator))
        bank.save()
    bank.gram()
    assert len(bank.distinct) == 23
    assert reads.count == 23 - 4  # each spilled encoder once, however many are new


def test_8142_classes_of_a_resnet_50_within_a_gigabyte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """iNaturalist's classes; lengths and the limit are 100,000 times smaller than 23.5 M and 1 GB."""
    reads, classes, length, limit = Reads(monkeypatch), 8142, 235, 10_000
    bank, copies, best = MemoryBank(classes, tmp_path, limit), np.zeros((classes, length)), np.full(classes, -np.inf)
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    held = []
    for epoch in range(1, 31):
        quality, current = rng.normal(0.05 * epoch, 1.0, classes), snapshot(generator, length)
        copies[quality > best] = current[0].numpy()
        best = np.maximum(best, quality)
        bank.update(epoch, quality.tolist(), current)
        held.append(bank.nbytes)
        bank.save()
        held.append(bank.nbytes)
        bank.prune()
        if epoch % 10 == 0:
            bank.gram()
    assert max(held) <= limit
    assert len(bank.distinct) * (length + S) * 4 > 2 * limit
    assert copies.size * 4 > 700 * limit  # what a copy for each class takes
    assert bank.gram().shape == (len(bank.distinct), len(bank.distinct))
    place = np.searchsorted(bank.distinct, bank.epochs)
    np.testing.assert_allclose(bank.gram()[place[:500]][:, place[-500:]], copies[:500] @ copies[-500:].T, atol=1e-11)
    for group in (range(classes), range(0, classes, 3)):
        np.testing.assert_allclose(bank.mean(group)[0], copies[list(group)].mean(0), rtol=1e-6, atol=1e-7)
    assert reads.count > 0
    assert reads.most <= 2  # beside what is held, two encoders at a time
    reads.most = 0
    bank.mean(range(classes))
    assert reads.most == 1
