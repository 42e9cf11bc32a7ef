"""The training loop: a recipe becomes a run, epoch by epoch, and goes on where it was stopped."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from landscape_lab.data import Dataset, Loader, hold_out, training_views
from landscape_lab.devices import tf32
from landscape_lab.errors import InputError
from landscape_lab.files import read_tensors, write_tensors
from landscape_lab.models import build_network
from landscape_lab.run import Run, load_state, state_of
from landscape_lab.selection import reported_line
from landscape_lab.training.epoch_log import EpochLog
from landscape_lab.training.erm import erm_step
from landscape_lab.training.estimate import StepCost, step_cost, training_seconds
from landscape_lab.training.gkp import Penalty
from landscape_lab.training.grouped_sharpness import GroupedSharpness
from landscape_lab.training.losses import base_loss
from landscape_lab.training.metrics import evaluate_epoch
from landscape_lab.training.preservation import Preservation
from landscape_lab.training.sam import sam_step
from landscape_lab.training.schedule import alpha, learning_rate, regroups
from landscape_lab.training.workspace import Workspace

__all__ = ["Trainer"]

_GROUP_DRAWS = 2  # the loader's streams of random numbers are 0 and 1
_GOLDEN = (5**0.5 - 1) / 2


@dataclass
class _Progress:
    """The part of the resume state that is not tensors."""

    epoch: int = 0
    groups: list[list[int]] = field(default_factory=list)
    groups_by_epoch: dict[str, list[list[int]]] = field(default_factory=dict)
    penalty_constant: float = 0.0
    epoch_seconds: list[float] = field(default_factory=list)
    grouping_seconds: dict[str, dict[str, float]] = field(default_factory=dict)


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
        self.train_split, held_out = hold_out(
            self.dataset.train, recipe.evaluation.validation_share, recipe.data.subset_seed
        )
        if recipe.data.classes != "all":
            self.train_split = self.train_split.only(self.subsets[recipe.data.classes])
            held_out = held_out.only(self.subsets[recipe.data.classes])
        self.splits = {"train": self.train_split, "validation": held_out, "test": self.dataset.test}
        self.loader = Loader(
            self.train_split,
            self.dataset,
            batch_size=recipe.training.batch_size,
            seed=recipe.seed,
            views=training_views(recipe.data, recipe.loss),
            drop_last=recipe.training.drop_last,
        )
        channels = self.train_split.images.shape[1]
        model = build_network(recipe.model, in_channels=channels, num_classes=dataset.num_classes, seed=recipe.seed)
        self.work = Workspace(
            model.to(device),
            base_loss(recipe.loss, self.train_split.class_counts(dataset.num_classes), device),
            bfloat16=recipe.training.precision == "bfloat16",
        )
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
        self.preservation = Preservation(self.work, recipe, self.dataset, self.train_split, folder=run.resume_folder)
        self.sharpness: GroupedSharpness | None = None
        self.progress = _Progress()
        self._metrics: list[dict[str, Any]] = []

    @property
    def steps_left(self) -> int:
        """Optimiser steps to the end of the run."""
        return (self.recipe.training.epochs - self.progress.epoch) * self.loader.batches_per_epoch

    def step_cost(self) -> StepCost:
        """The measured cost of a plain step; nothing of the run changes."""

        def batch() -> tuple[Tensor, Tensor]:
            images, targets = next(self.loader.epoch(0))
            return self._laid_out(images), targets

        return step_cost(self.work, batch)

    def seconds_left(self, cost: StepCost | None = None) -> float:
        """Estimated seconds to the end of the run.

        Args:
            cost: of a plain step, if already measured on a run with the same network, base loss and batches.
        """
        return training_seconds(
            self.recipe,
            cost or self.step_cost(),
            steps=self.loader.batches_per_epoch,
            samples=sum(map(len, self.splits.values())),
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
        with tf32(self.recipe.training.precision == "tf32"):
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
        recipe, regrouping = self.recipe, None
        if recipe.uses_groups and regroups(recipe.groups, epoch):
            regrouping = self._regroup(epoch)
        rate = learning_rate(recipe.training, epoch)
        self.optimiser.param_groups[0]["lr"] = rate
        penalty, held = self.preservation.penalty, self.preservation.held
        share = alpha(recipe.gkp, epoch, recipe.training.epochs) if penalty else 1.0
        counts, draws = self._group_counts(epoch), self._draws(epoch)
        step_size = rate * (1 - share)
        acting = penalty.limited(recipe.gkp.max_step / max(step_size, 1e-30)) if penalty else None
        accumulates = recipe.gsa.global_gradient == "accumulated-ema"
        log, penalty_norm = EpochLog(self.device), torch.zeros((), device=self.device)
        gradient = self.work.gradient
        self.work.model.train()
        for number, (images, targets) in enumerate(self.loader.epoch(epoch)):
            images = self._laid_out(images)
            pull = acting.gradient(self.work.theta[held]) if acting else None
            if self.sharpness:
                losses, logits = self.sharpness.step(
                    images,
                    targets,
                    counts[number],
                    number=number,
                    draw=draws[number],
                    share=share,
                    pull=self._everywhere(pull, held) if accumulates else None,
                )
            elif recipe.uses_sam:
                losses, logits = sam_step(self.work, images, targets, recipe.sam)
            else:
                losses, logits = erm_step(self.work, images, targets)
            loss_norm = gradient.norm()
            if pull is not None:
                # Eq. 16: α L + (1 - α) Σ_g L_gkp^g
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
                + (" or gkp.max_step" if penalty and recipe.gkp.max_step > 1 else " or gkp.strength" if penalty else "")
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
        if regrouping:
            line["grouping"] = regrouping
        if penalty:
            line["penalty"] = {
                "value": penalty.value(self.work.theta[held]),
                "gradient_norm": means["penalty_gradient"],
                "gradient_norm_to_loss": means["ratio"],
                "largest_step": step_size * float(penalty.stiffness.max()),
                "limited_parameters": int((penalty.stiffness * step_size > recipe.gkp.max_step).sum()),
            }
        if self.sharpness:
            line["perturbation"] = self.sharpness.read_log()
        return line

    def _regroup(self, epoch: int) -> dict[str, Any]:
        """Group the classes anew; returns what to log of it. Its seconds go to ``run.json``, apart from the numbers."""
        found = self.preservation.regroup(epoch)
        self.progress.groups = [list(group) for group in found.groups]
        self.progress.groups_by_epoch[str(epoch)] = self.progress.groups
        self.progress.grouping_seconds[str(epoch)] = {
            "clustering": round(found.clustering_seconds, 3),
            "fisher": round(found.fisher_seconds, 3),
        }
        self._prepare_sharpness()
        return {
            "classes": list(found.classes),
            "samples": list(found.samples),
            "encoders": found.encoders,
            "adjusted_rand_index": found.adjusted_rand_index,
        }

    def _laid_out(self, images: Tensor) -> Tensor:
        return images.contiguous(memory_format=torch.channels_last) if self.recipe.training.channels_last else images

    def _draws(self, epoch: int) -> list[float]:
        """A number in [0, 1) for each step of the epoch, from the seed and the epoch alone.

        Each is uniform, but they follow one another by the golden ratio, so that within a few steps every group is
        drawn as often as its share says: momentum then averages over groups, not over luck.
        """
        sequence = np.random.SeedSequence((self.recipe.seed, epoch, _GROUP_DRAWS))
        start = np.random.default_rng(sequence).random()
        period = self.recipe.gsa.every  # only every so many steps a draw is used
        steps = np.arange(self.loader.batches_per_epoch) // period
        draws: list[float] = ((start + steps * _GOLDEN) % 1.0).tolist()
        return draws

    def _everywhere(self, pull: Tensor | None, held: slice) -> Tensor | None:
        """The penalty's gradient as a vector over all parameters."""
        if pull is None:
            return None
        result = torch.zeros_like(self.work.theta)
        result[held] = pull
        return result

    def _prepare_sharpness(self) -> None:
        if self.recipe.uses_gsa:
            self.sharpness = GroupedSharpness(
                self.work,
                self.recipe.gsa,
                self.preservation.class_group(),
                self.preservation.sizes,
                ascend="projection" if self.recipe.method.endswith("gsa-proj") else "orthogonal",
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
        line, quality = evaluate_epoch(self.work.model, self.splits, self.dataset, self.recipe, self.subsets)
        if self.recipe.uses_groups:
            self.preservation.remember(epoch, quality)
            bank = self.preservation.bank
            line["bank"] = {"epochs": list(bank.epochs), "bytes": bank.nbytes}
        return line

    # -- saving and going on ---------------------------------------------------------------------------------

    def _save(self, epoch: int) -> None:
        """Save an epoch. The state file comes last: until it is in place, the epoch did not happen."""
        bank, folder = self.preservation.bank, self.run.resume_folder
        best = self._best_epoch()
        if self._on_grid(epoch) or epoch == best:
            self.run.save_checkpoint(epoch, self.work.model)
        self.run.save_metrics(self._metrics)
        bank.save()
        penalty = self.preservation.penalty
        self.progress.penalty_constant = penalty.constant if penalty else 0.0
        notes = {"progress": json.dumps(asdict(self.progress))}
        write_tensors(folder / "state.safetensors", self._state(), notes)
        bank.prune()
        for stored in self.run.checkpoints():
            if stored != best and not self._on_grid(stored):
                self.run.checkpoint_path(stored).unlink()
        self._save_info()

    def _on_grid(self, epoch: int) -> bool:
        return epoch % self.recipe.training.checkpoint_every == 0 or epoch == self.recipe.training.epochs

    def _best_epoch(self) -> int | None:
        """The epoch that is best on the validation split: its checkpoint is kept, whatever the grid."""
        if len(self._metrics) < 2 or not len(self.splits["validation"]):
            return None
        epoch: int = reported_line(self._metrics, "best-validation")["epoch"]
        return epoch

    def _save_info(self) -> None:
        self.run.info["groups"] = self.progress.groups_by_epoch
        self.run.info["epoch_seconds"] = self.progress.epoch_seconds
        self.run.info["grouping_seconds"] = self.progress.grouping_seconds
        self.run.save_info()

    def _state(self) -> dict[str, Tensor]:
        tensors = {f"model.{name}": tensor for name, tensor in state_of(self.work.model).items()}
        tensors |= {f"bank.{name}": tensor for name, tensor in self.preservation.bank.state().items()}
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
        self._restore_groups(tensors)
        self._metrics = [line for line in self.run.metrics() if line["epoch"] <= self.progress.epoch]
        if len(self._metrics) != self.progress.epoch + 1:
            raise InputError(f"{self.run.path / 'metrics.jsonl'} is damaged: epochs are missing")
        self._save_info()
        return self.progress.epoch

    def _restore_groups(self, tensors: dict[str, Tensor]) -> None:
        bank = {name.removeprefix("bank."): t for name, t in tensors.items() if name.startswith("bank.")}
        self.preservation.bank.restore(bank, self.device)
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
