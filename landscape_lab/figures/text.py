"""Words and numbers on pictures: escaped, rounded to their error, broken where the space ends."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

__all__ = ["capital", "caption", "letter", "maths", "plain", "plural", "size_of", "wrapped"]

CAPTION_SIZE = 8.5


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
