"""Small models in float64 whose dense Hessians are known through an independent channel, torch.func."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, hessian

from landscape_lab.parameters import ParameterSpace


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target, reduction="none")


class ConvNet(nn.Module):
    """Convolution, BatchNorm and ReLU; one parameter is frozen, one layer is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(3 * 9, 3)
        self.unused = nn.Linear(2, 2)
        self.conv.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(F.relu(self.norm(self.conv(x))).flatten(1)))


@dataclass
class Case:
    model: nn.Module
    inputs: Tensor
    targets: Tensor

    @property
    def batches(self) -> tuple[Tensor, Tensor]:
        return self.inputs, self.targets

    def dense(self, members: Tensor | None = None) -> Tensor:
        """The Hessian of the mean cross-entropy by torch.func: forward over reverse."""
        space = ParameterSpace(self.model)
        x, y = (self.inputs, self.targets) if members is None else (self.inputs[members], self.targets[members])
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()

        def mean_loss(vector: Tensor) -> Tensor:
            return F.cross_entropy(functional_call(self.model, space.views(vector), (x,)), y)

        result = hessian(mean_loss)(space.vector())
        for module, mode in modes:
            module.training = mode
        return result


def _trained(model: nn.Module, inputs: Tensor, targets: Tensor, steps: int, lr: float) -> nn.Module:
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr, momentum=0.9)
    model.train()
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        optimiser.step()
    optimiser.zero_grad()
    return model.eval()


def make_case(
    model: Callable[[], nn.Module], shape: tuple[int, ...], counts: tuple[int, ...], steps: int, lr: float
) -> Case:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        targets = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        targets = targets[torch.randperm(len(targets))]
        centres = torch.randn(len(counts), *shape, dtype=torch.float64)
        inputs = centres[targets] + torch.randn(len(targets), *shape, dtype=torch.float64)
        return Case(_trained(model().double(), inputs, targets, steps, lr), inputs, targets)


def mlp_net() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 14), nn.Tanh(), nn.Linear(14, 10), nn.Tanh(), nn.Linear(10, 5))


def planted(values: Tensor, seed: int = 0) -> Tensor:
    """A symmetric matrix with the given eigenvalues and random eigenvectors."""
    generator = torch.Generator().manual_seed(seed)
    Q, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64))
    return (Q * values) @ Q.T
