"""One HTML file with all results of some runs: it needs nothing else, works offline, and stays below 10 MB."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from landscape_lab.errors import InputError
from landscape_lab.files import write_text
from landscape_lab.report.curvature import curvature
from landscape_lab.report.groups import groups
from landscape_lab.report.noise import noise
from landscape_lab.report.overview import overview
from landscape_lab.report.parts import Section, script_json
from landscape_lab.report.quality import quality
from landscape_lab.report.recipe import recipe
from landscape_lab.report.results import Results, read_results
from landscape_lab.report.similarity import similarity
from landscape_lab.report.surfaces import surfaces, thinned
from landscape_lab.report.tables import tables
from landscape_lab.report.trajectories import trajectories
from landscape_lab.run import Run
from landscape_lab.version import __version__

__all__ = ["LARGEST", "SECTIONS", "page_of", "write_report"]

ASSETS = Path(__file__).with_name("assets")
LARGEST = 10_000_000  # bytes of the whole page; half of it is plotly.js
SCRIPTS = ("report.js", "surfaces.js", "start.js")

SECTIONS: tuple[Callable[[Sequence[Results]], Section], ...] = (
    overview,
    surfaces,
    trajectories,
    curvature,
    quality,
    similarity,
    noise,
    groups,
    tables,
    recipe,
)
"""What makes the tabs, from left to right."""


def write_report(runs: Mapping[str, Run], path: Path, *, title: str = "") -> int:
    """Write the report of some runs, from what is stored in them; the model and the data are not needed.

    Equal runs give equal bytes: the page holds no time and no path but the runs' names.

    Args:
        runs: what each is called → the run.
        path: the HTML file; replaced in one step.
        title: of the page; by default the data's name and the number of runs.

    Returns:
        The file's size in bytes.

    Raises:
        InputError: there is no run, one has no recorded epoch, or the page would be larger than 10 MB.
    """
    found = read_results(runs)
    sections = [make(found) for make in SECTIONS]
    text = page_of(found, sections, title)
    while len(text.encode()) >= LARGEST:
        # Surfaces are what is large; every second epoch of them is left out until it fits, and the page says so.
        smaller = [thinned(section) for section in sections]
        if smaller == sections:
            raise InputError(
                f"the report would take {len(text.encode()) / 1e6:.1f} MB, and 10 MB is the limit: name fewer runs"
            )
        sections = smaller
        text = page_of(found, sections, title)
    write_text(path, text)
    return len(text.encode())


def page_of(found: Sequence[Results], sections: Sequence[Section], title: str = "") -> str:
    """The page as text."""
    names = list(dict.fromkeys(str(one.run.info.get("data", {}).get("name", one.label)) for one in found))
    count = f"{len(found)} run{'s' if len(found) > 1 else ''}"
    charts: list[Mapping[str, Any]] = []
    views = [_view(section, charts) for section in sections]
    held = [section.surfaces for section in sections if section.surfaces]
    data = {"charts": charts, "surfaces": held[0] if held else None}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.globals["facets"] = _facets
    return environment.get_template("page.html.jinja").render(
        title=title or f"Landscape report: {', '.join(names)}",
        subtitle=f"{count}: {', '.join(one.label for one in found)}",
        sections=views,
        css=Markup(_asset("report.css")),
        plotly=Markup(get_plotlyjs().replace("</script", "<\\/script")),
        data=Markup(script_json(data)),
        script=Markup("\n".join(_asset(name) for name in SCRIPTS)),
        footer=f"Written by landscape-lab {__version__} from the results stored in the runs. "
        "This file holds all that it shows; it loads nothing.",
    ) + "\n"  # fmt: skip


def _view(section: Section, charts: list[Mapping[str, Any]]) -> dict[str, Any]:
    """A section as the template takes it; its charts' content goes to ``charts``."""
    drawn = []
    for chart in section.charts:
        drawn.append(
            {
                "number": len(charts),
                "title": chart.title,
                "caption": chart.caption,
                "facets": chart.facets,
                "height": chart.height,
                "wide": chart.wide,
            }
        )
        charts.append({"traces": chart.traces, "layout": chart.layout})
    controls = [
        {
            "key": control.key,
            "label": control.label,
            "options": control.options,
            "short": sum(map(len, control.options.values())) <= 44,
        }
        for control in section.controls
        if len(control.options) > 1
    ]
    shown = bool(section.charts or section.tables or section.surfaces or section.texts or section.findings)
    return {
        "key": section.key,
        "title": section.title,
        "lead": [part for part in re.split(r"\n\s*\n", section.lead) if part.strip()],
        "controls": controls,
        "charts": drawn,
        "tables": section.tables,
        "findings": section.findings,
        "summary": section.summary,
        "missing": section.missing,
        "surfaces": section.surfaces is not None,
        "texts": section.texts,
        "shown": shown,
    }


def _facets(facets: Mapping[str, str]) -> Markup:
    return Markup(f' data-facets="{escape(json.dumps(dict(facets)))}"') if facets else Markup("")


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")
