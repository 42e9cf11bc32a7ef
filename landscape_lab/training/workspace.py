"""What a training step works on: the model, its parameters as one vector, and one gradient vector."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from landscape_lab.models import Network
from landscape_lab.parameters import ParameterSpace

__all__ = ["Workspace", "cross_entropy"]


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each sample: ``(B, C)`` logits and ``(B,)`` targets to ``(B,)``."""
    return F.cross_entropy(logits, targets, reduction="none")


class Workspace:
    """A model whose parameters are views into one vector.

    Args:
        model: its parameters are moved into the vector, for good.
        loss: ``loss(logits, targets) -> (B,)``, the base loss of each sample.

    Attributes:
        theta: ``(P,)``, the parameters; writing to it moves the model.
        gradient: ``(P,)``, into which ``backward`` adds.
        encoder: the encoder's slice of both, ``classifier`` the classifier's.
    """

    def __init__(self, model: Network, loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy) -> None:
        self.model = model
        self.loss = loss
        self.space = ParameterSpace(model)
        self.theta, self.gradient = self.space.adopt()
        self.encoder = self.space.range_of("encoder")
        self.classifier = self.space.range_of("classifier")

    def part(self, name: str) -> slice:
        """The slice of ``encoder``, ``classifier`` or ``all``."""
        return {"encoder": self.encoder, "classifier": self.classifier, "all": slice(0, self.space.size)}[name]

    def move_to(self, origin: Tensor, step: Tensor, where: slice) -> None:
        """Set the parameters to ``origin`` ``(P,)``, displaced by ``step`` within the slice ``where``."""
        torch.add(origin[where], step, out=self.theta[where])
