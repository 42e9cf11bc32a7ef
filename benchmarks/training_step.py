"""What a training step costs: each method as a ratio to cross-entropy and to BCL, on the same images in the same run.

    python benchmarks/training_step.py                                  # writes docs/benchmarks-training.md
    python benchmarks/training_step.py --device cuda --depth 32 --batch 256 --steps 40
    python benchmarks/training_step.py --only "BCL+GKP+GSA" --groups 4  # some of them, no page

A step is everything: making the views, the passes, the penalty, the optimiser. Each method is trained by the loop of
``landscape-lab train``, in a process of its own (for its peak memory), on synthetic images with the class counts of
CIFAR-100-LT; groups are random, as their making is not part of a step. The methods take turns, and a ratio is taken
within a round.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from landscape_lab.data import Dataset, Split, long_tail_counts
from landscape_lab.devices import describe, resolve_device
from landscape_lab.files import write_json, write_text
from landscape_lab.recipe import Recipe, load_recipe
from landscape_lab.run import Run
from landscape_lab.training import Trainer, run_info

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks-training.md"
WARM = 2
"""Steps before the clock starts; the next number is a multiple of every form's period."""

PLAIN = {
    "CE": ("cifar100-lt-erm", {}),
    "CE+SAM": ("cifar100-lt-sam", {}),
    "BCL": ("cifar100-lt-bcl-erm", {}),
    "BCL+SAM": ("cifar100-lt-bcl-sam", {}),
}
FORMS: dict[str, dict[str, Any]] = {
    "exact": {},
    "exact, first view": {"gsa.ascent_views": "first"},
    "merged": {"gsa.passes": "merged"},
    "merged, first view": {"gsa.passes": "merged", "gsa.ascent_views": "first"},
    "stochastic": {"gsa.passes": "stochastic"},
    "exact, every 4th": {"gsa.every": 4},
    "stochastic, every 4th": {"gsa.passes": "stochastic", "gsa.every": 4},
    "stochastic, every 8th": {"gsa.passes": "stochastic", "gsa.every": 8},
    "merged, every 4th, held": {"gsa.passes": "merged", "gsa.every": 4, "gsa.between": "hold"},
    "merged, first view, every 4th, held": {
        "gsa.passes": "merged",
        "gsa.ascent_views": "first",
        "gsa.every": 4,
        "gsa.between": "hold",
    },
    "released code": {"gsa.passes": "merged", "gsa.global_gradient": "accumulated-ema", "gsa.contrast": "within-group"},
}
GOALS = {
    "exact, all views": ("BCL+GKP+GSA, exact, G = 4", 6.0),
    "exact, ascent from the first view": ("BCL+GKP+GSA, exact, first view, G = 4", 6.0),
    "stochastic": ("BCL+GKP+GSA, stochastic, G = 4", 2.7),
    "amortised": ("BCL+GKP+GSA, stochastic, every 4th, G = 4", 1.6),
    "amortised, perturbed at every step": ("BCL+GKP+GSA, merged, first view, every 4th, held, G = 4", 1.6),
    "amortised, aim": ("BCL+GKP+GSA, stochastic, every 8th, G = 4", 1.3),
}


