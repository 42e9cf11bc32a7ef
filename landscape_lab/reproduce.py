"""Train what the paper's figures need, analyse it, draw them, and write one page with all of it."""

from __future__ import annotations

import csv
import io
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from landscape_lab import console
from landscape_lab.analysis import Spectrum
from landscape_lab.data import Dataset, dataset_of
from landscape_lab.errors import InputError
from landscape_lab.figures import Table, write_page
from landscape_lab.files import write_json, write_text
from landscape_lab.numbers import with_error
from landscape_lab.paper_figures import NEEDS, FigureMaker, Picture
from landscape_lab.recipe import Recipe, load_recipe, rescaled
from landscape_lab.run import Run
from landscape_lab.studies import Study
from landscape_lab.train import train_run

__all__ = ["reproduce"]

ROLES = {"standard": "erm", "sam": "sam", "ours": "gkp-gsa"}
SHOTS = ("many", "med", "few", "all")


def reproduce(
    data: str,
    out: Path,
    *,
    figures: Sequence[int] = (1, 2, 6, 9),
    seeds: Sequence[int] = (0,),
    epochs: int | None = None,
    changes: Mapping[str, Any] | None = None,
    samples: int | None = None,
    data_root: str | None = None,
    device: torch.device,
) -> Path:
    """Make the paper's figures and a table from runs that are trained here; what exists is kept.

    Args:
        data: ``digits-lt``, ``cifar10-lt`` or ``cifar100-lt``.
        out: runs go to ``out/runs``, pictures to ``out/figures``, the page is ``out/index.html``.
        figures: which of the paper's figures: 1, 2, 6, 9.
        seeds: the table is over all, the figures show the first.
        epochs: of each run; ``None``: the recipe's.
        changes: fields put over every recipe.
        samples: at most so many samples of a subset in surfaces and Hessians; ``None``: all.
        data_root: where the data lie.
        device: where to train and to analyse.

    Returns:
        The page.

    Raises:
        InputError: a figure is unknown, or recipe and data do not go together.
    """
    unknown = [number for number in figures if number not in NEEDS]
    if unknown:
        raise InputError(f"figure {unknown[0]} cannot be drawn; there are {', '.join(map(str, NEEDS))}")
    if not seeds:
        raise InputError("at least one seed is needed")
    started = time.perf_counter()
    plans = _plans(data, figures, seeds, epochs, {**(changes or {}), **_root(data_root)})
    dataset = dataset_of(next(iter(plans.values())).data)
    runs: dict[tuple[str, int], Run] = {}
    for place, (key, plan) in enumerate(plans.items()):
        console.note(f"[{place + 1}/{len(plans)}] {_run_name(plan)}")
        runs[key] = train_run(plan, out / "runs" / _run_name(plan), device, dataset=dataset)
    first = {role: Study(run, device, dataset=dataset) for (role, seed), run in runs.items() if seed == seeds[0]}
    maker = FigureMaker(first, out / "figures", samples=samples)
    pictures = []
    for number in figures:
        console.note(f"figure {number}")
        pictures.append(maker.draw(number))
    table = _table(runs, seeds, samples, device, dataset)
    _save_table(table, out)
    console.table(table.title, table.header, table.rows, table.note)
    page = out / "index.html"
    command = _command(data, figures, seeds, epochs, changes or {}, samples, out)
    _write(page, data, pictures, table, runs, command, time.perf_counter() - started)
    return page


def _root(data_root: str | None) -> dict[str, str]:
    return {} if data_root is None else {"data.root": str(Path(data_root).expanduser().absolute())}


def _plans(
    data: str, figures: Sequence[int], seeds: Sequence[int], epochs: int | None, changes: Mapping[str, Any]
) -> dict[tuple[str, int], Recipe]:
    """The recipes to train, by role and seed."""
    plans = {}
    for seed in seeds:
        for role, method in ROLES.items():
            plans[role, seed] = _plan(f"{data}-{method}", epochs, {**changes, "seed": seed})
    if 1 in figures:
        plans["tail-only", seeds[0]] = _plan(
            f"{data}-erm",
            epochs,
            # The tail may be smaller than a batch: keep its last one, whatever the recipe says.
            {**changes, "seed": seeds[0], "data.classes": "tail", "training.drop_last": False},
        )
    return plans


def _plan(name: str, epochs: int | None, changes: Mapping[str, Any]) -> Recipe:
    recipe = load_recipe(name, changes)
    return recipe if epochs is None else rescaled(recipe, epochs)


def _run_name(recipe: Recipe) -> str:
    tail = "" if recipe.data.classes == "all" else f"-{recipe.data.classes}-only"
    return f"{recipe.data.name}-{recipe.method}{tail}-seed{recipe.seed}"


