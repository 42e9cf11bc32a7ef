"""What a Recorder is given, refused in one line where it cannot be recorded."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from landscape_lab.errors import InputError
from landscape_lab.files import read_tensors
from landscape_lab.run import Run

__all__ = ["check_arguments", "check_model", "checked_classes", "opened"]


def check_model(model: Any, weights: Any, buffers: bool) -> None:
    """Refuse a model that cannot be recorded.

    Raises:
        InputError: it has lazy or no trainable parameters, is sharded, or ``weights`` gives no state dict.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"the model must be a torch.nn.Module, got {type(model).__name__}")
    if any(is_lazy(parameter) for parameter in model.parameters()):
        raise InputError("the model has lazy parameters without a shape: run one batch through it first")
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise InputError("the model has no trainable parameters: set requires_grad before it is recorded")
    if weights is not None and not callable(weights):
        raise InputError(
            f"weights must be a module or a function that gives a state dict, got a {type(weights).__name__}: "
            "write weights=lambda: state_dict"
        )
    if weights is None:
        # By name: importing torch.distributed.fsdp takes longer than all else here.
        if any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules()):
            raise InputError("the model is sharded (FSDP): give a function that gathers its state dict, weights=…")
        if any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in trainable):
            warnings.warn(
                "the model's parameters have 16 bits, which rounds how far an epoch moves them: record the float32 "
                "masters with weights=, or train with autocast",
                stacklevel=4,
            )
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]
    if not buffers and any(norm.track_running_stats for norm in norms):
        raise InputError("buffers=False would lose BatchNorm's running statistics, which belong to the weights")


def check_arguments(target: Any, checkpoint_every: Any, resume: Any) -> None:
    """Refuse what the names cannot mean.

    Raises:
        InputError: saying which.
    """
    if isinstance(checkpoint_every, bool) or not isinstance(checkpoint_every, int) or checkpoint_every < 1:
        raise InputError(f"checkpoint_every must be a whole number of at least 1, got {checkpoint_every!r}")
    if target is not None and (not isinstance(target, str) or ":" not in target):
        raise InputError(f"target must be text such as 'my_project.py:make', got {target!r}")
    if not isinstance(resume, int) or resume < 0:
        raise InputError(f"resume must be True, False or the number of an epoch, got {resume!r}")


def checked_classes(counts: Any, names: Any) -> tuple[list[int], list[str]]:
    """Class counts and names as lists; the names are the numbers where there are none.

    Raises:
        InputError: counts that are none, or not as many names.
    """
    try:
        values = list(counts.tolist() if hasattr(counts, "tolist") else counts)
        whole = [int(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"class_counts must be the number of samples of each class, got {counts!r}") from None
    if not whole or whole != values or min(whole) < 0 or not any(whole):
        raise InputError(f"class_counts must be whole numbers, at least 0 and not all 0, got {values[:8]}")
    if names is None:
        return whole, [str(c) for c in range(len(whole))]
    listed = [] if isinstance(names, str) or not isinstance(names, Sequence) else list(names)
    if len(listed) != len(whole) or not all(isinstance(name, str) for name in listed):
        raise InputError(f"class_names must be {len(whole)} texts, as many as class_counts, got {names!r}")
    return whole, listed


def opened(path: Path, info: Mapping[str, Any], state: Mapping[str, Tensor]) -> Run:
    """The recorded run at ``path``, to go on with.

    Args:
        path: where it is.
        info: what a new run would hold.
        state: what a new checkpoint would hold.

    Raises:
        InputError: it was not recorded, or with other classes, weights or parameters.
    """
    run = Run.open(path)
    if run.origin != "recorder":
        raise InputError(f"{path} holds a run that was not made by a Recorder; choose another folder")
    for key in ("class_counts", "class_names", "weights", "buffers"):
        if run.info.get(key) != info[key]:
            raise InputError(
                f"{path} was recorded with other {key}, {_short(run.info.get(key))} then and {_short(info[key])} now: "
                "choose another folder"
            )
    epochs = run.checkpoints()
    if epochs:
        tensors, _ = read_tensors(run.checkpoint_path(epochs[0]))
        wrong = sorted(tensors.keys() ^ state.keys()) or [n for n in tensors if tensors[n].shape != state[n].shape]
        if wrong:
            raise InputError(
                f"{path} was recorded of another model, {wrong[0]!r} is missing, unknown or of other shape: "
                "choose another folder"
            )
    return run


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
