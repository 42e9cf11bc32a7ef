"""The views of a recipe: which, and the laws that all of them keep."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from pillow_cases import pictures
from torch import Tensor

from landscape_lab.data import View, augmentation, crop_and_flip, training_views
from landscape_lab.data.augmentation import cutout
from landscape_lab.data.autoaugment import autoaugment
from landscape_lab.data.simaugment import simaugment
from landscape_lab.recipe import DataRecipe, LossRecipe, load_recipe

BLUR = LossRecipe(name="bcl", blur=True)


def views(loss: LossRecipe = BLUR, **data: Any) -> tuple[View, ...]:
    options = {"name": "cifar10-lt", "autoaugment": True, "cutout": 4, **data}
    return training_views(DataRecipe(**options), loss)


def seeded(view: View, images: Tensor, seed: int = 0) -> Tensor:
    return view(images, torch.Generator(images.device).manual_seed(seed))


every_view = pytest.mark.parametrize("number", [0, 1])
every_shape = pytest.mark.parametrize("shape", [(96, 3, 32, 32), (96, 1, 8, 8), (32, 3, 12, 20)])


def test_a_view_is_its_steps_with_one_stream_of_draws() -> None:
    images = pictures((64, 3, 32, 32))
    for autoaugmented in (False, True):
        for side in (0, 16):
            (view,) = views(LossRecipe(), autoaugment=autoaugmented, cutout=side)
            generator = torch.Generator().manual_seed(0)
            expected = crop_and_flip(images, generator, 4, True)
            if autoaugmented:
                expected = autoaugment(expected, generator)
            if side:
                expected = cutout(expected, generator, side)
            assert torch.equal(seeded(view, images), expected)


def test_the_views_of_bcl() -> None:
    images = pictures((64, 3, 32, 32))
    plain = partial(crop_and_flip, padding=4, flip=True)
    for loss, expected in (
        (LossRecipe(name="bcl"), simaugment),
        (BLUR, partial(simaugment, blur=True)),
        (LossRecipe(name="bcl", contrast_views="crop-flip"), plain),
    ):
        first, *others = views(loss)
        assert len(others) == 2
        assert torch.equal(seeded(first, images), seeded(views(LossRecipe())[0], images))
        for view in others:
            assert torch.equal(seeded(view, images), seeded(expected, images))
    assert not torch.equal(seeded(simaugment, images), seeded(partial(simaugment, blur=True), images))


def test_the_recipes_ask_for_the_published_views() -> None:
    for name, count in (("cifar10-lt-erm", 1), ("cifar100-lt-bcl-gkp-gsa", 3), ("digits-lt-bcl-erm", 3)):
        recipe = load_recipe(name)
        assert len(training_views(recipe.data, recipe.loss)) == count


@every_view
@every_shape
def test_every_view_keeps_shape_and_the_images_given(shape: tuple[int, ...], number: int) -> None:
    images, view = pictures(shape), views()[number]
    before = images.clone()
    out = seeded(view, images)
    assert out.shape == images.shape
    assert out.dtype == torch.uint8
    assert torch.equal(images, before)
    assert torch.equal(out, seeded(view, images))
    assert not torch.equal(out, seeded(view, images, seed=1))


@every_view
@every_shape
def test_an_image_does_not_see_the_others(shape: tuple[int, ...], number: int) -> None:
    images, view = pictures(shape), views()[number]
    kept = torch.arange(shape[0]) % 3 == 0
    others = torch.where(kept[:, None, None, None], images, pictures(shape, seed=1).flip(0))
    out, changed = seeded(view, images), seeded(view, others)
    assert torch.equal(out[kept], changed[kept])
    assert not torch.equal(out[~kept], changed[~kept])


@every_view
def test_images_of_a_batch_have_draws_of_their_own(number: int) -> None:
    images = pictures((1, 3, 32, 32), seed=3).expand(64, -1, -1, -1) // 2
    images = images + torch.arange(32, dtype=torch.uint8) * 3
    out = seeded(views()[number], images)
    assert len({tuple(image.flatten().tolist()) for image in out}) == 64


@every_view
@every_shape
def test_a_gpu_which_works_on_all_images_gets_the_same(
    shape: tuple[int, ...], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, view = pictures(shape), views()[number]
    expected = seeded(view, images)
    monkeypatch.setattr(augmentation, "_CAN_PICK", set())
    assert torch.equal(seeded(view, images), expected)


@every_view
def test_grey_images_are_colour_images_of_equal_channels(number: int) -> None:
    images, view = pictures((96, 1, 8, 8)), views()[number]
    out = seeded(view, images.expand(-1, 3, -1, -1).contiguous())
    assert torch.equal(out, seeded(view, images).expand_as(out))


@every_view
@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (1, 1, 1, 1), (5, 3, 2, 3)])
def test_smallest_batches_and_images(shape: tuple[int, ...], number: int) -> None:
    assert seeded(views()[number], pictures((8, *shape[1:]))[: shape[0]]).shape == shape


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_view
def test_nothing_waits_for_the_gpu(number: int) -> None:
    images, view = pictures((96, 3, 32, 32)).cuda(), views()[number]
    generator = torch.Generator("cuda").manual_seed(0)
    view(images, generator)  # the policy is copied once
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        out = view(images, generator)
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    assert out.device.type == "cuda"
