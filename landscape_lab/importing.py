"""A run from state dicts that somebody else saved."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from landscape_lab.checkpoint_files import epochs_of, read_state
from landscape_lab.errors import InputError
from landscape_lab.files import read_tensors, write_tensors
from landscape_lab.parameters import ParameterSpace
from landscape_lab.run import Run
from landscape_lab.run_info import described
from landscape_lab.state_names import clean_names, fitted
from landscape_lab.target import Target

__all__ = ["import_run", "run_of"]


def import_run(
    files: Sequence[Path],
    target: Target,
    out: Path,
    *,
    spec: str,
    epochs: Sequence[int] | None = None,
    prefix: str | None = None,
    key: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Run:
    """Make a run of checkpoints; all of them or nothing.

    Args:
        files: in order, as :func:`~landscape_lab.checkpoint_files.checkpoint_files` gives them.
        target: whose model the checkpoints are of; its samples give the class counts.
        out: the run directory, new or empty.
        spec: ``module:function`` of the target, noted in the run.
        epochs: of the files, increasing; ``None``: by their names.
        prefix: of the names to keep, which lose it.
        key: where in a file the state dict is.
        progress: called with the number of files done.

    Raises:
        InputError: a file cannot be read safely or is not of the model, or ``out`` holds something.
        OSError: the run cannot be written; nothing is left behind.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not empty; choose another place with --out")
    numbers, source = (list(epochs), "--epochs") if epochs is not None else epochs_of(files)
    if len(numbers) != len(files):
        raise InputError(f"--epochs has {len(numbers)} numbers for {len(files)} checkpoints")
    if min(numbers) < 0 or any(after <= before for before, after in pairwise(numbers)):
        raise InputError(f"the epochs must be increasing numbers from 0, got {', '.join(map(str, numbers))}")

    # All are looked at before anything is written: mapped files are quick to read twice.
    for file in files:
        _state(file, target, prefix, key)
        if progress:
            progress(1)
    info = {
        **_described(target, spec, "import"),
        "files": {str(number): str(file) for number, file in zip(numbers, files, strict=True)},
        "epochs_from": source,
    }
    made = [parent for parent in (out.parent, *out.parent.parents) if not parent.exists()]
    place = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        run = Run.create(place, None, info)
        for number, file in zip(numbers, files, strict=True):
            write_tensors(run.checkpoint_path(number), _state(file, target, prefix, key), {"epoch": str(number)})
            if progress:
                progress(1)
        run.finish()
        os.replace(place, out)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        for parent in made:
            if parent.exists() and not any(parent.iterdir()):
                parent.rmdir()
        raise
    return Run.open(out)


def run_of(target: Target, path: Path, spec: str) -> Run:
    """The run at ``path``, or a new one whose only checkpoint, epoch 0, is the target's model as it is.

    Raises:
        InputError: there is something else at ``path``, or such a run of other weights.
    """
    model = target.model
    names = clean_names(model)
    state = {names[name]: tensor.detach() for name, tensor in model.state_dict().items() if name in names}
    if (path / "run.json").exists():
        run = Run.open(path)
        if run.origin == "target" and not _equal(state, read_tensors(run.checkpoint_path(0))[0]):
            raise InputError(f"{path} holds results of other weights than {spec} now gives: choose another folder")
        return run
    run = Run.create(path, None, _described(target, spec, "target"))
    write_tensors(run.checkpoint_path(0), state, {"epoch": "0"})
    run.finish()
    return run


def _described(target: Target, spec: str, origin: str) -> dict[str, Any]:
    counts, class_names = _classes(target)
    names = clean_names(target.model)
    return {
        **described(counts, class_names, torch.device("cpu")),
        "origin": origin,
        "parameters": [names[name] for name in ParameterSpace(target.model).names],
        "target": spec,
    }


def _equal(state: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return state.keys() == other.keys() and all(torch.equal(state[name].cpu(), other[name]) for name in state)


def _state(file: Path, target: Target, prefix: str | None, key: str | None) -> dict[str, Tensor]:
    """A checkpoint with the names and types of the target's model."""
    try:
        state = fitted(read_state(file, key), target.model, prefix)
    except InputError as error:
        told = str(error)
        raise InputError(told if told.startswith(str(file)) else f"{file} does not fit the model: {told}") from None
    own = target.model.state_dict()
    types = {clean: own[name].dtype for name, clean in clean_names(target.model).items()}
    return {name: tensor.to(types[name]) for name, tensor in state.items()}


def _classes(target: Target) -> tuple[list[int], list[str]]:
    try:
        labels = target.class_labels()
    except InputError:  # no classes: all samples are one
        return [len(target.tensors()[1])], ["all"]
    if len(labels) and int(labels.min()) < 0:
        raise InputError(f"the target's labels must be class numbers from 0, got {int(labels.min())}")
    names = target.class_names
    counts = torch.bincount(labels, minlength=len(names) if names else 0).tolist()
    return counts, list(names) if names else [str(c) for c in range(len(counts))]
