"""What the guard measures, and how much worse each number may be."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from landscape_lab.errors import InputError, nearest

__all__ = ["METRICS", "GuardSettings", "Metric", "MetricName", "Tolerance", "as_json", "tolerances_of"]

MetricName = Literal["lambda_max", "trace", "average", "epsilon", "quality", "similarity"]


@dataclass(frozen=True)
class Tolerance:
    """How much worse a number may be.

    Attributes:
        amount: not negative.
        relative: whether it is a share of the baseline's magnitude, or in the number's own units.
    """

    amount: float
    relative: bool

    def __str__(self) -> str:
        return f"{100 * self.amount:g} %" if self.relative else f"{self.amount:g}"


@dataclass(frozen=True)
class Metric:
    """A number that is guarded.

    Attributes:
        words: what it is.
        worse: 1 if more is worse, -1 if less is.
        tolerance: the usual one.
        unit: ``"ratio"`` for a positive number that is compared by its ratio, or ``"difference"``.
    """

    words: str
    worse: int
    tolerance: Tolerance
    unit: Literal["ratio", "difference"]


_QUARTER = Tolerance(0.25, relative=True)
METRICS: dict[MetricName, Metric] = {
    "lambda_max": Metric("largest eigenvalue of the Hessian", 1, _QUARTER, "ratio"),
    "trace": Metric("trace of the Hessian", 1, _QUARTER, "ratio"),
    "average": Metric("average rise of the loss under noise", 1, _QUARTER, "ratio"),
    "epsilon": Metric("ε-sharpness in random subspaces", 1, _QUARTER, "ratio"),
    # Q and the cosine may be zero or negative: a share of them means nothing.
    "quality": Metric("feature quality", -1, Tolerance(0.25, relative=False), "difference"),
    "similarity": Metric("gradient similarity with the batch", -1, Tolerance(0.1, relative=False), "difference"),
}


class GuardSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the numbers are measured. Baseline and model are only compared under the same settings.

    Attributes:
        metrics: of :data:`METRICS`.
        split: ``train`` or ``test``, of a run.
        samples: of each class at most, drawn at random.
        probes: random vectors for the trace.
        deflation: dimensions of the Krylov space whose part of the trace is exact.
        deflated: eigenvectors of it that are set aside, at most.
        tolerance: relative residual of the largest eigenvalue.
        directions: random directions of the average rise.
        ratio: norm of that noise to the norm of the parameters.
        subspaces: random subspaces of the ε-sharpness.
        dimensions: of each.
        epsilon: half the side of the box in it.
        steps: of ascent.
        batches: for the gradient similarity, at most.
        batch_size: of those, at most; ``None``: what the run was trained with.
        seed: of all that is random.
    """

    metrics: tuple[MetricName, ...] = tuple(METRICS)
    split: Literal["train", "test"] = "train"
    samples: int = 64
    probes: int = 24
    deflation: int = 20
    deflated: int = 10
    tolerance: float = 1e-3
    directions: int = 16
    ratio: float = 0.1
    subspaces: int = 8
    dimensions: int = 5
    epsilon: float = 1e-3
    steps: int = 5
    batches: int = 16
    batch_size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown or not self.metrics:
            raise InputError(f"metrics must be some of {', '.join(METRICS)}, got {', '.join(unknown) or 'none'}")
        for name in ("samples", "probes", "directions", "subspaces", "batches"):
            if getattr(self, name) < 2:
                raise InputError(f"{name} must be 2 or more, for there to be an error, got {getattr(self, name)}")


def tolerances_of(texts: Sequence[str]) -> dict[MetricName, Tolerance]:
    """The tolerances that a user writes.

    Args:
        texts: ``25%`` (of all metrics that are compared by their ratio), ``trace=40%``, ``quality=0.5``, ``0.5``; also
            several with commas between. The later one counts.

    Raises:
        InputError: no such metric, or not a number of zero or more.

    Example:
        >>> str(tolerances_of(["30%", "trace=0.5"])["trace"])
        '0.5'
    """
    found: dict[MetricName, Tolerance] = {}
    named: dict[MetricName, Tolerance] = {}
    for text in (part.strip() for one in texts for part in one.split(",")):
        name, _, amount = text.rpartition("=")
        if name and name not in METRICS:
            raise InputError(f"--tolerance: there is no metric {name!r}{nearest(name, METRICS)}; "
                             f"there are {', '.join(METRICS)}")  # fmt: skip
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*(%?)\s*", amount)
        if not match or not math.isfinite(float(match[1])):
            raise InputError(f"--tolerance needs a number such as 25% or quality=0.25, got {text!r}")
        value = Tolerance(float(match[1]) / (100 if match[2] else 1), relative=bool(match[2]))
        if name:
            named |= {key: value for key in METRICS if key == name}
        elif not value.relative:
            raise InputError(f"--tolerance {text}: say of which metric, such as quality={text}, or give a share: 25%")
        else:
            found |= {key: value for key, metric in METRICS.items() if metric.unit == "ratio"}
    return {key: metric.tolerance for key, metric in METRICS.items()} | found | named


def as_json(settings: GuardSettings) -> Mapping[str, Any]:
    """The settings as JSON has them."""
    return dict(msgspec.to_builtins(settings))
