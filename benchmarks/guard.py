"""How often the guard cries wolf, and how often it sleeps: pairs of models whose sharpness is known to be equal or not.

The pairs: a small network, and its twin with turned inputs and exchanged hidden units, trained on nothing else. The
classes are evenly spread in all directions, so that over the population the twin's curvature is exactly the same, and
over the samples at hand, which are not evenly spread, it is not. A twin that is 1.5 times as sharp is written with
weights that are smaller by the root of 1.5: the same function, with a Hessian 1.5 times as large.

    python benchmarks/guard.py --pairs 100 --json benchmarks/results/guard.json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "guard"))

from guard_cases import SUBSETS, Encoder, Net, cross_entropy, drawn, trained, twin

from landscape_lab.guard import (
    METRICS,
    Drawn,
    GuardSettings,
    Measurement,
    Tolerance,
    compare,
    draw,
    measure,
    mixed_batches,
    tolerances_of,
)

COUNTS = (300, 240, 160)
SETTINGS = GuardSettings(samples=1000)
TOLERANCES = {
    "the usual ones": tolerances_of([]),
    "none": {name: Tolerance(0.0, relative=True) for name in METRICS},
}
BORDER = {**tolerances_of(["50%"])}  # what a twin 1.5 times as sharp just keeps to


def measured(net: Net, data: Drawn) -> Measurement:
    batches = mixed_batches(data.inputs, data.targets, SETTINGS, 64)
    return measure(net, cross_entropy, data, SUBSETS, SETTINGS, encoder=Encoder(net), batches=batches)


def pair(seed: int, whole: bool = False) -> list[tuple[str, str, str, str]]:
    """(what the samples are, sharper, tolerance, outcome) of one pair of models."""
    torch.set_num_threads(1)
    net = trained(seed)
    sample = drawn(500_000 + seed, COUNTS)
    found = []
    before = measured(net, sample)
    for sharper in (1.0, 1.5):
        now = measured(twin(net, seed, sharper), sample)
        choices = {**TOLERANCES, **({"50 %": BORDER} if sharper > 1 else {})}
        for name, tolerances in choices.items():
            found.append(("a sample", f"{sharper:g}", name, compare(before, now, tolerances).outcome))
    if not whole:
        return found
    # Hidden units exchanged and nothing turned: equally sharp on these very samples, with other random vectors.
    # They are all that there is: of the error only that of the probes is left, and nothing is measured anew.
    everything = draw(sample.inputs, sample.targets, sample.targets)
    before = replace(before, unseen={label: everything.unseen(label) for label in everything.counts})
    for sharper in (1.0, 1.5):
        other = twin(net, seed, sharper)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(seed)
            torch.randn(6, 6, generator=generator, dtype=torch.float64)
            order = torch.randperm(12, generator=generator)
            other.first.weight.copy_(net.first.weight[order] / sharper**0.5)
        now = measured(other, everything)
        for name, tolerances in {**TOLERANCES, **({"50 %": BORDER} if sharper > 1 else {})}.items():
            found.append(("everything", f"{sharper:g}", name, compare(before, now, tolerances).outcome))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--whole", action="store_true", help="also with samples that are all that there is")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    started, counts = time.monotonic(), Counter[tuple[str, str, str, str]]()
    with ProcessPoolExecutor(options.processes) as pool:
        for done, some in enumerate(pool.map(pair, range(options.pairs), [options.whole] * options.pairs)):
            counts.update(some)
            if done % 10 == 9:
                print(done + 1, dict(counts), file=sys.stderr, flush=True)
    rows = []
    for kind, sharper, tolerance in dict.fromkeys(key[:3] for key in sorted(counts)):
        outcome = {name: counts[kind, sharper, tolerance, name] for name in ("fail", "inconclusive", "pass")}
        rows.append({"samples": kind, "sharper": sharper, "tolerance": tolerance, **outcome})
        print(f"{kind:11s} {sharper:>4s}x  tolerance {tolerance:15s} {outcome}")
    content = {"pairs": options.pairs, "seconds": time.monotonic() - started, "torch": torch.__version__, "rows": rows}
    print(f"{content['seconds']:.0f} s")
    if options.json:
        options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
