"""Directions to look along from a point in parameter space: random, normalised, orthogonal."""

from __future__ import annotations

import torch
from torch import Tensor

from landscape_lab.errors import InputError
from landscape_lab.parameters import ParameterSpace

__all__ = ["filter_normalised", "layer_normalised", "orthogonalised", "random_direction", "sign_fixed"]


def random_direction(space: ParameterSpace, *, seed: int = 0, generator: torch.Generator | None = None) -> Tensor:
    """A vector ``(P,)`` with independent standard normal entries.

    Args:
        space: gives the size, dtype and device. The numbers are drawn on the CPU, so that one seed means one
            direction on every device.
        seed: used when ``generator`` is ``None``.
        generator: a CPU generator to draw from, which moves on.
    """
    generator = generator or torch.Generator().manual_seed(seed)
    return torch.randn(space.size, generator=generator, dtype=torch.float64).to(space.device, space.dtype)


def filter_normalised(direction: Tensor, space: ParameterSpace) -> Tensor:
    r"""Scale each filter of a direction to the norm of the model's filter.

    .. math:: d_{ij} \leftarrow d_{ij} \, \|\theta_{ij}\| / \|d_{ij}\|

    for filter :math:`j` of layer :math:`i`, a slice along the first dimension of a tensor with two or more;
    for a linear layer that is the weights of one output. Biases and BatchNorm's parameters (tensors of one
    dimension or none) get zero: they have no filters, and BatchNorm's scale is not invariant to its own
    perturbation.

    Args:
        direction: ``(P,)``.
        space: the model's parameters, at the values that set the scale.

    Returns:
        A new ``(P,)`` vector.

    Reference: Li et al., *Visualizing the loss landscape of neural nets*, NeurIPS 2018, arXiv:1712.09913,
    section 4.
    """
    return _normalised(direction, space, filters=True)


def layer_normalised(direction: Tensor, space: ParameterSpace) -> Tensor:
    """As :func:`filter_normalised` with one scale for each tensor instead of each filter."""
    return _normalised(direction, space, filters=False)


def _normalised(direction: Tensor, space: ParameterSpace, filters: bool) -> Tensor:
    if direction.shape != (space.size,):
        raise ValueError(f"expected a direction of shape ({space.size},), got {tuple(direction.shape)}")
    result = torch.zeros_like(direction)
    parts, sources = space.views(result), space.views(direction)
    for name, parameter in zip(space.names, space.parameters, strict=True):
        if parameter.dim() < 2:
            continue
        rows = len(parameter) if filters else 1
        weight = parameter.detach().reshape(rows, -1)
        source = sources[name].reshape(rows, -1)
        length = source.norm(dim=1, keepdim=True)
        # A filter of zeros has no direction to keep; it stays zero.
        scale = torch.where(length > 0, weight.norm(dim=1, keepdim=True) / length, 0.0)
        parts[name].copy_((source * scale).view(parameter.shape))
    return result


def orthogonalised(direction: Tensor, against: Tensor) -> Tensor:
    """Take the component along ``against`` out of ``direction``; both ``(P,)``, the norm shrinks.

    Raises:
        InputError: ``against`` is zero, or the two are parallel.
    """
    if not against.any():
        raise InputError("nothing is orthogonal to a zero direction in particular: give another one")
    unit = against / against.norm()
    result: Tensor = direction - (unit @ direction) * unit
    result = result - (unit @ result) * unit  # twice is enough (Kahan), once is not in float32
    if result.norm() <= 10 * torch.finfo(direction.dtype).eps * direction.norm():
        raise InputError("the two directions are parallel: choose others")
    return result


def sign_fixed(rows: Tensor) -> Tensor:
    """Flip each row of ``(K, P)`` so that its entry of largest magnitude is positive.

    Eigenvectors and principal axes have no sign of their own; without this a figure could come out mirrored.
    """
    largest = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True))
    return torch.where(largest < 0, -rows, rows)
