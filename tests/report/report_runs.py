"""Run directories written by hand, with results that are known in closed form, for the report to show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from landscape_lab.analysis import GradientSimilarity, SpectralDensity, Spectrum, Surface, Trajectory
from landscape_lab.analysis.neural_collapse import NeuralCollapse
from landscape_lab.analysis.noise import NoiseCurve
from landscape_lab.analysis.paths import Barrier, Distances
from landscape_lab.analysis.sharpness import Sharpness
from landscape_lab.analysis.trace import TraceEstimate
from landscape_lab.diagnosis import Diagnosis, Finding
from landscape_lab.recipe import load_recipe
from landscape_lab.run import Run

HARSH = "<script>alert(1)</script>"
TRICKY = "a\u2028b</script>&amp; $x$ %{x}"
NAMES = [HARSH, "cat", TRICKY, "dog"]
COUNTS = [50, 20, 8, 3]
SUBSETS = {"many": [0], "med": [1], "few": [2, 3], "head": [0], "tail": [3]}


def bowl(height: float, epoch: int, subset: float) -> torch.Tensor:
    """Losses (5, 5) of ``epoch + height * (x² + y²) + subset`` on [-0.5, 0.5]²."""
    axis = torch.linspace(-0.5, 0.5, 5, dtype=torch.float64)
    return epoch + subset + height * (axis.square()[:, None] + axis.square()[None])


def surface(height: float, epoch: int) -> Surface:
    axis = torch.linspace(-0.5, 0.5, 5, dtype=torch.float64)
    losses = torch.stack([bowl(height, epoch, 0.1), bowl(2 * height, epoch, 0.3)])
    return Surface(axis, axis.clone(), losses, 1 / (1 + losses), ("head", "tail"), (50, 3), "running")


def record(epoch: int) -> dict[str, Any]:
    part = {
        "loss": 1.0 / (epoch + 1),
        "accuracy": dict.fromkeys(("all", *SUBSETS), 0.5 + 0.01 * epoch),
        "class_accuracy": [1.0, 0.75, 0.5, None],
        "class_loss": [0.1, 0.2, 0.4, None],
        "quality": {form: [1.0 + epoch, 2.0, 3.0, None] for form in ("difference", "reciprocal")},
    }
    return {"epoch": epoch, "train": part, "test": part}


def write_run(path: Path, *, height: float = 4.0, results: bool = True, groups: bool = True, seed: int = 0) -> Run:
    info = {
        "status": "finished",
        "versions": {"torch": "2.13", "python": "3.11"},
        "device": "cpu",
        "threads": 1,
        "data": {"name": "four", "fingerprint": "f" * 64, "train": 81, "test": 8},
        "class_names": NAMES,
        "class_counts": COUNTS,
        "subsets": SUBSETS,
        "groups": {"1": [[0, 1], [2, 3]], "3": [[0], [1, 2, 3]]} if groups else {},
        "epoch_seconds": [1.0] * 4,
        "commit": "0" * 40,
    }
    run = Run.create(path, load_recipe("digits-lt-erm", {"seed": seed}), info)
    run.save_metrics([record(epoch) for epoch in range(5)])
    if results:
        write_results(run, height)
    return run


def write_results(run: Run, height: float) -> None:
    for epoch in (0, 2, 4):
        settings = {"epoch": epoch, "extent": 0.5, "steps": 5, "split": "train", "samples": None, "seed": 0}
        run.save_result(f"surface/epoch-{epoch:04d}-train-head+tail", surface(height, epoch), settings)
    density = SpectralDensity(
        nodes=torch.tensor([[3.0, 0.1, -0.2], [3.0, 0.2, -0.1]], dtype=torch.float64),
        weights=torch.tensor([[0.1, 0.6, 0.3], [0.1, 0.5, 0.4]], dtype=torch.float64),
        size=10, products=20, method="deflated", seed=0, outliers=1,
    )  # fmt: skip
    estimate = TraceEstimate(2.5, 0.25, torch.tensor([2.0, 3.0], dtype=torch.float64), 2, "hutchinson", 0)
    spectrum = Spectrum(3.0, 0.01, -0.2, 0.02, True, estimate, density, 50, 10, "running")
    for subset in ("head", "tail"):
        run.save_result(f"hessian/epoch-0004-{subset}-train", spectrum, {"epoch": 4, "split": "train"})
    values = torch.tensor([0.5, float("nan")], dtype=torch.float64)
    for epoch in (0, 4):
        similarity = GradientSimilarity((0, 3), values, values / 5, values / 10, torch.tensor([4, 0]), 6)
        settings = {"epoch": epoch, "split": "train", "parameters": "encoder"}
        run.save_result(f"gradients/epoch-{epoch:04d}-train-encoder", similarity, settings)
    steps = (0, 2, 4)
    path = Trajectory(
        torch.tensor([[0.0, 0.0], [1.0, 0.5], [2.0, 0.0]], dtype=torch.float64), torch.tensor([0.3, 0.2, 0.0]),
        torch.tensor([2.0, 1.1, 0.0]), steps, (0.7, 0.2), "pca",
    )  # fmt: skip
    run.save_result("trajectory", path, {"through": None})
    layers = torch.tensor([[3.0, 2.0, 1.0], [4.0, 2.0, 1.0]], dtype=torch.float64)
    full = layers.norm(dim=0)
    far = Distances(("first", "last"), full, layers, steps, torch.tensor([1.0, 2.0]), full / 5, full, "tail only")
    run.save_result("distances/tail-only", far, {})
    line = torch.linspace(0, 1, 5, dtype=torch.float64)
    barrier = Barrier(
        ("head", "tail"), (50, 3), line, torch.stack([line * (1 - line), line]), torch.stack([line, line]),
        torch.tensor([0.25, 0.0]), torch.tensor([0.05, 0.0]), torch.tensor([0.5, 0.0]), "batch", ("a", "b"),
    )  # fmt: skip
    run.save_result("barrier/a-b", barrier, {})
    ratios = torch.tensor([0.0, 0.05, 0.1, 0.5, 1.0], dtype=torch.float64)
    noise = ratios.square() * torch.tensor([1.0, 2.0, 3.0])[:, None]
    curve = NoiseCurve(ratios, torch.stack([noise, 2 * noise]), torch.stack([noise, noise]), ("head", "tail"), (50, 3),
                       0, "running", "norm")  # fmt: skip
    run.save_result("noise/epoch-0004-train-all-head+tail", curve, {"epoch": 4})
    each = torch.ones(4, dtype=torch.float64)
    for epoch, nc1 in ((2, 0.75), (4, 0.125)):
        collapse = NeuralCollapse(nc1, 0.375, 0.0625, 0.25, each, each, each, each, torch.tensor(COUNTS))
        run.save_result(f"collapse/epoch-{epoch:04d}-train", collapse, {"epoch": epoch, "split": "train"})
    numbers = (Sharpness("tail", "average", 0.5, 0.25, 0.75, 0.1, "over 3 directions", 0.3),)
    run.save_result("sharpness/epoch-0004-train-all-tail", numbers, {"epoch": 4})
    findings = (
        Finding("degradation", "yes", f"Class {HARSH} loses 0.5 ± 0.1.", {}, "One seed.", "Does the tail degrade?"),
        Finding("sharpness", "cannot tell", "The intervals overlap.", {}, "", "Is the tail sharper?"),
    )
    run.save_result("diagnosis", Diagnosis(run.path.name, 4, findings), {"epoch": 4})
