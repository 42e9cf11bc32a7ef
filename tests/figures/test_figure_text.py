import doctest
import math

import pytest

from landscape_lab.figures import text
from landscape_lab.figures.style import paper_style


def test_examples():
    assert doctest.testmod(text).failed == 0


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.0, "0"), (-7.05, "−7.05"), (12345.6, "12,346"), (1e-9, "1e−9"), (2.5e7, "2.5e7"), (math.nan, "not finite")],
)
def test_numbers(value, written):
    assert text.number(value) == written


def test_infinities():
    assert (text.number(math.inf), text.number(-math.inf)) == ("∞", "−∞")


@pytest.mark.parametrize(
    ("value", "error", "written"),
    [
        (74.99, 0.0567, "74.99 ± 0.06"),
        (-6.001, 0.12, "−6.00 ± 0.12"),
        (196.49, 0.96, "196.5 ± 1.0"),
        (5.0, 0.0, "5 ± 0"),
        (5.0, math.nan, "5 ± ?"),
        (0.0, 0.02, "0.000 ± 0.020"),
    ],
)
def test_errors_set_the_digits(value, error, written):
    assert text.with_error(value, error) == written


def test_no_line_is_longer_than_asked():
    with paper_style():
        words = "a few rather ordinary words, and one Donaudampfschifffahrtsgesellschaftskapitänskajütenschlüssel"
        lines = text.wrapped(words, 1.5, 9).split("\n")
        assert len(lines) > 2
        assert all(text.size_of(line, 9)[0] <= 1.5 for line in lines)
        assert lines[-1].endswith("…")


def test_capital_keeps_the_rest():
    assert text.capital("bMW X5") == "BMW X5"
    assert text.capital("") == ""
