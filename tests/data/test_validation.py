"""The validation split."""

from __future__ import annotations

import torch

from landscape_lab.data import Split, hold_out


def numbered(counts: list[int]) -> Split:
    targets = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    targets = targets[torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))]
    images = torch.arange(len(targets), dtype=torch.uint8).view(-1, 1, 1, 1)  # each image is its own number
    return Split(images, targets)


def test_each_class_gives_its_share_and_keeps_an_image() -> None:
    split = numbered([50, 14, 5, 2, 1])
    train, held = hold_out(split, 0.1, seed=3)
    assert torch.bincount(held.targets, minlength=5).tolist() == [5, 1, 1, 1, 0]
    assert torch.bincount(train.targets, minlength=5).tolist() == [45, 13, 4, 1, 1]
    numbers = [part.images.flatten().tolist() for part in (train, held)]
    assert sorted(numbers[0] + numbers[1]) == list(range(len(split)))
    assert all(part == sorted(part) for part in numbers)  # in file order
    for part in (train, held):
        assert torch.equal(part.targets, split.targets[part.images.flatten().long()])
    assert torch.bincount(hold_out(split, 0.99, seed=3)[0].targets).tolist() == [1, 1, 1, 1, 1]


def test_the_draw_depends_on_the_seed_alone() -> None:
    split = numbered([50, 14, 5, 2, 1])
    first, again, other = (hold_out(split, 0.3, seed)[1].images for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_nothing_is_held_out_unless_asked_for() -> None:
    split = numbered([3, 2])
    train, held = hold_out(split, 0.0, seed=0)
    assert torch.equal(train.images, split.images)
    assert len(held) == 0
