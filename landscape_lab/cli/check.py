"""``check``: is a run sharper than its baseline, by more than is tolerated and more than chance explains?"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    target_option,
)
from landscape_lab.errors import InputError

if TYPE_CHECKING:
    from landscape_lab.guard.measured import Measurement

__all__ = ["EXIT_CODES", "check"]

EXIT_CODES = {"pass": 0, "fail": 1, "inconclusive": 3}
USUAL = ("head", "tail", "all")


@cli.command(
    cls=Command,
    example="landscape-lab check runs/main --baseline sharpness.json --update\n"
    "landscape-lab check runs/pull-request --baseline sharpness.json --tolerance 30%",
)
@click.argument("run", metavar="RUN")
@click.option(
    "--baseline", required=True, type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="The baseline."
)
@click.option("--update", is_flag=True, help="Write this run's numbers as the baseline; nothing is compared.")
@click.option(
    "--tolerance",
    "tolerances",
    multiple=True,
    metavar="T",
    help="How much worse a number may be: 25% (all that are compared by their ratio), trace=40%, quality=0.5; may be "
    "repeated.  [default: 25%, quality=0.25, similarity=0.1]",
)
@click.option(
    "--classes",
    "subsets",
    multiple=True,
    metavar="SUBSET",
    help="head, tail, all, many, med, few, each, or numbers such as 0,3,7; may be repeated.  "
    "[default: head, tail, all; or the baseline's]",
)
@click.option("--spend", type=click.IntRange(1), default=1, show_default=True, metavar="N",
              help="Where the answer is inconclusive, spend up to N times the baseline's probes.")  # fmt: skip
@click.option(
    "--metrics",
    metavar="A,B",
    help="With --update: lambda_max, trace, average, epsilon, quality, similarity.  [default: all]",
)
@click.option("--samples", type=click.IntRange(2), metavar="N", help="With --update: of each class.  [default: 64]")
@click.option("--probes", type=click.IntRange(2), metavar="N", help="With --update: for the trace.  [default: 24]")
@click.option("--split", type=click.Choice(["train", "test"]), help="With --update: whose samples.  [default: train]")
@click.option("--seed", type=int, metavar="N", help="With --update: of all that is random.  [default: 0]")
@epoch_option
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write JUnit XML.")
@click.option(
    "--markdown", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Append a table for a pull request, as to $GITHUB_STEP_SUMMARY.",
)  # fmt: skip
@click.option("--annotations", is_flag=True, help="Print what failed as annotations of GitHub Actions.")
@data_root_option
@target_option
@device_option
@json_option
def check(
    run: str,
    baseline: Path,
    update: bool,
    tolerances: tuple[str, ...],
    subsets: tuple[str, ...],
    spend: int,
    metrics: str | None,
    samples: int | None,
    probes: int | None,
    split: str | None,
    seed: int | None,
    epoch: int | None,
    junit: Path | None,
    markdown: Path | None,
    annotations: bool,
    data_root: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Compare a run's sharpness with a baseline: exit code 0 passes, 1 fails, 3 is inconclusive.

    A number fails when it is worse by more than the tolerance and by more than its statistical error, at 5 % over all
    numbers together. The samples, probes and settings are the baseline's; a baseline of other data, of another network
    or of another format is refused (exit code 2).
    """
    from landscape_lab.guard.baseline import read_baseline, write_baseline
    from landscape_lab.guard.formats import (
        HEADER,
        content_of,
        github_annotations,
        headline,
        rows_of,
    )
    from landscape_lab.guard.formats import junit as as_junit
    from landscape_lab.guard.formats import markdown as as_markdown
    from landscape_lab.guard.guarding import against_baseline
    from landscape_lab.guard.runs import measure_run
    from landscape_lab.guard.settings import GuardSettings, tolerances_of

    given = {"samples": samples, "probes": probes, "split": split, "seed": seed}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if metrics is not None:
        chosen["metrics"] = tuple(part.strip() for part in metrics.split(","))
    limits = tolerances_of(tolerances)
    if not update:
        read_baseline(baseline)  # refused before any data are read
    study = open_study(run, device, data_root)

    def measured(settings: GuardSettings, names: Any, wanted: Any, factor: int) -> Measurement:
        found = study.subset_classes(list(subsets or USUAL)) if names is None else names
        count = len(settings.metrics) if wanted is None else len({metric for metric, _ in wanted})
        with console.progress_bar("metrics", count, estimate=False) as advance:
            started = False

            def next_metric(_: str) -> None:
                nonlocal started
                if started:
                    advance(1)
                started = True

            return measure_run(
                study, found, settings, epoch, wanted=wanted, spend=factor, progress=next_metric
            )  # fmt: skip

    if update:
        if tolerances or spend > 1 or junit or markdown or annotations:
            raise InputError(
                "--update writes a baseline and compares nothing: leave --tolerance, --spend, --junit, --markdown and "
                "--annotations to the next check"
            )
        measurement = measured(GuardSettings(**chosen), None, None, 1)
        write_baseline(baseline, measurement)
        _show_baseline(as_json, baseline, measurement)
        return
    started = time.monotonic()
    if subsets:
        subsets = tuple(study.subset_classes(list(subsets)))
    comparison, before, now = against_baseline(
        baseline, measured, limits, subsets=subsets or None, chosen=chosen, spend=spend
    )
    if junit:
        from landscape_lab.files import write_text

        write_text(junit, as_junit({baseline.stem: comparison}, time.monotonic() - started))
    if markdown:
        markdown.parent.mkdir(parents=True, exist_ok=True)
        with open(markdown, "a", encoding="utf-8") as file:  # others write their summaries to the same file
            file.write(as_markdown(comparison, f"Sharpness of {now.origin['run']}") + "\n")
    if as_json:
        console.result(content_of(comparison, before, now))
    else:
        title = f"sharpness of {run}, epoch {now.origin['epoch']}, against {baseline}"
        console.table(title, HEADER, rows_of(comparison), caption="\n".join((headline(comparison), *comparison.notes)))
    if annotations:
        # Runners read the commands from both streams; standard output belongs to the JSON.
        click.echo(github_annotations(comparison, str(baseline)), nl=False, err=as_json)
    sys.exit(EXIT_CODES[comparison.outcome])


def _show_baseline(as_json: bool, path: Path, measurement: Measurement) -> None:
    from landscape_lab.guard.settings import METRICS
    from landscape_lab.numbers import with_error

    rows, numbers = [], []
    for one in measurement.metrics:
        error = measurement.spread(one).variance ** 0.5
        rows.append([METRICS[one.metric].words, one.subset, with_error(one.value, error)])
        numbers.append({"metric": one.metric, "subset": one.subset, "value": one.value, "stderr": error})
    if as_json:
        console.result({"baseline": str(path), "measured_on": dict(measurement.origin), "metrics": numbers})
    else:
        caption = "± the standard error: of the probes, and of the draw where not all samples of a class were taken"
        console.table(f"baseline {path}", ["metric", "classes", "value"], rows, caption=caption)
