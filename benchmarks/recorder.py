"""What recording costs: a CIFAR ResNet-32 trained with batch 128 on synthetic images, and the Recorder beside it.

    python benchmarks/recorder.py                     # a part of each epoch, on one thread; writes the JSON beside
    python benchmarks/recorder.py --share 1 --device cuda

Measured are the seconds for which ``epoch`` blocks training (metrics, the copy of the weights, waiting), and the CPU
seconds of the thread that writes, which it would take from training if there were no other core. Both are told as a
share of the *whole* epoch of 50,000 images (391 steps); where a part of an epoch is run, its steps' mean time counts.
How much longer the steps beside the writer take is told too, but drowns in the spread of a machine that others use.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from landscape_lab import Recorder
from landscape_lab.devices import describe, resolve_device
from landscape_lab.files import write_json
from landscape_lab.models import build_network
from landscape_lab.recipe import ModelRecipe
from landscape_lab.run import Run

RESULTS = Path(__file__).resolve().parent / "results"
IMAGES, BATCH = 50_000, 128
STEPS = -(-IMAGES // BATCH)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def cpu_seconds(recorder: Recorder) -> float:
    """What the writing thread has computed so far."""
    assert recorder._writer is not None
    thread = recorder._writer.background._thread
    assert thread is not None
    assert thread.ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


class Loop:
    """Training steps on random images that lie on the device."""

    def __init__(self, device: torch.device, depth: int) -> None:
        self.device = device
        network = build_network(ModelRecipe(depth=depth), in_channels=3, num_classes=10, seed=0)
        self.model: nn.Module = network.to(device).train()
        self.optimiser = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(BATCH, 3, 32, 32, generator=generator).to(device)
        self.targets = torch.randint(10, (BATCH,), generator=generator).to(device)

    def run(self, steps: int) -> float:
        """Seconds of so many steps."""
        synchronise(self.device)
        start = time.perf_counter()
        for _ in range(steps):
            self.optimiser.zero_grad()
            nn.functional.cross_entropy(self.model(self.images), self.targets).backward()
            self.optimiser.step()
        synchronise(self.device)
        return time.perf_counter() - start


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Epochs with and without recording in turns; medians and the largest."""
    device = resolve_device(options.device)
    loop, steps = Loop(device, options.depth), max(1, round(options.share * STEPS))
    loop.run(2)
    plain, beside, calls, writing, buffers = [], [], [], [], []
    metrics = {"test": {"loss": 1.0, "class_accuracy": [0.5] * 10}}
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(f"{folder}/run", loop.model, class_counts=[IMAGES // 10] * 10)
        recorder.flush()
        for _ in range(options.epochs):
            recorder.flush()
            plain.append(loop.run(steps))
            synchronise(device)
            start = time.perf_counter()
            recorder.epoch(metrics)
            calls.append(time.perf_counter() - start)
            beside.append(loop.run(steps))  # while the thread writes
            recorder.flush()
            assert recorder._writer is not None
            buffers.append(recorder._writer.pool.count)
            writing.append(cpu_seconds(recorder))
        recorder.finish()
        checkpoint = Run.open(f"{folder}/run").checkpoint_path(1).stat().st_size
    epoch = statistics.median(plain) / steps * STEPS
    # An epoch is written once, however many of its steps are run.
    thread = [after - before for before, after in pairwise([0.0, *writing])]
    slower = [with_it - without for with_it, without in zip(beside, plain, strict=True)]
    return {
        "device": describe(device) if device.type == "cuda" else f"{platform.machine()} CPU",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
        "model": f"ResNet-{options.depth}, {sum(p.numel() for p in loop.model.parameters()):,} parameters",
        "batch": BATCH,
        "epochs": options.epochs,
        "steps run of an epoch": steps,
        "share of an epoch that was run": steps / STEPS,
        "epoch, seconds": epoch,
        "epoch() blocks, seconds: median": statistics.median(calls),
        "epoch() blocks, seconds: largest": max(calls),
        "the writing thread's CPU seconds: median": statistics.median(thread),
        "the writing thread's CPU seconds: largest": max(thread),
        "cost, % of an epoch: median": 100 * (statistics.median(calls) + statistics.median(thread)) / epoch,
        "cost, % of an epoch: largest": 100 * (max(calls) + max(thread)) / epoch,
        "steps beside the writer take longer, % of an epoch: median": 100 * statistics.median(slower) / epoch,
        "spread of plain parts, % of an epoch": 100 * (max(plain) - min(plain)) / epoch,
        "snapshot buffers, most": max(buffers),
        "checkpoint, MiB": checkpoint / 2**20,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--depth", type=int, default=32)
    parser.add_argument("--share", type=float, default=0.02, help="part of an epoch's 391 steps that is run")
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where to write  [default: benchmarks/results/recorder-DEVICE.json]")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result = measure(options)
    for name, value in result.items():
        print(f"{name:60} {value:.4g}" if isinstance(value, float) else f"{name:60} {value}")
    write_json(options.json or RESULTS / f"recorder-{options.device}.json", result)


if __name__ == "__main__":
    main()
