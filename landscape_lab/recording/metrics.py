"""Metrics from anybody's loop, as a line of ``metrics.jsonl`` has them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from landscape_lab.errors import InputError

__all__ = ["SPLITS", "metrics_line"]

SPLITS = ("train", "validation", "test")
"""The names under which training writes what it measured on a split."""

BY_CLASS = ("class_accuracy", "class_loss")


def metrics_line(
    metrics: Mapping[str, Any] | None, num_classes: int, subsets: Mapping[str, Sequence[int]]
) -> dict[str, Any]:
    """Plain numbers, lists and mappings, with the accuracies of subsets of classes where the classes' are given.

    What stands under ``train``, ``validation`` and ``test`` is laid out as training does: ``accuracy`` by subset, so
    that a plain number becomes ``{"all": number}``; ``class_accuracy`` and ``class_loss`` of each class.

    Args:
        metrics: numbers, tensors, arrays, lists and mappings of these; NaN and ``None`` stand for what is not known.
        num_classes: C.
        subsets: their classes, for the accuracies of head, tail and others: the unweighted mean over classes.

    Raises:
        InputError: something else is among them, or a reserved name holds what it cannot.

    Example:
        >>> metrics_line({"test": {"class_accuracy": [0.75, 0.25]}}, 2, {"tail": [1]})
        {'test': {'class_accuracy': [0.75, 0.25], 'accuracy': {'all': 0.5, 'tail': 0.25}}}
    """
    if metrics is None:
        return {}
    if not isinstance(metrics, Mapping):
        raise InputError(f"metrics must be a mapping such as {{'loss': 0.5}}, got {type(metrics).__name__}")
    line: dict[str, Any] = _plain(metrics, "")
    for split in SPLITS:
        if split not in line:
            continue
        if not isinstance(line[split], dict):
            raise InputError(
                f"metrics[{split!r}] is reserved for a mapping such as {{'loss': 0.5, 'accuracy': 0.9}}; "
                "give a single number another name"
            )
        _lay_out(line[split], split, num_classes, subsets)
    return line


def _lay_out(part: dict[str, Any], split: str, num_classes: int, subsets: Mapping[str, Sequence[int]]) -> None:
    for name in BY_CLASS:
        values = part.get(name)
        if values is None:
            continue
        if (
            not isinstance(values, list)
            or len(values) != num_classes
            or any(isinstance(v, list | dict) for v in values)
        ):
            found = f"{len(values)} values" if isinstance(values, list | dict) else "a number"
            raise InputError(
                f"metrics[{split!r}][{name!r}] needs a list of {num_classes} numbers, one for each class, got {found}"
            )
    quality = part.get("quality")
    if quality is not None:
        forms = quality.values() if isinstance(quality, dict) else [None]
        if not all(isinstance(form, list) and len(form) == num_classes for form in forms):
            raise InputError(
                f"metrics[{split!r}]['quality'] needs, for each form, {num_classes} numbers: {{'difference': […]}}"
            )
    accuracy = part.get("accuracy")
    if isinstance(accuracy, list):
        raise InputError(f"metrics[{split!r}]['accuracy'] is a list: give the classes' accuracies as 'class_accuracy'")
    given = accuracy if isinstance(accuracy, dict) else {} if accuracy is None else {"all": accuracy}
    if "class_accuracy" in part and part["class_accuracy"] is not None:
        given = {**_means(part["class_accuracy"], {"all": range(num_classes), **subsets}), **given}
    if given or accuracy is not None:
        part["accuracy"] = given


def _means(values: Sequence[float | None], subsets: Mapping[str, Sequence[int]]) -> dict[str, float | None]:
    """The mean over the classes of each subset that have a value."""
    means: dict[str, float | None] = {}
    for name, classes in subsets.items():
        known = [value for c in classes if (value := values[c]) is not None and math.isfinite(value)]
        means[name] = sum(known) / len(known) if known else None
    return means


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str | int):
                raise InputError(f"metrics{where} has a name that is no text: {key!r}")
        return {str(key): _plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, Tensor):
        value = value.detach().float() if value.is_floating_point() and value.element_size() < 4 else value.detach()
        return _plain(value.tolist(), where)
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist(), where)
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{k}]") for k, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float):
        return value
    raise InputError(
        f"metrics{where} is a {type(value).__name__}, {str(value)[:40]!r}: give numbers, tensors, lists and mappings "
        "of these"
    )
