"""``export``: what is stored in runs, for TensorBoard and as CSV files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from landscape_lab import console
from landscape_lab.cli.group import cli
from landscape_lab.cli.options import Command, json_option, labelled
from landscape_lab.errors import InputError

__all__ = ["export"]


@cli.command(
    cls=Command,
    example="landscape-lab export runs/digits-lt-erm-seed0 --tensorboard logs\n"
    "landscape-lab export runs/digits-lt-erm-seed0 runs/digits-lt-gkp-gsa-seed0 --csv tables",
)
@click.argument("runs", nargs=-1, required=True, metavar="RUN…")
@click.option("--tensorboard", metavar="DIR", help="Write event files: metrics, spectra, pictures of results.")
@click.option("--csv", metavar="DIR", help="Write a CSV file for the metrics, and one for each stored result.")
@click.option("--no-pictures", is_flag=True, help="Leave pictures out of the event files.")
@json_option
def export(runs: tuple[str, ...], tensorboard: str | None, csv: str | None, no_pictures: bool, as_json: bool) -> None:
    """Runs for the tools where people already look.

    Each run gets a folder of its name in DIR. Nothing is computed: what earlier commands stored is written.
    """
    from landscape_lab.export import export_csv
    from landscape_lab.run import Run

    if tensorboard is None and csv is None:
        raise InputError("nothing to export: say where to with --tensorboard DIR or --csv DIR")
    if no_pictures and tensorboard is None:
        raise InputError("--no-pictures is for --tensorboard DIR")
    write_events = _events() if tensorboard is not None else None
    opened = labelled([Run.open(path) for path in runs])
    content: dict[str, Any] = {}
    for label, run in opened.items():
        folder = label.replace("/", "-").strip(".-") or "run"
        written = content[label] = {}
        if csv is not None:
            files, unreadable = export_csv(run, Path(csv) / folder)
            written["csv"] = [str(path) for path in files]
            for name in unreadable:
                console.note(f"left out: {run.path}/results/{name}.json cannot be read by this version")
        if write_events is not None and tensorboard is not None:
            written["tensorboard"] = str(write_events(run, Path(tensorboard) / folder, pictures=not no_pictures))
    if as_json:
        console.result(content)
        return
    for label, written in content.items():
        if "csv" in written:
            console.note(f"{label}: {len(written['csv'])} CSV files in {Path(written['csv'][0]).parent}")
        if "tensorboard" in written:
            console.note(f"{label}: {written['tensorboard']}; look with: tensorboard --logdir {tensorboard}")


def _events() -> Any:
    try:
        from landscape_lab.integrations.tensorboard import export_tensorboard
    except ModuleNotFoundError as error:
        raise InputError(str(error)) from None
    return export_tensorboard
