"""Grouped Knowledge Preservation: the quadratic penalty towards the other groups' encoders (Eq. 3 to 6)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["Penalty", "group_sizes"]

CHUNK = 1 << 20
"""Parameters that are summed at once."""


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
        terms: Iterable[tuple[Tensor, Tensor]],
        sizes: Sequence[int],
        strength: float,
        group_weights: Sequence[float],
    ) -> Penalty:
        """Sum the groups' penalties, one group in memory at a time.

        Args:
            terms: θ*_g (Eq. 3) ``(P,)`` and diagonal Fisher ``(P,)`` of each group; none is kept.
            sizes: ``|G_g|``, length G.
            strength: λ.
            group_weights: v_g, length G.

        Raises:
            ValueError: there is no group, or there are more or fewer terms than sizes or weights.
        """
        total = sum(group_weights)
        stiffness = mean = None
        constant, dtype = 0.0, torch.float32
        factors = [strength * (total - weight) / size for size, weight in zip(sizes, group_weights, strict=True)]
        used = 0
        for anchor, fisher in terms:
            if used == len(factors):
                raise ValueError(f"there are more terms than the {used} sizes of groups")
            if stiffness is None or mean is None:
                dtype = anchor.dtype
                stiffness, mean = (torch.zeros_like(anchor, dtype=torch.float64) for _ in range(2))
            for a, m, new, f in zip(*(part.split(CHUNK) for part in (stiffness, mean, anchor, fisher)), strict=True):
                # a/2 (θ - m)² + b/2 (θ - n)² = (a + b)/2 (θ - m')² + ab / (2 (a + b)) (n - m)²
                b = f.double() * factors[used]
                share = b / (a + b).clamp_min(torch.finfo(torch.float64).tiny)
                apart = new.double() - m
                constant += 0.5 * float((a * share * apart.square()).sum())
                m.addcmul_(share, apart)
                a.add_(b)
            used += 1
            del anchor, fisher, new, f  # before the next are made
        if stiffness is None or mean is None or used < len(factors):
            raise ValueError(f"there are {used} terms for the sizes of {len(factors)} groups; at least one is needed")
        return cls(stiffness.to(dtype), mean.to(dtype), constant)

    def limited(self, largest: float) -> Penalty:
        """The same pull with a stiffness of at most ``largest``; its value is another.

        Explicit steps with momentum β on ``a/2 (θ - m)²`` diverge where rate times a exceeds ``2 (1 + β)``.
        """
        return replace(self, stiffness=self.stiffness.clamp(max=largest))

    def gradient(self, theta: Tensor) -> Tensor:
        """``a ∘ (θ - m)``, ``(P,)``."""
        return self.stiffness * (theta - self.anchor)

    def value(self, theta: Tensor) -> float:
        """``½ Σ_i a_i (θ_i - m_i)² + c``; reads back from the device."""
        return 0.5 * float((self.stiffness.double() * (theta - self.anchor).double().square()).sum()) + self.constant
