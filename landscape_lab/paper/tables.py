"""The paper's tables from runs: ours, mean ± standard deviation over seeds, beside the paper's numbers."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from landscape_lab.figures import Table
from landscape_lab.numbers import number, with_error
from landscape_lab.paper.experiments import RATIOS, TABLE_ROWS, Choices, Row, Setting, recipe_key, recipe_name
from landscape_lab.paper.published import published_accuracies, published_hours, published_title
from landscape_lab.recipe import Recipe
from landscape_lab.run import Run
from landscape_lab.selection import WORDS, Selection, reported_line

__all__ = ["Cell", "FinishedRuns", "PaperTable", "TimeCell", "paper_table"]

SHOTS = ("all", "many", "med", "few")


class FinishedRuns:
    """The runs that are finished, found by what they measure.

    Args:
        choices: what the user chose for all recipes.
        seeds: the seeds that are wanted of each setting.
        runs: key of a recipe → its finished run.
        selection: which epoch of a run counts.
    """

    def __init__(
        self, choices: Choices, seeds: Sequence[int], runs: Mapping[str, Run], selection: Selection = "last"
    ) -> None:
        self.choices, self.seeds, self.selection = choices, tuple(seeds), selection
        self._runs = runs
        self._read: dict[Path, tuple[Mapping[str, float | None], int | None]] = {}

    def recipe(self, setting: Setting) -> Recipe:
        """The setting's recipe with the first seed."""
        return self.choices.recipe(setting, self.seeds[0])

    def of(self, setting: Setting) -> dict[int, Run]:
        """Seed → run, of the seeds that are finished."""
        keys = {seed: recipe_key(self.choices.recipe(setting, seed)) for seed in self.seeds}
        return {seed: self._runs[key] for seed, key in keys.items() if key in self._runs}

    def first(self, setting: Setting) -> Run | None:
        """The run of the first seed, if it is finished."""
        return self.of(setting).get(self.seeds[0])

    def accuracies(self, setting: Setting, shot: str = "all") -> dict[int, float]:
        """Seed → test accuracy in %, of the seeds that are finished and have such classes."""
        values = {seed: self._metrics(run)[0].get(shot) for seed, run in self.of(setting).items()}
        return {seed: 100 * float(value) for seed, value in values.items() if value is not None}

    def groups(self, setting: Setting) -> dict[int, int]:
        """Seed → number of groups in the last epoch, of the seeds that are finished and have groups."""
        counts = {seed: self._metrics(run)[1] for seed, run in self.of(setting).items()}
        return {seed: count for seed, count in counts.items() if count is not None}

    def _metrics(self, run: Run) -> tuple[Mapping[str, float | None], int | None]:
        if run.path not in self._read:  # metrics of hundreds of epochs are megabytes
            lines = run.metrics()
            groups = lines[-1].get("groups")
            accuracy = reported_line(lines, self.selection)["test"]["accuracy"]
            self._read[run.path] = accuracy, None if groups is None else len(groups)
        return self._read[run.path]


@dataclass(frozen=True)
class Cell:
    """One number: ours for each finished seed, the paper's, and the recipe that ours come from.

    ``run_here`` is false where only the paper has it.
    """

    ours: Mapping[int, float] = field(default_factory=dict)
    paper: float | None = None
    recipe: str = ""
    run_here: bool = True

    def __str__(self) -> str:
        """``51.3 ± 0.2``, ``51.3`` for a single seed, a dash for none."""
        values = list(self.ours.values())
        if not values:
            return "–" if self.run_here else ""
        if len(values) == 1:
            return f"{values[0]:.1f}"
        return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"

    def stored(self) -> dict[str, Any]:
        """For JSON and CSV."""
        values = list(self.ours.values())
        return {
            "mean": statistics.mean(values) if values else None,
            "std": statistics.stdev(values) if len(values) > 1 else None,
            "values": values,
            "seeds": list(self.ours),
            "paper": self.paper,
            "recipe": self.recipe or None,
        }


