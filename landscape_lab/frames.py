"""Results as pandas frames and CSV files: ``to_frame(result)``, ``to_csv(result, path)``.

pandas is an extra, ``pip install 'landscape-lab[frames]'``; CSV files do without.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape_lab.files import write_text
from landscape_lab.run import Run
from landscape_lab.tabular import Columns, columns_of, facts_of, rows_of

if TYPE_CHECKING:
    import pandas

__all__ = ["metric_rows", "to_csv", "to_frame"]


def to_frame(result: Any) -> pandas.DataFrame:
    """A result as a frame with a row for each number that it holds: a grid point of a subset, a class, an epoch.

    Args:
        result: what any analysis returned; a run, whose recorded metrics are taken; or several results in a mapping
            or a sequence, for one frame with a column ``name``.

    Returns:
        The frame. What is said once of the whole result (``batch_norm``, ``seed`` …) is in its ``attrs``.

    Raises:
        InputError: it is no result.
        ModuleNotFoundError: pandas is not installed.

    Example:
        >>> from landscape_lab.analysis import Estimate
        >>> to_frame({"head": Estimate(2.0, 0.5, 1.0, 3.0), "tail": Estimate(9.0, 1.0, 7.0, 11.0)}).shape
        (2, 5)
    """
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"to_frame needs {error.name}: pip install 'landscape-lab[frames]'; to_csv does without", name=error.name
        ) from error
    columns = columns_of(result)
    frame = pandas.DataFrame(columns)
    facts = facts_of(result)
    frame.attrs = {"kind": type(result).__name__, **{name: facts[name] for name in facts if name not in columns}}
    return frame


def to_csv(result: Any, path: str | os.PathLike[str]) -> Path:
    """Write the same table as a CSV file with a line of names, UTF-8; empty where there is no number.

    Args:
        result: as for :func:`to_frame`.
        path: of the file; replaced in one step.

    Returns:
        The file.

    Raises:
        InputError: it is no result.
        OSError: the file cannot be written.
    """
    columns = columns_of(result)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_csv(value) for value in row] for row in rows_of(columns))
    write_text(Path(path), text.getvalue())
    return Path(path)


def _csv(value: Any) -> Any:
    return "" if isinstance(value, float) and math.isnan(value) else value


def metric_rows(run: Run) -> list[tuple[int, str, int | None, float | None]]:
    """Every recorded number: epoch, name (``test/accuracy/tail``), place in a list or ``None``, value."""
    return [(line.get("epoch", 0), *leaf) for line in run.metrics() for leaf in _leaves(line)]


@columns_of.register
def _(run: Run) -> Columns:
    """Every recorded number of every epoch; in a list, ``position`` is its place: its class, where each has one."""
    rows = metric_rows(run)
    names = ("epoch", "metric", "position", "value")
    return {name: [row[k] for row in rows] for k, name in enumerate(names)}


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, int | None, float | None]]:
    """The numbers in nested metrics: ``(test/accuracy/tail, None, 0.4)``, ``(test/class_accuracy, 3, 0.2)``."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            if path or name != "epoch":
                yield from _leaves(item, f"{path}/{name}" if path else str(name))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            if item is None or isinstance(item, int | float):
                yield path, place, item
            else:
                yield from _leaves(item, f"{path}/{place}")
    elif value is None or isinstance(value, int | float):
        yield path, None, value
