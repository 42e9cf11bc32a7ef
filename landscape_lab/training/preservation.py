"""The state of GKP over a run: memory bank, groups, anchors and penalty (Eq. 1 to 6)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from landscape_lab.data import Dataset, Split
from landscape_lab.recipe import Recipe
from landscape_lab.training.fisher import fisher_diagonal
from landscape_lab.training.gkp import Penalty, group_sizes
from landscape_lab.training.grouping import Groups, frequency_groups, ncut_groups, random_groups
from landscape_lab.training.memory import MemoryBank
from landscape_lab.training.workspace import Workspace

__all__ = ["Preservation", "Regrouping"]


@dataclass(frozen=True)
class Regrouping:
    """What a grouping gave, and what it cost.

    Attributes:
        epoch: number of epochs completed.
        groups: the classes of each group.
        classes: the number of classes of each group.
        samples: the number of training images of each group.
        encoders: the number of distinct encoders that the classes hold.
        adjusted_rand_index: agreement with the grouping before (Hubert and Arabie 1985): 1 where it is the same,
            0 in the mean over random ones; ``None`` for the first.
        clustering_seconds: time for affinities and groups.
        fisher_seconds: time for anchors, Fisher and penalty; 0 without GKP.
    """

    epoch: int
    groups: Groups
    classes: tuple[int, ...]
    samples: tuple[int, ...]
    encoders: int
    adjusted_rand_index: float | None
    clustering_seconds: float
    fisher_seconds: float


class Preservation:
    """Remembers each class's best encoder, groups the classes, and holds the other groups' encoders.

    Args:
        work: the model in training.
        recipe: the readings.
        dataset: for normalising images.
        train: the training split, on the model's device.
        folder: where the bank keeps the encoders; ``None``: in memory only.

    Attributes:
        bank: the memory bank (Eq. 1).
        groups: the current groups (Eq. 2), empty before the first grouping.
        penalty: the summed penalty (Eq. 6), ``None`` before the first grouping or without GKP.
        held: the slice of the parameters that the bank stores and the penalty holds.
    """

    def __init__(
        self, work: Workspace, recipe: Recipe, dataset: Dataset, train: Split, folder: Path | None = None
    ) -> None:
        self.work, self.recipe, self.dataset, self.train = work, recipe, dataset, train
        self.class_counts = train.class_counts(dataset.num_classes)
        self.held = work.part(recipe.gkp.parameters)
        limit = recipe.groups.bank_mebibytes << 20
        self.bank = MemoryBank(dataset.num_classes, folder, limit, statistics=recipe.groups.statistics)
        self.groups: Groups = ()
        self.penalty: Penalty | None = None

    def remember(self, epoch: int, quality: Sequence[float]) -> bool:
        """Offer the current encoder to the memory bank (Eq. 1).

        Args:
            epoch: number of epochs completed. The initial encoder, of epoch 0, counts only where classes are
                grouped before the first epoch.
            quality: Q of each class, length C.

        Returns:
            Whether some class took it.
        """
        if epoch == 0 and self.recipe.groups.start_epoch > 0:
            return False
        statistics = [tensor.reshape(-1) for _, tensor in self._statistics()]
        empty = self.work.theta.new_zeros(0)
        return self.bank.update(
            epoch, quality, (self.work.theta[self.held], torch.cat(statistics) if statistics else empty)
        )

    def regroup(self, epoch: int) -> Regrouping:
        """Group the classes anew (Eq. 2) and, with GKP, rebuild the penalty (Eq. 3 to 6).

        Raises:
            InputError: an encoder's file is missing or damaged.
        """
        recipe, before = self.recipe.groups, self.groups
        started = time.perf_counter()
        if recipe.source == "random":
            self.groups = random_groups(self.dataset.num_classes, recipe.count, self.recipe.seed)
        elif recipe.source == "frequency":
            self.groups = frequency_groups(self.class_counts, recipe.count)
        else:
            self.groups = ncut_groups(self.bank, recipe.count, recipe.affinity, self.recipe.seed)
        grouped = time.perf_counter()
        if self.recipe.uses_gkp:
            self.penalty = self._penalty(epoch)
        return Regrouping(
            epoch,
            self.groups,
            tuple(group_sizes(self.groups, self.class_counts, "classes")),
            tuple(group_sizes(self.groups, self.class_counts, "samples")),
            len(self.bank.distinct),
            float(adjusted_rand_score(_labels(before), _labels(self.groups))) if before else None,
            grouped - started,
            time.perf_counter() - grouped if self.recipe.uses_gkp else 0.0,
        )

    @property
    def sizes(self) -> list[int]:
        """``|G_g|`` of each group, as the recipe counts it."""
        return group_sizes(self.groups, self.class_counts, self.recipe.groups.size)

    def class_group(self) -> Tensor:
        """The group of each class, ``(C,)`` int64 on the model's device."""
        return torch.tensor(_labels(self.groups), dtype=torch.int64, device=self.work.theta.device)

    def _penalty(self, epoch: int) -> Penalty:
        recipe = self.recipe.gkp
        samples = group_sizes(self.groups, self.class_counts, "samples")
        weights = [n / sum(samples) if recipe.weight == "share" else 1.0 for n in samples]
        terms = (self._term(group, [self.recipe.seed, epoch, number]) for number, group in enumerate(self.groups))
        return Penalty.build(terms, self.sizes, recipe.strength, weights)

    def _term(self, group: Sequence[int], seed: list[int]) -> tuple[Tensor, Tensor]:
        """A group's anchor (Eq. 3) and Fisher diagonal."""
        anchor, statistics = self.bank.mean(group)
        fisher = self._fisher(group, anchor, statistics, seed)
        if self.recipe.gkp.fisher_normalised:
            fisher = fisher / fisher.mean().clamp_min(torch.finfo(fisher.dtype).tiny)
        return anchor, fisher

    def _fisher(self, group: Sequence[int], anchor: Tensor, statistics: Tensor, seed: list[int]) -> Tensor:
        """Diagonal Fisher of a group at its anchor, with the current heads (readings 14-17)."""
        recipe = self.recipe.gkp
        generator = torch.Generator(self.work.theta.device)
        generator.manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]) >> 1)
        split = self.train.only(group)
        images, targets = split.images, split.targets
        if recipe.fisher_samples is not None and len(targets) > recipe.fisher_samples:
            chosen = torch.randperm(len(targets), generator=generator, device=targets.device)
            images, targets = (part[chosen[: recipe.fisher_samples]] for part in (images, targets))
        here = self.work.theta.clone()
        here[self.held] = anchor
        names = self._statistics()
        parts = torch.split(statistics, [tensor.numel() for _, tensor in names])
        buffers = {name: part.view_as(own) for (name, own), part in zip(names, parts, strict=True)}
        return fisher_diagonal(
            self.work.model,
            self.work.space,
            here,
            buffers,
            self.dataset.normalise(images),
            targets,
            adjustment=self.work.adjustment,
            estimator=recipe.fisher,
            generator=generator,
        )[self.held]

    def _statistics(self) -> list[tuple[str, Tensor]]:
        """The floating-point buffers of what the bank stores: BatchNorm's running means and variances."""
        prefix = "encoder." if self.recipe.gkp.parameters == "encoder" else ""
        return [
            (name, tensor)
            for name, tensor in self.work.model.named_buffers()
            if name.startswith(prefix) and tensor.is_floating_point()
        ]


def _labels(groups: Groups) -> list[int]:
    """The number of each class's group."""
    number = {c: g for g, group in enumerate(groups) for c in group}
    return [number[c] for c in range(len(number))]
