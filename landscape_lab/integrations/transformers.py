"""A callback for the Trainer of Hugging Face's transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from landscape_lab.integrations.epochs import Epochs, Translate
from landscape_lab.recorder import Weights

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"landscape_lab.integrations.transformers needs {error.name}: pip install 'landscape-lab[transformers]'",
        name=error.name,
    ) from error

__all__ = ["LandscapeCallback"]


class LandscapeCallback(TrainerCallback):
    """Records each epoch of ``Trainer.train`` as a run.

    Weights are taken at the end of an epoch; what the Trainer logs and evaluates until the next one begins are its
    metrics. ``load_best_model_at_end`` comes later and changes nothing of the run.

    Args:
        path: the run directory.
        class_counts: (C,) training samples of each class.
        class_names: (C,) what they are called.
        target: ``module:function`` that later gives model, loss and batches.
        checkpoint_every: epochs between checkpoints.
        weights: as in :class:`~landscape_lab.recorder.Recorder`.
        metrics: turns the flat names into a line of ``metrics.jsonl``; ``None``: they stay as they are.
        resume: go on with the run at ``path``, where ``train`` goes on with ``resume_from_checkpoint``.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        class_counts: Sequence[int],
        class_names: Sequence[str] | None = None,
        target: str | None = None,
        checkpoint_every: int = 1,
        weights: Weights | None = None,
        metrics: Translate | None = None,
        resume: bool = False,
    ) -> None:
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
        self._logged: dict[str, Any] = {}
        self._done = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Record the initialisation."""
        self._logged, self._done = {}, int(state.epoch or 0)
        self._epochs.begin(others["model"], self._done)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Record the metrics of the epoch before."""
        self._record()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **others: Any,
    ) -> None:
        """Keep the last value of each metric of the epoch."""
        self._logged.update({n: value for n, value in (logs or {}).items() if isinstance(value, int | float)})

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Take the weights."""
        self._done += 1
        self._epochs.weights(self._done)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Finish the run."""
        self._record()
        self._epochs.end(finished=True)

    def _record(self) -> None:
        self._epochs.metrics(self._logged)
        self._logged = {}
