"""Several tests asked at once."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import TypeVar

__all__ = ["holm"]

_K = TypeVar("_K", bound=Hashable)


def holm(p_values: Mapping[_K, float]) -> dict[_K, float]:
    """P-values adjusted for their number: the chance of any false one stays below the level (Holm).

    Args:
        p_values: by name; ``nan`` is no question and stays ``nan``.

    Reference: S. Holm, *A simple sequentially rejective multiple test procedure*, Scand. J. Statist. 6 (1979).

    Example:
        >>> holm({"a": 0.01, "b": 0.5, "c": 0.03})
        {'a': 0.03, 'b': 0.5, 'c': 0.06}
    """
    asked = sorted(((p, name) for name, p in p_values.items() if not math.isnan(p)), key=lambda one: one[0])
    adjusted, reached = dict.fromkeys(p_values, math.nan), 0.0
    for rank, (p, name) in enumerate(asked):
        reached = max(reached, min(1.0, p * (len(asked) - rank)))
        adjusted[name] = reached
    return adjusted