def _table(
    runs: Mapping[tuple[str, int], Run],
    seeds: Sequence[int],
    samples: int | None,
    device: torch.device,
    dataset: Dataset,
) -> Table:
    rows = []
    for role in ROLES:
        chosen = [runs[role, seed] for seed in seeds]
        accuracies = [run.metrics()[-1]["test"]["accuracy"] for run in chosen]
        row = [chosen[0].recipe.label]
        for shot in SHOTS:
            values = [accuracy[shot] for accuracy in accuracies]
            row.append(_accuracy(values, chosen[0], shot, dataset))
        spectra = []
        for run in chosen:
            maker = FigureMaker({role: Study(run, device, dataset=dataset)}, run.path, samples=samples)
            spectra.append(maker.spectra(role))
        for subset in ("head", "tail"):
            row += _curvature([found[subset] for found in spectra])
        rows.append(row)
    header = [
        "method",
        *(name.capitalize() for name in SHOTS),
        "head λ_max",
        "head trace",
        "tail λ_max",
        "tail trace",
    ]
    info = runs["standard", seeds[0]].info
    shots = "/".join(str(len(info["subsets"][name])) for name in ("many", "med", "few"))
    errors = (
        f"mean ± standard deviation over seeds {', '.join(map(str, seeds))}"
        if len(seeds) > 1
        else f"seed {seeds[0]} alone: accuracy ± its binomial standard error over the test images, λ_max ± residual, "
        "trace ± standard error over probes; none of these errors covers another seed"
    )
    over = "" if samples is None else f"; Hessians over at most {samples} samples of each subset"
    note = f"{dataset.name}: test accuracy in %, last epoch; Many/Med/Few: {shots} classes; {errors}{over}."
    title = f"{dataset.name}: accuracy and curvature"
    return Table(title, tuple(header), tuple(map(tuple, rows)), note)


def _accuracy(values: Sequence[float | None], run: Run, shot: str, dataset: Dataset) -> str:
    present = [100 * value for value in values if value is not None]
    if not present:
        return "–"
    if len(present) > 1:
        return f"{statistics.mean(present):.1f} ± {statistics.stdev(present):.1f}"
    last = run.metrics()[-1]["test"]["class_accuracy"]
    classes = range(dataset.num_classes) if shot == "all" else run.info["subsets"][shot]
    counts = dataset.test.class_counts(dataset.num_classes)
    variance = sum(last[c] * (1 - last[c]) / counts[c] for c in classes) / len(classes) ** 2
    return f"{present[0]:.1f} ± {100 * variance**0.5:.1f}"


def _curvature(spectra: Sequence[Spectrum]) -> list[str]:
    if len(spectra) == 1:
        one = spectra[0]
        return [
            with_error(one.lambda_max, one.lambda_max_residual),
            with_error(one.trace.value, one.trace.stderr),
        ]
    columns = [[s.lambda_max for s in spectra], [s.trace.value for s in spectra]]
    return [with_error(statistics.mean(values), statistics.stdev(values)) for values in columns]


def _save_table(table: Table, out: Path) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(table.header)
    writer.writerows(table.rows)
    write_text(out / "table.csv", text.getvalue())
    write_json(
        out / "table.json",
        {
            "title": table.title,
            "note": table.note,
            "rows": [dict(zip(table.header, row, strict=True)) for row in table.rows],
        },
    )


def _command(
    data: str,
    figures: Sequence[int],
    seeds: Sequence[int],
    epochs: int | None,
    changes: Mapping[str, Any],
    samples: int | None,
    out: Path,
) -> str:
    parts = [
        "landscape-lab reproduce",
        f"--data {data}",
        f"--figures {','.join(map(str, figures))}",
        f"--seeds {','.join(map(str, seeds))}{',' if len(seeds) == 1 else ''}",
    ]
    parts += [f"--epochs {epochs}"] if epochs is not None else []
    parts += [f"--set {field}={value}" for field, value in changes.items()]
    parts += [f"--samples {samples}"] if samples is not None else []
    return " ".join([*parts, f"--out {out}"])


def _write(
    page: Path,
    data: str,
    pictures: Sequence[Picture],
    table: Table,
    runs: Mapping[tuple[str, int], Run],
    command: str,
    seconds: float,
) -> None:
    one = next(iter(runs.values()))
    commands = [command]
    for run in runs.values():
        commands.append(f"landscape-lab hessian {run.path} --classes head --classes tail")
    write_page(
        page,
        title=f"Landscape Lab: {data}",
        introduction=(
            f"Networks of the recipe {data} (ResNet-{one.recipe.model.depth}, {one.recipe.training.epochs} epochs), "
            "trained by cross-entropy (CE), SAM and CE+GKP+GSA (Chen et al., CVPR 2026), and what the loss landscape "
            "of frequent and rare classes looks like around and between their solutions. Every number and picture "
            "was measured by the commands below."
        ),
        figures=[(f"Figure {p.number}: {p.title}", p.files[0], p.caption) for p in pictures],
        tables=[table],
        commands=commands,
        environment={
            **one.info["versions"],
            "device": one.info["device"],
            "data fingerprint": one.info["data"]["fingerprint"],
            "class counts": ", ".join(map(str, one.info["class_counts"])),
            "this call took": console.duration(seconds),
        },
    )
