"""Curvature: us against PyHessian, curvlinops and hessian-eigenthings, on one model and the same data.

    python benchmarks/curvature.py                    # writes docs/benchmarks.md; a quarter of an hour on one thread
    python benchmarks/curvature.py --device cuda
    python benchmarks/curvature.py --quick            # does it run? Writes no page.
    python benchmarks/curvature.py --only products,trace

What is compared is timed in turns, several rounds of it, so that a machine that is busy for a while is so for all; a
ratio is the median over rounds of the ratio within a round, with the least and the largest. Peers that are not
installed are left out with a note.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import functools
import gc
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import wasserstein_distance
from torch import Tensor, nn

from landscape_lab.analysis import Hessian, spectral_density, trace
from landscape_lab.analysis.backends import TorchWithEig, rebound
from landscape_lab.devices import resolve_device
from landscape_lab.models import LinearClassifier, Network, ResNetEncoder
from landscape_lab.numbers import finite, number

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
PEERS = {"pyhessian": "PyHessian", "curvlinops-for-pytorch": "curvlinops", "hessian-eigenthings": "hessian-eigenthings"}
Task = Callable[[], Any]


@dataclass
class Job:
    """What is to be measured and what was noted meanwhile."""

    device: torch.device
    threads: int
    quick: bool
    rounds: int
    notes: list[str] = field(default_factory=list)
    targets: list[dict[str, Any]] = field(default_factory=list)

    def note(self, text: str) -> None:
        print(f"  note: {text}", flush=True)
        self.notes.append(text)

    def target(self, name: str, goal: str, measured: float, met: bool) -> None:
        self.targets.append({"name": name, "goal": goal, "measured": measured, "met": bool(met)})


# -- models and data -------------------------------------------------------------------------------------------------


def losses(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target, reduction="none")


def gaussians(
    counts: Sequence[int], shape: tuple[int, int, int], seed: int, spread: float = 1.5
) -> tuple[Tensor, Tensor]:
    """Images around smooth centres, one a class, in random order."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    targets = targets[torch.randperm(len(targets), generator=generator)]
    coarse = torch.randn(len(counts), shape[0], shape[1] // 4, shape[2] // 4, generator=generator)
    centres = F.interpolate(coarse, shape[1:], mode="bilinear")
    return centres[targets] + spread * torch.randn(len(targets), *shape, generator=generator), targets


def trained(model: nn.Module, inputs: Tensor, targets: Tensor, steps: int, batch: int, lr: float) -> nn.Module:
    optimiser = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(steps):
        some = torch.randint(len(inputs), (batch,), generator=generator).to(inputs.device)
        optimiser.zero_grad()
        F.cross_entropy(model(inputs[some]), targets[some]).backward()
        optimiser.step()
    optimiser.zero_grad()
    return model.eval()


def resnet(device: torch.device, counts: Sequence[int], steps: int = 40) -> tuple[nn.Module, Tensor, Tensor]:
    """A ResNet-20 (269,722 parameters for ten classes), trained a little, so that its spectrum has outliers."""
    inputs, targets = gaussians(counts, (3, 32, 32), seed=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Network(ResNetEncoder(20), LinearClassifier(64, len(counts)))
    inputs, targets = inputs.to(device), targets.to(device)
    return trained(model.to(device), inputs, targets, steps, 32, 0.05), inputs, targets


def even(total: int, classes: int = 10) -> list[int]:
    return [total // classes + (c < total % classes) for c in range(classes)]


def long_tail(most: int, least: int, classes: int) -> list[int]:
    return [round(most * (least / most) ** (c / (classes - 1))) for c in range(classes)]


def small_cnn(seed: int, samples: int = 128) -> tuple[nn.Module, Tensor, Tensor]:
    """Two convolutions with BatchNorm, 1,838 parameters, samples of classes that overlap."""
    inputs, targets = gaussians(even(samples), (3, 8, 8), seed=100 + seed, spread=3.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2)),
            *(nn.Conv2d(8, 14, 3, padding=1, bias=False), nn.BatchNorm2d(14), nn.ReLU(), nn.AvgPool2d(2)),
            *(nn.Flatten(), nn.Linear(56, 10)),
        )
    return trained(model, inputs, targets, 40 + 40 * seed, 32, 0.05), inputs, targets


@functools.cache
def exact(seed: int, samples: int) -> tuple[Tensor, np.ndarray]:
    """The small network's Hessian in float64 and its eigenvalues; some rows checked by plain double backward."""
    model, inputs, targets = small_cnn(seed, samples)
    model, inputs = copy.deepcopy(model).double(), inputs.double()
    H = Hessian(model, losses, (inputs, targets)).dense()
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(F.cross_entropy(model(inputs), targets), parameters, create_graph=True)
    for row in range(0, len(H), 97):
        parts = torch.autograd.grad(flat(gradients)[row], parameters, retain_graph=True)
        if not torch.allclose(flat(parts), H[row], rtol=1e-9, atol=1e-11):
            raise RuntimeError(f"row {row} of the exact Hessian is wrong")
    H = (H + H.T) / 2
    return H, torch.linalg.eigvalsh(H).numpy()


class Quadratic(nn.Module):
    """A model whose loss has the given Hessian, for libraries that want a model."""

    def __init__(self, H: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(len(H)))
        self.register_buffer("H", H)

    def forward(self, _: Tensor) -> Tensor:
        return 0.5 * self.theta @ (self.H @ self.theta)


# -- timing ----------------------------------------------------------------------------------------------------------


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def interleaved(job: Job, tasks: Mapping[str, Task], rounds: int, warm: bool = True) -> dict[str, list[float]]:
    """Seconds of every task in every round; a task that fails is left out with a note."""
    alive = dict(tasks)

    def timed(name: str) -> float | None:
        synchronise(job.device)
        began = time.perf_counter()
        try:
            alive[name]()
            synchronise(job.device)
        except Exception as error:
            job.note(f"{name}: {type(error).__name__}: {first_line(error)}")
            del alive[name]
            return None
        return time.perf_counter() - began

    if warm:
        for name in list(alive):
            timed(name)
    times: dict[str, list[float]] = {name: [] for name in alive}
    for turn in range(rounds):
        names = list(alive)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            seconds = timed(name)
            if seconds is not None:
                times[name].append(seconds)
    return {name: found for name, found in times.items() if len(found) == rounds}


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:160]


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def ratio(over: Sequence[float], under: Sequence[float]) -> dict[str, float]:
    return spread([a / b for a, b in zip(over, under, strict=True)])


