"""Which classes get worse in the course of training, and from when on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from landscape_lab.analysis.change_point import FEWEST, Onset, onset_of_decline
from landscape_lab.diagnosis.findings import Curves, Evidence, Finding, Verdict, unmeasured
from landscape_lab.numbers import number

__all__ = ["Judged", "degradation", "judged", "onset", "said"]

LOSS_OF_ACCURACY = 0.05
"""A smaller loss of accuracy is none to speak of."""

LEVEL = 0.05
_VERDICTS: dict[str, Verdict] = {"declines": "yes", "no decline": "no", "cannot tell": "cannot tell"}


@dataclass(frozen=True)
class Judged:
    """What a test found, and what its data could not have shown.

    Attributes:
        found: the test's result, its verdict taken back where the data do not allow it.
        seen: a fall as large would have been seen, in 95 % of cases.
        images: test images that the curve comes from; 0 if it comes from none, or they are not known.
    """

    found: Onset
    seen: float
    images: int = 0

    @property
    def verdict(self) -> Verdict:
        """Whether the curve falls in the end."""
        return _VERDICTS[self.found.verdict]


def degradation(evidence: Evidence) -> Finding:
    """Does the tail's test accuracy fall, and that of which classes by themselves?"""
    question = "Do the tail classes lose accuracy that they once had?"
    if evidence.accuracy is None:
        return unmeasured("degradation", question, evidence)
    curves = evidence.accuracy

    def points(value: float) -> str:
        return f"{number(100 * value, 2)} points"

    images = {c: count for c, count in enumerate(evidence.test_counts) if count}
    tail, head = (
        judged(_of(curves, classes, LOSS_OF_ACCURACY), LOSS_OF_ACCURACY, [images[c] for c in classes if c in images])
        for classes in (evidence.tail, evidence.head)
    )
    alone = {c: _of(curves, [c], LOSS_OF_ACCURACY) for c in range(len(evidence.class_names))}
    falling = [c for c, one in alone.items() if one.verdict == "declines" and one.decline > 0]
    words = [
        said("test accuracy", "tail", tail, points, curves.epochs),
        f"That of the head {_short(head, points)}.",
        f"At the end the tail's is {points(_last(curves, evidence.tail))} of 100, the head's "
        f"{points(_last(curves, evidence.head))}.",
        _listed(falling, alone, evidence, points),
    ]
    numbers = {**_numbers("tail", tail), **_numbers("head", head), "classes that fall": float(len(falling))}
    for c in falling:
        numbers |= _numbers(f"class {c}", judged(alone[c], LOSS_OF_ACCURACY, [images[c]] if c in images else []))
    caution = (
        f"Each class by itself is tested at 5 %: of {len(alone)} classes that do not fall, about "
        f"{number(0.05 * len(alone), 2)} would be listed. The verdict is about the tail's mean alone."
    )
    if tail.images:
        error = points(
            _sampling_error(curves.values[-1].tolist(), {c: images[c] for c in evidence.tail if c in images})
        )
        caution += (
            f" It is about these {tail.images:,} test images; of others the tail's accuracy would differ by ± {error}."
        )
    return Finding("degradation", tail.verdict, " ".join(words), numbers, caution, question, tail.found.p_value)


def onset(evidence: Evidence) -> Finding:
    """Does the tail's feature quality fall, and from which epoch on?"""
    question = "Does the quality of the tail's features fall before training ends?"
    if evidence.quality is None:
        return unmeasured("onset", question, evidence)
    tail, head = (judged(_of(evidence.quality, classes)) for classes in (evidence.tail, evidence.head))
    words = [
        said("feature quality Q (training images)", "tail", tail, number, evidence.quality.epochs),
        f"That of the head {_short(head, number)}.",
    ]
    caution = (
        "Q compares distances between classes with spread within them; it can fall while accuracy rises."
        if tail.found.verdict == "declines"
        else ""
    )
    numbers = {**_numbers("tail", tail), **_numbers("head", head)}
    return Finding("onset", tail.verdict, " ".join(words), numbers, caution, question, tail.found.p_value)


def _last(curves: Curves, classes: Sequence[int]) -> float:
    """The mean over the classes at the last epoch: what was never learnt cannot be forgotten."""
    return float(curves.values[-1, list(classes)].nanmean())


def _of(curves: Curves, classes: Sequence[int], least: float | None = None) -> Onset:
    # The initialisation is no epoch of training: its features are random.
    trained = [k for k, epoch in enumerate(curves.epochs) if epoch > 0]
    return onset_of_decline([curves.epochs[k] for k in trained], curves.values[trained][:, list(classes)], least=least)


