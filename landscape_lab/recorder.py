"""A run directory from anybody's training loop: three lines, written beside training."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.util import Finalize
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from landscape_lab.errors import InputError
from landscape_lab.recording import EpochWriter, Snapshot, layout_of, metrics_line
from landscape_lab.recording.checks import check_arguments, check_model, checked_classes, opened
from landscape_lab.run import Run
from landscape_lab.run_info import described
from landscape_lab.state_names import clean_names, fitted

__all__ = ["Recorder", "Weights"]

Weights = nn.Module | Callable[[], Mapping[str, Tensor]]


class Recorder:
    """Writes a run directory from a training loop that is not ours.

    The initialisation is recorded when the recorder is made, an epoch at each :meth:`epoch`. Files are written by a
    thread; at most two copies of the weights are held, and a slow disk is waited for. Under ``torch.distributed`` only
    rank 0 writes, and the calls of the others do nothing.

    Args:
        path: the run directory; new, unless ``resume``.
        model: what is trained, also wrapped by DistributedDataParallel or ``torch.compile``.
        class_counts: (C,) training samples of each class.
        class_names: (C,) what they are called; their numbers, if not given.
        target: ``module:function`` that later gives model, loss and batches; noted, not called.
        checkpoint_every: epochs between checkpoints; the first and the last are always kept.
        buffers: whether checkpoints hold buffers; without them the model's own are taken when a checkpoint is loaded.
        weights: recorded in place of the model's: an averaged copy of it (``torch.optim.swa_utils.AveragedModel``), or
            a function that gives a state dict (float32 masters, a gathered one), which is called on every rank.
        resume: go on with the recorded run at ``path``, after its last epoch or, given a number, after that one; what
            was recorded later is dropped. With ``True`` a new run is made where there is none.

    Attributes:
        active: whether this process writes.
        last_epoch: the last epoch recorded; 0 is the initialisation.
        seconds: what recording has cost the calling thread so far.

    Raises:
        InputError: ``path`` holds something else, the arguments do not fit the model, or the run that is to go on is
            another's.
        OSError: the folder cannot be written.

    Example:
        >>> import tempfile
        >>> model, place = nn.Linear(2, 2), tempfile.mkdtemp()
        >>> with Recorder(f"{place}/mine", model, class_counts=[90, 10]) as recorder:
        ...     recorder.epoch({"test": {"class_accuracy": [0.9, 0.2]}})
        >>> Run.open(f"{place}/mine").checkpoints()
        (0, 1)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        model: nn.Module,
        *,
        class_counts: Sequence[int] | Tensor,
        class_names: Sequence[str] | None = None,
        target: str | None = None,
        checkpoint_every: int = 1,
        buffers: bool = True,
        weights: Weights | None = None,
        resume: bool | int = False,
    ) -> None:
        started = time.perf_counter()
        counts, names = checked_classes(class_counts, class_names)
        check_arguments(target, checkpoint_every, resume)
        check_model(model, weights, buffers)
        self.path, self.model = Path(path), model
        self.active = _rank() == 0
        self.last_epoch = 0 if resume is True else int(resume)
        self._weights, self._every, self._process = weights, checkpoint_every, os.getpid()
        self._names = clean_names(model)
        own = {name for name, _ in model.named_buffers()}
        self._left_out = frozenset(c for n, c in self._names.items() if n in own and not buffers)
        self._trained: list[str] = []
        self._snapshot: Snapshot | None = None
        self._finished = False
        self._writer: EpochWriter | None = None
        state = self._state()
        layout_of(state)  # refused before anything is written
        if self.active:
            self._trained = self._trainable()
            info = {
                **described(counts, names, next(model.parameters()).device),
                "origin": "recorder",
                "parameters": self._trained,
                "target": target,
                "weights": "model" if weights is None else "module" if isinstance(weights, nn.Module) else "function",
                "buffers": buffers,
            }
            self._writer = self._begin(info, state, resume)
        self._since = time.perf_counter()
        self.seconds = self._since - started

    def _begin(self, info: dict[str, Any], state: Mapping[str, Tensor], resume: bool | int) -> EpochWriter:
        there = (self.path / "run.json").exists()
        if there and resume is False:
            raise InputError(f"{self.path} holds a run already: go on with it, resume=True, or choose another folder")
        goes_on = there or not isinstance(resume, bool)
        writer = EpochWriter(opened(self.path, info, state) if goes_on else Run.create(self.path, None, info))
        # Writes at exit, and when nobody holds the recorder any more. Not atexit: children of multiprocessing skip it.
        self._closer = Finalize(self, writer.close_at_exit, exitpriority=10)
        if goes_on:
            self.last_epoch = writer.go_on(None if resume is True else int(resume))
            self._trained = self._trainable(writer.run.info["parameters"])
        if not writer.lines and 0 not in writer.run.checkpoints():
            writer.start(writer.copy(state))
        return writer

    # -- what a loop calls -----------------------------------------------------------------------------------

    def epoch(self, metrics: Mapping[str, Any] | None = None, *, number: int | None = None) -> None:
        """Record an epoch: the weights as they are now, and its metrics.

        Args:
            metrics: numbers, tensors, lists and nested mappings of these. Under ``train``, ``validation`` and ``test``,
                the names ``loss``, ``accuracy``, ``class_accuracy``, ``class_loss`` and ``quality`` are those that
                training writes: see :func:`~landscape_lab.recording.metrics.metrics_line`.
            number: of the epoch; ``None``: the next one.

        Raises:
            InputError: the metrics are something else, the epoch is recorded already, or the model has changed.
            OSError: an earlier epoch could not be written; this one is taken over all the same.
        """
        started = time.perf_counter()
        self._check_usable()
        number = self.last_epoch + 1 if number is None else number
        if isinstance(number, bool) or not isinstance(number, int) or number <= self.last_epoch:
            raise InputError(f"epoch {number} cannot be recorded after epoch {self.last_epoch}")
        if self._writer is not None:
            info = self._writer.run.info
            line = metrics_line(metrics, len(info["class_counts"]), info["subsets"])
            if line.pop("epoch", number) != number:
                raise InputError(f"metrics['epoch'] is not {number}: give the number of the epoch as number=")
        if self._snapshot is None:
            self.snapshot()
        taken, self._snapshot, self.last_epoch = self._snapshot, None, number
        if self._writer is not None and taken is not None:
            self._trained = self._trainable(self._trained)
            passed, self._since = started - self._since, started
            try:
                self._writer.add(
                    {"epoch": number, **line},
                    round(passed, 3),
                    self._trained,
                    taken,
                    keep=number % self._every == 0,
                )
            finally:
                self.seconds += time.perf_counter() - started

    def snapshot(self) -> None:
        """Copy the weights as they are now, for the next :meth:`epoch`, whose metrics are not known yet."""
        self._check_usable()
        state = self._state()
        if self._writer is not None:
            if self._snapshot is not None:
                self._writer.pool.give_back(self._snapshot)
                self._snapshot = None
            self._snapshot = self._writer.copy(state)

    def flush(self) -> None:
        """Wait until what was recorded is on the disk.

        Raises:
            OSError: something could not be written.
        """
        if self._writer is not None:
            self._writer.background.flush()

    def finish(self) -> None:
        """Write what is left and mark the run as finished; a second call does nothing.

        Raises:
            OSError: something could not be written; the run stays unfinished.
        """
        self._close(finished=True)

    def close(self) -> None:
        """Write what is left and leave the run unfinished, to be resumed."""
        self._close(finished=False)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
            return
        try:
            self.close()
        except Exception as other:  # the loop's own error is the one to raise
            warnings.warn(f"recording {self.path}: {other}", RuntimeWarning, stacklevel=2)

    # -- inside ----------------------------------------------------------------------------------------------

    def _close(self, finished: bool) -> None:
        if self._finished or os.getpid() != self._process:
            return
        started, self._finished = time.perf_counter(), True
        if self._writer is not None:
            try:
                self._writer.close(finished)
            finally:
                self._closer.cancel()
                self.seconds += time.perf_counter() - started

    def _check_usable(self) -> None:
        if os.getpid() != self._process:
            raise InputError(f"this Recorder belongs to process {self._process}, which forked this one: record there")
        if self._finished:
            raise InputError(f"{self.path} is finished: go on with a new Recorder(…, resume=True)")

    def _state(self) -> dict[str, Tensor]:
        """The tensors to record, by their clean names: still the model's own memory."""
        own = {n: tensor for n, tensor in self.model.state_dict().items() if isinstance(tensor, Tensor)}
        if own.keys() != self._names.keys():
            changed = sorted(own.keys() ^ self._names.keys())[0]
            raise InputError(f"the model has changed since it is recorded: {changed!r} was added or removed")
        state = {self._names[name]: tensor.detach() for name, tensor in own.items()}
        if self._weights is not None:
            # Averages often hold parameters only: the buffers are then the model's.
            buffers = {self._names[n] for n, _ in self.model.named_buffers() if n in self._names}
            defaults = {name: state[name] for name in buffers}
            state = _given(self._weights, self.model, defaults)
        return {name: tensor for name, tensor in state.items() if name not in self._left_out}

    def _trainable(self, before: Sequence[str] = ()) -> list[str]:
        """Clean names of the parameters that are trained, or were, in the order of ParameterSpace."""
        named = [(self._names[name], parameter) for name, parameter in self.model.named_parameters()]
        return [name for name, parameter in named if parameter.requires_grad or name in before]


def _given(weights: Weights, model: nn.Module, defaults: Mapping[str, Tensor]) -> dict[str, Tensor]:
    given = weights.state_dict() if isinstance(weights, nn.Module) else weights()
    if not isinstance(given, Mapping):
        raise InputError(f"weights must give a state dict, a mapping of names to tensors, got {type(given).__name__}")
    tensors = {name: tensor.detach() for name, tensor in given.items() if isinstance(tensor, Tensor)}
    try:
        return fitted(tensors, model, defaults=defaults)
    except InputError as error:
        raise InputError(f"weights do not fit the model: {error}") from None


def _rank() -> int:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return int(torch.distributed.get_rank())
    # Before init_process_group: torchrun has said already which process this is.
    return int(os.environ.get("RANK") or 0) if int(os.environ.get("WORLD_SIZE") or 1) > 1 else 0
