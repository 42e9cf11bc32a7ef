"""Which plane to look at: random directions, the sharpest ones, the gradients of two parts of the data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from landscape_lab.analysis.batches import Batches, Loss, batches_of, per_sample
from landscape_lab.analysis.directions import Biases, Normalisation, normalised, random_direction, sign_fixed
from landscape_lab.analysis.lanczos import Eigenpairs, top_eigenpairs
from landscape_lab.analysis.operators import Operator
from landscape_lab.analysis.surface import Plane
from landscape_lab.errors import InputError
from landscape_lab.parameters import ParameterSpace, eval_mode

__all__ = ["eigenvector_plane", "gradient_plane", "mean_gradient", "random_plane"]


def random_plane(
    space: ParameterSpace, *, seed: int = 0, normalisation: Normalisation = "filter", biases: Biases = "out"
) -> Plane:
    """The plane through the model's parameters along two random directions.

    The numbers drawn depend on the seed and the network alone: at every epoch, and in every run of that network, they
    are the same; only their normalisation is by the model at hand. Two such directions are orthogonal but for
    :math:`1 / \\sqrt P`.

    Args:
        space: the model's parameters.
        seed: of the directions.
        normalisation: see :func:`~landscape_lab.analysis.directions.normalised`.
        biases: whether biases and BatchNorm's parameters move.
    """
    x, y = (
        normalised(random_direction(space, seed=2 * seed + axis), space, normalisation, biases) for axis in range(2)
    )
    return Plane(space.vector(), x, y)


def eigenvector_plane(space: ParameterSpace, operator: Operator, *, seed: int = 0) -> tuple[Plane, Eigenpairs]:
    """The plane along the eigenvectors of an operator's two largest eigenvalues.

    The axes have the norm of the parameters, so that coordinates tell by what part of its norm the model moves; the
    largest entry of each is positive.

    Args:
        space: the model's parameters.
        operator: on this space, such as a Hessian.
        seed: of the starting vector.

    Returns:
        The plane and the eigenpairs, with their residuals.

    Raises:
        InputError: the model has a single parameter.
    """
    if space.size < 2:
        raise InputError("two eigenvectors need two parameters at least")
    pairs = top_eigenpairs(operator, 2, seed=seed)
    origin = space.vector()
    axes = sign_fixed(pairs.vectors.T).to(origin) * origin.norm()
    return Plane(origin, axes[0].contiguous(), axes[1].contiguous()), pairs


def gradient_plane(space: ParameterSpace, first: Tensor, second: Tensor) -> tuple[Plane, float]:
    """The plane down two gradients, say of the head's and of the tail's loss.

    A step along an axis is a step that lowers that part's loss. The axes have the norm of the parameters and keep their
    own angle; drawn at a right angle, distances are those of the picture only if the cosine is near 0.

    Args:
        space: the model's parameters.
        first: ``(P,)``, the gradient whose descent is the first axis.
        second: ``(P,)``.

    Returns:
        The plane, and the cosine of the angle between its axes.

    Raises:
        InputError: a gradient is zero, or they are parallel.
    """
    lengths = first.double().norm(), second.double().norm()
    if not (lengths[0] > 0 and lengths[1] > 0):
        raise InputError("a gradient is zero: there is no direction down it")
    cosine = float(first.double() @ second.double() / (lengths[0] * lengths[1]))
    if 1 - abs(cosine) < 1e-9:
        raise InputError("the two gradients are parallel: they span no plane")
    origin = space.vector()
    x, y = (-(g.double() / size).to(origin) * origin.norm() for g, size in zip((first, second), lengths, strict=True))
    return Plane(origin, x, y), cosine


def mean_gradient(
    model: nn.Module, loss: Loss, batches: Batches, space: ParameterSpace, *, batch_size: int = 256
) -> Tensor:
    """The gradient ``(P,)`` of the mean loss over all samples, in evaluation mode; the model stays as it is.

    Args:
        model: any module.
        loss: ``(output, target) -> (B,)``.
        batches: inputs and targets.
        space: the parameters.
        batch_size: samples in memory at a time, for a pair of tensors.

    Raises:
        InputError: there are no samples.
    """
    total, count = torch.zeros(space.size, dtype=torch.float64, device=space.device), 0
    with eval_mode(model), torch.enable_grad():
        for inputs, targets in batches_of(batches, batch_size):
            targets = targets.to(space.device)
            value = per_sample(loss, model(inputs.to(space.device)), targets).sum()
            total += space.flatten(torch.autograd.grad(value, space.parameters, allow_unused=True)).double()
            count += len(targets)
    if not count:
        raise InputError("the subset holds no samples: choose classes that the data contain")
    return (total / count).to(space.dtype)
