"""Directions to look along from a point in parameter space: random, normalised, orthogonal."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from landscape_lab.errors import InputError
from landscape_lab.parameters import ParameterSpace

__all__ = [
    "NORMALISATIONS",
    "Biases",
    "Normalisation",
    "filter_normalised",
    "layer_normalised",
    "norm_normalised",
    "normalised",
    "orthogonalised",
    "random_direction",
    "sign_fixed",
]

Normalisation = Literal["filter", "layer", "norm", "none"]
Biases = Literal["out", "in"]
NORMALISATIONS: tuple[Normalisation, ...] = get_args(Normalisation)


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


def filter_normalised(direction: Tensor, space: ParameterSpace, biases: Biases = "out") -> Tensor:
    r"""Scale each filter of a direction to the norm of the model's filter.

    .. math:: d_{ij} \leftarrow d_{ij} \, \|\theta_{ij}\| / \|d_{ij}\|

    for filter :math:`j` of layer :math:`i`, a slice along the first dimension of a tensor with two or more;
    for a linear layer that is the weights of one output.

    Args:
        direction: ``(P,)``.
        space: the model's parameters, at the values that set the scale.
        biases: what becomes of biases and BatchNorm's parameters (tensors of one dimension or none), which have no
            filters, and of which BatchNorm's scale is not invariant to its own perturbation: ``"out"``: zero, as the
            reference draws all its pictures; ``"in"``: each tensor is scaled to the norm of the model's tensor, as one
            filter.

    Returns:
        A new ``(P,)`` vector.

    Reference: Li et al., *Visualizing the loss landscape of neural nets*, NeurIPS 2018, arXiv:1712.09913,
    section 4.
    """
    return _normalised(direction, space, biases, filters=True)


def layer_normalised(direction: Tensor, space: ParameterSpace, biases: Biases = "out") -> Tensor:
    """As :func:`filter_normalised` with one scale for each tensor instead of each filter."""
    return _normalised(direction, space, biases, filters=False)


def norm_normalised(direction: Tensor, space: ParameterSpace, biases: Biases = "out") -> Tensor:
    """Scale a direction as a whole to the norm of the parameters that it moves: all, or without biases and BatchNorm's.

    Args:
        direction: ``(P,)``.
        space: the model's parameters, at the values that set the scale.
        biases: ``"out"``: zero; ``"in"``: kept.
    """
    kept = _kept(direction, space, biases)
    length = kept.norm()
    if not length > 0:
        return kept
    weights = torch.where(_moved(space, biases), space.vector(), 0.0)
    scaled: Tensor = kept * (weights.norm() / length)
    return scaled


def normalised(
    direction: Tensor, space: ParameterSpace, kind: Normalisation = "filter", biases: Biases = "out"
) -> Tensor:
    """The direction by :func:`filter_normalised`, :func:`layer_normalised`, :func:`norm_normalised`, or as it is.

    Args:
        direction: ``(P,)``.
        space: the model's parameters.
        kind: ``"filter"``, ``"layer"``, ``"norm"`` or ``"none"``.
        biases: ``"out"`` sets the entries of biases and BatchNorm's parameters to zero.

    Raises:
        InputError: no such kind.
    """
    if kind not in NORMALISATIONS or biases not in ("out", "in"):
        raise InputError(f"normalisation must be one of {', '.join(NORMALISATIONS)}, and biases 'out' or 'in'")
    if kind == "none":
        return _kept(direction, space, biases)
    functions = {"filter": filter_normalised, "layer": layer_normalised, "norm": norm_normalised}
    return functions[kind](direction, space, biases)


def _normalised(direction: Tensor, space: ParameterSpace, biases: Biases, filters: bool) -> Tensor:
    result = torch.zeros_like(_checked(direction, space))
    parts, sources = space.views(result), space.views(direction)
    for name, parameter in zip(space.names, space.parameters, strict=True):
        small = parameter.dim() < 2
        if small and biases == "out":
            continue
        rows = len(parameter) if filters and not small else 1
        weight = parameter.detach().reshape(rows, -1)
        source = sources[name].reshape(rows, -1)
        length = source.norm(dim=1, keepdim=True)
        # A filter of zeros has no direction to keep; it stays zero.
        scale = torch.where(length > 0, weight.norm(dim=1, keepdim=True) / length, 0.0)
        parts[name].copy_((source * scale).view(parameter.shape))
    return result


def _kept(direction: Tensor, space: ParameterSpace, biases: Biases) -> Tensor:
    return torch.where(_moved(space, biases), _checked(direction, space), 0.0)


def _moved(space: ParameterSpace, biases: Biases) -> Tensor:
    """Which entries a direction moves, ``(P,)``, bool."""
    kept = [biases == "in" or parameter.dim() > 1 for parameter in space.parameters]
    return torch.cat(
        [torch.full((size,), one, device=space.device) for size, one in zip(space.sizes, kept, strict=True)]
    )


def _checked(direction: Tensor, space: ParameterSpace) -> Tensor:
    if direction.shape != (space.size,):
        raise ValueError(f"expected a direction of shape ({space.size},), got {tuple(direction.shape)}")
    return direction


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
