"""``groups``: what a run's groups of classes have to do with its data."""

from __future__ import annotations

import itertools
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
from landscape_lab.numbers import number

if TYPE_CHECKING:
    from landscape_lab.studies.groups import GroupingExamination

__all__ = ["groups"]


@cli.command(cls=Command, example="landscape-lab groups runs/digits-lt-gkp-gsa-seed0 runs/digits-lt-gkp-gsa-seed1")
@click.argument("runs", nargs=-1, required=True, metavar="RUN…")
@epoch_option
@click.option(
    "--per-class",
    type=click.IntRange(2),
    default=200,
    show_default=True,
    metavar="N",
    help="At most so many samples of each class are compared.",
)
@data_root_option
@target_option
@device_option
@json_option
def groups(
    runs: tuple[str, ...], epoch: int | None, per_class: int, data_root: str | None, device: str, as_json: bool
) -> None:
    """Do the classes that were grouped belong together?

    Whether groups last over epochs and seeds; whether they agree with class sizes, superclasses or the epoch at which
    a class was best; and whether their classes are confused, lie next to each other or share gradients more often than
    classes of random groups of the same sizes.
    """
    from landscape_lab.figures import GroupsPanel, save
    from landscape_lab.figures import groups as draw
    from landscape_lab.studies.groups import examine_groups, relations_cost

    found, pictures = {}, []
    studies = [open_study(run, device, data_root) for run in dict.fromkeys(runs)]
    with console.progress_bar("samples", sum(relations_cost(study, per_class) for study in studies)) as advance:
        for study in studies:
            others = [other.run for other in studies if other is not study]
            one = examine_groups(study, others, epoch, per_class=per_class, progress=advance)
            names = tuple(study.class_names)
            panel = GroupsPanel(one.run, one.grouped_at, one.labels.numpy(), names, one.tests(), one.adjusted)
            pictures += save(draw(panel), study.run.path / "figures" / "groups")[:1]
            found[str(study.run.path)] = one
    if as_json:
        console.result({path: _content(one, path, pictures) for path, one in found.items()})
        return
    for path, one in found.items():
        _print(path, one)
    console.note("pictures: " + ", ".join(map(str, pictures)))


def _content(one: GroupingExamination, path: str, pictures: list[Path]) -> dict[str, Any]:
    from dataclasses import asdict

    content = {key: value for key, value in asdict(one).items() if key != "labels"}
    picture = next(str(file) for file in pictures if file.is_relative_to(path))
    return {**content, "labels": one.labels.tolist(), "groups": [list(part) for part in one.groups], "picture": picture}


def _print(path: str, one: GroupingExamination) -> None:
    rows = []
    for question, test in one.tests().items():
        p = one.adjusted[question]
        band = f"{number(test.low, 2)} to {number(test.high, 2)}"
        verdict = "yes" if p <= 0.05 else "cannot tell"
        rows.append([question, number(test.value), band, number(test.p_value, 2), number(p, 2), verdict])
    kind = "all there are" if all(test.exact for test in one.tests().values()) else "at random"
    console.table(
        f"{path}: {len(one.groups)} groups ({one.source}) made after epoch {one.grouped_at[-1]}, against groups of the "
        f"same sizes, {kind}",
        ["do the groups agree, more than chance?", "value", "95 % of random groups", "p", "p (Holm)", "verdict"],
        rows,
    )
    listed = "; ".join(", ".join(map(str, part)) if len(part) <= 12 else f"{len(part)} classes" for part in one.groups)
    console.note(f"groups: {listed}")
    if one.successive:
        steps = [
            f"{a}→{b}: {number(found.rand, 2)} ({number(found.test.p_value, 1)})"
            for (a, b), found in zip(itertools.pairwise(one.grouped_at), one.successive, strict=True)
        ]
        console.note(f"from one grouping to the next, adjusted Rand index (p): {', '.join(steps)}")
    for name, reason in one.missing.items():
        console.note(f"not asked, {name}: {reason}")
