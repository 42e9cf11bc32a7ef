"""The paper's numbers (Chen et al., CVPR 2026), kept as data in ``published.json``."""

from __future__ import annotations

import functools
import importlib.resources
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["PublishedCurve", "published_accuracies", "published_curve", "published_hours", "published_title"]


@dataclass(frozen=True)
class PublishedCurve:
    """A curve read from one of the paper's pictures: accuracy in % with the limits of its band or error bars."""

    x: tuple[float, ...]
    value: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    reading: str


@functools.cache
def _content() -> Any:
    return json.loads(importlib.resources.files("landscape_lab.paper").joinpath("published.json").read_text("utf-8"))


def published_title(kind: str, number: int) -> str:
    """What ``tables`` or ``figures`` of that number are about."""
    return str(_content()[kind][str(number)]["title"])


def published_accuracies(table: int, data: str, imbalance_ratio: float | str) -> Mapping[str, Mapping[str, float]]:
    """Row → ``all``, ``many``, ``med``, ``few`` → top-1 accuracy in % of Table 1, 4, 5 or 6; empty for other data."""
    ratio = imbalance_ratio if isinstance(imbalance_ratio, str) else f"{imbalance_ratio:g}"
    rows: Mapping[str, Mapping[str, float]] = _content()["tables"][str(table)]["values"].get(data, {}).get(ratio, {})
    return rows


def published_hours() -> tuple[Mapping[str, float], str]:
    """Method → hours of training, Table 7; and on what."""
    table = _content()["tables"]["7"]
    return table["hours"], str(table["device"])


def published_curve(figure: int, data: str, imbalance_ratio: float | str) -> PublishedCurve | None:
    """Figure 5 or 8, over G or log10 Z, for an imbalance ratio of 100; ``None`` for other data."""
    content = _content()["figures"][str(figure)]
    curve = content["curves"].get(data) if imbalance_ratio == 100 else None
    if curve is None:
        return None
    return PublishedCurve(
        **{name: tuple(map(float, curve[name])) for name in ("x", "value", "low", "high")}, reading=content["reading"]
    )
