"""What is written on pictures of spectra: the operator's name, upper limits, ranges of counts."""

from __future__ import annotations

import math
from collections.abc import Iterable

from landscape_lab.analysis.spectra import Spectrum
from landscape_lab.numbers import number

__all__ = ["at_most", "basis", "joined", "letter_of", "name_of", "span"]

# The name of each operator, and the letter that stands for it in formulas.
OPERATORS = {
    "hessian": ("Hessian", "H"),
    "ggn": ("Gauss–Newton matrix", "G"),
    "fisher": ("empirical Fisher matrix", "F"),
    "fisher-true": ("Fisher matrix", "F"),
}


def name_of(operator: str) -> str:
    """``"ggn"`` → ``"Gauss–Newton matrix"``; an operator that is not known is called by its own name."""
    return OPERATORS[operator][0] if operator in OPERATORS else operator


def letter_of(operator: str) -> str:
    """The letter of an operator in formulas: ``H`` for the Hessian, ``A`` for one that is not known."""
    return OPERATORS[operator][1] if operator in OPERATORS else "A"


def basis(spectra: Iterable[Spectrum]) -> str:
    """What was computed, on how many samples and parameters, and how BatchNorm normalised: a sentence."""
    spectra = list(spectra)
    operators = {result.operator for result in spectra}
    what = joined(
        letter_of(name) if name == "hessian" else f"{letter_of(name)} ({name_of(name)})" for name in operators
    )
    # An operator that is not of a model says nothing of samples and BatchNorm.
    samples = [result.samples for result in spectra if result.samples]
    over = f" over {span(samples)} {'sample' if max(samples) == 1 else 'samples'}," if samples else ","
    policies = [result.batch_norm for result in spectra if result.batch_norm != "none"]
    normalised = f"; BatchNorm statistics: {joined(policies)}." if policies else "."
    return f"{what}{over} {span(result.parameters for result in spectra)} parameters{normalised}"


def at_most(value: float) -> str:
    """An upper limit with four digits, rounded up: rounded to the nearest it could lie below the value.

    Example:
        >>> at_most(38.1512), at_most(0.5)
        ('38.16', '0.5')
    """
    if not math.isfinite(value) or value == 0:
        return number(value)
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 3)
    return number(math.ceil(round(value / unit, 6)) * unit, 4)


def span(values: Iterable[int]) -> str:
    """The smallest and the largest of some counts: ``7 to 1,200``, or the one count that all are."""
    values = list(values)
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def joined(words: Iterable[str]) -> str:
    """Different words in alphabetical order: ``batch and running``."""
    return " and ".join(sorted(set(words)))
