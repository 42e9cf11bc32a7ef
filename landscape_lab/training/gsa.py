"""The equations of Grouped Sharpness Aware: directions and radii of the groups' perturbations (Eq. 12 to 14)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["accumulated_parts", "moving_average", "orthogonal_parts", "projections", "radii"]

DEGENERATE = 1e-3
"""Below this ‖ĝ‖/‖g‖ the orthogonal part is rounding noise; the group's own gradient is used (reading 23)."""


def projections(group_gradients: Tensor, global_gradient: Tensor) -> Tensor:
    """``⟨g_g, g⟩ / ⟨g, g⟩ · g``, what Eq. 12 removes: ``(G, P)`` and ``(P,)`` to ``(G, P)``."""
    squared = (global_gradient @ global_gradient).clamp_min(torch.finfo(global_gradient.dtype).tiny)
    return torch.outer(group_gradients @ global_gradient / squared, global_gradient)


def orthogonal_parts(group_gradients: Tensor, removed: Tensor) -> Tensor:
    """``ĝ_g = g_g - removed_g`` (Eq. 12), or ``g_g`` itself where next to nothing is left of it.

    With one group in the batch the global gradient *is* the group's, and Eq. 12 gives exactly zero.
    """
    rest = group_gradients - removed
    degenerate = rest.norm(dim=1) < DEGENERATE * group_gradients.norm(dim=1)
    return torch.where(degenerate[:, None], group_gradients, rest)


def radii(theta: Tensor, directions: Tensor, sizes: Tensor) -> Tensor:
    """Optimal radius of each group (Eq. 13).

    ``ρ*_g = (‖θ‖ / (2 ‖ĝ_g‖))^{1/2} d^{-1/4} (|G_g| - 1)^{-1/4}``

    Args:
        theta: ``(d,)``, the parameters that are perturbed.
        directions: ``ĝ``, ``(G, d)``.
        sizes: ``|G_g|``, ``(G,)``; taken as at least 2.

    Returns:
        ``(G,)``.
    """
    norms = directions.norm(dim=1).clamp_min(torch.finfo(directions.dtype).tiny)
    rest = (sizes.clamp_min(2) - 1).to(theta.dtype)
    scale = float(theta.numel()) ** -0.25
    result: Tensor = (theta.norm() / (2 * norms)).sqrt() * scale * rest**-0.25
    return result


def moving_average(average: Tensor, value: Tensor, decay: float) -> Tensor:
    """``decay · average + (1 - decay) · value``; a NaN in ``average`` says that there was none, and gives ``value``."""
    return torch.where(average.isnan(), value, decay * average + (1 - decay) * value)


def accumulated_parts(gradient: Tensor, averages: Tensor, groups: Sequence[int], decay: float) -> tuple[Tensor, Tensor]:
    """The directions of the released code of GKP+GSA, in place of Eq. 12 (methods: reading 21).

    One gradient, the sum over groups, is handed from group to group: each takes its own moving average away from
    what the groups before it have left.

    Args:
        gradient: ``(P,)``.
        averages: of each group, ``(G, P)``, NaN where a group has not been met.
        groups: those present, ascending.
        decay: of the averages.

    Returns:
        The directions ``(len(groups), P)`` and the new averages ``(G, P)``.
    """
    directions, averages = [], averages.clone()
    for group in groups:
        left = gradient - averages[group].nan_to_num(0.0)
        averages[group] = moving_average(averages[group], gradient, decay)
        directions.append(left)
        gradient = left
    return torch.stack(directions), averages
