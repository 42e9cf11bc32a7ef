"""A page that tells a whole study: pictures, tables, commands and environment in one HTML file."""

from __future__ import annotations

import base64
import os
import re
import struct
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from landscape_lab.errors import InputError
from landscape_lab.figures.style import DPI
from landscape_lab.files import write_text

__all__ = ["Table", "write_page"]

TEMPLATE = Path(__file__).with_name("page.html.jinja")
FILES = ("png", "pdf", "svg")
# A number with an optional sign, error, percent sign or unit mark; a lone dash stands for a missing one.
NUMERIC = re.compile(r"[+\-−±]?\d[\d.,]*(e[+\-−]?\d+)?\s*%?(\s*±\s*\d[\d.,]*(e[+\-−]?\d+)?\s*%?)?|[–—-]|nan|")


@dataclass(frozen=True)
class Table:
    """A table of text.

    Args:
        title: above it.
        header: the columns' names.
        rows: each as long as the header; the first cell names the row.
        note: below it.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Which columns hold numbers only, and are set flush right."""
        columns = [[row[k] for row in self.rows] for k in range(len(self.header))]
        return tuple(any(column) and all(NUMERIC.fullmatch(cell.strip()) for cell in column) for column in columns)


def write_page(
    path: Path,
    *,
    title: str,
    introduction: str,
    figures: Sequence[tuple[str, Path, str]] = (),
    tables: Sequence[Table] = (),
    commands: Sequence[str] = (),
    environment: Mapping[str, object] | None = None,
) -> None:
    """Write one HTML file that needs nothing else: pictures are inside, no script, no resource from elsewhere.

    Equal input gives equal bytes. All text is escaped.

    Args:
        path: the file to write.
        title: of the page.
        introduction: text; an empty line begins a new paragraph.
        figures: (title, picture file, caption) each. The PNG of that name is put into the page; it and the PDF and
            SVG of the same name, where they exist, are linked.
        tables: tables of text.
        commands: what was run, a line each.
        environment: name → value: versions, device, seeds.

    Raises:
        InputError: a picture is missing or is not a PNG.
        ValueError: a table's row is not as long as its header.
    """
    for table in tables:
        for row in table.rows:
            if len(row) != len(table.header):
                raise ValueError(f"table {table.title!r}: a row must have {len(table.header)} cells, got {len(row)}")
    template = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent), autoescape=True, undefined=jinja2.StrictUndefined
    ).get_template(TEMPLATE.name)
    text = template.render(
        title=title,
        introduction=_paragraphs(introduction),
        figures=[_picture(path.parent, *figure) for figure in figures],
        tables=tables,
        commands=list(commands),
        environment=dict(environment or {}),
    )
    write_text(path, text + "\n")


def _paragraphs(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]


def _picture(folder: Path, title: str, picture: Path, caption: str) -> dict[str, Any]:
    png = picture.with_suffix(".png")
    try:
        content = png.read_bytes()
    except FileNotFoundError:
        raise InputError(f"the picture {png} does not exist; draw it first") from None
    if content[:8] != b"\x89PNG\r\n\x1a\n" or len(content) < 24:
        raise InputError(f"{png} is not a PNG picture; draw it again")
    width, height = struct.unpack(">II", content[16:24])
    siblings = [png.with_suffix(f".{form}") for form in FILES]
    return {
        "title": title,
        "alt": f"{title}. {' '.join(_paragraphs(caption))}".strip(),
        "caption": _paragraphs(caption),
        "data": base64.b64encode(content).decode(),
        # A third larger than on paper, which has 96 CSS pixels an inch: screens are read from further away.
        "width": round(width * 128 / DPI),
        "height": round(height * 128 / DPI),
        "files": [(file.suffix[1:].upper(), _link(file, folder)) for file in siblings if file.exists()],
    }


def _link(file: Path, folder: Path) -> str:
    """A link from the page's folder that also works when both are moved together."""
    return urllib.parse.quote(Path(os.path.relpath(file, folder)).as_posix())
