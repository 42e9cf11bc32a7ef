"""How often the stated 95 % intervals hold the truth: 200 seeded trials on each of several exact spectra.

The spectra are those of dense float64 Hessians of small networks, trained here, and a planted one. Prints a table;
``--out`` writes everything as JSON, ``--figure`` draws it. Five minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.func import functional_call, hessian
from torch.nn.attention import SDPBackend, sdpa_kernel

from landscape_lab.analysis.lanczos import top_eigenpairs
from landscape_lab.analysis.spectra import hessian_spectrum
from landscape_lab.analysis.trace import trace
from landscape_lab.figures.style import CYCLE, grey_panel, in_paper_style, save

CLASSES = (60, 40, 25, 12, 6)
ZONE = (0.90, 0.98)
# Products after which each end is looked at. With more it would mostly have converged to rounding, and its interval
# would hold it trivially.
BUDGETS = {"λ_max": (3, 5, 8), "λ_min": (6, 10, 16)}


class Attention(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.embed = nn.Linear(4, width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        return self.head(self.norm(h + self.attention(h, h, h, need_weights=False)[0]).mean(1))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, len(CLASSES)))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, len(CLASSES)),
    )  # fmt: skip


NETWORKS = {"MLP": (mlp, (16,), 60), "CNN": (cnn, (1, 8, 8), 60), "attention": (Attention, (5, 4), 100)}
SUBSETS = {"all": range(5), "one class": range(1), "rare": range(3, 5)}


def spectra() -> Iterator[tuple[str, Tensor]]:
    """Names and dense symmetric matrices."""
    for name, (build, shape, steps) in NETWORKS.items():
        torch.manual_seed(0)
        y = torch.arange(len(CLASSES)).repeat_interleave(torch.tensor(CLASSES))
        x = torch.randn(len(CLASSES), *shape)[y] + torch.randn(len(y), *shape)
        model = build()
        yield f"{name}, untrained", dense_hessian(model.eval(), x, y)
        optimiser = torch.optim.SGD(model.train().parameters(), lr=0.1, momentum=0.9)
        for _ in range(steps):
            optimiser.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimiser.step()
        for subset, classes in SUBSETS.items():
            members = torch.isin(y, torch.tensor(list(classes)))
            yield f"{name}, {subset}", dense_hessian(model.eval(), x[members], y[members])
    values = torch.cat([torch.tensor([40.0, 25, 15, 9, 6, -5]), torch.linspace(-1, 1, 494) ** 3])
    Q, _ = torch.linalg.qr(torch.randn(500, 500))
    yield "planted", (Q * values) @ Q.T


def dense_hessian(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    parameters = dict(model.named_parameters())
    sizes = [value.numel() for value in parameters.values()]

    def loss(vector: Tensor) -> Tensor:
        parts = zip(parameters.items(), vector.split(sizes), strict=True)
        return F.cross_entropy(functional_call(model, {k: p.view_as(v) for (k, v), p in parts}, (x,)), y)

    with sdpa_kernel(SDPBackend.MATH):
        H = hessian(loss)(torch.cat([value.detach().flatten() for value in parameters.values()]))
    return ((H + H.T) / 2).detach()


@dataclass
class Tally:
    """The trials of one quantity on one spectrum."""

    held: int = 0
    trials: int = 0
    below: int = 0  # misses: the truth lies below the interval
    easy: int = 0  # trials in which the estimate is the truth to rounding
    widths: list[float] = field(default_factory=list)

    def add(self, low: float, value: float, high: float, truth: float, scale: float) -> None:
        rounding = 1e-10 * scale
        self.trials += 1
        self.held += low - rounding <= truth <= high + rounding
        self.below += truth < low - rounding
        self.easy += abs(value - truth) <= rounding
        self.widths.append((high - low) / scale)

    @property
    def coverage(self) -> float:
        return self.held / self.trials

    def as_dict(self) -> dict[str, float]:
        low, high = wilson(self.held, self.trials)
        return {
            "coverage": self.coverage,
            "low": low,
            "high": high,
            "truth_below": self.below / self.trials,
            "exact": self.easy / self.trials,
            "width": statistics.median(self.widths),
        }


def wilson(held: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a binomial share."""
    share, over = held / trials, 1 + z * z / trials
    middle = (share + z * z / (2 * trials)) / over
    half = z / over * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    return middle - half, middle + half


