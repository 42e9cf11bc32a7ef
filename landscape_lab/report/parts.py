"""What a page is made of: sections with charts, tables and controls; and how numbers and texts are packed into it."""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from landscape_lab.figures import Table
from landscape_lab.figures.arrays import Array

__all__ = [
    "Chart",
    "Control",
    "Section",
    "axes",
    "band",
    "colour_of",
    "escaped",
    "line",
    "mean_over",
    "packed",
    "script_json",
]

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down")
NAMED = ("head", "tail", "many", "med", "few", "all")
SHORT = 12  # values: a list is then shorter than its base64


@dataclass(frozen=True)
class Chart:
    """A plotly chart.

    Attributes:
        title: above it.
        traces: plotly's, with texts :func:`escaped`, arrays :func:`packed` and colours as :func:`colour_of` gives.
        layout: plotly's, less what the page's look decides.
        caption: below it: what was measured, on what, with which error.
        facets: control → option at which it is shown; it is shown at all options of other controls.
        height: in pixels.
        wide: whether it takes a whole row.
    """

    title: str
    traces: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]
    caption: str = ""
    facets: Mapping[str, str] = field(default_factory=dict)
    height: int = 380
    wide: bool = False


@dataclass(frozen=True)
class Control:
    """A choice of what a section shows.

    Attributes:
        key: as in the charts' facets.
        label: in front of it.
        options: value → text; the first is chosen.
    """

    key: str
    label: str
    options: Mapping[str, str]


@dataclass(frozen=True)
class Section:
    """A tab of the page.

    Attributes:
        key: its identifier.
        title: of the tab.
        lead: what it shows, and how to read it; an empty line begins a new paragraph.
        controls: choices among its charts and tables.
        charts: in order.
        tables: with their facets.
        summary: tables above the controls.
        findings: sentences with their verdict, see ``page.html.jinja``.
        missing: what is not there, and the command that makes it: (sentence, command).
        surfaces: what ``surfaces.js`` draws, if anything.
        texts: (title, text) to be shown as they are, such as files.
    """

    key: str
    title: str
    lead: str = ""
    controls: Sequence[Control] = ()
    charts: Sequence[Chart] = ()
    tables: Sequence[tuple[Table, Mapping[str, str]]] = ()
    summary: Sequence[Table] = ()
    findings: Sequence[Mapping[str, Any]] = ()
    missing: Sequence[tuple[str, str]] = ()
    surfaces: Mapping[str, Any] | None = None
    texts: Sequence[tuple[str, str]] = ()


def escaped(text: str) -> str:
    """``text`` for plotly, which reads some HTML: it is shown as it is.

    Example:
        >>> escaped("<b> & co")
        '&lt;b&gt; &amp; co'
    """
    return html.escape(text, quote=False)


def packed(values: Tensor | Array | Sequence[float | None]) -> Any:
    """Numbers as plotly reads them: float32 in base64 with their shape, or a list if there are few.

    Losses so keep seven digits, which no picture shows. What is not finite is left as a gap (NaN).
    """
    if isinstance(values, Tensor):
        array = values.detach().cpu().double().numpy()
    else:
        array = np.array([math.nan if value is None else value for value in values] if isinstance(values, list | tuple)
                         else values, dtype=np.float64)  # fmt: skip
    array = np.where(np.isfinite(array) & (np.abs(array) < np.finfo(np.float32).max), array, np.nan)
    if array.ndim == 1 and array.size <= SHORT:
        return [None if math.isnan(value) else float(f"{value:.7g}") for value in array.tolist()]
    data = base64.b64encode(array.astype("<f4").tobytes()).decode()
    return {"dtype": "f4", "bdata": data, "shape": ",".join(map(str, array.shape))}


def colour_of(name: str, place: int = 0) -> str:
    """A colour token, which the page turns into one that is seen on its ground: head and tail have their own."""
    return f"@{name}" if name in NAMED else f"@c{place % 8}"


def line(
    name: str,
    x: Sequence[float] | Tensor | Array,
    y: Sequence[float | None] | Tensor | Array,
    *,
    colour: str,
    place: int = 0,
    error: Sequence[float | None] | Tensor | None = None,
    dash: str | None = None,
    mode: str = "lines+markers",
    **more: Any,
) -> dict[str, Any]:
    """A curve that is told from its neighbours by colour, dash and marker.

    Args:
        name: in the legend; it is escaped here.
        x: abscissae.
        y: values; ``None`` and NaN are gaps.
        colour: as :func:`colour_of` gives it.
        place: among its neighbours, for dash and marker.
        error: half the height of the error bars.
        dash: instead of the place's.
        mode: plotly's.
        **more: further fields of the trace.
    """
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": mode,
        "name": escaped(name),
        "x": packed(x),
        "y": packed(y),
        "line": {"color": colour, "dash": dash or DASHES[place % len(DASHES)], "width": 2},
        "marker": {"color": colour, "symbol": SYMBOLS[place % len(SYMBOLS)], "size": 6},
    }
    if error is not None:
        trace["error_y"] = {"type": "data", "array": packed(error), "thickness": 1.2, "width": 3}
    return {**trace, **more}


def axes(x: str, y: str, *, log: bool = False, zero: bool = False) -> dict[str, Any]:
    """A layout with axis titles (plotly's text), y logarithmic or from zero if asked for."""
    form = {"type": "log"} if log else {"rangemode": "tozero"} if zero else {}
    return {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y + (" (log scale)" if log else "")}, **form}}


def band(
    name: str, x: Sequence[float] | Tensor | Array, low: Tensor | Array, high: Tensor | Array, colour: str
) -> list[dict[str, Any]]:
    """A shaded band between two curves, without a legend entry of its own."""
    common = {"type": "scatter", "mode": "lines", "x": packed(x), "hoverinfo": "skip", "showlegend": False,
              "legendgroup": escaped(name), "line": {"width": 0, "color": colour}}  # fmt: skip
    return [
        {**common, "y": packed(low)},
        {**common, "y": packed(high), "fill": "tonexty", "fillcolor": f"{colour}/0.18"},
    ]


def script_json(content: Any) -> str:
    """JSON that stands in a script element: nothing in it ends the element or a line.

    Example:
        >>> script_json({"name": "</script>"})
        '{"name":"\\\\u003c/script>"}'
    """
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for mark, code in (("<", "\\u003c"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029")):
        text = text.replace(mark, code)
    return text


def mean_over(values: Sequence[float | None], classes: Sequence[int]) -> float:
    """The mean over classes that have a value; NaN if none has."""
    present = [float(value) for c in classes if (value := values[c]) is not None and not math.isnan(value)]
    return sum(present) / len(present) if present else math.nan
