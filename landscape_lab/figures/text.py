"""Words and numbers on pictures: escaped, rounded to their error, broken where the space ends."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

__all__ = ["capital", "caption", "letter", "maths", "number", "plain", "plural", "size_of", "with_error", "wrapped"]

CAPTION_SIZE = 8.5
MINUS = "\N{MINUS SIGN}"


def plain(text: str) -> str:
    """``text`` to be drawn as it is, also where a ``$`` would begin a formula.

    Example:
        >>> plain("a $ sign")
        'a \\\\$ sign'
    """
    return text.replace("$", r"\$")


def maths(text: str) -> str:
    """As :func:`plain`, but ``λ_max`` and ``λ_min`` get real subscripts."""
    text = plain(text)
    for end in ("max", "min"):
        text = text.replace(f"λ_{end}", rf"$\lambda_{{\{end}}}$")
    return text


def capital(text: str) -> str:
    """``text`` with its first letter large and the others as they are."""
    return text[:1].upper() + text[1:]


def letter(index: int) -> str:
    """The name of a panel: ``(a)``, ``(b)`` …"""
    return f"({chr(ord('a') + index % 26)})"


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """A count with its noun: ``1 class``, ``7,997 samples``."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


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

    More than five digits of a value would say nothing about a model, and not fit: a smaller error is told by itself.

    Example:
        >>> with_error(38.1534, 0.0231), with_error(402.52, 7.4), with_error(1.929671, 4.6e-6)
        ('38.153 ± 0.023', '403 ± 7', '1.9297 ± 5e−6')
    """
    if not math.isfinite(value) or not math.isfinite(error) or error < 0:
        return f"{number(value, 4)} ± ?"
    digits = 1 if error and float(f"{error:.1e}"[:3]) < 2.95 else 0
    decimals = max(0, digits - _magnitude(error))
    most = max(0, 4 - _magnitude(value))
    if error == 0 or decimals > most or decimals > 7 or abs(value) >= 1e6:
        return f"{number(value, 5)} ± {number(error, 1)}"
    return f"{value:,.{decimals}f} ± {error:,.{decimals}f}".replace("-", MINUS)


def _magnitude(value: float) -> int:
    return math.floor(math.log10(abs(value))) if value else 0


def size_of(text: str, size: float) -> tuple[float, float]:
    """Width and height in inches of one line at font size ``size`` (points), formulas included."""
    # Escaped dollars are measured with their backslash, a harmless overestimate.
    formula = text.replace(r"\$", "").count("$") >= 2
    width, height, descent = TextToPath().get_text_width_height_descent(text, FontProperties(size=size), formula)
    return float(width) / 72, float(height + descent) / 72


def wrapped(text: str, inches: float, size: float) -> str:
    """``text`` with line breaks so that no line is wider than ``inches`` at font size ``size`` (points).

    A single word that is wider than the line is cut and given an ellipsis.
    """
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            while len(word) > 2 and size_of(word, size)[0] > inches:
                word = word.rstrip("…")[:-1] + "…"
            longer = f"{line} {word}" if line else word
            if line and size_of(longer, size)[0] > inches:
                lines.append(line)
                line = word
            else:
                line = longer
        lines.append(line)
    return "\n".join(lines)


def caption(figure: Figure, sentences: Sequence[str]) -> None:
    """Write ``sentences`` below the panels of ``figure``, over its whole width."""
    width = float(figure.get_size_inches()[0])
    # Three per cent of reserve: at low resolution letters are set on whole pixels, and lines come out longer.
    text = wrapped(" ".join(sentence for sentence in sentences if sentence), 0.97 * (width - 0.24), CAPTION_SIZE)
    # As the figure's x label, the caption is given its own space by the layout.
    figure.supxlabel(text, x=0.12 / width, ha="left", fontsize=CAPTION_SIZE, color="#333333", linespacing=1.25)
