"""Noise, sharpness and barriers leave the caller's model and random generators exactly as they were."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from analysis_cases import Case, cross_entropy
from test_side_effects import Snapshot
from torch import Tensor, nn

from landscape_lab.analysis.batches import Batches, Loss
from landscape_lab.analysis.noise import noise_curve
from landscape_lab.analysis.paths import barrier
from landscape_lab.analysis.sharpness import sharpness
from landscape_lab.parameters import ParameterSpace

ALL = {"all": (0, 1, 2)}

MEASURES: dict[str, Callable[[nn.Module, Loss, Batches], object]] = {
    "noise": lambda m, f, b: noise_curve(m, f, b, ratios=[0, 0.5], directions=2, subsets=ALL, num_classes=3),
    "sharpness": lambda m, f, b: sharpness(m, f, b, directions=2, steps=3),
    **{
        f"barrier, {policy}": lambda m, f, b, policy=policy: barrier(
            m, f, b, (v := ParameterSpace(m).vector(), v + 1), subsets=ALL, points=3, batch_norm=policy
        )
        for policy in ("running", "batch", "reestimated")
    },
}


@pytest.mark.parametrize("fails", [False, True], ids=["", "the loss fails"])
@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES.keys())
def test_nothing_changes(conv: Case, measure: Callable[..., object], fails: bool) -> None:
    model = conv.model.train()
    model.norm.eval()
    model.head.weight.grad = torch.full_like(model.head.weight, 3.0)
    before = Snapshot(model)

    def failing(output: Tensor, target: Tensor) -> Tensor:
        raise RuntimeError("out of memory")

    if fails:
        with pytest.raises(RuntimeError, match="out of memory"):
            measure(model, failing, conv.batches)
    else:
        measure(model, cross_entropy, conv.batches)
    before.assert_same(model)