def methods(groups: list[int]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name to recipe and changes."""
    found: dict[str, tuple[str, dict[str, Any]]] = dict(PLAIN)
    for count in groups:
        found[f"BCL+GKP, G = {count}"] = ("cifar100-lt-bcl-gkp", {"groups.count": count})
        found[f"BCL+GSA, exact, G = {count}"] = ("cifar100-lt-bcl-gsa", {"groups.count": count})
        for form, changes in FORMS.items():
            name = f"BCL+GKP+GSA, {form}, G = {count}"
            found[name] = ("cifar100-lt-bcl-gkp-gsa", {"groups.count": count, **changes})
    return found


def synthetic(batch: int, steps: int) -> Dataset:
    """Random images, an epoch of ``WARM + steps`` batches of them."""
    generator = torch.Generator().manual_seed(0)
    shares = torch.tensor(long_tail_counts(500, 100, 100.0), dtype=torch.float64)

    def split(count: int) -> Split:
        images = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
        return Split(images, torch.multinomial(shares, count, replacement=True, generator=generator))

    names = tuple(map(str, range(100)))
    return Dataset("cifar100-lt", split(batch * (WARM + steps)), split(100), names, (0.5,) * 3, (0.25,) * 3)


def recipe_of(name: str, options: argparse.Namespace) -> Recipe:
    """One method's recipe, with groups from the first step on."""
    base, changes = methods(options.groups)[name]
    common = {
        "model.depth": options.depth,
        "model.width": options.width,
        "training.batch_size": options.batch,
        "training.epochs": 1,
        "training.precision": options.precision,
        "groups.source": "random",
        "groups.start_epoch": 0,
        "gkp.fisher_samples": 1,
    }
    return load_recipe(base, {**common, **changes})


class _TimeTakenError(Exception):
    """Ends the training once its steps are timed."""


def measure(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of a step of one method, in this process; and its peak memory in MiB."""
    device, recipe = resolve_device(options.device), recipe_of(name, options)
    dataset = synthetic(options.batch, options.steps)
    moments: list[float] = []

    def step(_: int) -> None:
        moments.append(0.0)
        if len(moments) in (WARM, WARM + options.steps):
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            moments[-1] = time.perf_counter()
        if len(moments) == WARM + options.steps:
            raise _TimeTakenError

    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", recipe, run_info(recipe, dataset, device))
        trainer = Trainer(run, dataset, device)
        with contextlib.suppress(_TimeTakenError):
            trainer.train(on_step=step)
    seconds = (moments[-1] - moments[WARM - 1]) / options.steps
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 2**20
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return {"ms": 1e3 * seconds, "mib": peak}


def child(name: str, arguments: list[str]) -> dict[str, float]:
    """:func:`measure` in a process of its own."""
    command = [sys.executable, __file__, *arguments, "--child", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Measure in turns, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--batch", type=int, default=64, help="images; BCL makes three views of each")
    parser.add_argument("--steps", type=int, default=8, help="timed steps; a multiple of 8")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--groups", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--precision", default="float32", choices=["float32", "tf32", "bfloat16"])
    parser.add_argument("--only", default="", help="methods whose name starts so, and CE and BCL; writes no page")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child, options)))
        return
    if options.steps % 8:
        parser.error("--steps must be a multiple of 8, the longest period")
    names = [name for name in methods(options.groups) if name in ("CE", "BCL") or name.startswith(options.only)]
    rounds: list[dict[str, dict[str, float]]] = []
    for number in range(options.rounds):
        rounds.append({n: child(n, sys.argv[1:]) for n in track(names, f"round {number + 1} of {options.rounds}")})
    result = summary(names, rounds, options)
    print("\n".join(table(result)))
    if not options.only:
        kind = result["device kind"]
        write_json(ROOT / "benchmarks" / "results" / f"training-step-{kind}.json", result)
        write_page(result)


def summary(names: list[str], rounds: list[dict[str, dict[str, float]]], options: argparse.Namespace) -> dict[str, Any]:
    """Medians over rounds; ratios within a round."""
    device = resolve_device(options.device)
    rows = {}
    for name in names:
        ratios = {base: [each[name]["ms"] / each[base]["ms"] for each in rounds] for base in ("CE", "BCL")}
        milliseconds = statistics.median(each[name]["ms"] for each in rounds)
        rows[name] = {
            "ms": milliseconds,
            "samples a second": 1e3 * options.batch / milliseconds,
            "to CE": statistics.median(ratios["CE"]),
            "to BCL": statistics.median(ratios["BCL"]),
            "to BCL, least and largest": [min(ratios["BCL"]), max(ratios["BCL"])],
            "peak MiB": statistics.median(each[name]["mib"] for each in rounds),
        }
    return {
        "device": describe(device) if device.type == "cuda" else f"{platform.machine()} CPU",
        "device kind": device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
        "command": "python benchmarks/training_step.py " + " ".join(sys.argv[1:]),
        "model": f"ResNet-{options.depth}, width {options.width}, 100 classes, batch {options.batch}, 32 x 32 pixels",
        "precision": options.precision,
        "rounds": options.rounds,
        "steps": options.steps,
        "rows": rows,
    }


def table(result: dict[str, Any]) -> list[str]:
    """The measurements in Markdown."""
    lines = [
        "| step | ms | images/s | to CE | to BCL (least, largest) | peak MiB |",
        "| --- | --: | --: | --: | --: | --: |",
    ]
    for name, row in result["rows"].items():
        low, high = row["to BCL, least and largest"]
        lines.append(
            f"| {name} | {row['ms']:.3g} | {row['samples a second']:.3g} | {row['to CE']:.2f} "
            f"| {row['to BCL']:.2f} ({low:.2f}, {high:.2f}) | {row['peak MiB']:.0f} |"
        )
    return lines


def goals(result: dict[str, Any]) -> list[str]:
    """P6: what was aimed at, and what was measured."""
    lines = ["| BCL+GKP+GSA, G = 4, in BCL steps | goal | measured | |", "| --- | --: | --: | --- |"]
    for name, (row, goal) in GOALS.items():
        if row in result["rows"]:
            found = result["rows"][row]["to BCL"]
            lines.append(f"| {name} | ≤ {goal} | {found:.2f} | {'met' if found <= goal else '**missed**'} |")
    return lines


def write_page(result: dict[str, Any]) -> None:
    """Put the tables of this device between its marks in the page."""
    kind = result["device kind"]
    text = PAGE.read_text()
    start, end = f"<!-- {kind} -->", f"<!-- /{kind} -->"
    head, rest = text.split(start, 1)
    tail = rest.split(end, 1)[1]
    about = (
        f"{result['device']}, {result['threads']} thread(s), PyTorch {result['torch']}, {result['date']}; "
        f"{result['model']}, {result['precision']}; {result['rounds']} rounds of {result['steps']} steps; "
        f"`{result['command'].strip()}`."
    )
    body = "\n".join([about, "", *goals(result), "", *table(result)])
    write_text(PAGE, f"{head}{start}\n\n{body}\n\n{end}{tail}")


if __name__ == "__main__":
    main()
