"""Numbers made up, with known errors, and a small model measured once."""

from __future__ import annotations

import torch
from guard_cases import SUBSETS, Encoder, Net, cross_entropy, samples
from torch import Tensor

from landscape_lab.guard import Drawn, GuardSettings, Measured, Measurement, draw, measure, mixed_batches

QUICK = GuardSettings(probes=6, directions=3, subspaces=3, steps=2, dimensions=3, batches=4, deflation=8, deflated=3)
COUNTS = (30, 20, 10)


def everything(seed: int = 0, counts: tuple[int, ...] = COUNTS) -> Drawn:
    inputs, targets = samples(counts, seed)
    return draw(inputs, targets, targets)


def measured(net: Net, data: Drawn, settings: GuardSettings = QUICK, **options: object) -> Measurement:
    batches = mixed_batches(data.inputs, data.targets, settings, 16)
    return measure(net, cross_entropy, data, SUBSETS, settings, encoder=Encoder(net), batches=batches, **options)


def made_up(value: float, probes: Tensor, influences: Tensor | None = None, metric: str = "trace") -> Measurement:
    """A measurement of one number over samples of one class, drawn from endlessly many."""
    count = 0 if influences is None else len(influences)
    one = Measured(metric, "all", value, probes, torch.zeros(0) if influences is None else influences)
    return Measurement((one,), torch.zeros(count, dtype=torch.long), {0: 1.0}, {"all": (0,)}, GuardSettings(), {}, {})