def quantiles(values: Sequence[float]) -> dict[str, float]:
    return {"median": float(np.median(values)), "p90": float(np.quantile(values, 0.9)), "max": float(np.max(values))}


def shown(values: Mapping[str, float], digits: int = 3) -> str:
    """``median (low to high)``."""
    if values["low"] == values["high"]:
        return number(values["median"], digits)
    return f"{number(values['median'], digits)} ({number(values['low'], digits)} to {number(values['high'], digits)})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# -- peers' products -------------------------------------------------------------------------------------------------


def split_like(v: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    return [part.view_as(p) for part, p in zip(v.split([p.numel() for p in parameters]), parameters, strict=True)]


def flat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts])


def in_batches(inputs: Tensor, targets: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(inputs.split(size), targets.split(size), strict=True))


def pyhessian_on(model: nn.Module, device: torch.device, **data: Any) -> Any:
    from pyhessian import hessian

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Using backward\(\) with create_graph=True")
        return hessian(model, nn.CrossEntropyLoss(), cuda=device.type == "cuda", **data)


def pyhessian_data(model: nn.Module, inputs: Tensor, targets: Tensor, v: Tensor) -> Task:
    from pyhessian.utils import hessian_vector_product

    theirs = pyhessian_on(model, v.device, data=(inputs, targets))
    for parameter in model.parameters():
        parameter.grad = None  # otherwise its graph stays for ever
    parts = split_like(v, theirs.params)
    return lambda: flat(hessian_vector_product(theirs.gradsH, theirs.params, parts))


def pyhessian_loader(model: nn.Module, inputs: Tensor, targets: Tensor, v: Tensor, size: int) -> Task:
    theirs = pyhessian_on(model, v.device, dataloader=in_batches(inputs, targets, size))
    parts = split_like(v, theirs.params)
    return lambda: flat(theirs.dataloader_hv_product(parts)[1])


def curvlinops_product(model: nn.Module, inputs: Tensor, targets: Tensor, v: Tensor, size: int) -> Task:
    from curvlinops import HessianLinearOperator

    data = in_batches(inputs, targets, size)
    op = HessianLinearOperator(
        model, nn.CrossEntropyLoss(), list(model.parameters()), data, check_deterministic=False, num_data=len(inputs)
    )
    return lambda: op @ v


def eigenthings_product(model: nn.Module, inputs: Tensor, targets: Tensor, v: Tensor, size: int) -> Task:
    from hessian_eigenthings import HessianOperator

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    op = HessianOperator(model, in_batches(inputs, targets, size), loss)
    return lambda: op @ v


# -- P2: a product ---------------------------------------------------------------------------------------------------


