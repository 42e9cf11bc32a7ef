"""The loader: every sample once, the same again, and counts without images."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from landscape_lab.data import Dataset, Loader, Split, View, crop_and_flip, plain_batches, training_views
from landscape_lab.errors import InputError
from landscape_lab.recipe import DataRecipe, LossRecipe

N, C = 101, 4


def moved(padding: int, flip: bool = True) -> tuple[View, ...]:
    return (partial(crop_and_flip, padding=padding, flip=flip),)


def numbered(device: str = "cpu") -> Dataset:
    """Images whose every pixel is the sample's number, so that a batch tells what it holds."""
    numbers = torch.arange(N, dtype=torch.uint8)
    images = numbers[:, None, None, None].expand(N, 2, 6, 5).contiguous()
    split = Split(images, (numbers.long() ** 2) % C)
    return Dataset("toy", split, split, ("a", "b", "c", "d"), (0.0, 0.0), (1 / 255, 1 / 255)).to(device)


def loader(dataset: Dataset, **options: object) -> Loader:
    return Loader(dataset.train, dataset, **{"batch_size": 16, "seed": 0, **options})  # type: ignore[arg-type]


def order(batches: Loader, epoch: int) -> list[int]:
    return [round(x) for images, _ in batches.epoch(epoch) for x in images[:, 0, 0, 0].tolist()]


@pytest.mark.parametrize("drop_last", [False, True])
def test_every_sample_once(drop_last: bool) -> None:
    dataset = numbered()
    batches = loader(dataset, drop_last=drop_last)
    sizes = [len(targets) for _, targets in batches.epoch(0)]
    assert sizes == [16] * 6 + ([] if drop_last else [5])
    assert len(sizes) == batches.batches_per_epoch
    seen = order(batches, 0)
    assert len(set(seen)) == len(seen) == sum(sizes)
    assert drop_last or sorted(seen) == list(range(N))
    targets = torch.cat([targets for _, targets in batches.epoch(0)])
    assert torch.equal(targets, dataset.train.targets[seen])


