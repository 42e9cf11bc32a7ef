"""Epochs of a run, written in the background: the weights first, then the line that makes them an epoch."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from landscape_lab import console
from landscape_lab.errors import InputError
from landscape_lab.files import write_tensors
from landscape_lab.recording.background import BackgroundWriter
from landscape_lab.recording.snapshots import Snapshot, SnapshotPool
from landscape_lab.run import Run

__all__ = ["EpochWriter"]


class EpochWriter:
    """Writes the epochs of a run; knows nothing of models.

    Args:
        run: locked until :meth:`close`.

    Raises:
        InputError: another process writes to the run.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.lines: list[dict[str, Any]] = []
        self.seconds: list[float] = []
        self.pool = SnapshotPool()
        self.background = BackgroundWriter()
        self._held: tuple[int, Snapshot] | None = None
        self._lock = contextlib.ExitStack()
        self._lock.enter_context(run.lock())

    def go_on(self, after: int | None) -> int:
        """Take up the run after an epoch (``None``: its last one) and drop what is later; returns that epoch.

        Raises:
            InputError: the run ends before it.
        """
        lines = self.run.metrics()
        last = int(lines[-1]["epoch"]) if lines else 0
        if after is not None and after > last:
            raise InputError(f"{self.run.path} cannot go on after epoch {after}: it ends with epoch {last}")
        after = last if after is None else after
        self.lines = [line for line in lines if line["epoch"] <= after]
        self.seconds = list(self.run.info["epoch_seconds"])[: len(self.lines)]
        # The lines go first: an epoch without a line did not happen.
        self.run.save_metrics(self.lines)
        for epoch in self.run.checkpoints():
            if epoch > after:
                self.run.checkpoint_path(epoch).unlink()
        self.run.info["status"] = "running"
        self.run.info["epoch_seconds"] = self.seconds
        self.run.save_info()
        return after

    def copy(self, state: Mapping[str, Tensor]) -> Snapshot:
        """A copy of the state, for :meth:`start` or :meth:`add`; waits while two others are being written."""
        if self._held is not None:
            (_, held), self._held = self._held, None
            self.pool.give_back(held)
        return self.pool.take(state)

    def start(self, snapshot: Snapshot) -> None:
        """Write the initialisation."""
        self._submit(0, snapshot, self.lines, self.seconds, self.run.info["parameters"])

    def add(
        self,
        line: dict[str, Any],
        seconds: float,
        parameters: Sequence[str],
        snapshot: Snapshot,
        *,
        keep: bool,
    ) -> None:
        """Write an epoch.

        Args:
            line: of ``metrics.jsonl``, with ``epoch``.
            seconds: that it took.
            parameters: names of those trained so far.
            snapshot: the weights.
            keep: whether they are written now; else only if this turns out to be the last epoch.

        Raises:
            OSError: an earlier epoch could not be written; this one will be.
        """
        lines, times = [*self.lines, line], [*self.seconds, seconds]
        self._submit(line["epoch"], snapshot if keep else None, lines, times, list(parameters))
        self.lines, self.seconds = lines, times
        if not keep:
            self._held = line["epoch"], snapshot
        self.background.check()

    def close(self, finished: bool = False) -> None:
        """Write what waits, mark the run as finished if it is, and unlock it; a second call does nothing.

        Raises:
            OSError: something could not be written; the run stays unfinished.
        """
        if self.background.forked:
            return
        try:
            if self._held is not None:
                (epoch, held), self._held = self._held, None
                self._submit(epoch, held, self.lines, self.seconds, self.run.info["parameters"])
            self.background.close()
            if finished:
                self.run.finish()
        finally:
            self._lock.close()

    def close_at_exit(self) -> None:
        """:meth:`close` where nobody can catch: an error is said on standard error."""
        try:
            self.close()
        except Exception as error:
            console.note(f"error: {' '.join(str(error).split())}")

    def _submit(
        self,
        epoch: int,
        snapshot: Snapshot | None,
        lines: list[dict[str, Any]],
        seconds: list[float],
        parameters: list[str],
    ) -> None:
        run, pool = self.run, self.pool

        def write() -> None:
            try:
                if snapshot is not None:
                    write_tensors(run.checkpoint_path(epoch), snapshot.tensors(), {"epoch": str(epoch)})
            finally:
                if snapshot is not None:
                    pool.give_back(snapshot)
            if lines:
                run.save_metrics(lines)
                run.info["epoch_seconds"], run.info["parameters"] = seconds, parameters
                run.save_info()

        try:
            self.background.submit(write)
        except BaseException:  # Ctrl-C while it waited: the epoch was not taken over
            if snapshot is not None:
                pool.give_back(snapshot)
            raise