def products(job: Job) -> dict[str, Any]:
    images = 32 if job.quick else 256
    model, inputs, targets = resnet(job.device, even(images), 3 if job.quick else 40)
    parameters = list(model.parameters())
    v = torch.randn(sum(p.numel() for p in parameters), generator=torch.Generator().manual_seed(1)).to(job.device)
    fast_model = copy.deepcopy(model).to(memory_format=torch.channels_last)
    fast_inputs = inputs.contiguous(memory_format=torch.channels_last)
    quarter = images // 4  # rebuilt graphs are faster in smaller batches: what a user who knows that would choose

    def unit(model: nn.Module, inputs: Tensor) -> Task:
        return lambda: torch.autograd.grad(F.cross_entropy(model(inputs), targets), list(model.parameters()))

    def ours(**options: Any) -> Task:
        op = Hessian(model, losses, (inputs, targets), **options)
        return lambda: op @ v

    arguments = (model, inputs, targets, v)
    builders: dict[str, Callable[[], Task]] = {
        "forward+backward": lambda: unit(model, inputs),
        "forward+backward, channels-last": lambda: unit(fast_model, fast_inputs),
        "ours": ours,
        "ours, no memory for graphs": lambda: ours(memory_limit=0),
        **{f"ours, micro-batch {size}": functools.partial(ours, batch_size=size) for size in _sizes(images)},
        "PyHessian data=": lambda: pyhessian_data(*arguments),
        f"PyHessian dataloader=, batch {images}": lambda: pyhessian_loader(*arguments, images),
        f"PyHessian dataloader=, batch {quarter}": lambda: pyhessian_loader(*arguments, quarter),
        f"curvlinops, batch {images}": lambda: curvlinops_product(*arguments, images),
        f"curvlinops, batch {quarter}": lambda: curvlinops_product(*arguments, quarter),
        f"hessian-eigenthings, batch {images}": lambda: eigenthings_product(*arguments, images),
        f"hessian-eigenthings, batch {quarter}": lambda: eigenthings_product(*arguments, quarter),
    }
    tasks: dict[str, Task] = {}
    for name, build in builders.items():
        try:
            tasks[name] = build()
        except Exception as error:
            job.note(f"{name}: {type(error).__name__}: {first_line(error)}")
    seen = {name: task() for name, task in tasks.items() if not name.startswith("forward")}
    reference = _product_in_double(model, inputs, targets, v)
    errors = {name: float((Hv.double() - reference).norm() / reference.norm()) for name, Hv in seen.items()}
    del seen
    times = interleaved(job, tasks, job.rounds, warm=False)  # each has run once
    units = "forward+backward", "forward+backward, channels-last"
    rows = {
        name: {
            "seconds": spread(found),
            "units": ratio(found, times[units[0]]),
            "channels_last_units": ratio(found, times[units[1]]),
            "ours_faster": ratio(found, times["ours"]),
            "error": errors.get(name),
        }
        for name, found in times.items()
    }
    cost = rows["ours"]["units"]["median"], rows["ours"]["channels_last_units"]["median"]
    for peer, goal in (("PyHessian dataloader=", 2.3), ("curvlinops", 2.5)):
        for size in (images, quarter):
            row = rows.get(f"{peer}, batch {size}")
            if row:
                faster = row["ours_faster"]["median"]
                job.target(f"P2 product against {peer}, batch {size}", f"≥ {goal}× faster", faster, faster >= goal)
    job.target("P2 product, forward+backwards", "≤ 1.7", cost[0], cost[0] <= 1.7)
    job.target("P2 product, channels-last forward+backwards", "≤ 1.7", cost[1], cost[1] <= 1.7)
    return {"images": images, "rounds": job.rounds, "parameters": len(v), "rows": rows}


def _sizes(images: int) -> list[int]:
    return [size for size in (16, 32, 64, 128, 256) if size <= images]


def _product_in_double(model: nn.Module, inputs: Tensor, targets: Tensor, v: Tensor) -> Tensor:
    model = copy.deepcopy(model).double()
    parameters = list(model.parameters())
    result = torch.zeros_like(v, dtype=torch.float64)
    for some, wanted in in_batches(inputs, targets, 32):
        loss = F.cross_entropy(model(some.double()), wanted, reduction="sum") / len(inputs)
        gradients = torch.autograd.grad(loss, parameters, create_graph=True)
        result += flat(torch.autograd.grad(gradients, parameters, split_like(v.double(), parameters)))
    return result


def products_table(result: Mapping[str, Any]) -> str:
    header = ["", "seconds", "forward+backwards", "… channels-last", "time / ours", "relative error"]
    rows = [
        [
            name,
            shown(row["seconds"]),
            shown(row["units"]),
            shown(row["channels_last_units"]),
            shown(row["ours_faster"]),
            "" if row["error"] is None else number(row["error"], 2),
        ]
        for name, row in result["rows"].items()
    ]
    title = f"ResNet-20 ({result['parameters']:,} parameters), {result['images']} images of 32 × 32, float32, "
    return f"{title}{result['rounds']} rounds.\n\n{table(header, rows)}"


# -- P1: a density ---------------------------------------------------------------------------------------------------


def density(job: Job) -> dict[str, Any]:
    nets, seeds, samples = (1, 1, 32) if job.quick else (3, 5, 128)
    found: dict[str, list[tuple[float, float]]] = {}
    for net in range(nets):
        H, values = exact(net, samples)
        span = values[-1] - values[0]
        model, inputs, targets = small_cnn(net, samples)
        op = Hessian(model, losses, (inputs, targets))
        for seed in range(seeds):
            for name, (nodes, weights) in _densities(job, op, H.float(), seed).items():
                weights = weights / weights.sum()
                distance = wasserstein_distance(values, nodes, None, weights) / span
                implied = abs(float(nodes @ weights) - values.mean()) / abs(values.mean())
                found.setdefault(name, []).append((distance, implied))
    accuracy = {
        name: {"wasserstein": quantiles([w for w, _ in pairs]), "trace": quantiles([t for _, t in pairs])}
        for name, pairs in found.items()
    }
    ours = accuracy["ours, 100 products"]
    distance, implied = ours["wasserstein"]["median"], ours["trace"]["median"]
    job.target("P1 density at 100 products, W1 / span", "≤ 5e−4", distance, distance <= 5e-4)
    job.target("P1 density at 100 products, implied trace off by", "≤ 3 %", 100 * implied, implied <= 0.03)
    theirs = accuracy.get("PyHessian, 10 × 50 products")
    if theirs:
        gain = theirs["wasserstein"]["median"] / distance
        job.target("P1 PyHessian's W1 at 500 products over ours at 100", "≥ 1", gain, gain >= 1)
    speed = _density_times(job)
    for path in ("data", "loader"):
        if path in speed["faster"]:
            faster = speed["faster"][path]["median"]
            job.target(f"P1 density in time, against PyHessian's {path} path", "≥ 5× faster", faster, faster >= 5)
    return {"networks": nets, "seeds": seeds, "accuracy": accuracy, "time": speed}


