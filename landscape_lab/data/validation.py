"""A validation split, taken class by class from the training images."""

from __future__ import annotations

import numpy as np
import torch

from landscape_lab.data.dataset import Split

__all__ = ["hold_out"]


def hold_out(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Divide a split in two, class by class at random.

    Of a class with n ≥ 2 samples ``round(share · n)`` are held out, at least one and at most n - 1; of a class with
    one sample none. The draw depends on ``seed`` and the class alone.

    Args:
        split: what is divided; both parts keep its order and device.
        share: in [0, 1); 0 holds nothing out.
        seed: not negative.

    Returns:
        What remains, and what is held out.
    """
    if not share:
        return split, Split(split.images[:0], split.targets[:0])
    targets = split.targets.cpu().numpy()
    held = np.zeros(len(targets), dtype=bool)
    for label in np.unique(targets):
        members = np.flatnonzero(targets == label)
        count = min(max(1, round(share * len(members))), len(members) - 1)
        order = np.random.default_rng([seed, int(label)]).permutation(len(members))
        held[members[order[:count]]] = True

    def part(mask: np.ndarray) -> Split:
        chosen = torch.from_numpy(np.flatnonzero(mask)).to(split.targets.device)
        return Split(split.images[chosen], split.targets[chosen])

    return part(~held), part(held)
