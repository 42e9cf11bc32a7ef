import math

import pytest

from landscape_lab.numbers import MINUS, number, with_error


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.0, "0"), (-7.05, "−7.05"), (12345.6, "12,346"), (1e-9, "1e−9"), (2.5e7, "2.5e7"), (math.nan, "not finite")],
)
def test_numbers(value, written):
    assert number(value) == written


def test_infinities():
    assert (number(math.inf), number(-math.inf)) == ("∞", "−∞")


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
    assert with_error(value, error) == written


def test_a_value_that_rounds_to_zero_has_no_sign():
    assert with_error(-0.0004, 0.04) == "0.00 ± 0.04"
    assert with_error(-0.04, 0.04) == f"{MINUS}0.04 ± 0.04"
