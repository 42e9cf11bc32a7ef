"""What was found, written down: tables as JSON and CSV with their recipes, a report in Markdown, a page in HTML."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from landscape_lab.figures import Table, write_page
from landscape_lab.files import write_json, write_text
from landscape_lab.paper.experiments import recipe_name
from landscape_lab.paper.tables import PaperTable
from landscape_lab.paper_figures import Picture
from landscape_lab.recipe import Recipe, write_recipe
from landscape_lab.run import Run

__all__ = ["Report", "environment_of", "write_report", "write_tables"]


@dataclass(frozen=True)
class Report:
    """All that is written.

    Args:
        title: of report and page.
        paragraphs: what this is, what is missing, what failed.
        tables: as text.
        pictures: drawn ones.
        command: what makes all of this.
        environment: name → value.
    """

    title: str
    paragraphs: Sequence[str]
    tables: Sequence[Table]
    pictures: Sequence[Picture]
    command: str
    environment: Mapping[str, object]


def write_tables(tables: Sequence[PaperTable], recipes: Iterable[Recipe], folder: Path) -> None:
    """Write ``table-4.json``, ``table-4.csv`` … and ``recipes/NAME.toml``, each recipe with its first seed.

    Raises:
        OSError: the folder cannot be written.
    """
    for table in tables:
        write_json(folder / f"table-{table.number}.json", table.stored())
        write_text(folder / f"table-{table.number}.csv", table.csv())
    written = set()
    for recipe in recipes:
        name = recipe_name(recipe)
        if name not in written:
            written.add(name)
            # Where the data lay on one machine is nobody else's business.
            bare = msgspec.structs.replace(recipe, data=msgspec.structs.replace(recipe.data, root=None))
            write_recipe(folder / "recipes" / f"{name}.toml", bare)


def write_report(report: Report, results: Path, out: Path) -> Path:
    """Write ``results/report.md`` and ``out/index.html``; returns the page.

    Raises:
        OSError: a folder cannot be written.
    """
    write_text(results / "report.md", _markdown(report, results))
    page = out / "index.html"
    write_page(
        page,
        title=report.title,
        introduction="\n\n".join(report.paragraphs),
        figures=[(f"Figure {p.number}: {p.title}", p.files[0], p.caption) for p in report.pictures],
        tables=report.tables,
        commands=[report.command],
        environment=report.environment,
    )
    return page


def environment_of(runs: Iterable[Run]) -> dict[str, object]:
    """Versions, devices and code of runs; what differs between them is listed."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        info = run.info
        pairs = {
            **info["versions"],
            "device": info["device"],
            "commit": info.get("commit") or "unknown",
            "data fingerprint": info["data"]["fingerprint"],
        }
        for name, value in pairs.items():
            found.setdefault(name, {})[str(value)] = None
    return {name: ", ".join(values) for name, values in found.items()}


def _markdown(report: Report, folder: Path) -> str:
    parts = [f"# {report.title}", *report.paragraphs]
    for table in report.tables:
        parts += [f"## {table.title}", _table(table), table.note]
    for picture in report.pictures:
        link = Path(os.path.relpath(picture.files[0], folder)).as_posix()
        parts += [
            f"## Figure {picture.number}: {picture.title}",
            f"![Figure {picture.number}]({link})",
            picture.caption,
        ]
    parts += ["## How it was made", f"```sh\n{report.command}\n```"]
    parts.append("\n".join(f"- {name}: {value}" for name, value in report.environment.items()))
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(table: Table) -> str:
    lines = [table.header, tuple("---:" if number else "---" for number in table.numeric), *table.rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
