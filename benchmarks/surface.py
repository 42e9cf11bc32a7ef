"""Surfaces: a grid point against bare forward passes and against others, and what an adaptive grid saves.

    python benchmarks/surface.py                    # writes docs/benchmarks-surfaces.md; ten minutes on one thread
    python benchmarks/surface.py --json out.json --only points
    python benchmarks/surface.py --quick            # does it run? Writes nothing.

What is compared is timed in turns, several rounds of it; a ratio is the median over rounds of the ratio within a round,
with the least and the largest. Peers that are not installed are left out with a note.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from curvature import Job, described, even, interleaved, losses, machine, ratio, resnet, shown, table
from scipy.interpolate import RegularGridInterpolator
from torch import Tensor, nn

from landscape_lab.analysis import Plane, Surface, evaluate
from landscape_lab.analysis.adaptive import FLOOR, evaluate_adaptively, nested_axis
from landscape_lab.analysis.planes import random_plane
from landscape_lab.data import dataset_of
from landscape_lab.files import write_text
from landscape_lab.models import build_network
from landscape_lab.numbers import finite, number
from landscape_lab.parameters import ParameterSpace
from landscape_lab.recipe import load_recipe

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks-surfaces.md"
RESULTS = ROOT / "benchmarks" / "results" / "surface-cpu.json"
TWELVE = {**{str(c): (c,) for c in range(10)}, "head": (0, 1), "tail": (8, 9)}
ONE = {"all": tuple(range(10))}


# -- a point ---------------------------------------------------------------------------------------------------------


def points(job: Job) -> dict[str, Any]:
    """The same grid by everyone, over 256 images of a ResNet-20."""
    images, side = (64, 2) if job.quick else (256, 3)
    model, inputs, targets = resnet(torch.device("cpu"), even(images), steps=4)
    plane = random_plane(ParameterSpace(model))
    axis = torch.linspace(-1, 1, side, dtype=torch.float64)

    def bare(size: int) -> Callable[[], None]:
        def run() -> None:
            with torch.no_grad():
                for _ in range(side * side):
                    for part in inputs.split(size):
                        model(part)

        return run

    def ours(subsets: dict[str, tuple[int, ...]]) -> Callable[[], Surface]:
        return lambda: evaluate(
            model, losses, (inputs, targets), plane, x=axis, y=axis, subsets=subsets, num_classes=10
        )

    tasks: dict[str, Callable[[], Any]] = {
        "bare forwards, one batch": bare(images),
        "bare forwards, batches of 32": bare(32),
        "ours, 1 subset": ours(ONE),
        "ours, 12 subsets": ours(TWELVE),
    }
    for name, make in PEERS.items():
        try:
            tasks[name] = make(model, inputs, targets, side)
        except ImportError:
            job.note(f"{name} is not installed, and left out")
    times = interleaved(job, tasks, job.rounds)
    first = times["bare forwards, one batch"]
    against = {name: ratio(found, first) for name, found in times.items()}
    twelve = ratio(times["ours, 12 subsets"], times["ours, 1 subset"])
    job.target("P5 12 subsets against one", "≤ 1.1×", twelve["median"], twelve["median"] <= 1.1)
    own = against["ours, 12 subsets"]["median"]
    job.target("P5 a point against bare contiguous forwards", "≤ 0.8× (aim 0.7×)", own, own <= 0.8)
    grid = side * side
    return {
        "images": images,
        "points": grid,
        "seconds": {
            name: {k: v / grid for k, v in ratio(found, [1.0] * len(found)).items()} for name, found in times.items()
        },
        "against": against,
        "twelve": twelve,
    }


def loss_landscapes_plane(model: nn.Module, inputs: Tensor, targets: Tensor, side: int) -> Callable[[], Any]:
    import loss_landscapes
    from loss_landscapes.metrics import Loss

    metric = Loss(F.cross_entropy, inputs, targets)
    return lambda: loss_landscapes.random_plane(model, metric, distance=1, steps=side, deepcopy_model=True)


def landscaper_plane(model: nn.Module, inputs: Tensor, targets: Tensor, side: int) -> Callable[[], Any]:
    import landscaper

    plane = random_plane(ParameterSpace(model))
    space = ParameterSpace(model)
    directions = [list(space.views(axis).values()) for axis in (plane.x, plane.y)]

    def loss(network: nn.Module, data: Any) -> float:
        with torch.no_grad():
            return float(F.cross_entropy(network(data[0]), data[1]))

    return lambda: landscaper.LossLandscape.compute(
        model, [(inputs, targets)], directions, loss, dim=2, steps=side, distance=1.0
    )


def nngeom_plane(model: nn.Module, inputs: Tensor, targets: Tensor, side: int) -> Callable[[], Any]:
    import nngeom

    return lambda: nngeom.loss_surface(model, F.cross_entropy, (inputs, targets), resolution=side)


PEERS: dict[str, Callable[[nn.Module, Tensor, Tensor, int], Callable[[], Any]]] = {
    "loss-landscapes": loss_landscapes_plane,
    "landscaper": landscaper_plane,
    "nngeom": nngeom_plane,
}


def points_table(result: dict[str, Any]) -> str:
    rows = [[name, shown(result["seconds"][name]), shown(result["against"][name])] for name in result["against"]]
    head = (
        f"ResNet-20, {result['images']} images of 32 × 32, a grid of {result['points']} points, float32. Bare forward "
        "passes compute no loss and move nothing; one batch of images laid out as PyTorch makes them is the unit.\n\n"
    )
    tail = f"\n\n12 subsets against one: {shown(result['twelve'])}."
    return head + table(["", "seconds a point", "bare forwards"], rows) + tail


# -- the adaptive grid -----------------------------------------------------------------------------------------------


def tail_surface(job: Job) -> tuple[nn.Module, tuple[Tensor, Tensor], Plane]:
    """A ResNet-8 trained on the long-tailed digits, and the images of its two rarest classes."""
    recipe = load_recipe("digits-lt-erm")
    dataset = dataset_of(recipe.data, None)
    inputs, targets = dataset.normalise(dataset.train.images), dataset.train.targets
    model = build_network(recipe.model, in_channels=inputs.shape[1], num_classes=10, seed=0)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(20 if job.quick else 300):
        some = torch.randint(len(inputs), (64,), generator=generator)
        optimiser.zero_grad()
        F.cross_entropy(model(inputs[some]), targets[some]).backward()
        optimiser.step()
    model.eval()
    rare = targets >= 8
    return model, (inputs[rare], targets[rare]), random_plane(ParameterSpace(model))


def off_grid(axis: Tensor, values: Tensor, places: np.ndarray, order: str, log: bool) -> np.ndarray:
    """Interpolate losses ``(n, n)`` at ``(m, 2)`` places, as they are or as logarithms."""
    heights = np.log(values.numpy() + FLOOR) if log else values.numpy()
    found = RegularGridInterpolator((axis.numpy(), axis.numpy()), heights, method=order)(places[:, ::-1])
    return np.exp(found) - FLOOR if log else found


def adaptive(job: Job) -> dict[str, Any]:
    """Root-mean-square errors at random places of a 51 x 51 grid and of adaptive ones."""
    model, data, plane = tail_surface(job)
    common = {"subsets": {"tail": (8, 9)}, "num_classes": 10}
    places = np.random.default_rng(0).uniform(-1, 1, (50 if job.quick else 1500, 2))
    true = np.array(
        [
            float(evaluate(model, losses, data, plane, x=torch.tensor([a]), y=torch.tensor([b]), **common).losses)
            for a, b in places
        ]
    )

    def errors(axis: Tensor, values: Tensor, order: str, log: bool) -> dict[str, float]:
        found = off_grid(axis, values, places, order, log)
        relative = np.log((found + FLOOR) / (true + FLOOR))
        return {"loss": float(np.sqrt(np.mean((found - true) ** 2))), "log": float(np.sqrt(np.mean(relative**2)))}

    rows: list[dict[str, Any]] = []
    full: dict[str, dict[str, float]] = {}
    for side in (33, 51) if not job.quick else (9,):
        axis = torch.linspace(-1, 1, side, dtype=torch.float64)
        grid = evaluate(model, losses, data, plane, x=axis, y=axis, **common)
        for order in ("linear", "cubic"):
            for log in (False, True):
                found = errors(axis, grid.losses[0], order, log)
                what = f"{side} × {side}, {order} in {'log L' if log else 'L'}"
                rows.append({"grid": what, "points": side * side, **found})
                full[what] = found
    axis = nested_axis(-1, 1, 9 if job.quick else 129)
    for tolerance in (0.2, 0.1, 0.05, 0.02, 0.01):
        grid = evaluate_adaptively(model, losses, data, plane, x=axis, y=axis, tolerance=tolerance, **common)
        assert grid.evaluated is not None
        seen = int(grid.evaluated.sum())
        rows.append(
            {
                "grid": f"adaptive, tolerance {tolerance:g}",
                "points": seen,
                **errors(axis, grid.losses[0], "cubic", True),
            }
        )
    shares = {}
    if not job.quick:
        for what in [name for name in full if name.startswith("51")]:
            kind = "log" if what.endswith("log L") else "loss"
            enough = [
                row["points"] for row in rows if row["grid"].startswith("adaptive") and row[kind] <= full[what][kind]
            ]
            shares[what] = min(enough) / 51**2 if enough else None
        for what, share in shares.items():
            value = float("nan") if share is None else share
            job.target(f"P5 adaptive points for the error of {what}", "≤ 0.4 of 2,601", value, value <= 0.4)
    return {"rows": rows, "shares": shares, "range": [float(true.min()), float(true.max())]}


def adaptive_table(result: dict[str, Any]) -> str:
    low, high = result["range"]
    head = (
        f"A ResNet-8 on the long-tailed digits, the tail's 14 images, filter-normalised directions, ±1; losses from "
        f"{number(low)} to {number(high)}. Root-mean-square errors at random places between the grid's points, where "
        "the model was evaluated too: of the loss, and of log(L + 0.001), which is what a picture with logarithmic "
        "colours shows. Adaptive grids interpolate by cubic pieces in the logarithm; a grid is usually drawn "
        "linearly.\n\n"
    )
    rows = [
        [row["grid"], f"{row['points']:,}", f"{row['points'] / 2601:.2f}", number(row["loss"]), number(row["log"])]
        for row in result["rows"]
    ]
    body = table(["grid", "points", "of 51 × 51", "error of L", "error of log L"], rows)
    ends = [
        f"- the error of {what}: {'not reached' if share is None else f'{share:.2f} of its points'}"
        for what, share in result["shares"].items()
    ]
    return head + body + "\n\nAdaptive grids reach:\n\n" + "\n".join(ends)


SECTIONS: dict[str, tuple[Callable[[Job], dict[str, Any]], Callable[[dict[str, Any]], str]]] = {
    "points": (points, points_table),
    "adaptive": (adaptive, adaptive_table),
}


def page_of(kept: dict[str, Any]) -> str:
    """The whole page."""
    parts = ["# Benchmarks: surfaces\n", "```\npython benchmarks/surface.py\n```\n"]
    targets = [one for name in SECTIONS if name in kept for one in kept[name]["targets"]]
    rows = [
        [
            one["name"],
            one["goal"],
            number(one["measured"]) if one["measured"] else "not reached",
            "met" if one["met"] else "**missed**",
        ]
        for one in targets
    ]
    parts.append(table(["", "goal", "measured", ""], rows) + "\n")
    for name, (_, draw) in SECTIONS.items():
        if name in kept:
            title = {"points": "A point", "adaptive": "The adaptive grid"}[name]
            notes = "".join(f"\n- {note}" for note in kept[name]["notes"])
            parts.append(f"## {title}\n\n{described(kept[name]['machine'])}\n\n{draw(kept[name]['result'])}\n{notes}\n")
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description="Surfaces: us against bare forward passes and the others.")
    parser.add_argument("--quick", action="store_true", help="seconds; writes nothing unless --json is given")
    parser.add_argument("--rounds", type=int, help="turns of every timing (default 7; 1 with --quick)")
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"some of {', '.join(SECTIONS)}")
    parser.add_argument("--json", type=Path, help="default benchmarks/results/surface-cpu.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    out = options.json or (None if options.quick else RESULTS)
    kept = json.loads(out.read_text()) if out and out.exists() else {}
    for name in options.only.split(","):
        if name not in SECTIONS:
            parser.error(f"--only: no section {name!r}; there are {', '.join(SECTIONS)}")
        job = Job(torch.device("cpu"), 1, options.quick, options.rounds or (1 if options.quick else 7))
        measure, draw = SECTIONS[name]
        began = time.perf_counter()
        result = measure(job)
        print(draw(result), flush=True)
        for one in job.targets:
            print(f"  {'met   ' if one['met'] else 'MISSED'} {one['name']}: {number(one['measured'])} ({one['goal']})")
        print(f"  [{time.perf_counter() - began:.0f} s]", flush=True)
        here = {**machine(job), "command": f"python benchmarks/surface.py --only {name} --rounds {job.rounds}"}
        kept[name] = finite({"machine": here, "result": result, "notes": job.notes, "targets": job.targets})
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    if not options.quick and options.json is None:
        write_text(PAGE, page_of(kept))


if __name__ == "__main__":
    main()