def _densities(job: Job, op: Any, H: Tensor, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Nodes and weights by every library at several budgets; the peers multiply by the exact matrix."""
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def add(name: str, nodes: Any, weights: Any) -> None:
        found[name] = np.concatenate([*nodes]).astype(float), np.concatenate([*weights]).astype(float)

    for products in (60, 100):
        ours = spectral_density(op, products=products, seed=seed)
        add(f"ours, {products} products", ours.nodes.numpy(), ours.weights.numpy())
    runs = 4 if job.quick else 20
    # The runs are independent, so that the first ten of twenty are what ten would have been.
    budgets = {n: f"{n} × 50 products" for n in (2, 10, 20) if n <= runs}
    attempts: dict[str, Callable[[], tuple[Any, Any]]] = {
        "PyHessian": lambda: _pyhessian_density(H, 50, runs, seed),
        "hessian-eigenthings": lambda: _eigenthings_density(H, 50, runs, seed),
        "curvlinops": lambda: _curvlinops_density(H, 50, runs, seed),
    }
    for name, attempt in attempts.items():
        try:
            nodes, weights = attempt()
        except Exception as error:
            if not any(text.startswith(f"density of {name}") for text in job.notes):
                job.note(f"density of {name}: {type(error).__name__}: {first_line(error)}")
            continue
        for n, label in budgets.items():
            add(f"{name}, {label}", nodes[:n], weights[:n])
    return found


def _pyhessian_density(H: Tensor, steps: int, runs: int, seed: int) -> tuple[Any, Any]:
    from pyhessian import hessian

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        model, nothing = Quadratic(H), torch.zeros(1)
        theirs = hessian(model, lambda output, _: output, data=(nothing, nothing), cuda=False)
        model.theta.grad = None
        return rebound(hessian.density, torch=TorchWithEig())(theirs, iter=steps, n_v=runs)  # type: ignore[no-any-return]


def _eigenthings_density(H: Tensor, steps: int, runs: int, seed: int) -> tuple[Any, Any]:
    from hessian_eigenthings import LambdaOperator
    from hessian_eigenthings import spectral_density as theirs

    op = LambdaOperator(lambda v: H @ v, len(H))
    result = theirs(op, num_runs=runs, lanczos_steps=steps, num_grid_points=10, seed=1000 * seed)
    return result.raw_eigenvalues.numpy(), result.raw_weights.numpy()


def _curvlinops_density(H: Tensor, steps: int, runs: int, seed: int) -> tuple[Any, Any]:
    from curvlinops.papyan2020traces.spectrum import fast_lanczos

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pairs = [fast_lanczos(H, steps) for _ in range(runs)]
    return [values.numpy() for values, _ in pairs], [vectors[0].square().numpy() for _, vectors in pairs]


def _density_times(job: Job) -> dict[str, Any]:
    """Seconds for 100 products of ours and for one run of 50 of PyHessian's, of which it needs ten."""
    images, mine, steps = (16, 12, 6) if job.quick else (64, 100, 50)
    model, inputs, targets = resnet(job.device, even(images), 5 if job.quick else 40)

    def pyhessian(**data: Any) -> None:
        theirs = pyhessian_on(model, job.device, **data)
        rebound(type(theirs).density, torch=TorchWithEig())(theirs, iter=steps, n_v=1)
        model.zero_grad()

    tasks: dict[str, Task] = {
        "ours": lambda: spectral_density(Hessian(model, losses, (inputs, targets)), products=mine),
        "data": lambda: pyhessian(data=(inputs, targets)),
        "loader": lambda: pyhessian(dataloader=[(inputs, targets)]),
    }
    times = interleaved(job, tasks, min(job.rounds, 2), warm=job.device.type == "cuda")
    faster = {
        name: ratio([10 * value for value in found], times["ours"]) for name, found in times.items() if name != "ours"
    }
    seconds = {name: spread(found) for name, found in times.items()}
    return {"images": images, "products": mine, "steps": steps, "seconds": seconds, "faster": faster}


def density_table(result: Mapping[str, Any]) -> str:
    rows = [
        [
            name,
            *(number(row["wasserstein"][key], 2) for key in ("median", "max")),
            *(f"{number(100 * row['trace'][key], 2)} %" for key in ("median", "max")),
        ]
        for name, row in result["accuracy"].items()
    ]
    header = ["", "W1 / span, median", "largest", "implied trace off by, median", "largest"]
    time_ = result["time"]
    runs = [["ours", f"{time_['products']}", shown(time_["seconds"]["ours"]), "1"]]
    for name in time_["faster"]:
        runs.append(
            [
                f"PyHessian, {name} path",
                f"{time_['steps']} of 10 × {time_['steps']}",
                shown(time_["seconds"][name]),
                shown(time_["faster"][name]),
            ]
        )
    return (
        f"Accuracy on {result['networks']} networks of 1,838 parameters whose Hessian is known, {result['seeds']} "
        f"seeds each.\n\n{table(header, rows)}\n\n"
        f"Time on the ResNet-20, {time_['images']} images; ten runs of PyHessian are "
        f"counted as ten times the one that was timed.\n\n"
        f"{table(['', 'products timed', 'seconds', 'ten runs / ours'], runs)}"
    )


# -- P3: many subsets at once ----------------------------------------------------------------------------------------


def subsets(job: Job) -> dict[str, Any]:
    try:
        from landscape_lab.analysis.spectra import hessian_spectrum
        from landscape_lab.analysis.subsets import SubsetOperators, subset_spectra, subset_traces
    except ImportError as error:
        job.note(f"subsets: {first_line(error)}")
        return {}
    rows: dict[str, Any] = {}
    probes, steps = (6, 6) if job.quick else (30, 20)
    counts = long_tail(6, 3, 10) if job.quick else long_tail(70, 5, 10)
    model, inputs, targets = resnet(job.device, counts, 3 if job.quick else 40)
    data = (inputs, targets)
    classes = {str(c): [c] for c in range(10)}
    overlapping = {**classes, "head": [0, 1, 2], "tail": [7, 8, 9], "all": list(range(10))}

    def compared(name: str, one: Task, many: Task, goal: float, rounds: int) -> None:
        times = interleaved(job, {"one": one, "many": many}, rounds, warm=False)
        if len(times) == 2:
            cost = ratio(times["many"], times["one"])
            rows[name] = {"one": spread(times["one"]), "many": spread(times["many"]), "ratio": cost}
            job.target(f"P3 {name}", f"≤ {goal}×", cost["median"], cost["median"] <= goal)

    few = min(job.rounds, 2)
    compared(
        f"{len(overlapping)} traces ({len(inputs)} images, {probes} products)",
        lambda: trace(Hessian(model, losses, data), products=probes),
        lambda: subset_traces(SubsetOperators(model, losses, data, overlapping), products=probes),
        1.1,
        few,
    )

    def spectra_of(model: nn.Module, data: tuple[Tensor, Tensor], steps: int) -> tuple[Task, Task]:
        own = {str(c): [c] for c in range(int(data[1].max()) + 1)}
        options = {"trace_products": 4, "density_products": steps}
        return (
            lambda: hessian_spectrum(Hessian(model, losses, data), **options),
            lambda: subset_spectra(SubsetOperators(model, losses, data, own), **options),
        )

    compared(
        f"densities of 10 classes ({len(inputs)} images, {steps} steps)", *spectra_of(model, data, steps), 1.15, few
    )
    if not job.quick:
        steps, counts = 12, long_tail(20, 5, 100)
        model, inputs, targets = resnet(job.device, counts)
        name = f"densities of 100 classes, the rarest of 5 ({len(inputs)} images, {steps} steps)"
        compared(name, *spectra_of(model, (inputs, targets), steps), 1.15, 1)
    return {"rows": rows}


def subsets_table(result: Mapping[str, Any]) -> str:
    rows = [
        [name, shown(row["one"]), shown(row["many"]), shown(row["ratio"])]
        for name, row in result.get("rows", {}).items()
    ]
    return table(["", "whole data, seconds", "all subsets, seconds", "ratio"], rows) if rows else "Not measured."


# -- P4: a trace -----------------------------------------------------------------------------------------------------


def traces(job: Job) -> dict[str, Any]:
    if job.device.type != "cpu":
        job.note("accuracy is measured on the CPU")
        return {}
    nets, seeds, samples, products = (1, 10, 32, 30) if job.quick else (3, 100, 128, 30)
    errors: dict[str, list[float]] = {}
    spent: dict[str, list[int]] = {}
    covered: dict[str, list[bool]] = {}
    missing: set[str] = set()
    for net in range(nets):
        H, values = exact(net, samples)
        truth, H32 = float(values.sum()), H.float()
        for seed in range(seeds):
            for name, attempt in _traces(H32, products, seed).items():
                if name in missing:
                    continue
                try:
                    value, count, interval = attempt()
                except Exception as error:
                    missing.add(name)
                    job.note(f"trace, {name}: {type(error).__name__}: {first_line(error)}")
                    continue
                errors.setdefault(name, []).append(abs(value - truth) / abs(truth))
                spent.setdefault(name, []).append(count)
                if interval:
                    covered.setdefault(name, []).append(interval[0] <= truth <= interval[1])
    rows = {
        name: {
            "error": quantiles(found),
            "products": spread(spent[name]),
            "coverage": float(np.mean(covered[name])) if name in covered else None,
        }
        for name, found in errors.items()
    }
    best = rows["ours (default)"]["error"]["median"]
    job.target(f"P4 trace from {products} products off by", "≤ 1.2 % (median)", 100 * best, best <= 0.012)
    return {"networks": nets, "seeds": seeds, "rows": rows}


def _traces(H: Tensor, products: int, seed: int) -> dict[str, Callable[[], tuple[float, int, Any]]]:
    def ours(**options: Any) -> tuple[float, int, Any]:
        found = trace(H, products=products, seed=seed, **options)
        interval = (found.low, found.high) if hasattr(found, "low") else None
        return found.value, found.products, interval

    def pyhessian(**options: Any) -> tuple[float, int, Any]:
        from pyhessian import hessian

        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(seed)
            model, nothing = Quadratic(H), torch.zeros(1)
            theirs = hessian(model, lambda output, _: output, data=(nothing, nothing), cuda=False)
            samples = theirs.trace(**options)
            model.theta.grad = None
        return float(np.mean(samples)), len(samples), None

    def curvlinops(name: str, count: int) -> tuple[float, int, Any]:
        import curvlinops as theirs

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return float(getattr(theirs, name)(H, count)), count, None

    def eigenthings() -> tuple[float, int, Any]:
        from hessian_eigenthings import LambdaOperator
        from hessian_eigenthings import trace as theirs

        found = theirs(LambdaOperator(lambda v: H @ v, len(H)), num_matvecs=products, method="hutch++", seed=seed)
        return float(found.estimate), products, None

    methods = ("deflated", "xtrace", "hutch++", "hutchinson")
    return {
        "ours (default)": ours,
        **{f"ours, {method}": functools.partial(ours, method=method) for method in methods},
        "PyHessian, its own stopping rule": pyhessian,
        "PyHessian, rule off": lambda: pyhessian(maxIter=products, tol=-float("inf")),
        "curvlinops, XTrace": lambda: curvlinops("xtrace", products),
        "curvlinops, Hutch++": lambda: curvlinops("hutchpp_trace", products),
        "hessian-eigenthings, Hutch++": eigenthings,
    }


def traces_table(result: Mapping[str, Any]) -> str:
    rows = [
        [
            name,
            shown(row["products"]),
            *(f"{number(100 * row['error'][key], 2)} %" for key in ("median", "p90", "max")),
            "" if row["coverage"] is None else f"{number(100 * row['coverage'], 3)} %",
        ]
        for name, row in result["rows"].items()
    ]
    header = ["", "products", "error, median", "90 % below", "largest", "95 % interval covers"]
    return f"{result['networks']} networks, {result['seeds']} seeds each.\n\n{table(header, rows)}"


# -- memory ----------------------------------------------------------------------------------------------------------


def memory(job: Job) -> dict[str, Any]:
    images = 32 if job.quick else 256
    peaks: dict[str, Any] = {}
    kinds = {"ours": [], "ours, no memory for graphs": ["--limit", "0"]}
    for size in [] if job.quick else _sizes(images):
        kinds[f"ours, micro-batch {size}"] = ["--batch", str(size)]
        kinds[f"ours, micro-batch {size}, no memory for graphs"] = ["--batch", str(size), "--limit", "0"]
    kinds |= {"PyHessian data=": ["--peer", "data"], f"PyHessian dataloader=, batch {images}": ["--peer", "loader"]}
    for name, options in kinds.items():
        found = _child(job, "product", "--images", str(images), *options)
        if found:
            peaks[name] = found["mib"]
    growth = {}
    for name, options in {"ours": [], "PyHessian data=, construction alone": ["--peer", "data"]}.items():
        found = _child(job, "growth", "--repeats", "20" if job.quick else "100", *options)
        if found:
            growth[name] = found
    if "ours" in growth:
        percent = growth["ours"]["percent"]
        repeats = growth["ours"]["repeats"]
        job.target(f"Memory: growth over {repeats} constructions and densities", "< 1 %", percent, percent < 1)
    return {"images": images, "peaks": peaks, "growth": growth}


def _child(job: Job, *arguments: str) -> dict[str, Any] | None:
    """Measure in a process of its own, whose memory nothing else has touched."""
    command = [sys.executable, str(Path(__file__).resolve()), "--child", *arguments, "--device", job.device.type]
    done = subprocess.run([*command, "--threads", str(job.threads)], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [""]
        job.note(f"{' '.join(arguments)}: {lines[-1][:160]}")
        return None
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def child(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["product", "growth"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--peer", choices=["data", "loader"])
    parser.add_argument("--repeats", type=int, default=100)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    device = resolve_device(options.device)
    result = child_growth(device, options) if options.what == "growth" else child_product(device, options)
    print(json.dumps(result))


def child_product(device: torch.device, options: argparse.Namespace) -> dict[str, float]:
    """The most memory that two products take beyond model and data."""
    model, inputs, targets = resnet(device, even(options.images), steps=0)
    v = torch.randn(sum(p.numel() for p in model.parameters())).to(device)
    torch.autograd.grad(F.cross_entropy(model(inputs[:2]), targets[:2]), list(model.parameters()))  # loads libraries
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    else:
        before = _reset_peak()
    if options.peer == "data":
        product = pyhessian_data(model, inputs, targets, v)
    elif options.peer == "loader":
        product = pyhessian_loader(model, inputs, targets, v, len(inputs))
    else:
        given = {"batch_size": options.batch, "memory_limit": options.limit}
        op = Hessian(model, losses, (inputs, targets), **{k: x for k, x in given.items() if x is not None})
        product = lambda: op @ v  # noqa: E731
    product()
    product()
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM")
    return {"mib": (peak - before) / 2**20}


def child_growth(device: torch.device, options: argparse.Namespace) -> dict[str, float]:
    """How the process grows with repeated constructions and densities, once ten of them have warmed it up."""
    model, inputs, targets = small_cnn(0)
    model, inputs, targets = model.to(device), inputs.to(device), targets.to(device)

    def once(seed: int) -> None:
        if options.peer:
            # Its density would free the graph by chance, as zero_grad drops the gradients today.
            pyhessian_on(copy.deepcopy(model), device, data=(inputs, targets))
        else:
            spectral_density(Hessian(model, losses, (inputs, targets)), products=20, seed=seed)

    def now() -> int:
        gc.collect()
        return torch.cuda.memory_allocated(device) if device.type == "cuda" else _status("VmRSS")

    for seed in range(10):
        once(seed)
    before = now()
    for seed in range(options.repeats):
        once(seed)
    after = now()
    return {
        "repeats": options.repeats,
        "before_mib": before / 2**20,
        "after_mib": after / 2**20,
        "percent": 100 * (after / before - 1),
    }


def _status(key: str) -> int:
    """Bytes from Linux's account of this process."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[key].split()[0]) * 1024


def _reset_peak() -> int:
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def memory_table(result: Mapping[str, Any]) -> str:
    peaks = [[name, f"{mib:,.0f}"] for name, mib in result["peaks"].items()]
    growth = [
        [
            name,
            str(row["repeats"]),
            f"{row['before_mib']:,.0f}",
            f"{row['after_mib']:,.0f}",
            f"{number(row['percent'], 2)} %",
        ]
        for name, row in result["growth"].items()
    ]
    return (
        f"Peak memory of two products beyond model and data, ResNet-20, {result['images']} images.\n\n"
        f"{table(['', 'MiB'], peaks)}\n\nOne process, a construction and a density again and again (the small network, "
        f"128 samples, after ten to warm up).\n\n{table(['', 'times', 'MiB before', 'MiB after', 'growth'], growth)}"
    )


# -- CUDA ------------------------------------------------------------------------------------------------------------


def cuda(job: Job) -> dict[str, Any]:
    """Launches a product, and what graphs and compilation give. Each part may fail without the others."""
    if job.device.type != "cuda":
        job.note("measured on a GPU only")
        return {}
    model, inputs, targets = resnet(job.device, even(64 if job.quick else 256), 5 if job.quick else 40)
    parameters = list(model.parameters())
    v = torch.randn(sum(p.numel() for p in parameters), generator=torch.Generator().manual_seed(1)).to(job.device)
    op = Hessian(model, losses, (inputs, targets))
    wanted = op @ v
    found: dict[str, Any] = {"images": len(inputs), "launches": {}, "rows": {}}

    def attempt(name: str, build: Callable[[], Any]) -> Any:
        try:
            return build()
        except Exception as error:
            job.note(f"cuda, {name}: {type(error).__name__}: {first_line(error)}")
            return None

    loss = F.cross_entropy(model(inputs), targets)
    gradient = flat(torch.autograd.grad(loss, parameters, create_graph=True))

    def eager() -> Tensor:
        return flat(torch.autograd.grad(gradient, parameters, v, retain_graph=True))

    def graphed() -> Task:
        """The retained product, recorded once and replayed; the vector is read from where it lies."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                # Autograd runs a backward on the streams of its forward: build this graph on the recording stream.
                replayed = _retained(model, inputs, targets, parameters)
                flat(torch.autograd.grad(replayed, parameters, v, retain_graph=True))
        torch.cuda.current_stream().wait_stream(side)
        recorded = torch.cuda.CUDAGraph()
        with torch.cuda.graph(recorded, stream=side):
            replayed = _retained(model, inputs, targets, parameters)
            output = flat(torch.autograd.grad(replayed, parameters, v, retain_graph=True))

        def replay() -> Tensor:
            recorded.replay()
            return output

        return replay

    def compiled() -> Task:
        """Forward over reverse, the only form that compiles: a second backward through compiled code is refused."""
        from torch.func import functional_call, grad, jvp

        point = {name: p.detach() for name, p in model.named_parameters()}
        along = dict(zip(point, split_like(v, parameters), strict=True))

        def mean(values: dict[str, Tensor]) -> Tensor:
            return F.cross_entropy(functional_call(model, values, (inputs,)), targets)

        product = torch.compile(lambda values, tangents: jvp(grad(mean), (values,), (tangents,))[1])
        return lambda: flat(list(product(point, along).values()))

    tasks: dict[str, Task] = {
        "forward+backward": lambda: torch.autograd.grad(F.cross_entropy(model(inputs), targets), parameters),
        "ours": lambda: op @ v,
        "retained gradient graph": eager,
    }
    for name, build in {
        "whole product in a CUDA graph": graphed,
        "forward-over-reverse, torch.compile": compiled,
        "PyHessian data=": lambda: pyhessian_data(model, inputs, targets, v),
        "PyHessian dataloader=": lambda: pyhessian_loader(model, inputs, targets, v, len(inputs)),
    }.items():
        task = attempt(name, build)
        if task is not None:
            tasks[name] = task
    for name, task in list(tasks.items()):
        output = attempt(name, task)
        if isinstance(output, Tensor):
            error = float((output - wanted).norm() / wanted.norm())
            if not error < 1e-2:
                job.note(f"cuda, {name}: off by {error:.2g}, left out")
                del tasks[name]
                continue
        count = attempt(f"launches of {name}", functools.partial(_launches, task))
        if count is not None:
            found["launches"][name] = count
    times = interleaved(job, tasks, max(job.rounds, 10))
    found["rows"] = {
        name: {"seconds": spread(seen), "ours": ratio(seen, times["ours"])}
        for name, seen in times.items()
        if "ours" in times
    }
    return found


def _retained(model: nn.Module, inputs: Tensor, targets: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    loss = F.cross_entropy(model(inputs), targets)
    return flat(torch.autograd.grad(loss, parameters, create_graph=True))


def _launches(task: Task) -> int:
    """Kernels on the GPU during one call."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    task()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        task()
        torch.cuda.synchronize()
    return sum(event.device_type == DeviceType.CUDA for event in seen.events())


def cuda_table(result: Mapping[str, Any]) -> str:
    if not result:
        return "Not measured."
    rows = [
        [name, str(result["launches"].get(name, "")), shown(row["seconds"]), shown(row["ours"])]
        for name, row in result["rows"].items()
    ]
    header = ["", "kernels on the GPU", "seconds", "time / ours"]
    return f"One product, ResNet-20, {result['images']} images.\n\n{table(header, rows)}"


# -- the page --------------------------------------------------------------------------------------------------------

SECTIONS: dict[str, tuple[Callable[[Job], dict[str, Any]], Callable[[Mapping[str, Any]], str]]] = {
    "products": (products, products_table),
    "density": (density, density_table),
    "subsets": (subsets, subsets_table),
    "trace": (traces, traces_table),
    "memory": (memory, memory_table),
    "cuda": (cuda, cuda_table),
}


def machine(job: Job) -> dict[str, Any]:
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        found = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        name = found[0].split(":", 1)[1].strip() if found else name
    versions = {}
    for package in ("torch", "numpy", "scipy", *PEERS):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "cpu": name,
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(job.device) if job.device.type == "cuda" else None,
        "threads": job.threads,
        "python": platform.python_version(),
        "versions": versions,
        "date": datetime.date.today().isoformat(),
        "quick": job.quick,
        "command": "python benchmarks/curvature.py " + " ".join(sys.argv[1:]),
    }


def described(made: Mapping[str, Any]) -> str:
    where = made["gpu"] or f"{made['cpu']}, {made['threads']} of {made['cores']} cores"
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    return f"*{where}; {made['date']}; Python {made['python']}, {versions}; `{made['command'].strip()}`*"


def write_page(page: Path, results: Path) -> None:
    """Put the tables of all result files into the page, between their marks."""
    text = page.read_text()
    files = [json.loads(path.read_text()) for path in sorted(results.glob("curvature-*.json"))]
    blocks: dict[str, str] = {}
    met = []
    for name, (_, draw) in SECTIONS.items():
        parts = []
        for sections in files:
            section = sections.get(name)
            if not section or not section["result"]:
                continue
            notes = "".join(f"\n- {note}" for note in section["notes"])
            parts.append(
                f"{described(section['machine'])}\n\n{draw(section['result'])}" + (f"\n{notes}" if notes else "")
            )
            where = section["machine"]["gpu"] or "CPU"
            for one in section["targets"]:
                measured = number(one["measured"], 3) if one["measured"] is not None else "?"
                met.append([one["name"], where, one["goal"], measured, "met" if one["met"] else "**missed**"])
        blocks[name] = "\n\n".join(parts) or "Not measured yet."
    blocks["targets"] = table(["", "on", "goal", "measured", ""], met) if met else "Not measured yet."
    for name, block in blocks.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n{block}\n\n{end}{rest.split(end)[1]}"
    page.write_text(text)


def main() -> None:
    if "--child" in sys.argv:
        child([argument for argument in sys.argv[1:] if argument != "--child"])
        return
    parser = argparse.ArgumentParser(description="Curvature: us against the others, in one interleaved run.")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--quick", action="store_true", help="less than a minute; writes no page unless --page is given"
    )
    parser.add_argument("--rounds", type=int, help="turns of every timing (default 5; 1 with --quick)")
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"some of {', '.join(SECTIONS)}")
    parser.add_argument("--out", type=Path, help="default benchmarks/results/curvature-<device>.json")
    parser.add_argument("--page", type=Path, help="default docs/benchmarks.md")
    options = parser.parse_args()
    chosen = options.only.split(",")
    unknown = [name for name in chosen if name not in SECTIONS]
    if unknown:
        parser.error(f"--only: no section {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    warnings.filterwarnings("ignore", message=r"Using backward\(\) with create_graph=True")  # PyHessian does
    torch.set_num_threads(options.threads)
    device = resolve_device(options.device)
    if device.type == "cuda":
        # For speed as a user has it; the numbers are float32 all the same.
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False
        torch.backends.cuda.matmul.allow_tf32 = False
    rounds = options.rounds or (1 if options.quick else 5)
    out = options.out or (None if options.quick else ROOT / "benchmarks" / "results" / f"curvature-{device.type}.json")
    page = options.page or (None if options.quick else PAGE)
    kept = json.loads(out.read_text()) if out and out.exists() else {}
    for name in chosen:
        print(f"{name} …", flush=True)
        job = Job(device, options.threads, options.quick, rounds)
        measure, draw = SECTIONS[name]
        began = time.perf_counter()
        try:
            result = measure(job)
        except Exception as error:
            if device.type != "cuda":
                raise
            job.note(f"{name} failed: {type(error).__name__}: {first_line(error)}")
            continue
        print(draw(result) if result else "  nothing measured", flush=True)
        for one in job.targets:
            print(f"  {'met   ' if one['met'] else 'MISSED'} {one['name']}: {number(one['measured'])} ({one['goal']})")
        print(f"  [{time.perf_counter() - began:.0f} s]\n", flush=True)
        kept[name] = {"machine": machine(job), "result": result, "notes": job.notes, "targets": job.targets}
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(finite(kept), indent=1, ensure_ascii=False) + "\n")
    if page and out:
        write_page(page, out.parent)


if __name__ == "__main__":
    main()
