"""Which classes get worse in the course of training, and from when on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from landscape_lab.analysis.change_point import FEWEST, Onset, onset_of_decline
from landscape_lab.diagnosis.findings import Curves, Evidence, Finding, Verdict, unmeasured
from landscape_lab.numbers import number

__all__ = ["degradation", "onset"]

LOSS_OF_ACCURACY = 0.05
"""A smaller loss of accuracy is none to speak of."""

_VERDICTS: dict[str, Verdict] = {"declines": "yes", "no decline": "no", "cannot tell": "cannot tell"}


def degradation(evidence: Evidence) -> Finding:
    """Does the tail's test accuracy fall, and that of which classes by themselves?"""
    question = "Do the tail classes lose accuracy that they once had?"
    if evidence.accuracy is None:
        return unmeasured("degradation", question, evidence)
    curves = evidence.accuracy

    def points(value: float) -> str:
        return f"{number(100 * value, 2)} points"

    tail, head = (_of(curves, classes, LOSS_OF_ACCURACY) for classes in (evidence.tail, evidence.head))
    alone = {c: _of(curves, [c], LOSS_OF_ACCURACY) for c in range(len(evidence.class_names))}
    falling = [c for c, one in alone.items() if one.verdict == "declines"]
    words = [
        _said("test accuracy", "tail", tail, points, curves.epochs),
        f"That of the head {_short(head, points)}.",
        _listed(falling, alone, evidence, points),
    ]
    numbers = {**_numbers("tail", tail), **_numbers("head", head), "classes that fall": float(len(falling))}
    for c in falling:
        numbers |= _numbers(f"class {c}", alone[c])
    caution = (
        f"Each class by itself is tested at 5 %: of {len(alone)} classes that do not fall, about "
        f"{number(0.05 * len(alone), 2)} would be listed. The verdict is about the tail's mean alone."
    )
    return Finding("degradation", _VERDICTS[tail.verdict], " ".join(words), numbers, caution, question, tail.p_value)


def onset(evidence: Evidence) -> Finding:
    """Does the tail's feature quality fall, and from which epoch on?"""
    question = "Does the quality of the tail's features fall before training ends?"
    if evidence.quality is None:
        return unmeasured("onset", question, evidence)
    tail, head = (_of(evidence.quality, classes) for classes in (evidence.tail, evidence.head))
    words = [
        _said("feature quality Q (training images)", "tail", tail, number, evidence.quality.epochs),
        f"That of the head {_short(head, number)}.",
    ]
    caution = (
        "Q compares distances between classes with spread within them; it can fall while accuracy rises."
        if tail.verdict == "declines"
        else ""
    )
    numbers = {**_numbers("tail", tail), **_numbers("head", head)}
    return Finding("onset", _VERDICTS[tail.verdict], " ".join(words), numbers, caution, question, tail.p_value)


def _of(curves: Curves, classes: Sequence[int], least: float | None = None) -> Onset:
    # The initialisation is no epoch of training: its features are random.
    trained = [k for k, epoch in enumerate(curves.epochs) if epoch > 0]
    return onset_of_decline([curves.epochs[k] for k in trained], curves.values[trained][:, list(classes)], least=least)


def _said(what: str, whose: str, found: Onset, unit: Callable[[float], str], epochs: Sequence[int]) -> str:
    if found.points < FEWEST:
        return f"The {what} of the {whose} is known at {found.points} epochs, and a test needs {FEWEST}."
    if found.verdict == "declines":
        when = f"epoch {number(found.epoch or math.nan)} (95 %: {number(found.low)} to {number(found.high)})"
        size = f"{unit(found.decline)} (95 %: {_interval(found, unit)})"
        return f"The {what} of the {whose} falls from {when} on, by {size} until epoch {epochs[-1]}."
    if found.verdict == "no decline":
        # A decline below zero is none.
        return f"The {what} of the {whose} does not fall: by {unit(max(found.decline_high, 0.0))} at most (95 %)."
    return (
        f"Whether the {what} of the {whose} falls cannot be told: by {unit(found.decline)}, 95 %: "
        f"{_interval(found, unit)}, p = {number(found.p_value, 2)}."
    )


def _interval(found: Onset, unit: Callable[[float], str]) -> str:
    return f"{unit(found.decline_low)} to {unit(found.decline_high)}"


def _short(found: Onset, unit: Callable[[float], str]) -> str:
    if found.verdict == "declines":
        return f"falls by {unit(found.decline)} from epoch {number(found.epoch or math.nan)} on"
    return "does not fall" if found.verdict == "no decline" else "cannot be told to fall"


def _listed(falling: Sequence[int], alone: dict[int, Onset], evidence: Evidence, unit: Callable[[float], str]) -> str:
    if not falling:
        return "No class by itself can be said to fall."
    first = sorted(falling, key=lambda c: -alone[c].decline)[:8]
    named = [
        f"{_label(c, evidence)} (by {unit(alone[c].decline)} from epoch {number(alone[c].epoch or 0)})" for c in first
    ]
    rest = f" and {len(falling) - len(first)} more" if len(falling) > len(first) else ""
    return f"By themselves fall: {', '.join(named)}{rest}."


def _label(c: int, evidence: Evidence) -> str:
    name = evidence.class_names[c]
    return f"class {c}" if name == str(c) else f"class {c} {name}"


def _numbers(whose: str, found: Onset) -> dict[str, float]:
    epoch = math.nan if found.epoch is None else found.epoch
    return {
        f"{whose} onset": epoch,
        f"{whose} onset low": found.low,
        f"{whose} onset high": found.high,
        f"{whose} decline": found.decline,
        f"{whose} decline low": found.decline_low,
        f"{whose} decline high": found.decline_high,
        f"{whose} p": found.p_value,
    }