def _sampling_error(accuracy: Sequence[float], counts: Mapping[int, int]) -> float:
    """Half the 95 % interval of the mean of classes' accuracies, as Agresti and Coull (1998) correct proportions."""
    variance = 0.0
    for c, count in counts.items():
        share = (min(max(accuracy[c], 0.0), 1.0) * count + 2) / (count + 4)
        variance += share * (1 - share) / (count + 4)
    return 1.96 * math.sqrt(variance) / len(counts)


def judged(found: Onset, least: float | None = None, test_counts: Sequence[int] = ()) -> Judged:
    """Bound a fall from above, never below what the data resolve, and take a verdict back that this does not allow.

    Args:
        found: the test's result.
        least: the smallest fall that matters; ``None``: that of the test.
        test_counts: test images of each class that the curve is the mean of; without any, it is of the training images.

    The epochs' noise hides at least what it adds to the difference of two halves of the shortest curve that is tested.
    Test images hide a fall that so many of them miss with a chance of 5 %: ``n`` images all keep their class with
    chance ``(1 - x)^n`` if a share ``x`` of such images loses it. Both are independent.
    """
    down = max(found.decline, 0.0)
    spread = (1 + found.correlation) / (1 - found.correlation)  # of a mean of correlated values
    noise = 1.96 * found.noise * math.sqrt(2 * spread / (FEWEST // 2))
    known = [count for count in test_counts if count > 0]
    images = 1 - LEVEL ** (1 / (len(known) * min(known))) if known else 0.0
    seen = down + math.hypot(max(found.decline_high - down, noise), images)
    hidden = found.verdict == "no decline" and seen > 0 and seen >= (found.least if least is None else least)
    if hidden or (found.verdict == "declines" and found.decline <= 0):  # it goes down somewhere, and ends above
        found = replace(found, verdict="cannot tell")
    return Judged(found, seen, sum(known))


def said(what: str, whose: str, one: Judged, unit: Callable[[float], str], epochs: Sequence[int]) -> str:
    """A sentence on what a test found.

    Args:
        what: the curve is of.
        whose: it is.
        one: what was found.
        unit: how a number is written.
        epochs: of the curve.
    """
    found = one.found
    if found.points < FEWEST:
        return f"The {what} of the {whose} is known at {found.points} epochs, and a test needs {FEWEST}."
    chance = f" (p = {number(found.p_value, 2)})"
    if found.verdict == "declines":
        when = f"epoch {number(found.epoch or math.nan)} (95 %: {number(found.low)} to {number(found.high)})"
        size = f"{unit(found.decline)} (95 %: {_interval(found, unit)})"
        return f"The {what} of the {whose} falls from {when} on, by {size} until epoch {epochs[-1]}{chance}."
    if found.noise == 0 and not one.images:
        return f"The {what} of the {whose} does not fall: it is the same at all {found.points} epochs."
    known = f"95 %; p = {number(found.p_value, 2)}" + (f", {one.images:,} test images" if one.images else "")
    if found.verdict == "no decline":
        return f"The {what} of the {whose} does not fall, or by less than {unit(one.seen)} ({known})."
    if found.decline <= 0 and found.p_value <= LEVEL:
        return f"The {what} of the {whose} falls for a while{chance}, but not in the end."
    if found.decline <= 0:
        return (
            f"No fall of the {what} of the {whose} is seen, but one by less than "
            f"{unit(one.seen)} would not be ({known})."
        )
    return (
        f"Whether the {what} of the {whose} falls cannot be told: by {unit(found.decline)}, or by anything up to "
        f"{unit(one.seen)} ({known})."
    )


def _interval(found: Onset, unit: Callable[[float], str]) -> str:
    return f"{unit(found.decline_low)} to {unit(found.decline_high)}"


def _short(one: Judged, unit: Callable[[float], str]) -> str:
    found = one.found
    if found.verdict == "declines":
        return f"falls by {unit(found.decline)} from epoch {number(found.epoch or math.nan)} on"
    if found.points < FEWEST:
        return "cannot be told to fall"
    if found.verdict == "no decline":
        return f"does not fall, or by less than {unit(one.seen)}" if one.seen else "does not fall"
    return f"cannot be told to fall: by less than {unit(one.seen)} it may"


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


def _numbers(whose: str, one: Judged) -> dict[str, float]:
    found = one.found
    return {
        f"{whose} onset": math.nan if found.epoch is None else found.epoch,
        f"{whose} onset low": found.low,
        f"{whose} onset high": found.high,
        f"{whose} decline": found.decline,
        f"{whose} decline low": found.decline_low,
        f"{whose} decline high": found.decline_high,
        f"{whose} decline seen": one.seen,
        f"{whose} p": found.p_value,
    }
