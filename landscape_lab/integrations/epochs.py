"""What every callback does: weights at the end of an epoch, metrics once they are all known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from landscape_lab.errors import InputError
from landscape_lab.recorder import Recorder

__all__ = ["Epochs", "Translate"]

Translate = Callable[[dict[str, Any]], Mapping[str, Any]]


class Epochs:
    """A recorder that is made when the trainer begins, and told of epochs in two halves.

    Args:
        path: the run directory.
        metrics: turns the trainer's flat names into a line of ``metrics.jsonl``; ``None``: they stay as they are.
        resume: go on with the run at ``path`` from the epoch that the trainer goes on from.
        settings: of the :class:`~landscape_lab.recorder.Recorder`.
    """

    def __init__(self, path: str | Path, metrics: Translate | None, resume: bool, **settings: Any) -> None:
        self.recorder: Recorder | None = None
        self._path, self._metrics, self._resume, self._settings = Path(path), metrics, resume, settings
        self._pending: int | None = None

    def begin(self, model: nn.Module, done: int) -> None:
        """Record the initialisation, or go on.

        Args:
            model: what is trained.
            done: epochs that the trainer has behind it.

        Raises:
            InputError: as :class:`~landscape_lab.recorder.Recorder`, or the trainer and the run stand elsewhere.
        """
        there = (self._path / "run.json").exists()
        if done and not (self._resume and there):
            raise InputError(
                f"the trainer goes on after epoch {done}: give the run that it recorded so far, and resume=True"
            )
        if self._resume and there and not done:
            raise InputError(
                f"{self._path} holds a run, but the trainer begins anew: give it its checkpoint, or take another folder"
            )
        self.recorder = Recorder(self._path, model, resume=done if done else False, **self._settings)

    def weights(self, epoch: int) -> None:
        """The epoch's last step is done."""
        if self.recorder is not None:
            self.recorder.snapshot()
            self._pending = epoch

    def metrics(self, found: Mapping[str, Any]) -> None:
        """The metrics of the epoch whose weights came last; nothing happens where none wait."""
        if self.recorder is not None and self._pending is not None:
            number, self._pending = self._pending, None
            line = {name: value for name, value in found.items() if name != "epoch"}
            self.recorder.epoch(self._metrics(line) if self._metrics else line, number=number)

    def end(self, finished: bool) -> None:
        """Training has ended, or was broken off."""
        recorder, self.recorder = self.recorder, None
        if recorder is not None:
            if finished:
                recorder.finish()
            else:
                recorder.close()
