"""What several commands share: options, help with an example, how a run is opened, how values are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from landscape_lab import console
from landscape_lab.errors import InputError

if TYPE_CHECKING:
    from landscape_lab.run import Run
    from landscape_lab.studies import Study

__all__ = [
    "Command",
    "class_label",
    "classes_option",
    "data_root_option",
    "device_option",
    "epoch_option",
    "json_option",
    "labelled",
    "numbers_of",
    "open_study",
    "percent",
    "samples_option",
    "show",
    "split_option",
    "target_option",
]

_F = TypeVar("_F", bound=Callable[..., Any])
TARGET = "landscape_lab.target"


class Command(click.Command):
    """A command whose help ends with an example that keeps its line breaks."""

    def __init__(self, *args: Any, example: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example."""
        if self.example:
            with formatter.section("Example"):
                for line in self.example.strip().splitlines():
                    formatter.write_text(line)


def device_option(command: _F) -> _F:
    """Add ``--device``."""
    option = click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
    return option(command)


def data_root_option(command: _F) -> _F:
    """Add ``--data-root``."""
    option = click.option("--data-root", metavar="DIR", help="Folder that holds the data's files.")
    return option(command)


def target_option(command: _F) -> _F:
    """Add ``--target``, which :func:`open_study` reads."""
    option = click.option(
        "--target",
        metavar="MODULE:FUNCTION",
        expose_value=False,
        callback=lambda context, option, value: context.meta.__setitem__(TARGET, value),
        help="Model, loss and samples of runs that were recorded or imported; with a new folder as RUN, of a model "
        "as it is.",
    )
    return option(command)


def json_option(command: _F) -> _F:
    """Add ``--json``."""
    option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
    return option(command)


def epoch_option(command: _F) -> _F:
    """Add ``--epoch``."""
    option = click.option("--epoch", type=int, metavar="N", help="Checkpoint to look at.  [default: the last]")
    return option(command)


def split_option(command: _F) -> _F:
    """Add ``--split``."""
    option = click.option(
        "--split",
        type=click.Choice(["train", "test"]),
        default="train",
        show_default=True,
        help="Whose samples are used.",
    )
    return option(command)


def samples_option(command: _F) -> _F:
    """Add ``--samples``."""
    option = click.option(
        "--samples",
        type=click.IntRange(1),
        metavar="N",
        help="At most so many samples of each subset, drawn at random.  [default: all]",
    )
    return option(command)


def classes_option(default: tuple[str, ...]) -> Callable[[_F], _F]:
    """Add ``--classes``, which may be repeated."""
    return click.option(
        "--classes",
        "subsets",
        multiple=True,
        default=default,
        show_default=True,
        metavar="SUBSET",
        help="head, tail, all, many, med, few, or numbers such as 0,3,7; may be repeated.",
    )


def open_study(path: str, device: str, data_root: str | None, target: str | None = None) -> Study:
    """Open a run for analysis, with the model and samples of ``target`` or ``--target`` where it has no recipe."""
    from landscape_lab.devices import resolve_device
    from landscape_lab.importing import run_of
    from landscape_lab.run import Run
    from landscape_lab.studies import Study
    from landscape_lab.target import load_target

    context = click.get_current_context(silent=True)
    spec = target or (context.meta.get(TARGET) if context else None)
    if spec is None:
        return Study(Run.open(path), resolve_device(device), data_root)
    # Loaded once a command: several runs share the target's samples.
    loaded: dict[str, Any] = context.meta if context else {}
    key = f"{TARGET} {spec}"
    if key not in loaded:
        loaded[key] = load_target(spec)
    found = loaded[key]
    return Study(run_of(found, Path(path), spec), resolve_device(device), target=found)


def labelled(runs: Sequence[Run]) -> dict[str, Run]:
    """Runs by their folder's name; those of one name by their whole path.

    Raises:
        InputError: one is there twice.
    """
    names = [run.path.resolve().name for run in runs]
    labels = [name if names.count(name) == 1 else str(run.path) for name, run in zip(names, runs, strict=True)]
    if len(set(labels)) < len(labels):
        raise InputError(f"{next(label for label in labels if labels.count(label) > 1)} is named twice")
    return dict(zip(labels, runs, strict=True))


def show(
    as_json: bool,
    content: Any,
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str = "",
    pictures: Sequence[Path] = (),
) -> None:
    """Print a result: ``content`` as JSON if asked for, else a table, and where its pictures lie.

    Args:
        as_json: which of the two.
        content: for machines, complete.
        title: of the table.
        header: of its columns.
        rows: of text.
        caption: below it.
        pictures: as ``figures.save`` returns them; the first is named.
    """
    if as_json:
        console.result(content)
    else:
        console.table(title, header, rows, caption)
    if pictures:
        console.note(f"picture: {pictures[0]}")


def numbers_of(option: str, text: str, example: str = "0,30,60") -> list[int]:
    """The numbers in ``1,2,3``.

    Raises:
        InputError: there is something else.
    """
    try:
        return list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise InputError(f"{option} needs numbers such as {example}, got {text!r}") from None


def percent(value: float | None) -> str:
    """A fraction in per cent; a dash where there is none."""
    return "–" if value is None else f"{100 * value:.1f}"


def class_label(number: int, name: str) -> str:
    """A class's number and name, once where they are the same."""
    return name if name == str(number) else f"{number} {name}"
