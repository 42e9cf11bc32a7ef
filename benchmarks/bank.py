"""The memory bank at iNaturalist's size: memory, disk and time as the encoder grows to a ResNet-50.

    python benchmarks/bank.py                      # three minutes on one core; 1.2 GB in a temporary folder
    python benchmarks/bank.py --quick              # does it run?
    python benchmarks/bank.py --out bank.json --folder /somewhere/with/room

Every size runs in a process of its own: 8,142 classes, a new encoder an epoch of which every one stays somebody's best,
saved, spilled, and at the end grouped (Gram matrix, NCut) and summed into a penalty. Memory is the process's peak above
what it took once torch, one encoder (the model in training) and a Fisher diagonal were there. Encoders are random:
what they hold does not matter to memory or time. Computing Fisher diagonals needs a network and data and is left out.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape_lab.devices import describe
from landscape_lab.files import write_tensors
from landscape_lab.numbers import number
from landscape_lab.training.gkp import Penalty
from landscape_lab.training.grouping import ncut_groups
from landscape_lab.training.memory import MemoryBank

CLASSES, GROUPS = 8142, 6
RESNET50 = (23_508_032, 53_120)
"""Parameters of the encoder, and numbers in its BatchNorm statistics."""
GOAL = 1e9
"""Bytes of memory that the bank may take."""


def peak() -> int:
    """The process's largest resident size so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure(parameters: int, statistics: int, epochs: int, limit: int, folder: Path) -> dict[str, Any]:
    """Run one size in this process."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    theta, running = torch.empty(parameters), torch.ones(statistics)
    theta.normal_(generator=generator)
    fisher = torch.ones(parameters)  # in training a group's own
    bank = MemoryBank(CLASSES, folder, limit)
    best = np.random.default_rng(0).integers(0, epochs, CLASSES)  # the epoch at which each class is best
    before, started = peak(), time.perf_counter()
    largest = 0
    for epoch in range(epochs):
        theta.mul_(0.99)
        theta[epoch::7] += 0.1
        bank.update(epoch, np.where(best == epoch, 1.0, -1.0 if epoch else 0.0).tolist(), (theta, running))
        largest = max(largest, bank.nbytes)
        bank.save()
        write_tensors(folder / "state.safetensors", bank.state())
        bank.prune()
    kept, distinct = time.perf_counter(), len(bank.distinct)
    updating = peak() - before
    bank.gram()
    multiplied = time.perf_counter()
    groups = ncut_groups(bank, GROUPS)
    grouped = time.perf_counter()

    def terms() -> Iterator[tuple[Tensor, Tensor]]:
        for group in groups:
            yield bank.mean(group)[0], fisher

    Penalty.build(terms(), [len(group) for group in groups], 100.0, [1.0] * len(groups))
    done = time.perf_counter()
    return {
        "parameters": parameters,
        "snapshot": (parameters + statistics) * 4,
        "copies": CLASSES * (parameters + statistics) * 4,
        "epochs": epochs,
        "distinct": distinct,
        "limit": limit,
        "held": largest,
        "disk": bank.bytes_on_disk,
        "peak_updating": updating,
        "peak": peak() - before,
        "penalty_itself": 3 * parameters * 4,
        "seconds": {
            "an epoch's update and save": (kept - started) / epochs,
            "Gram matrix": multiplied - kept,
            "NCut": grouped - multiplied,
            "anchors and penalty": done - grouped,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--limit", type=int, default=128, help="MiB of encoders in memory at full size")
    parser.add_argument("--folder", type=Path, help="where the encoders are written (a temporary folder in it)")
    parser.add_argument("--out", type=Path, help="a JSON file for the numbers")
    parser.add_argument("--quick", action="store_true", help="only up to a hundredth of the size")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        size = json.loads(options.child)
        print(json.dumps(measure(*size, Path(options.folder))))
        return
    rows = []
    for share in (0.001, 0.01) if options.quick else (0.01, 0.1, 0.25, 0.5, 1.0):
        parameters, statistics = (max(1, round(n * share)) for n in RESNET50)
        size = [parameters, statistics, options.epochs, round((options.limit << 20) * share)]
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            command = [sys.executable, __file__, "--child", json.dumps(size), "--folder", folder]
            row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows.append(row)
        times = ", ".join(f"{name} {number(seconds)} s" for name, seconds in row["seconds"].items())
        print(
            f"{row['parameters']:>11,} parameters: {row['distinct']} encoders, {row['held'] / 1e6:.1f} MB held, "
            f"{row['disk'] / 1e6:.0f} MB on disk, peak {row['peak_updating'] / 1e6:.0f} MB in updates, "
            f"{row['peak'] / 1e6:.0f} MB with groups and penalty (copies: {row['copies'] / 1e9:.1f} GB); {times}",
            flush=True,
        )
    # Memory is a constant and a multiple of P: the line through the sizes below the largest foretells it.
    known = rows[:-1] if len(rows) > 2 else rows
    slope, constant = np.polyfit([row["parameters"] for row in known], [row["peak"] for row in known], 1)
    foretold = constant + slope * RESNET50[0]
    print(
        f"peak: {slope:.1f} bytes a parameter and {constant / 1e6:.0f} MB; at ResNet-50's size {foretold / 1e6:.0f} MB"
    )
    if not options.quick:
        found = rows[-1]["peak"]
        print(f"measured there: {found / 1e6:.0f} MB; goal {GOAL / 1e6:.0f} MB {'met' if found <= GOAL else 'NOT met'}")
    if options.out:
        about = {
            "device": describe(torch.device("cpu")),
            "torch": torch.__version__,
            "python": platform.python_version(),
        }
        content = {**about, "classes": CLASSES, "groups": GROUPS, "rows": rows, "foretold": foretold}
        options.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
