"""The diagonal of the Fisher information matrix, by per-sample gradients."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from landscape_lab.parameters import ParameterSpace, eval_mode

__all__ = ["fisher_diagonal"]

GRADIENT_BYTES = 1 << 28


def fisher_diagonal(
    model: nn.Module,
    space: ParameterSpace,
    parameters: Tensor,
    buffers: dict[str, Tensor],
    images: Tensor,
    targets: Tensor,
    *,
    adjustment: Tensor | None = None,
    estimator: str = "empirical",
    generator: torch.Generator | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Diagonal Fisher of the class log-likelihood at given parameters, in evaluation mode.

    ``F_i = 1/n Σ_x (∂ log p(y | x) / ∂θ_i)²``

    Args:
        model: maps images to logits; it is left as it is.
        space: the model's parameters.
        parameters: ``(P,)``, where the Fisher is taken.
        buffers: named buffers that go with these parameters; others are the model's own.
        images: ``(n, C, H, W)`` float, unaugmented.
        targets: ``(n,)`` int64.
        adjustment: ``(C,)``, is added to the logits, as a loss with logit adjustment does; ``None``: nothing.
        estimator: ``empirical`` takes the label y; ``true`` draws y from the model's own distribution;
            ``batch-mean`` squares the mean gradient of batches of 256 and divides by n (256 times or more
            too small, and what the released code of GKP+GSA does).
        generator: for ``true``, on the images' device.
        chunk: samples whose gradients are held at once, ``chunk x P`` numbers; ``None``: at most 64, and no more
            than fit into 256 MiB.

    Returns:
        ``(P,)``, in the parameters' dtype.

    References:
        Kunstner, Balles, Hennig 2019, *Limitations of the empirical Fisher approximation*, arXiv 1905.12558.
    """

    def logits(vector: Tensor, image: Tensor) -> Tensor:
        found: Tensor = functional_call(model, {**buffers, **space.views(vector)}, (image,))
        return found if adjustment is None else found + adjustment

    def loss(vector: Tensor, image: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits(vector, image), target)

    if chunk is None:
        chunk = min(64, max(1, GRADIENT_BYTES // (space.size * parameters.element_size())))
    total = torch.zeros(space.size, dtype=torch.float64, device=parameters.device)
    n = len(targets)
    with eval_mode(model):
        if estimator == "true":
            with torch.no_grad():
                chances = [logits(parameters, part).softmax(1) for part in images.split(512)]
            targets = torch.multinomial(torch.cat(chances), 1, generator=generator).squeeze(1)
        if estimator == "batch-mean":
            for image, target in zip(images.split(256), targets.split(256), strict=True):
                total += grad(loss)(parameters, image, target).detach().square()
        else:
            per_sample = vmap(grad(lambda v, x, y: loss(v, x[None], y[None])), in_dims=(None, 0, 0))
            for image, target in zip(images.split(chunk), targets.split(chunk), strict=True):
                total += per_sample(parameters, image, target).detach().square().sum(0)
    return (total / n).to(parameters.dtype)
