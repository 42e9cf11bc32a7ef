"""A classifier network whose encoder and classifier are separate by construction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from landscape_lab.models.classifiers import CosineClassifier, LinearClassifier
from landscape_lab.models.resnet import ResNetEncoder
from landscape_lab.recipe import ModelRecipe

__all__ = ["Network", "build_network"]


class Network(nn.Module):
    """``f(x) = classifier(encoder(x))``; the encoder's parameters come first in the parameter vector.

    ``forward`` maps images ``(B, C, H, W)`` to logits ``(B, num_classes)``.
    """

    def __init__(self, encoder: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(B, C, H, W)`` to logits ``(B, num_classes)``."""
        return self.classifier(self.encoder(images))  # type: ignore[no-any-return]


def build_network(recipe: ModelRecipe, *, in_channels: int, num_classes: int, seed: int) -> Network:
    """Build the network of a recipe with weights that depend on ``seed`` alone.

    The caller's random state is left as it was. Weights are drawn on the CPU, so that every device starts
    from the same ones.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = ResNetEncoder(recipe.depth, recipe.width, in_channels)
        classifier: nn.Module
        if recipe.classifier == "cosine":
            classifier = CosineClassifier(encoder.feature_dim, num_classes, recipe.cosine_scale)
        else:
            classifier = LinearClassifier(encoder.feature_dim, num_classes)
    return Network(encoder, classifier)
