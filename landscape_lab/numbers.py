"""Numbers for people, as many digits as their error lets them have, and for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["MINUS", "finite", "number", "with_error"]

MINUS = "−"


def number(value: float, digits: int = 3) -> str:
    """A number with ``digits`` significant digits and a true minus sign.

    Example:
        >>> number(1234.5), number(0.00012345), number(7.0)
        ('1,234', '0.000123', '7')
    """
    if not math.isfinite(value):
        return "not finite" if math.isnan(value) else f"{MINUS if value < 0 else ''}∞"
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        if "." in mantissa:
            mantissa = mantissa.rstrip("0").rstrip(".")
        return f"{mantissa}e{int(exponent)}".replace("-", MINUS)
    decimals = max(0, digits - 1 - _magnitude(value))
    text = f"{value:,.{decimals}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", MINUS)


def with_error(value: float, error: float) -> str:
    """``value ± error``, both rounded to the error's first digit, or its second if the first is 1 or 2.

    More than four digits of a value would say nothing about a model, and not fit: a smaller error is told by itself.

    Example:
        >>> with_error(38.1534, 0.0231), with_error(402.52, 7.4), with_error(1.929671, 4.6e-6)
        ('38.15 ± 0.02', '403 ± 7', '1.93 ± 5e−6')
    """
    if not math.isfinite(value) or not math.isfinite(error) or error < 0:
        return f"{number(value, 4)} ± ?"
    digits = 1 if error and float(f"{error:.1e}"[:3]) < 2.95 else 0
    decimals = max(0, digits - _magnitude(error))
    most = max(0, 3 - _magnitude(value))
    if error == 0 or decimals > most or decimals > 7 or abs(value) >= 1e6:
        return f"{number(value, 4)} ± {number(error, 1)}"
    rounded = round(value, decimals) + 0.0  # no minus before a zero
    return f"{rounded:,.{decimals}f} ± {error:,.{decimals}f}".replace("-", MINUS)


def _magnitude(value: float) -> int:
    return math.floor(math.log10(abs(value))) if value else 0


def finite(value: Any) -> Any:
    """Nested lists and mappings with NaN and infinities as ``None``, which every JSON reader accepts."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
