"""``report``: everything that is known about runs, in one file; and the same as pictures for papers."""

from __future__ import annotations

from pathlib import Path

import click

from landscape_lab import console
from landscape_lab.cli.group import cli
from landscape_lab.cli.options import (
    Command,
    data_root_option,
    device_option,
    json_option,
    labelled,
    open_study,
    samples_option,
    target_option,
)
from landscape_lab.errors import InputError

__all__ = ["report"]


@cli.command(
    cls=Command,
    example="landscape-lab report runs/digits-lt-erm-seed0 runs/digits-lt-gkp-gsa-seed0 -o report.html",
)
@click.argument("runs", nargs=-1, required=True, metavar="RUN…")
@click.option("-o", "--out", default="report.html", show_default=True, metavar="FILE", help="Where the page goes.")
@click.option("--stored", is_flag=True, help="Compute nothing: show what earlier commands stored. Needs no data.")
@click.option("--tail-only", metavar="RUN", help="Trained on the tail alone: distances to its solution are measured.")
@click.option("--title", default="", metavar="TEXT", help="Of the page.  [default: the data's name]")
@click.option("--pictures", metavar="DIR", help="Also write PNG, PDF and SVG pictures of the same results there.")
@click.option("--style", metavar="FILE", help="A .mplstyle file for the pictures, put over ours.")
@samples_option
@data_root_option
@target_option
@device_option
@json_option
def report(
    runs: tuple[str, ...],
    out: str,
    stored: bool,
    tail_only: str | None,
    title: str,
    pictures: str | None,
    style: str | None,
    samples: int | None,
    data_root: str | None,
    device: str,
    as_json: bool,
) -> None:
    """One HTML file that explains runs: surfaces to turn, paths, spectra, quality, tables.

    What is missing is computed first and stored in the runs. The file works offline, below 10 MB.
    """
    from landscape_lab.report import draw_pictures, write_report
    from landscape_lab.run import Run

    if style and not pictures:
        raise InputError("--style is for pictures: say where they go with --pictures DIR")
    opened = labelled([Run.open(path) for path in runs])
    failed: list[str] = []
    if not stored:
        from landscape_lab.report.fill import fill

        studies = {label: open_study(str(run.path), device, data_root) for label, run in opened.items()}
        reference = open_study(tail_only, device, data_root) if tail_only else None
        failed = fill(studies, tail_only=reference, samples=samples)
        for line in failed:
            console.note(f"left out: {line}")
    path = Path(out)
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file with --out, such as {path / 'report.html'}")
    size = write_report(opened, path, title=title)
    drawn = draw_pictures(opened, Path(pictures), style=Path(style) if style else None) if pictures else []
    if as_json:
        console.result(
            {"page": str(path), "bytes": size, "pictures": [str(file) for file in drawn], "left_out": failed}
        )
        return
    console.note(f"{path}: {size / 1e6:.1f} MB; open it in any browser")
    if drawn:
        console.note(f"{len(drawn)} pictures in {pictures}")
