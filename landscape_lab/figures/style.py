"""What all pictures share: one style sheet, colours, and files that come out the same byte for byte."""

from __future__ import annotations

import functools
import itertools
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from io import BytesIO
from pathlib import Path
from typing import ParamSpec

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from landscape_lab.errors import InputError
from landscape_lab.files import write_bytes

__all__ = [
    "BARS",
    "CYCLE",
    "LEVEL_RAMP",
    "LOSS_MAP",
    "OURS",
    "STANDARD",
    "SUBSETS",
    "colours_of",
    "grey_panel",
    "house_style",
    "in_paper_style",
    "paper_style",
    "save",
    "settle",
]

Arguments = ParamSpec("Arguments")

STYLE = Path(__file__).with_name("paper.mplstyle")
DPI = 200

# The papers' blue and red, which also differ for every common colour blindness (checked: they differ in blue).
SUBSETS = {
    **dict.fromkeys(("head", "many"), "#0b67a8"),
    **dict.fromkeys(("tail", "few"), "#d8392f"),
    "med": "#8a6d1f",
    "all": "#333333",
}
STANDARD = "#000000"
OURS = "#c8102e"
# Okabe and Ito's colours, safe for colour blindness, for everything that the papers give no colour.
CYCLE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d1f", "#56b4e9", "#333333", "#e69f00")
# Fig. 6 of the GKP+GSA paper: Head-0, Head-1, Tail-0, Tail-1.
BARS = ("#f1f5fc", "#bcd2ee", "#6384ac", "#b36b6b")

# Fig. 1: dark blue is low, white is high.
LOSS_MAP = LinearSegmentedColormap.from_list(
    "landscape_loss", ["#164a75", "#1a6aa6", "#3a8fc0", "#8fb0d6", "#c9cce3", "#e9e7f1", "#fdfcfe"]
)
# Fig. 2: viridis for the low lines, red for the high ones.
LEVEL_RAMP = LinearSegmentedColormap.from_list(
    "landscape_levels",
    ["#43206f", "#1f62b4", "#1d7f8a", "#2aa981", "#86cd4a", "#dfd827", "#f9b53a", "#f27f57", "#dc3a35", "#a50f15"],
)


_also: ContextVar[Path | None] = ContextVar("also", default=None)


@contextmanager
def paper_style() -> Iterator[None]:
    """Within the block matplotlib draws with our style sheet alone; the caller's settings come back after it."""
    also = _also.get()
    with matplotlib.style.context([STYLE, also] if also else STYLE, after_reset=True):
        yield


@contextmanager
def house_style(path: Path | None) -> Iterator[None]:
    """Within the block every picture is drawn, and saved, with a style sheet of one's own on top of ours.

    Args:
        path: a ``.mplstyle`` file; ``None``: ours alone.

    Raises:
        InputError: the file is missing, or matplotlib does not know what it says.
    """
    if path is not None:
        _check_style(path)
    token = _also.set(path)
    try:
        yield
    finally:
        _also.reset(token)


def _check_style(path: Path) -> None:
    # matplotlib logs what it does not understand and goes on; a user would wonder why nothing changes.
    complaints: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            complaints.append(" ".join(record.getMessage().split()))

    logger, listener = logging.getLogger("matplotlib"), Listener(logging.WARNING)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(listener)
    try:
        found = matplotlib.rc_params_from_file(str(path), use_default_template=False)
    except OSError:
        raise InputError(f"the style file {path} cannot be read; give a .mplstyle file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a style file: it is not text") from None
    finally:
        logger.removeHandler(listener)
        logger.propagate = propagate
    if complaints:
        raise InputError(f"{path} is not a style file that matplotlib understands: {complaints[0]}")
    if not found:
        raise InputError(f"the style file {path} sets nothing; a line such as 'font.size: 8' would")


def in_paper_style(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Make a drawing function use :func:`paper_style`, and :func:`settle` the figure that it returns.

    With the layout left open, each save would start from the last result, and two files of a figure would differ.
    """

    @functools.wraps(draw)
    def styled(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with paper_style():
            figure = draw(*args, **kwargs)
            settle(figure)
            return figure

    return styled


def settle(figure: Figure) -> None:
    """Lay ``figure`` out until nothing moves by half a pixel, and fix the layout; a second call does nothing.

    Panels of fixed aspect take two to four rounds.
    """
    engine = figure.get_layout_engine()
    if not isinstance(engine, ConstrainedLayoutEngine):
        return
    before: list[float] = []
    for _ in range(5):
        engine.execute(figure)
        after: list[float] = []
        for axes in figure.axes:
            if axes.get_axes_locator() is None:  # colour bars stand where their panel is
                axes.apply_aspect()
                after.extend(axes.get_window_extent().bounds)
        if before and max(abs(old - new) for old, new in zip(before, after, strict=True)) < 0.5:
            break
        before = after
    figure.set_layout_engine("none")


def colours_of(names: Sequence[str]) -> list[str]:
    """A colour for each name: that of :data:`SUBSETS` where it has one, else the next of :data:`CYCLE`."""
    # The cycle begins with a blue and a red too close to those of head and tail.
    taken = 2 if any(name in SUBSETS for name in names) else 0
    free = itertools.cycle(CYCLE[taken:])
    return [SUBSETS[name] if name in SUBSETS else next(free) for name in names]


def grey_panel(axes: Axes) -> None:
    """Give ``axes`` the grey ground and white grid of the paper's Fig. 9."""
    axes.set_facecolor("#eaeaf2")
    axes.grid(True, color="white", linestyle="-", linewidth=0.9)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=2.5, which="major", color="#8a8a94")
    axes.tick_params(length=0, which="minor")


def save(figure: Figure, stem: Path, formats: Sequence[str] = ("png", "pdf", "svg")) -> list[Path]:
    """Write ``figure`` as ``stem.png``, ``stem.pdf`` …; the same figure gives the same bytes, whatever the time.

    Args:
        figure: what a function of this package returned.
        stem: the path without its ending; folders are made, existing files replaced in one step.
        formats: any of ``png`` (200 dpi), ``pdf`` (TrueType fonts) and ``svg`` (text as outlines).

    Returns:
        The paths, in the order of ``formats``.

    Raises:
        InputError: a format is not one of these.
    """
    # None leaves the entry out: dates and versions would make each file differ.
    metadata: dict[str, dict[str, None]] = {
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
        "svg": {"Date": None, "Creator": None},
    }
    for form in formats:
        if form not in metadata:
            raise InputError(f"unknown picture format {form!r}; choose from {', '.join(metadata)}")
    paths = []
    with paper_style():
        for form in formats:
            content = BytesIO()
            figure.savefig(content, format=form, dpi=DPI, metadata=metadata[form])
            path = stem.with_name(f"{stem.name}.{form}")
            write_bytes(path, _renumbered(content.getvalue()) if form == "svg" else content.getvalue())
            paths.append(path)
    return paths


def _renumbered(svg: bytes) -> bytes:
    """Number the clip paths as they come: some versions of matplotlib name them after addresses in memory."""
    for k, name in enumerate(dict.fromkeys(re.findall(rb"#(p[0-9a-f]{10})\b", svg))):
        for mark in (b"#%s", b'"%s"'):
            svg = svg.replace(mark % name, mark % (b"clip%d" % k))
    return svg
