"""The training loop: a recipe becomes a run, epoch by epoch, and goes on where it was stopped."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from landscape_lab.analysis.features import USUAL_BETA
from landscape_lab.data import Dataset, Loader, PlainBatches, head_tail, plain_batches, shot_groups
from landscape_lab.devices import describe
from landscape_lab.errors import InputError
from landscape_lab.files import read_tensors, write_tensors
from landscape_lab.models import build_network
from landscape_lab.recipe import Recipe
from landscape_lab.run import Run, load_state, state_of
from landscape_lab.training.epoch_log import EpochLog
from landscape_lab.training.erm import erm_step
from landscape_lab.training.estimate import training_seconds
from landscape_lab.training.evaluation import Evaluation, assess, shot_accuracies
from landscape_lab.training.gkp import Penalty
from landscape_lab.training.gsa import GroupedSharpness
from landscape_lab.training.memory import Snapshot
from landscape_lab.training.preservation import Preservation
from landscape_lab.training.sam import sam_step
from landscape_lab.training.schedule import alpha, learning_rate, regroups
from landscape_lab.training.workspace import Workspace
from landscape_lab.version import __version__

__all__ = ["Trainer", "run_info"]


def run_info(recipe: Recipe, dataset: Dataset, device: torch.device) -> dict[str, Any]:
    """What ``run.json`` holds from the start: versions, device, data, class counts and subsets of classes."""
    counts = dataset.class_counts
    subsets = {**shot_groups(counts), **head_tail(counts, recipe.evaluation.head_tail_fraction)}
    return {
        "versions": {
            "landscape-lab": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "device": describe(device),
        "threads": torch.get_num_threads(),
        "data": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "train": len(dataset.train),
            "test": len(dataset.test),
        },
        "class_names": list(dataset.class_names),
        "class_counts": list(counts),
        "subsets": {name: list(classes) for name, classes in subsets.items()},
        "groups": {},
        "epoch_seconds": [],
    }


@dataclass
class _Progress:
    """The part of the resume state that is not tensors."""

    epoch: int = 0
    groups: list[list[int]] = field(default_factory=list)
    groups_by_epoch: dict[str, list[list[int]]] = field(default_factory=dict)
    penalty_constant: float = 0.0
    bank_epochs: list[int] = field(default_factory=list)
    bank_quality: list[float] = field(default_factory=list)
    epoch_seconds: list[float] = field(default_factory=list)


class Trainer:
    """Trains the network of a run, saving after every epoch all that going on needs.

    Args:
        run: where everything is recorded.
        dataset: the run's data.
        device: where to train.

    Raises:
        InputError: the recipe and the data do not go together.
    """

    def __init__(self, run: Run, dataset: Dataset, device: torch.device) -> None:
        recipe = run.recipe
        self.run, self.recipe, self.device = run, recipe, device
        self.dataset = dataset.to(device)
        self.subsets: dict[str, list[int]] = run.info["subsets"]
        self.train_split = self.dataset.train
        if recipe.data.classes != "all":
            self.train_split = self.train_split.only(self.subsets[recipe.data.classes])
        self.loader = Loader(
            self.train_split,
            self.dataset,
            batch_size=recipe.training.batch_size,
            seed=recipe.seed,
            crop_padding=recipe.data.crop_padding,
            flip=recipe.data.flip,
            drop_last=recipe.training.drop_last,
        )
        channels = self.train_split.images.shape[1]
        model = build_network(recipe.model, in_channels=channels, num_classes=dataset.num_classes, seed=recipe.seed)
        self.work = Workspace(model.to(device))
        run.info["parameters"] = list(self.work.space.names)
        self._flat = nn.Parameter(self.work.theta)
        self._flat.grad = self.work.gradient
        self.optimiser = torch.optim.SGD(
            [self._flat],
            lr=recipe.training.learning_rate,
            momentum=recipe.training.momentum,
            weight_decay=recipe.training.weight_decay,
            nesterov=recipe.training.nesterov,
        )
        self.preservation = Preservation(self.work, recipe, self.dataset, self.train_split)
        self.sharpness: GroupedSharpness | None = None
        self.progress = _Progress()
        self._metrics: list[dict[str, Any]] = []

    @property
    def steps_left(self) -> int:
        """Optimiser steps to the end of the run."""
        return (self.recipe.training.epochs - self.progress.epoch) * self.loader.batches_per_epoch

    def seconds_left(self) -> float:
        """Estimated seconds to the end of the run; one step is timed on a copy."""
        batch = min(self.recipe.training.batch_size, len(self.train_split))
        return training_seconds(
            self.recipe,
            self.work.model,
            self.dataset.normalise(self.train_split.images[:batch]),
            self.train_split.targets[:batch],
            steps=self.loader.batches_per_epoch,
            samples=len(self.train_split) + len(self.dataset.test),
            done=self.progress.epoch,
        )

    # -- the loop --------------------------------------------------------------------------------------------

    def train(
        self,
        on_step: Callable[[int], None] | None = None,
        on_epoch: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        """Train to the end, from wherever the run stands; call :meth:`restore` first to go on.

        Args:
            on_step: called with the number of optimiser steps just taken.
            on_epoch: called with each line of ``metrics.jsonl``.

        Raises:
            InputError: the loss is no longer finite.
            OSError: the disk is full; the run is whole up to its last complete epoch.
        """
        if not self._metrics:
            self._close_epoch(0, {}, on_epoch)
        while self.progress.epoch < self.recipe.training.epochs:
            started = time.perf_counter()
            line = self._steps(self.progress.epoch, on_step)
            self.progress.epoch += 1
            self.progress.epoch_seconds.append(round(time.perf_counter() - started, 3))
            self._close_epoch(self.progress.epoch, line, on_epoch)
        self.run.finish()

    def _steps(self, epoch: int, on_step: Callable[[int], None] | None) -> dict[str, Any]:
        """The optimiser steps of one epoch (counted from 0); returns what to log of them."""
        recipe = self.recipe
        if recipe.uses_groups and regroups(recipe.groups, epoch):
            self.preservation.regroup(epoch)
            self.progress.groups = [list(group) for group in self.preservation.groups]
            self.progress.groups_by_epoch[str(epoch)] = self.progress.groups
            self._prepare_sharpness()
        rate = learning_rate(recipe.training, epoch)
        self.optimiser.param_groups[0]["lr"] = rate
        penalty, held = self.preservation.penalty, self.preservation.held
        share = alpha(recipe.gkp, epoch, recipe.training.epochs) if penalty else 1.0
        counts = self._group_counts(epoch)
        log, penalty_norm = EpochLog(self.device), torch.zeros((), device=self.device)
        gradient = self.work.gradient
        self.work.model.train()
        for number, (images, targets) in enumerate(self.loader.epoch(epoch)):
            if self.sharpness:
                losses, logits = self.sharpness.step(images, targets, counts[number])
            elif recipe.method == "sam":
                losses, logits = sam_step(self.work, images, targets, recipe.sam)
            else:
                losses, logits = erm_step(self.work, images, targets)
            loss_norm = gradient.norm()
            if penalty:
                # Eq. 16: α L + (1 - α) Σ_g L_gkp^g
                pull = penalty.gradient(self.work.theta[held])
                penalty_norm = pull.norm()
                gradient.mul_(share)
                gradient[held].add_(pull, alpha=1 - share)
            log.add(losses, logits, targets, loss_norm, penalty_norm)
            self.optimiser.step()
            if on_step:
                on_step(1)
        means = log.means()
        if not math.isfinite(means["loss"]):
            raise InputError(
                f"the loss is no longer finite in epoch {epoch + 1}: lower training.learning_rate"
                + (" or gkp.strength" if penalty else "")
            )
        line: dict[str, Any] = {
            "learning_rate": rate,
            "alpha": share,
            "train_loss": means["loss"],
            "train_accuracy": means["accuracy"],
            "loss_gradient_norm": means["loss_gradient"],
        }
        if self.progress.groups:
            line["groups"] = self.progress.groups
        if penalty:
            line["penalty"] = {
                "value": penalty.value(self.work.theta[held]),
                "gradient_norm": means["penalty_gradient"],
                "gradient_norm_to_loss": means["ratio"],
            }
        if self.sharpness:
            line["perturbation"] = self.sharpness.read_log()
        return line

    def _prepare_sharpness(self) -> None:
        if self.recipe.uses_gsa:
            self.sharpness = GroupedSharpness(
                self.work,
                self.recipe.gsa,
                self.preservation.class_group(),
                self.preservation.sizes,
                ascend="projection" if self.recipe.method == "gsa-proj" else "orthogonal",
                ema=self.sharpness.ema if self.sharpness else None,
            )

    def _group_counts(self, epoch: int) -> list[list[int]]:
        """Samples of each group in each batch of the epoch: read back once, before its first step."""
        if not self.sharpness:
            return []
        counts = self.loader.class_counts(epoch)
        totals = counts.new_zeros(len(counts), len(self.progress.groups))
        return totals.index_add_(1, self.sharpness.class_group, counts).tolist()

    # -- after an epoch --------------------------------------------------------------------------------------

    def _close_epoch(self, epoch: int, line: dict[str, Any], on_epoch: Callable[[dict[str, Any]], None] | None) -> None:
        line = {"epoch": epoch, **line, **self._evaluate(epoch)}
        self._metrics.append(line)
        self._save(epoch)
        if on_epoch:
            on_epoch(line)

    def _evaluate(self, epoch: int) -> dict[str, Any]:
        recipe = self.recipe.quality
        results = {}
        for which, split in (("train", self.train_split), ("test", self.dataset.test)):
            batches: PlainBatches = plain_batches(split, self.dataset, self.recipe.evaluation.batch_size)
            results[which] = assess(self.work.model, batches, self.dataset.num_classes)
        line: dict[str, Any] = {
            which: {
                "loss": result.mean_loss,
                "accuracy": self._accuracies(result),
                "class_accuracy": result.accuracy,
                "class_loss": result.loss,
                # Eq. 19, and the form and weight of the released code, side by side (reading 7).
                "quality": {form: result.quality(form, beta) for form, beta in USUAL_BETA.items()},
            }
            for which, result in results.items()
        }
        if self.recipe.uses_groups and epoch > 0:
            quality = results[recipe.split].quality(recipe.form, recipe.beta, recipe.features == "normalised")
            self.preservation.remember(epoch, quality)
            bank = self.preservation.bank
            line["bank"] = {"epochs": list(bank.epochs), "bytes": bank.nbytes}
        return line

    def _accuracies(self, result: Evaluation) -> dict[str, float | None]:
        subsets = {"all": range(len(result.counts)), **self.subsets}
        present = {name: [c for c in classes if result.counts[c]] for name, classes in subsets.items()}
        return shot_accuracies(result.accuracy, present)

    # -- saving and going on ---------------------------------------------------------------------------------

    def _save(self, epoch: int) -> None:
        """Save an epoch. The state file comes last: until it is in place, the epoch did not happen."""
        recipe, bank, folder = self.recipe.training, self.preservation.bank, self.run.resume_folder
        if epoch % recipe.checkpoint_every == 0 or epoch == recipe.epochs:
            self.run.save_checkpoint(epoch, self.work.model)
        self.run.save_metrics(self._metrics)
        for stored, (parameters, statistics) in bank.snapshots.items():
            path = folder / f"bank-{stored:04d}.safetensors"
            if not path.exists() or stored == epoch:
                write_tensors(path, {"parameters": parameters, "statistics": statistics})
        self.progress.bank_epochs, self.progress.bank_quality = bank.epochs, bank.quality
        penalty = self.preservation.penalty
        self.progress.penalty_constant = penalty.constant if penalty else 0.0
        notes = {"progress": json.dumps(asdict(self.progress))}
        write_tensors(folder / "state.safetensors", self._state(), notes)
        for path in folder.glob("bank-*.safetensors"):
            if int(path.stem.removeprefix("bank-")) not in bank.snapshots:
                path.unlink()
        self._save_info()

    def _save_info(self) -> None:
        self.run.info["groups"] = self.progress.groups_by_epoch
        self.run.info["epoch_seconds"] = self.progress.epoch_seconds
        self.run.save_info()

    def _state(self) -> dict[str, Tensor]:
        tensors = {f"model.{name}": tensor for name, tensor in state_of(self.work.model).items()}
        momentum = self.optimiser.state[self._flat].get("momentum_buffer")
        if momentum is not None:
            tensors["momentum"] = momentum
        penalty = self.preservation.penalty
        if penalty:
            tensors |= {"penalty.stiffness": penalty.stiffness, "penalty.anchor": penalty.anchor}
        if self.sharpness and self.sharpness.ema is not None:
            tensors["gsa.ema"] = self.sharpness.ema
        return tensors

    def restore(self) -> int:
        """Go back to the run's last complete epoch.

        Returns:
            Its number; 0 where training has not begun.

        Raises:
            InputError: the saved state is damaged.
        """
        path = self.run.resume_folder / "state.safetensors"
        if not path.exists():
            return 0
        tensors, notes = read_tensors(path)
        tensors = {name: tensor.to(self.device) for name, tensor in tensors.items()}
        try:
            self.progress = _Progress(**json.loads(notes["progress"]))
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise InputError(f"{path} is damaged: {error}") from None
        model = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
        load_state(self.work.model, model, path)
        if "momentum" in tensors:
            self.optimiser.state[self._flat]["momentum_buffer"] = tensors["momentum"]
        self._restore_groups(tensors, path)
        self._metrics = [line for line in self.run.metrics() if line["epoch"] <= self.progress.epoch]
        if len(self._metrics) != self.progress.epoch + 1:
            raise InputError(f"{self.run.path / 'metrics.jsonl'} is damaged: epochs are missing")
        self._save_info()
        return self.progress.epoch

    def _restore_groups(self, tensors: dict[str, Tensor], state: Path) -> None:
        snapshots: dict[int, Snapshot] = {}
        for epoch in sorted(set(self.progress.bank_epochs) - {-1}):
            stored, _ = read_tensors(state.with_name(f"bank-{epoch:04d}.safetensors"))
            snapshots[epoch] = (stored["parameters"].to(self.device), stored["statistics"].to(self.device))
        self.preservation.bank.restore(self.progress.bank_epochs, self.progress.bank_quality, snapshots)
        if not self.progress.groups:
            return
        self.preservation.groups = tuple(tuple(group) for group in self.progress.groups)
        if "penalty.stiffness" in tensors:
            self.preservation.penalty = Penalty(
                tensors["penalty.stiffness"], tensors["penalty.anchor"], self.progress.penalty_constant
            )
        self._prepare_sharpness()
        if self.sharpness:
            self.sharpness.ema = tensors.get("gsa.ema")