def measure(H: Tensor, trials: int, entropy: int) -> dict[str, Tally]:
    """All quantities over so many independent trials."""
    values, vectors = torch.linalg.eigh(H)
    largest, smallest = float(values[-1]), float(values[0])
    magnitude = float(values.abs().max())
    absolute = float(values.abs().sum())
    # Eigenvalues within rounding of zero have no sign; either count is right.
    zero = values.abs() < 1e-12 * magnitude
    negative = float(((values < 0) & ~zero).double().mean())
    tallies: dict[str, Tally] = {}

    def add(name: str, low: float, value: float, high: float, truth: float, scale: float) -> None:
        tallies.setdefault(name, Tally()).add(low, value, high, truth, scale)

    exact = float(H.trace())
    for seed in np.random.SeedSequence(entropy).generate_state(trials).tolist():
        alone = trace(H, seed=seed)
        add("trace, 30 products", alone.low, alone.value, alone.high, exact, absolute)
        until = trace(H, seed=seed, error=0.05, max_products=200)
        add("trace, error=0.05", until.low, until.value, until.high, exact, absolute)
        # A tolerance out of reach: all products are spent, but for one that measures the residual.
        for budget in BUDGETS["λ_max"]:
            pairs = top_eigenpairs(H, which="LA", tolerance=1e-30, max_products=budget + 1, seed=seed)
            top = float(pairs.values[0])
            add(f"λ_max, {budget} products", top, top, pairs.upper, largest, magnitude)
        for budget in BUDGETS["λ_min"]:
            pairs = top_eigenpairs(H, which="SA", tolerance=1e-30, max_products=budget + 1, seed=seed)
            bottom = float(pairs.values[0])
            add(f"λ_min, {budget} products", pairs.lower, bottom, bottom, smallest, magnitude)
        # The worst guess to start from: the second eigenvector.
        budget = BUDGETS["λ_max"][0]
        pairs = top_eigenpairs(H, tolerance=1e-30, max_products=budget + 1, start=vectors[:, -2], seed=seed)
        top = float(pairs.values[0])
        add(f"λ_max, {budget} products, misled", top, top, pairs.upper, largest, magnitude)
        spectrum = hessian_spectrum(H, seed=seed)
        shared = spectrum.trace
        add("trace, with a density", shared.low, shared.value, shared.high, exact, absolute)
        density = spectrum.density
        assert density is not None
        for k in range(1, 5):
            m = density.moment(k)
            add(f"moment {k}", m.low, m.value, m.high, float((values**k).mean()), float((values.abs() ** k).mean()))
        mass = density.negative_mass()
        add("negative mass", mass.low, mass.value, mass.high, float(-values.clamp(max=0).sum()) / absolute, 1.0)
        rank = density.effective_rank()
        truth = absolute**2 / float(values.square().sum())
        add("effective rank", rank.low, rank.value, rank.high, truth, truth)
        share = density.negative_fraction()
        nearest = min(max(share.value, negative), negative + float(zero.double().mean()))
        add("negative fraction", share.low, share.value, share.high, nearest, 1.0)
    return tallies


@in_paper_style
def draw(results: dict[str, dict[str, Tally]]) -> Figure:
    """A row for each quantity, in it a mark for each spectrum, with the binomial 95 % interval of its share."""
    names = list(next(iter(results.values())))
    families = list(dict.fromkeys(name.split(",")[0] for name in results))
    figure = Figure(figsize=(7.2, 0.42 * len(names) + 1.3), layout="constrained")
    axes = figure.subplots()
    grey_panel(axes)
    axes.axvspan(*(100 * end for end in ZONE), color="#009e73", alpha=0.16, linewidth=0, zorder=1)
    axes.axvline(95, color="#666666", linewidth=0.8, zorder=1.5)
    for column, (spectrum, tallies) in enumerate(results.items()):
        color = CYCLE[families.index(spectrum.split(",")[0])]
        offset = 0.7 * ((column + 0.5) / len(results) - 0.5)
        for row, name in enumerate(names):
            tally = tallies[name]
            low, high = wilson(tally.held, tally.trials)
            axes.plot([100 * low, 100 * high], [row + offset] * 2, color=color, linewidth=0.7, alpha=0.6, zorder=2)
            axes.plot(100 * tally.coverage, row + offset, ".", color=color, markersize=4, zorder=3)
    for row, name in enumerate(names):
        whole = [tallies[name] for tallies in results.values()]
        pooled = 100 * sum(tally.held for tally in whole) / sum(tally.trials for tally in whole)
        axes.plot([pooled] * 2, [row - 0.42, row + 0.42], color="#111111", linewidth=1.8, zorder=4)
    axes.set_yticks(range(len(names)), [name.replace("λ_max", r"$\lambda_{\max}$").replace("λ_min", r"$\lambda_{\min}$")
                                        for name in names])  # fmt: skip
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(79, 100.8)
    axes.set_xlabel("trials in which the 95 % interval holds the truth, %")
    for family, color in zip(families, CYCLE, strict=False):
        axes.plot([], [], ".-", color=color, linewidth=0.7, markersize=5, label=family)
    axes.plot([], [], color="#111111", linewidth=1.8, label="all together")
    axes.fill_between([], [], color="#009e73", alpha=0.16, label="90 to 98 %")
    figure.legend(loc="outside upper center", ncols=6, frameon=False)
    return figure


def table(results: dict[str, dict[str, Tally]]) -> str:
    """Markdown: a row for each quantity."""
    lines = [
        "| quantity | coverage, all | least | most | truth below / above | exact to rounding | median width |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in next(iter(results.values())):
        whole = [tallies[name] for tallies in results.values()]
        trials = sum(tally.trials for tally in whole)
        held, below, easy = (sum(getattr(tally, part) for tally in whole) for part in ("held", "below", "easy"))
        shares = [tally.coverage for tally in whole]
        width = statistics.median(statistics.median(tally.widths) for tally in whole)
        lines.append(
            f"| {name} | {held / trials:.1%} | {min(shares):.1%} | {max(shares):.1%} "
            f"| {below / trials:.1%} / {(trials - held - below) / trials:.1%} | {easy / trials:.0%} | {width:.1e} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--figure", type=Path, help="PNG file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    began = time.perf_counter()
    results = {}
    for index, (name, H) in enumerate(list(spectra())):
        results[name] = measure(H, options.trials, index)
        pooled = ", ".join(f"{k} {tally.coverage:.0%}" for k, tally in results[name].items())
        print(f"{name} ({len(H)} eigenvalues): {pooled}", flush=True)
    print()
    print(table(results))
    print(f"\n{len(results)} spectra, {options.trials} trials each, {time.perf_counter() - began:.0f} s")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "trials": options.trials,
            "torch": torch.__version__,
            "seconds": round(time.perf_counter() - began),
            "spectra": {name: {k: tally.as_dict() for k, tally in part.items()} for name, part in results.items()},
        }
        options.out.write_text(json.dumps(content, indent=1) + "\n")
    if options.figure:
        save(draw(results), options.figure.with_suffix(""), [options.figure.suffix[1:] or "png"])


if __name__ == "__main__":
    main()
