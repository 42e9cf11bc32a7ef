"""Grouped Knowledge Preservation: the quadratic penalty towards the other groups' encoders (Eq. 3 to 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Penalty", "group_sizes"]


def group_sizes(groups: Sequence[Sequence[int]], class_counts: Sequence[int], kind: str) -> list[int]:
    """``|G_g|``: the training samples or (``kind="classes"``) the classes of each group."""
    if kind == "classes":
        return [len(group) for group in groups]
    return [sum(class_counts[c] for c in group) for group in groups]


@dataclass(frozen=True, eq=False)
class Penalty:
    """``Σ_g v_g L_gkp^g``, all groups at once, in O(P) whatever their number.

    Eq. 6 is ``L_gkp^g = λ/2 Σ_{j≠g} 1/|G_j| Σ_i F_{j,i} (θ_i - θ*_{j,i})²``. Group j appears in the term of
    every *other* group, so with weights v that sum to V ::

        Σ_g v_g L_gkp^g = Σ_j (V - v_j) λ / (2 |G_j|) Σ_i F_{j,i} (θ_i - θ*_{j,i})²
                        = ½ Σ_i a_i (θ_i - m_i)² + c

    where ``a = Σ_j (V - v_j) λ F_j / |G_j|``, ``m`` is the a-weighted mean of the anchors and c a constant.
    With ``v_g = 1`` (Eq. 16) the factor is ``G - 1``. The three depend on the groups alone, not on the batch.
    The centred form is used rather than ``a ∘ θ - b``: near the anchors the latter cancels in float32.

    Attributes:
        stiffness: a, ``(P,)``.
        anchor: m, ``(P,)``; zero where a is zero.
        constant: c.
    """

    stiffness: Tensor
    anchor: Tensor
    constant: float

    @classmethod
    def build(
        cls,
        anchors: Tensor,
        fisher: Tensor,
        sizes: Sequence[int],
        strength: float,
        group_weights: Sequence[float],
    ) -> Penalty:
        """Sum the groups' penalties.

        Args:
            anchors: θ*_g (Eq. 3), ``(G, P)``.
            fisher: diagonal Fisher of each group, ``(G, P)``.
            sizes: ``|G_g|``, length G.
            strength: λ.
            group_weights: v_g, length G.
        """
        total = sum(group_weights)
        coefficients = [strength * (total - weight) / size for weight, size in zip(group_weights, sizes, strict=True)]
        each = fisher.double() * torch.tensor(coefficients, dtype=torch.float64, device=fisher.device)[:, None]
        stiffness = each.sum(0)
        mean = (each * anchors).sum(0) / stiffness.clamp_min(torch.finfo(torch.float64).tiny)
        constant = 0.5 * float((each * (anchors - mean).square()).sum())
        return cls(stiffness.to(anchors.dtype), mean.to(anchors.dtype), constant)

    def gradient(self, theta: Tensor) -> Tensor:
        """``a ∘ (θ - m)``, ``(P,)``."""
        return self.stiffness * (theta - self.anchor)

    def value(self, theta: Tensor) -> float:
        """``½ Σ_i a_i (θ_i - m_i)² + c``; reads back from the device."""
        return 0.5 * float((self.stiffness.double() * (theta - self.anchor).double().square()).sum()) + self.constant
