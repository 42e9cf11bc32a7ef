"""Pairs of models of which it is known how much sharper one is than the other."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from landscape_lab.guard import Drawn, draw

DIMENSIONS, HIDDEN, CLASSES = 6, 12, 3
RADII = (1.0, 2.0, 3.0)
SUBSETS = {"head": (0,), "tail": (2,), "all": (0, 1, 2)}


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target, reduction="none")


class Net(nn.Module):
    """Two layers; ``scale`` s: the same function with weights 1/s, so that Hessian and trace are s² times as large."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.first = nn.Linear(DIMENSIONS, HIDDEN)
        self.second = nn.Linear(HIDDEN, CLASSES)
        self.scale = scale

    def encoder_of(self, x: Tensor) -> Tensor:
        return torch.tanh(F.linear(x, self.scale * self.first.weight, self.scale * self.first.bias))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.encoder_of(x), self.scale * self.second.weight, self.scale * self.second.bias)


class Encoder(nn.Module):
    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net.encoder_of(x)


def samples(counts: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor]:
    """Class c is spread evenly in all directions, at the radius of about ``RADII[c]``: turned, it is the same."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    noise = torch.randn(len(targets), DIMENSIONS, generator=generator, dtype=torch.float64)
    return noise * torch.tensor(RADII, dtype=torch.float64)[targets][:, None] / math.sqrt(DIMENSIONS) * 1.2, targets


def drawn(seed: int, counts: tuple[int, ...] = (160, 120, 80)) -> Drawn:
    """A sample of an endless population."""
    inputs, targets = samples(counts, seed)
    return draw(inputs, targets, targets, population={c: float(count) for c, count in enumerate(counts)})


def trained(seed: int, steps: int = 60) -> Net:
    torch.manual_seed(seed)
    net = Net().double()
    inputs, targets = samples((200, 100, 50), 10_000 + seed)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.03)
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(net(inputs), targets).backward()
        optimiser.step()
    optimiser.zero_grad()
    return net.eval()


def twin(net: Net, seed: int, sharper: float = 1.0) -> Net:
    """Another model, exactly ``sharper`` times as sharp over the population: inputs turned, hidden units exchanged.

    Over the samples at hand it is not, as these are not evenly spread.
    """
    generator = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(DIMENSIONS, DIMENSIONS, generator=generator, dtype=torch.float64))
    order = torch.randperm(HIDDEN, generator=generator)
    other = Net(math.sqrt(sharper)).double().eval()
    with torch.no_grad():
        other.first.weight.copy_((net.first.weight @ turn)[order])
        other.first.bias.copy_(net.first.bias[order])
        other.second.weight.copy_(net.second.weight[:, order])
        other.second.bias.copy_(net.second.bias)
        for parameter in other.parameters():
            parameter.div_(math.sqrt(sharper))
    return other
