"""Which epoch is reported."""

from __future__ import annotations

from typing import Any

import pytest

from landscape_lab.errors import InputError
from landscape_lab.selection import SELECTIONS, WORDS, reported_line

TEST = (0.99, 0.5, 0.7, 0.7, 0.6)
VALIDATION = (0.99, 0.6, 0.4, 0.5, 0.3)


def lines(*, validation: bool = True) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for epoch, (test, held_out) in enumerate(zip(TEST, VALIDATION, strict=True)):
        line = {"epoch": epoch, "test": {"accuracy": {"all": test}}}
        found.append({**line, "validation": {"accuracy": {"all": held_out}}} if validation else line)
    return found


def test_each_selection_never_the_initialisation() -> None:
    # The initialisation would be the best of both; of the equal epochs 2 and 3 the earlier counts.
    expected = {"last": 4, "best-validation": 1, "best-test": 2}
    assert {how: reported_line(lines(), how)["epoch"] for how in SELECTIONS} == expected
    assert set(WORDS) == set(SELECTIONS)
    assert "test set" in WORDS["best-test"]


def test_without_validation() -> None:
    with pytest.raises(InputError, match=r"evaluation.validation_share=0.1"):
        reported_line(lines(validation=False), "best-validation")


def test_untrained() -> None:
    with pytest.raises(InputError, match="no epoch has been trained"):
        reported_line(lines()[:1])
