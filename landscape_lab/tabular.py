"""A result as columns of equal length: what frames, CSV files and notebooks show. Needs neither pandas nor torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import singledispatch
from html import escape
from typing import Any

from landscape_lab.errors import InputError
from landscape_lab.numbers import number

__all__ = ["Columns", "Tabular", "columns_of", "facts_of", "labelled", "rows_of", "stacked", "summary_of"]

Columns = dict[str, list[Any]]
"""Column → values: numbers, texts, truth values, and ``None`` where there is nothing."""

MOST = 20  # rows in a notebook


class Tabular:
    """A result that a notebook shows as a table of its numbers."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return _html(self)


@singledispatch
def columns_of(result: Any) -> Columns:
    """A result's numbers, a row for each that there is: a grid point of a subset, a class, an epoch.

    Kinds that say nothing of their own are written as one row, nested results included (``trace_stderr``), tensors
    left out; or, where their content is one sequence of results, as the rows of that.

    Args:
        result: a result of any analysis; several in a sequence are put below each other, and several in a mapping
            likewise, with a first column ``name``.

    Raises:
        InputError: it is no result.
    """
    if not dataclasses.is_dataclass(result) or isinstance(result, type):
        raise InputError(f"no table can be made of a {type(result).__name__}; give a result, or several in a mapping")
    parts = [value for _, value in _fields(result) if _is_several(value)]
    if len(parts) == 1:
        return columns_of(parts[0])
    return {name: [value] for name, value in _scalars(result)}


@columns_of.register(list)
@columns_of.register(tuple)
def _of_several(results: Sequence[Any]) -> Columns:
    return stacked(columns_of(result) for result in results)


@columns_of.register(dict)
def _of_named(results: Mapping[str, Any]) -> Columns:
    return stacked(labelled(columns_of(result), name=name) for name, result in results.items())


@singledispatch
def summary_of(result: Any) -> Columns:
    """What a notebook shows first: :func:`columns_of`, but a few rows where that has thousands."""
    return columns_of(result)


def facts_of(result: Any) -> dict[str, Any]:
    """What is said once of the whole result: its fields that are a number, a text or a truth value.

    Example:
        >>> from landscape_lab.analysis import Estimate
        >>> facts_of(Estimate(2.0, 0.5, 1.0, 3.0))
        {'value': 2.0, 'stderr': 0.5, 'low': 1.0, 'high': 3.0}
    """
    if not dataclasses.is_dataclass(result) or isinstance(result, type):
        return {}
    return {name: value for name, value in _fields(result) if isinstance(value, bool | int | float | str)}


def labelled(columns: Columns, **labels: Any) -> Columns:
    """The same rows with columns before them that hold one value each.

    Raises:
        InputError: there is such a column.
    """
    for name in labels:
        if name in columns:
            raise InputError(f"there is a column {name!r} already: give results in a mapping of one level")
    rows = len(next(iter(columns.values()), []))
    return {**{name: [value] * rows for name, value in labels.items()}, **columns}


def stacked(parts: Iterable[Columns]) -> Columns:
    """Tables below each other; ``None`` where a table does not have a column.

    Example:
        >>> stacked([{"a": [1, 2]}, {"a": [3], "b": ["x"]}])
        {'a': [1, 2, 3], 'b': [None, None, 'x']}
    """
    tables = [part for part in parts if part]
    names = dict.fromkeys(name for table in tables for name in table)
    rows = [len(next(iter(table.values()))) for table in tables]
    return {
        name: [
            value
            for table, count in zip(tables, rows, strict=True)
            for value in table.get(name, [None] * count)
        ]
        for name in names
    }  # fmt: skip


def rows_of(columns: Columns) -> list[tuple[Any, ...]]:
    """The table row by row."""
    return list(zip(*columns.values(), strict=True))


def _fields(result: Any) -> list[tuple[str, Any]]:
    return [(field.name, getattr(result, field.name)) for field in dataclasses.fields(result)]


def _is_several(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value) and all(map(dataclasses.is_dataclass, value))


def _scalars(result: Any) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in _fields(result):
        if value is None or isinstance(value, bool | int | float | str):
            found.append((name, value))
        elif dataclasses.is_dataclass(value):
            found += [(f"{name}_{inner}" if inner != "value" else name, scalar) for inner, scalar in _scalars(value)]
    return found


def _html(result: Any) -> str:
    columns = summary_of(result)
    rows = rows_of(columns)
    # What fills a column already is not said twice.
    facts = [
        f"{name.replace('_', ' ')}: {_cell(value)}" for name, value in facts_of(result).items() if name not in columns
    ]
    heads = [f'<th scope="col">{_words(name)}</th>' for name in columns]
    if len(rows) == 1:  # upright, as it would be wider than the page
        start = '<tr><th scope="row" style="text-align: left">'
        body = "".join(f"{start}{_words(name)}</th>{_td(values[0])}</tr>" for name, values in columns.items())
    else:
        body = f"<tr>{''.join(heads)}</tr>" + "".join(f"<tr>{''.join(map(_td, row))}</tr>" for row in rows[:MOST])
    title = f"<strong>{escape(type(result).__name__)}</strong> {escape('; '.join(facts))}".rstrip()
    more = f"<p>… {len(rows) - MOST:,} more rows</p>" if len(rows) > MOST else ""
    return f"<div><p>{title}</p><table>{body}</table>{more}</div>"


def _words(name: str) -> str:
    return escape(name.replace("_", " "))


def _td(value: Any) -> str:
    side = "right" if isinstance(value, int | float) and not isinstance(value, bool) else "left"
    return f'<td style="text-align: {side}">{escape(_cell(value))}</td>'


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value, 4) if isinstance(value, float) else str(value)
