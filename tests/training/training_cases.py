"""Small networks in float64 and gradients by plain autograd, on copies without a flat buffer."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from landscape_lab.models import CosineClassifier, Network, ProjectionHead, build_network
from landscape_lab.recipe import ModelRecipe
from landscape_lab.training.workspace import Workspace

CLASSES = 6


def smooth_net(seed: int = 0, classes: int = CLASSES) -> Network:
    """Tanh and BatchNorm on 2 x 3 images; smooth, so that derivatives can be checked tightly."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 4))
        return Network(encoder, nn.Linear(4, classes)).double().train()


def contrast_net(seed: int = 0, classes: int = 4) -> Network:
    """:func:`smooth_net` with a cosine classifier and BCL's two heads."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 4))
        heads = ProjectionHead(4, 6, 3), ProjectionHead(4, 6, 3)
        return Network(encoder, CosineClassifier(4, classes, 5.0), *heads).double().train()


def residual_net(seed: int = 0, classes: int = CLASSES) -> Network:
    """ResNet-8 of width 2 on grey images."""
    recipe = ModelRecipe(depth=8, width=2)
    return build_network(recipe, in_channels=1, num_classes=classes, seed=seed).double().train()


def batch(seed: int, targets: Sequence[int], side: tuple[int, int] = (2, 3)) -> tuple[Tensor, Tensor]:
    """Random images with these labels."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(len(targets), 1, *side, generator=generator, dtype=torch.float64)
    return images, torch.tensor(list(targets))


def flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def plain_copy(model: Network) -> Network:
    """A copy whose parameters and gradients are ordinary tensors of their own."""
    twin = copy.deepcopy(model)
    for parameter in twin.parameters():
        parameter.data = parameter.data.clone()
        parameter.grad = None
    return twin


def buffers(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def gradient_at(model: Network, theta: Tensor, images: Tensor, targets: Tensor, members: Tensor) -> Tensor:
    """Gradient at ``theta`` of the mean loss of the samples ``members``; the whole batch goes through BatchNorm.

    Works on a copy, so running statistics stay as they are.
    """
    twin = plain_copy(model)
    place = 0
    for parameter in twin.parameters():
        parameter.data = theta[place : place + parameter.numel()].view_as(parameter).clone()
        place += parameter.numel()
    loss = F.cross_entropy(twin(images)[members], targets[members])
    return flat(torch.autograd.grad(loss, list(twin.parameters())))


class Recorded(Workspace):
    """A workspace that keeps the perturbations that it was moved by."""

    def __init__(self, model: Network) -> None:
        super().__init__(model)
        self.steps: list[Tensor] = []

    def move_to(self, origin: Tensor, step: Tensor, where: slice) -> None:
        self.steps.append(step.clone())
        super().move_to(origin, step, where)
