"""The baseline's file: numbers with what their errors are made of, what they were measured on, and a checksum."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from landscape_lab.errors import InputError
from landscape_lab.files import read_json, write_text
from landscape_lab.guard.measured import Measured, Measurement
from landscape_lab.guard.samples import same_data
from landscape_lab.guard.settings import METRICS, GuardSettings

__all__ = ["FORMAT", "FORMAT_VERSION", "check_same", "read_baseline", "write_baseline"]

FORMAT, FORMAT_VERSION = "landscape-lab sharpness baseline", 1

_AGAIN = "write a new baseline with --update"


def write_baseline(path: Path, measurement: Measurement) -> None:
    """Write a measurement so that a reader sees the old file or the new one; equal numbers give equal bytes.

    Raises:
        InputError: a number is not finite, which no model can be compared with.
        OSError: the file cannot be written.
    """
    for one in measurement.metrics:
        if not math.isfinite(one.value):
            raise InputError(f"the {METRICS[one.metric].words} of {one.subset!r} is not finite: no baseline is written")
    content = {
        "measured_on": dict(measurement.origin),
        "network": dict(measurement.network),
        "data": dict(measurement.data),
        "subsets": {name: list(classes) for name, classes in measurement.subsets.items()},
        "settings": msgspec.to_builtins(measurement.settings),
        "labels": _packed(measurement.labels.to(torch.int32)),
        "unseen": {str(label): share for label, share in measurement.unseen.items()},
        "metrics": [
            {
                "metric": one.metric,
                "subset": one.subset,
                "value": one.value,
                "stderr": _stderr(measurement, one),
                "residual": one.residual,
                "probes": one.probes.tolist(),
                "influences": _packed(one.influences.float()),
            }
            for one in measurement.metrics
        ],
    }
    document = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "sha256": _digest(content),
        "content": content,
    }
    write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n")


def read_baseline(path: Path) -> Measurement:
    """Read a baseline.

    Raises:
        InputError: it does not exist, is no baseline, is of another version, or was changed by hand; in one line.
    """
    if not path.exists():
        raise InputError(f"there is no baseline {path}: write one with --update, on a model that is as it should be")
    document = read_json(path)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InputError(f"{path} is not a baseline of the guard: `landscape-lab check RUN --baseline FILE --update` "
                         "writes one")  # fmt: skip
    if document.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{path} is a baseline of format {document.get('format_version')}, this version reads format "
            f"{FORMAT_VERSION}: {_AGAIN}"
        )
    content: Any = document.get("content")
    if document.get("sha256") != _digest(content):
        raise InputError(f"{path} was changed by hand or damaged: its checksum does not hold; {_AGAIN}")
    try:
        return _measurement(content)
    except (KeyError, TypeError, ValueError, AttributeError, msgspec.ValidationError) as error:
        raise InputError(f"{path} is damaged: {type(error).__name__} {error}; {_AGAIN}") from None


def check_same(path: Path, before: Measurement, now: Measurement) -> None:
    """Refuse a baseline of other data, another network or other settings.

    Raises:
        InputError: which it is.
    """
    if before.settings != now.settings:
        raise InputError(f"{path} was measured with other settings, {_different(before, now)}: {_AGAIN}")
    if dict(before.network) != dict(now.network):
        raise InputError(
            f"{path} is of another network: its parameters have other names or shapes "
            f"({before.network.get('parameters')} against {now.network.get('parameters')}); {_AGAIN}"
        )
    other = {name for name, classes in now.subsets.items() if before.subsets.get(name) != classes}
    if other:
        raise InputError(f"{path} has other classes in {sorted(other)[0]!r}, or none: {_AGAIN}")
    difference = same_data(before.data, now.data)
    if difference:
        raise InputError(f"{path} was measured on other data: {difference} are not the same; {_AGAIN}")


def _different(before: Measurement, now: Measurement) -> str:
    fields = GuardSettings.__struct_fields__
    pairs = [(name, getattr(before.settings, name), getattr(now.settings, name)) for name in fields]
    return ", ".join(f"{name} {one} instead of {other}" for name, one, other in pairs if one != other)


def _measurement(content: Mapping[str, Any]) -> Measurement:
    labels = _unpacked(content["labels"], torch.int32).long()
    metrics = tuple(
        Measured(
            metric=one["metric"],
            subset=one["subset"],
            value=_number(one["value"]),
            probes=torch.tensor([_number(value) for value in one["probes"]], dtype=torch.float64),
            influences=_unpacked(one["influences"], torch.float32).double(),
            residual=_number(one["residual"]),
        )
        for one in content["metrics"]
    )
    if any(one.metric not in METRICS or len(one.influences) not in (0, len(labels)) for one in metrics):
        raise ValueError("unknown metrics, or numbers of other samples")
    return Measurement(
        metrics=metrics,
        labels=labels,
        unseen={int(label): _number(share) for label, share in content["unseen"].items()},
        subsets={name: tuple(classes) for name, classes in content["subsets"].items()},
        settings=msgspec.convert(content["settings"], GuardSettings),
        network=content["network"],
        data=content["data"],
        origin=content["measured_on"],
    )


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)


def _stderr(measurement: Measurement, one: Measured) -> float | None:
    variance = measurement.spread(one).variance
    return math.sqrt(variance) if math.isfinite(variance) else None


def _digest(content: Any) -> str:
    # One text for one content, however the file is indented or a tool has ordered its keys.
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _packed(values: Tensor) -> str:
    return base64.b64encode(values.contiguous().numpy().tobytes()).decode()


def _unpacked(text: str, dtype: torch.dtype) -> Tensor:
    try:
        content = bytearray(base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    return torch.frombuffer(content, dtype=dtype).clone() if content else torch.zeros(0, dtype=dtype)
