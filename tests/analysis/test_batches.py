from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from landscape_lab.analysis.batches import batches_of, count_samples, per_sample
from landscape_lab.errors import InputError


def _pairs(n: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(n * 2.0).reshape(n, 2), torch.arange(n) % 3


def test_a_pair_is_split_without_copying() -> None:
    inputs, targets = _pairs()
    parts = list(batches_of((inputs, targets), 4))
    assert [len(x) for x, _ in parts] == [4, 4, 2]
    assert torch.equal(torch.cat([x for x, _ in parts]), inputs)
    assert torch.equal(torch.cat([y for _, y in parts]), targets)
    assert parts[1][0].data_ptr() == inputs[4:].data_ptr()


def test_lists_and_loaders_keep_their_batches() -> None:
    inputs, targets = _pairs()
    batches = [(inputs[:3], targets[:3]), (inputs[3:], targets[3:])]
    assert [len(x) for x, _ in batches_of(batches, 1)] == [3, 7]
    loader = batches_of(DataLoader(TensorDataset(inputs, targets), batch_size=6))
    for _ in range(2):
        assert [len(x) for x, _ in loader] == [6, 4]


def test_a_loader_replays_its_random_numbers_and_leaves_the_callers_alone() -> None:
    loader = DataLoader(TensorDataset(*_pairs()), batch_size=4, shuffle=True)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    readable = batches_of(loader)
    first = torch.cat([x for x, _ in readable])
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    assert torch.equal(torch.cat([x for x, _ in readable]), first)
    assert not torch.equal(first, _pairs()[0])


def test_what_cannot_be_read_again_is_refused() -> None:
    inputs, targets = _pairs()
    with pytest.raises(InputError, match="only once"):
        batches_of(iter([(inputs, targets)]))
    with pytest.raises(InputError, match="10 inputs but 9 targets"):
        batches_of((inputs, targets[:9]))
    with pytest.raises(InputError, match="pair of tensors"):
        batches_of([inputs])
    with pytest.raises(ValueError, match="batch_size"):
        batches_of((inputs, targets), 0)


class _Flipping(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Augments with Python's generator, which nobody replays."""

    # Images without structure in common: or as many flips at both readings would give the same sums.
    images = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = self.images[index]
        return (image.flip(0) if random.random() < 0.5 else image), torch.tensor(index % 2)


def test_counting_notices_batches_that_change() -> None:
    assert count_samples(batches_of(_pairs(7), 3)) == 7
    shuffled = DataLoader(TensorDataset(*_pairs()), batch_size=4, shuffle=True)
    assert count_samples(batches_of(shuffled)) == 10
    random.seed(0)
    with pytest.raises(InputError, match="change between readings"):
        count_samples(batches_of(DataLoader(_Flipping(), batch_size=5)))
    with pytest.raises(InputError, match="holds no samples"):
        count_samples(batches_of((torch.zeros(0, 2), torch.zeros(0))))


def test_per_sample_wants_one_value_for_each_sample() -> None:
    output, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    expected = F.cross_entropy(output, target, reduction="none")
    assert torch.equal(per_sample(nn.CrossEntropyLoss(reduction="none"), output, target), expected)
    with pytest.raises(InputError, match="reduction='none'"):
        per_sample(nn.CrossEntropyLoss(), output, target)
    with pytest.raises(InputError, match="reduction='none'"):
        per_sample(nn.MSELoss(reduction="none"), output, torch.randn(4, 3))
