"""The cost of a step, counted on the step itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from training_cases import Recorded, batch, smooth_net

from landscape_lab.recipe import load_recipe
from landscape_lab.training.erm import erm_step
from landscape_lab.training.estimate import passes_per_step
from landscape_lab.training.grouped_sharpness import GroupedSharpness
from landscape_lab.training.sam import sam_step


@pytest.mark.parametrize(
    ("method", "changes", "expected"),
    [
        ("erm", {}, (1, 1)),
        ("gkp", {}, (1, 1)),
        ("sam", {}, (2, 2)),
        ("gsa", {"groups.count": 3}, (1, 7 / 3 + 3)),
        ("gkp-gsa", {"groups.count": 3, "gsa.passes": "merged"}, (1, 7 / 3 + 1)),
    ],
)
def test_passes_are_those_of_the_step(
    method: str, changes: dict[str, Any], expected: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(f"digits-lt-{method}", changes)
    assert passes_per_step(recipe) == pytest.approx(expected)

    work = Recorded(smooth_net().float())
    images, targets = batch(1, [0, 1, 2, 3, 4, 5])
    images, calls = images.float(), {"forward": 0, "backward": 0}
    work.model.register_forward_hook(lambda *_: calls.update(forward=calls["forward"] + 1))
    backward = torch.Tensor.backward

    def counted(self: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        calls["backward"] += 1
        backward(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "backward", counted)
    if recipe.uses_gsa:
        groups = torch.tensor([0, 0, 1, 1, 2, 2])
        GroupedSharpness(work, recipe.gsa, groups, [5, 5, 5]).step(images, targets, [2, 2, 2])
    elif method == "sam":
        sam_step(work, images, targets, recipe.sam)
    else:
        erm_step(work, images, targets)
    assert (calls["forward"] + 2 * calls["backward"]) / 3 == pytest.approx(expected[1])