class TimeCell(Cell):
    """A duration or a ratio of durations: three significant digits."""

    def __str__(self) -> str:
        """``0.124 ± 0.003``, ``0.124`` for a single seed, a dash for none."""
        values = list(self.ours.values())
        if len(values) < 2:
            return number(values[0]) if values else "–"
        return with_error(statistics.mean(values), statistics.stdev(values))


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper with our numbers in it.

    Args:
        number: the paper's.
        title: what it is about.
        first: name of the column that names the rows.
        columns: of numbers.
        rows: name → one cell a column.
        note: how the numbers were obtained.
        missing: how many of the runs behind it are not finished.
        wanted: how many there are.
    """

    number: int
    title: str
    first: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[Cell, ...]]
    note: str
    missing: int
    wanted: int

    def text(self) -> Table:
        """For people; the paper's columns only where it has numbers."""
        published = [any(row[k].paper is not None for row in self.rows.values()) for k in range(len(self.columns))]
        header, rows = [self.first], []
        for name, known in zip(self.columns, published, strict=True):
            header += [name, "paper"] if known else [name]
        header.append("seeds")
        for name, cells in self.rows.items():
            row = [name]
            for cell, known in zip(cells, published, strict=True):
                row.append(str(cell))
                if known:
                    row.append("–" if cell.paper is None else number(cell.paper, 4))
            rows.append((*row, _seeds(cells)))
        note = self.note
        if self.missing:
            note += f" {self.missing} of the {self.wanted} runs behind this table are not there yet (–)."
        return Table(f"Table {self.number}: {self.title}", tuple(header), tuple(rows), note)

    def stored(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "table": self.number,
            "title": self.title,
            "note": self.note,
            "missing_runs": self.missing,
            "rows": [
                {
                    self.first: name,
                    **{column: cell.stored() for column, cell in zip(self.columns, cells, strict=True)},
                }
                for name, cells in self.rows.items()
            ],
        }

    def csv(self) -> str:
        """A line for each number: row, column, mean, standard deviation, number of seeds, the paper's number."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([self.first, "column", "mean", "std", "seeds", "paper", "recipe"])
        for name, cells in self.rows.items():
            for column, cell in zip(self.columns, cells, strict=True):
                stored = cell.stored()
                writer.writerow(
                    [name, column, stored["mean"], stored["std"], len(cell.ours), stored["paper"], stored["recipe"]]
                )
        return text.getvalue()


def _seeds(cells: Sequence[Cell]) -> str:
    counts = sorted({len(cell.ours) for cell in cells if cell.run_here})
    return "" if not counts else "–".join(map(str, dict.fromkeys([counts[0], counts[-1]])))


def paper_table(number: int, results: FinishedRuns) -> PaperTable:
    """Table 1, 4, 5, 6 or 7 from the runs that are there."""
    settings = [setting for row in TABLE_ROWS[number] for setting in row.settings]
    wanted = len(settings) * len(results.seeds)
    there = sum(len(results.of(setting)) for setting in settings)
    if number == 1:
        first, columns, rows, note = _one(results)
    elif number == 7:
        first, columns, rows, note = _seven(results)
    else:
        first, columns, rows, note = _shots(number, results)
    data = results.choices.data
    return PaperTable(
        number, f"{published_title('tables', number)}, {data}", first, columns, rows, note, wanted - there, wanted
    )


def _one(results: FinishedRuns) -> tuple[str, tuple[str, ...], dict[str, tuple[Cell, ...]], str]:
    data = results.choices.data
    columns = (*(f"r = {ratio}" for ratio in RATIOS), "Many", "Med", "Few")
    rows = {}
    for row in TABLE_ROWS[1]:
        name, key = _names(row, results)
        if not published_accuracies(1, data, RATIOS[0]):
            name = results.recipe(row.settings[0]).label
        cells = [
            _cell(results, setting, "all", published_accuracies(1, data, ratio).get(key, {}))
            for ratio, setting in zip(RATIOS, row.settings, strict=True)
        ]
        paper = published_accuracies(1, data, RATIOS[0]).get(key, {})
        cells += [_cell(results, row.settings[0], shot, paper) for shot in SHOTS[1:]]
        rows[name] = tuple(cells)
    ours = {_names(row, results)[1] for row in TABLE_ROWS[1]}
    for key in published_accuracies(1, data, RATIOS[0]):
        if key not in ours:
            papers = [published_accuracies(1, data, ratio).get(key, {}) for ratio in RATIOS]
            numbers = [*(paper.get("all") for paper in papers), *(papers[0].get(shot) for shot in SHOTS[1:])]
            rows[f"{key} (paper only)"] = tuple(Cell(paper=value, run_here=False) for value in numbers)
    note = f"{_how(results)} Many, Med, Few: at r = {RATIOS[0]}. {_beside(bool(published_accuracies(1, data, 100)))}"
    return "method", columns, rows, note


def _shots(table: int, results: FinishedRuns) -> tuple[str, tuple[str, ...], dict[str, tuple[Cell, ...]], str]:
    setting = TABLE_ROWS[table][0].settings[0]
    data = results.recipe(setting).data
    published = published_accuracies(table, data.name, data.imbalance_ratio)
    rows = {}
    for row in TABLE_ROWS[table]:
        name, key = _names(row, results)
        rows[name] = tuple(_cell(results, row.settings[0], shot, published.get(key, {})) for shot in SHOTS)
    note = f"{_how(results)} {_beside(bool(published))}{_fewer_groups(table, results)}"
    if table == 6:
        note = f"{results.recipe(setting).label}. {note}"
    return "λ" if table == 6 else "method", tuple(shot.capitalize() for shot in SHOTS), rows, note


def _seven(results: FinishedRuns) -> tuple[str, tuple[str, ...], dict[str, tuple[Cell, ...]], str]:
    hours = {row.settings[0]: _hours(results.of(row.settings[0])) for row in TABLE_ROWS[7]}
    base = hours[Setting("erm")]
    published, device = published_hours()
    rows: dict[str, tuple[Cell, ...]] = {}
    for setting, ours in hours.items():
        recipe = results.recipe(setting)
        paper, slug = published.get(recipe.label), recipe_name(recipe)
        ratios = {seed: value / base[seed] for seed, value in ours.items() if base.get(seed)}
        rows[recipe.label] = (
            TimeCell(ours, paper, slug),
            TimeCell(ratios, None if paper is None else round(paper / published["BCL"], 2), slug),
        )
    devices = sorted({run.info["device"] for setting in hours for run in results.of(setting).values()})
    note = (
        f"Hours of all epochs' optimiser steps, groupings included, evaluation left out; on {', '.join(devices) or '–'}"
        f"{' (several devices: not to be compared)' if len(devices) > 1 else ''}. Paper: {device}. The ratio compares "
        "methods on one device; hours on different devices and data are not to be compared."
    )
    return "method", ("hours", "ratio to BCL"), rows, note


def _hours(runs: Mapping[int, Run]) -> dict[int, float]:
    return {seed: sum(run.info["epoch_seconds"]) / 3600 for seed, run in runs.items()}


def _names(row: Row, results: FinishedRuns) -> tuple[str, str]:
    """A row's name here, and in the paper's numbers."""
    name = row.name or results.recipe(row.settings[0]).label
    return name, row.paper or name


def _cell(results: FinishedRuns, setting: Setting, shot: str, paper: Mapping[str, float]) -> Cell:
    return Cell(results.accuracies(setting, shot), paper.get(shot), recipe_name(results.recipe(setting)))


def _how(results: FinishedRuns) -> str:
    words = WORDS[results.selection]
    many = f"mean ± standard deviation over seeds {', '.join(map(str, results.seeds))}"
    spread = many if len(results.seeds) > 1 else f"seed {results.seeds[0]} alone, so that no spread is known"
    return f"Test accuracy in %, {words}; {spread}."


def _fewer_groups(table: int, results: FinishedRuns) -> str:
    """A sentence on the rows whose bank held too few distinct encoders for the groups asked for (reading 11)."""
    found = []
    for row in TABLE_ROWS[table]:
        wanted, counts = results.recipe(row.settings[0]).groups.count, results.groups(row.settings[0]).values()
        if counts and min(counts) < wanted:
            found.append(f"{_names(row, results)[0]} ({number(statistics.mean(counts))} of {wanted})")
    return f" Fewer groups than asked for in the last epoch: {', '.join(found)}." if found else ""


def _beside(published: bool) -> str:
    if not published:
        return "The paper has no numbers for these data."
    return (
        "The paper names neither seeds nor their number nor the epoch; the code that its authors released reports the "
        "best epoch on the test set."
    )
