"""Gradient similarity of all classes: one pass of each class's own samples against a backward pass for every class.

    python benchmarks/similarity.py --json benchmarks/results/similarity.json
    python benchmarks/similarity.py --quick            # does it run?

Processor time of one thread, in turns: ResNet-20 on random 32 x 32 images, batches drawn from a long tail of ratio 100.
A ratio is the median over rounds of the ratio to a plain forward and backward pass within the round, with the least and
the largest.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from landscape_lab.analysis import gradient_similarity
from landscape_lab.models import LinearClassifier, Network, ResNetEncoder
from landscape_lab.parameters import ParameterSpace


def loss(output: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each sample."""
    return F.cross_entropy(output, target, reduction="none")


def tasks(classes: int, batch: int, depth: int) -> tuple[int, dict[str, Callable[[], object]]]:
    """How many classes the batch holds, and what is timed."""
    torch.manual_seed(0)
    net = Network(ResNetEncoder(depth, 16, 3), LinearClassifier(64, classes)).eval()
    shares = torch.tensor([100 ** (-c / (classes - 1)) for c in range(classes)])
    images, targets = torch.randn(batch, 3, 32, 32), torch.multinomial(shares, batch, replacement=True)
    space = ParameterSpace(net, lambda name: name.startswith("encoder."))

    def plain() -> object:
        return torch.autograd.grad(loss(net(images), targets).mean(), space.parameters)

    def naive() -> object:
        losses = loss(net(images), targets)
        rows = [
            space.flatten(torch.autograd.grad(losses[targets == c].mean(), space.parameters, retain_graph=True))
            for c in targets.unique()
        ]
        rows.append(space.flatten(torch.autograd.grad(losses.mean(), space.parameters)))
        unit = F.normalize(torch.stack(rows).double(), dim=1)
        return unit @ unit.T

    def ours() -> object:
        return gradient_similarity(net, loss, [(images, targets)] * 2, parameters=space, between=True)

    def twice(task: Callable[[], object]) -> Callable[[], object]:
        return lambda: (task(), task())

    return len(targets.unique()), {"plain": twice(plain), "naive": twice(naive), "ours": ours}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for classes in (10, 100):
        held, chosen = tasks(classes, 16 if options.quick else 128, 8 if options.quick else 20)
        times: dict[str, list[float]] = {name: [] for name in chosen}
        for _ in range(1 if options.quick else options.rounds):
            for name, task in chosen.items():
                start = time.process_time()
                task()
                times[name].append(time.process_time() - start)
        for name in ("naive", "ours"):
            ratios = [one / plain for one, plain in zip(times[name], times["plain"], strict=True)]
            row = {"classes": classes, "held": held, "form": name, "ratio": statistics.median(ratios)}
            results.append({**row, "least": min(ratios), "largest": max(ratios)})
            spread = f"{row['ratio']:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(f"{classes} classes, {held} in the batch, {name}: {spread}")
    if options.json:
        about = {"torch": torch.__version__, "machine": platform.processor() or platform.machine(), "threads": 1}
        options.json.write_text(json.dumps({**about, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
