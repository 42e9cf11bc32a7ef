"""The diagonal of the Fisher information matrix, by per-sample gradients."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from landscape_lab.parameters import ParameterSpace, eval_mode

__all__ = ["fisher_diagonal"]


def fisher_diagonal(
    model: nn.Module,
    space: ParameterSpace,
    parameters: Tensor,
    buffers: dict[str, Tensor],
    images: Tensor,
    targets: Tensor,
    *,
    estimator: str = "empirical",
    generator: torch.Generator | None = None,
    chunk: int = 64,
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
        estimator: ``empirical`` takes the label y; ``true`` draws y from the model's own distribution;
            ``batch-mean`` squares the mean gradient of batches of 256 and divides by n (256 times or more
            too small, and what the released code of GKP+GSA does).
        generator: for ``true``, on the images' device.
        chunk: samples whose gradients are held at once; ``chunk x P`` numbers of memory.

    Returns:
        ``(P,)``, in the parameters' dtype.

    References:
        Kunstner, Balles, Hennig 2019, *Limitations of the empirical Fisher approximation*, arXiv 1905.12558.
    """

    def loss(vector: Tensor, image: Tensor, target: Tensor) -> Tensor:
        state = {**buffers, **space.views(vector)}
        logits = functional_call(model, state, (image,))
        return F.cross_entropy(logits, target)

    total = torch.zeros(space.size, dtype=torch.float64, device=parameters.device)
    n = len(targets)
    with eval_mode(model):
        if estimator == "true":
            with torch.no_grad():
                state = {**buffers, **space.views(parameters)}
                chances = [functional_call(model, state, (part,)).softmax(1) for part in images.split(512)]
            targets = torch.multinomial(torch.cat(chances), 1, generator=generator).squeeze(1)
        if estimator == "batch-mean":
            for image, target in zip(images.split(256), targets.split(256), strict=True):
                total += grad(loss)(parameters, image, target).detach().square()
        else:
            per_sample = vmap(grad(lambda v, x, y: loss(v, x[None], y[None])), in_dims=(None, 0, 0))
            for image, target in zip(images.split(chunk), targets.split(chunk), strict=True):
                total += per_sample(parameters, image, target).detach().square().sum(0)
    return (total / n).to(parameters.dtype)