def test_an_epoch_depends_on_seed_and_number_alone() -> None:
    dataset = numbered()
    options = {"views": moved(2)}
    first = list(loader(dataset, **options).epoch(3))
    before = list(loader(dataset, **options).epoch(2))
    resumed = loader(dataset, **options)
    beside = resumed.epoch(2)
    torch.manual_seed(99)
    for (images, targets), (again, same), other in zip(first, resumed.epoch(3), before, strict=True):
        assert torch.equal(next(beside)[0], other[0])  # two epochs at once do not disturb each other
        assert torch.equal(images, again)
        assert torch.equal(targets, same)

    orders = {tuple(order(loader(dataset, seed=seed), epoch)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    list(loader(numbered(), views=moved(2)).epoch(0))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


def test_augmentation_does_not_change_the_order_nor_the_images() -> None:
    dataset = numbered()
    kept = dataset.train.images.clone()
    plain, augmented = loader(dataset), loader(dataset, views=moved(1))
    for (images, targets), (others, same) in zip(plain.epoch(1), augmented.epoch(1), strict=True):
        assert torch.equal(targets, same)
        # The middle of a constant image survives any crop by one pixel.
        assert torch.equal(images[:, :, 2, 2], others[:, :, 2, 2])
    assert torch.equal(dataset.train.images, kept)
    assert any(not torch.equal(a[0], b[0]) for a, b in zip(plain.epoch(1), augmented.epoch(1), strict=True))


def test_augmentation_differs_between_batches_and_epochs() -> None:
    same = torch.randint(256, (1, 2, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = Split(same.expand(32, 2, 9, 9).contiguous(), torch.zeros(32, dtype=torch.int64))
    dataset = Dataset("toy", split, split, ("a",), (0.0, 0.0), (1.0, 1.0))
    batches = Loader(split, dataset, batch_size=16, seed=0, views=moved(4))
    seen = [images for epoch in range(3) for images, _ in batches.epoch(epoch)]
    assert all(not torch.equal(seen[i], seen[j]) for i in range(6) for j in range(i))


@pytest.mark.parametrize("flip", [True, False])
def test_crop_and_flip_batches_are_as_they_have_always_been(flip: bool) -> None:
    """Seeds, order and draws written out: runs begun with an earlier version go on to the same bits."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (N, 2, 6, 5), dtype=torch.uint8, generator=generator)
    split = Split(images, torch.arange(N) % C)
    dataset = Dataset("toy", split, split, ("a", "b", "c", "d"), (0.4, 0.5), (0.2, 0.3))
    data = DataRecipe(name="digits-lt", crop_padding=3, flip=flip)
    batches = loader(dataset, seed=8, views=training_views(data, LossRecipe()))

    def stream(number: int) -> torch.Generator:
        seed = np.random.SeedSequence((8, 5, number)).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(seed))

    order, draws = torch.randperm(N, generator=stream(0)), stream(1)
    for part, (batch, targets) in zip(order.split(16), batches.epoch(5), strict=True):
        offsets = torch.randint(7, (2, len(part), 1), generator=draws)
        mirrored = torch.randint(2, (len(part), 1), generator=draws) if flip else torch.zeros(len(part), 1)
        for i, number in enumerate(part.tolist()):
            padded = np.pad(images[number].numpy(), ((0, 0), (3, 3), (3, 3)))
            y, x = int(offsets[0, i]), int(offsets[1, i])
            window = padded[:, y : y + 6, x : x + 5]
            levels = torch.tensor((window[:, :, ::-1] if mirrored[i] else window).copy()).float()
            scale, shift = (
                np.float32(values) for values in ([1 / (255 * 0.2), 1 / (255 * 0.3)], [-0.4 / 0.2, -0.5 / 0.3])
            )
            expected = torch.stack([levels[c] * float(scale[c]) + float(shift[c]) for c in range(2)])
            assert torch.equal(batch[i], expected)
        assert torch.equal(targets, part % C)


def test_views_lie_one_after_another_each_with_its_own_draws() -> None:
    def brighter(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        amount = torch.randint(50, (len(images),), generator=generator)
        return images + amount.byte()[:, None, None, None]

    dataset, (crop,) = numbered(), moved(2)
    batches, plain = loader(dataset, views=(crop, brighter, brighter)), loader(dataset)
    cropped = next(loader(dataset, views=(crop,)).epoch(0))[0]
    for number, ((images, targets), (originals, same)) in enumerate(zip(batches.epoch(0), plain.epoch(0), strict=True)):
        assert torch.equal(targets, same)
        assert images.dtype == torch.float32
        first, *others = images.split(len(targets))
        if number == 0:
            assert torch.equal(first, cropped)
        added = [(view - originals)[:, 0, 0, 0].round().tolist() for view in others]
        assert len(added) == 2
        assert all(0 <= amount < 50 for view in added for amount in view)
        assert added[0] != added[1]


@pytest.mark.parametrize(
    ("batch_size", "drop_last"),
    [(1, False), (16, False), (16, True), (101, True), (200, False)],
)
def test_class_counts_are_those_of_the_batches(batch_size: int, drop_last: bool) -> None:
    batches = loader(numbered(), drop_last=drop_last, batch_size=batch_size)
    for epoch in range(3):
        expected = [torch.bincount(targets, minlength=C).tolist() for _, targets in batches.epoch(epoch)]
        assert batches.class_counts(epoch).tolist() == expected


def test_counts_of_a_split_that_lacks_a_class() -> None:
    dataset = numbered()
    batches = Loader(dataset.train.only([0]), dataset, batch_size=8, seed=0)
    counts = batches.class_counts(0)
    assert counts.shape == (batches.batches_per_epoch, C)
    assert counts.sum(0).tolist() == [51, 0, 0, 0]


def test_plain_batches_are_the_file_as_often_as_asked() -> None:
    dataset = numbered()
    batches = plain_batches(dataset.test, dataset, 40)
    assert len(batches) == 3
    for _ in range(2):
        images, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
        assert torch.equal(images, dataset.normalise(dataset.test.images))
        assert torch.equal(targets, dataset.test.targets)
    assert list(plain_batches(dataset.test.only([]), dataset, 40)) == []


def test_wrong_numbers() -> None:
    dataset = numbered()
    for options in ({"batch_size": 0}, {"seed": -1}):
        with pytest.raises(InputError, match="at least"):
            loader(dataset, **options)
    with pytest.raises(InputError, match="make no batch of 128; use a smaller batch size"):
        loader(dataset, batch_size=128, drop_last=True)
    with pytest.raises(InputError, match="batch size"):
        plain_batches(dataset.test, dataset, 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_nothing_waits_for_the_gpu() -> None:
    dataset = numbered("cuda")
    batches = loader(dataset, views=moved(2))
    dataset.normalise(dataset.train.images[:1])  # its constants are copied once
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for images, _ in batches.epoch(0):
            assert images.device.type == "cuda"
        counts = batches.class_counts(0)
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    assert counts.sum().item() == N
    generator = torch.Generator("cuda").manual_seed(0)
    assert crop_and_flip(dataset.train.images, generator, 2, True).shape == dataset.train.images.shape
