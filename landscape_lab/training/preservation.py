"""The state of GKP over a run: memory bank, groups, anchors and penalty (Eq. 1 to 6)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from landscape_lab.data import Dataset, Split
from landscape_lab.recipe import Recipe
from landscape_lab.training.fisher import fisher_diagonal
from landscape_lab.training.gkp import Penalty, group_sizes
from landscape_lab.training.grouping import Groups, frequency_groups, ncut_groups, random_groups
from landscape_lab.training.memory import MemoryBank
from landscape_lab.training.workspace import Workspace

__all__ = ["Preservation"]


class Preservation:
    """Remembers each class's best encoder, groups the classes, and holds the other groups' encoders.

    Args:
        work: the model in training.
        recipe: the readings.
        dataset: for normalising images.
        train: the training split, on the model's device.

    Attributes:
        bank: the memory bank (Eq. 1).
        groups: the current groups (Eq. 2), empty before the first grouping.
        penalty: the summed penalty (Eq. 6), ``None`` before the first grouping or without GKP.
        held: the slice of the parameters that the bank stores and the penalty holds.
    """

    def __init__(self, work: Workspace, recipe: Recipe, dataset: Dataset, train: Split) -> None:
        self.work, self.recipe, self.dataset, self.train = work, recipe, dataset, train
        self.class_counts: list[int] = torch.bincount(train.targets, minlength=dataset.num_classes).tolist()
        self.held = work.part(recipe.gkp.parameters)
        self.bank = MemoryBank(dataset.num_classes)
        self.groups: Groups = ()
        self.penalty: Penalty | None = None

    def remember(self, epoch: int, quality: Sequence[float]) -> None:
        """Offer the current encoder to the memory bank (Eq. 1)."""
        statistics = [tensor.reshape(-1) for _, tensor in self._statistics()]
        empty = torch.zeros(0, device=self.work.theta.device)
        self.bank.update(epoch, quality, (self.work.theta[self.held], torch.cat(statistics) if statistics else empty))

    def regroup(self, epoch: int) -> None:
        """Group the classes anew (Eq. 2) and, with GKP, rebuild the penalty (Eq. 3 to 6)."""
        recipe = self.recipe.groups
        if recipe.source == "random":
            self.groups = random_groups(self.dataset.num_classes, recipe.count, self.recipe.seed)
        elif recipe.source == "frequency":
            self.groups = frequency_groups(self.class_counts, recipe.count)
        else:
            self.groups = ncut_groups(self.bank, recipe.count, recipe.affinity, self.recipe.seed)
        if self.recipe.uses_gkp:
            self.penalty = self._penalty(epoch)

    @property
    def sizes(self) -> list[int]:
        """``|G_g|`` of each group, as the recipe counts it."""
        return group_sizes(self.groups, self.class_counts, self.recipe.groups.size)

    def class_group(self) -> Tensor:
        """The group of each class, ``(C,)`` int64 on the model's device."""
        result = torch.empty(self.dataset.num_classes, dtype=torch.int64)
        for number, group in enumerate(self.groups):
            result[torch.tensor(group)] = number
        return result.to(self.work.theta.device)

    def _penalty(self, epoch: int) -> Penalty:
        recipe = self.recipe.gkp
        anchors, fishers = [], []
        for number, group in enumerate(self.groups):
            anchor, statistics = self.bank.mean(group)  # Eq. 3
            fisher = self._fisher(group, anchor, statistics, [self.recipe.seed, epoch, number])
            if recipe.fisher_normalised:
                fisher = fisher / fisher.mean().clamp_min(torch.finfo(fisher.dtype).tiny)
            anchors.append(anchor)
            fishers.append(fisher)
        samples = group_sizes(self.groups, self.class_counts, "samples")
        weights = [n / sum(samples) if recipe.weight == "share" else 1.0 for n in samples]
        return Penalty.build(torch.stack(anchors), torch.stack(fishers), self.sizes, recipe.strength, weights)

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
            estimator=recipe.fisher,
            generator=generator,
        )[self.held]

    def _statistics(self) -> list[tuple[str, Tensor]]:
        """The encoder's floating-point buffers: BatchNorm's running means and variances."""
        return [
            (name, tensor)
            for name, tensor in self.work.model.named_buffers()
            if name.startswith("encoder.") and tensor.is_floating_point()
        ]
