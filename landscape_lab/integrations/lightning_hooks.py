"""The hooks of a Lightning callback, under whichever name Lightning is installed."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from landscape_lab.errors import InputError
from landscape_lab.integrations.epochs import Epochs, Translate
from landscape_lab.recorder import Weights

__all__ = ["LightningHooks"]


class LightningHooks:
    """Records each epoch of ``fit`` as a run.

    Weights are taken at the end of a training epoch, metrics (``trainer.callback_metrics``) when the next one begins:
    by then also those are there that the module logs in ``on_train_epoch_end``. A metric that was not logged in an
    epoch is not in its line.

    Args:
        path: the run directory.
        class_counts: (C,) training samples of each class.
        class_names: (C,) what they are called.
        module: the part of the LightningModule that is recorded, such as ``"model"``; ``None``: the LightningModule
            itself. What ``target`` gives as its model may be either.
        target: ``module:function`` that later gives model, loss and batches.
        checkpoint_every: epochs between checkpoints.
        weights: as in :class:`~landscape_lab.recorder.Recorder`.
        metrics: turns the flat names into a line of ``metrics.jsonl``; ``None``: they stay as they are.
        resume: go on with the run at ``path``, where ``fit`` goes on with ``ckpt_path``.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        class_counts: Sequence[int],
        class_names: Sequence[str] | None = None,
        module: str | None = None,
        target: str | None = None,
        checkpoint_every: int = 1,
        weights: Weights | None = None,
        metrics: Translate | None = None,
        resume: bool = False,
    ) -> None:
        self._module = module
        self._epochs = Epochs(
            path,
            metrics,
            resume,
            class_counts=class_counts,
            class_names=class_names,
            target=target,
            checkpoint_every=checkpoint_every,
            weights=weights,
        )
        self._before: dict[str, Any] = {}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Record the initialisation."""
        try:
            model = operator.attrgetter(self._module)(pl_module) if self._module else pl_module
        except AttributeError:
            raise InputError(f"{type(pl_module).__name__} has no part {self._module!r} to record") from None
        self._epochs.begin(model, int(trainer.current_epoch))

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Record the metrics of the epoch before."""
        self._record(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Take the weights."""
        self._epochs.weights(int(trainer.current_epoch) + 1)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Finish the run."""
        self._record(trainer)
        self._epochs.end(finished=True)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Leave a run that can go on."""
        self._record(trainer)
        self._epochs.end(finished=False)

    def _record(self, trainer: Any) -> None:
        found = dict(trainer.callback_metrics)
        # Lightning keeps the last value of what was not logged again: the same tensor.
        self._epochs.metrics({name: value for name, value in found.items() if value is not self._before.get(name)})
        self._before = found
