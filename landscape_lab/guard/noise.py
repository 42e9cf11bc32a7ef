"""The guard's numbers of the loss nearby: its average rise under noise, its highest rise in random subspaces."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from landscape_lab.analysis.batches import Loss
from landscape_lab.analysis.noise import noise_directions
from landscape_lab.analysis.sample_losses import sample_losses
from landscape_lab.analysis.sharpness import highest_in_subspace
from landscape_lab.guard.measured import Measured
from landscape_lab.guard.samples import Drawn
from landscape_lab.guard.settings import GuardSettings
from landscape_lab.parameters import ParameterSpace

__all__ = ["average_rises", "highest_rises"]


def average_rises(
    model: nn.Module,
    loss: Loss,
    drawn: Drawn,
    subsets: Mapping[str, Sequence[int]],
    settings: GuardSettings,
    space: ParameterSpace,
    only: Collection[str],
    spend: int = 1,
) -> Iterator[Measured]:
    r"""How much the mean loss rises on average at :math:`\theta \pm r \|\theta\| d`, all subsets from one sweep."""
    origin = space.vector()
    data = drawn.inputs, drawn.targets
    centre = sample_losses(model, loss, data, [origin], parameters=space)[0]
    rises = torch.zeros(0, centre.shape[1], dtype=torch.float64)
    for direction in noise_directions(space, settings.directions * spend, seed=settings.seed):
        # Both ways: the slope, which says nothing of sharpness and is most of the spread, cancels.
        points = [torch.add(origin, direction, alpha=step) for step in (settings.ratio, -settings.ratio)]
        losses = sample_losses(model, loss, data, points, parameters=space)[0]
        rises = torch.cat([rises, losses.mean(0, keepdim=True) - centre])
    for name, classes in subsets.items():
        if name in only:
            samples = rises @ drawn.shares(classes)
            influences = drawn.influences(rises.mean(0), classes)
            yield Measured("average", name, float(samples.mean()), samples, influences)


def highest_rises(
    model: nn.Module,
    loss: Loss,
    drawn: Drawn,
    subsets: Mapping[str, Sequence[int]],
    settings: GuardSettings,
    space: ParameterSpace,
    only: Collection[str],
    spend: int = 1,
) -> Iterator[Measured]:
    r"""The ε-sharpness :math:`100 \, (L^* - L) / (1 + L)` of each subset, the mean over random subspaces.

    One ascent in one subspace would be a number without an error; the subspaces' spread is one.
    """
    origin = space.vector()
    for name, classes in subsets.items():
        if name not in only:
            continue
        places = drawn.members(classes)
        inputs, targets = drawn.inputs[places.to(drawn.inputs.device)], drawn.targets[places.to(drawn.targets.device)]
        shares = drawn.shares(classes)[places]
        weighted = _Weighted(loss, inputs, targets, shares * len(places))
        values, influences = [], torch.zeros(len(places), dtype=torch.float64)
        count = settings.subspaces * spend
        for k in range(count):
            point = highest_in_subspace(
                model, weighted, weighted.batches(), epsilon=settings.epsilon, directions=settings.dimensions,
                steps=settings.steps, parameters=space, seed=settings.seed * 100_003 + k,
            )  # fmt: skip
            low, high = sample_losses(model, loss, (inputs, targets), [origin, point], parameters=space)[0]
            rise, base = float((high - low) @ shares), 1 + float(low @ shares)
            values.append(100 * rise / base)
            influences += 100 * ((high - low) / base - rise / base**2 * low) / count
        everywhere = torch.zeros(len(drawn.labels), dtype=torch.float64)
        everywhere[places] = influences
        probes = torch.tensor(values, dtype=torch.float64)
        yield Measured("epsilon", name, float(probes.mean()), probes, drawn.influences(everywhere, classes))


class _Weighted:
    """A loss whose plain mean over the samples is the subset's: the weights go through the batches in their order."""

    def __init__(self, loss: Loss, inputs: Tensor, targets: Tensor, weights: Tensor) -> None:
        self.loss, self.weights = loss, weights.to(inputs.device)
        self.inputs, self.targets = inputs, targets

    def batches(self, size: int = 256) -> list[tuple[Tensor, Tensor]]:
        """Batches whose targets are the samples' numbers."""
        numbers = torch.arange(len(self.inputs), device=self.inputs.device)
        return list(zip(self.inputs.split(size), numbers.split(size), strict=True))

    def __call__(self, output: Tensor, numbers: Tensor) -> Tensor:
        losses = self.loss(output, self.targets.to(output.device)[numbers.to(output.device)])
        return losses * self.weights.to(losses)[numbers.to(output.device)]
