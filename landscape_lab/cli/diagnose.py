"""``diagnose``: what the measures say about a run, in sentences."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from landscape_lab import console
from landscape_lab.cli.group import cli
from landscape_lab.cli.options import (
    Command,
    data_root_option,
    device_option,
    epoch_option,
    json_option,
    open_study,
    samples_option,
    target_option,
)

if TYPE_CHECKING:
    from landscape_lab.diagnosis import Diagnosis

__all__ = ["diagnose"]


@cli.command(
    cls=Command,
    example="landscape-lab diagnose runs/digits-lt-erm-seed0 --tail-only runs/digits-lt-erm-tail-only-seed0",
)
@click.argument("run")
@click.option("--tail-only", metavar="RUN", help="The run of the same network that was trained on the tail alone.")
@epoch_option
@samples_option
@data_root_option
@target_option
@device_option
@json_option
def diagnose(
    run: str,
    tail_only: str | None,
    epoch: int | None,
    samples: int | None,
    data_root: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Why does this run forget its tail, if it does?

    Which classes degrade and from when, whether the tail's loss is sharper than the head's, whether the head's
    gradients dominate, how far the solution is from the tail's own. Each answer is yes, no, or that the data cannot
    tell; numbers come with their uncertainty.
    """
    from landscape_lab.diagnosis import diagnose as make
    from landscape_lab.diagnosis import diagnosis_cost

    study = open_study(run, device, data_root)
    reference = open_study(tail_only, device, data_root) if tail_only else None
    with console.progress_bar("measures", diagnosis_cost(study, samples)) as advance:
        found = make(study, tail_only=reference, epoch=epoch, samples=samples, progress=advance)
    if as_json:
        console.result(asdict(found))
        return
    click.echo(_page(found))


def _page(found: Diagnosis) -> str:
    """The diagnosis as text of at most 100 columns."""
    wrap = click.formatting.wrap_text
    parts = [f"{found.run}, epoch {found.epoch}"]
    for one in found.findings:
        lines = [f"{one.question}  {one.verdict.upper()}", wrap(one.sentence, 100, "  ", "  ")]
        if one.caution:
            lines.append(wrap(f"But: {one.caution}", 100, "  ", "  "))
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
