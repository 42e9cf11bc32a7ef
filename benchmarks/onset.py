"""How often the change-point test errs: false alarms, power and the coverage of its intervals, on drawn curves.

    python benchmarks/onset.py --curves 300 --json benchmarks/results/onset.json      # half an hour on one core
    python benchmarks/onset.py --curves 10                                            # does it run?

Every curve has noise of standard deviation 1, correlated between neighbouring epochs (AR(1)); "risen" curves climb
by 60 and level off in an eighth of the epochs; declines of 8 begin in the middle: a line to the end, a drop, or a fall
that levels off.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landscape_lab.analysis import Onset, onset_of_decline
from landscape_lab.numbers import finite

Array = NDArray[np.float64]
SIZE = 8.0


def noise(correlation: float, count: int, generator: np.random.Generator) -> Array:
    """Stationary AR(1) noise of variance 1."""
    drawn = generator.standard_normal(count)
    for t in range(1, count):
        drawn[t] = correlation * drawn[t - 1] + math.sqrt(1 - correlation**2) * drawn[t]
    return drawn


def shapes(count: int) -> dict[str, tuple[Array, float]]:
    """Mean curves and how far they fall in the end."""
    t, onset = np.arange(count), count // 2
    risen = 60 * (1 - np.exp(-t / (count / 8)))
    since = np.clip(t - onset, 0, None)
    falls = {
        "line": SIZE * since / since[-1],
        "drop": SIZE * (since > 0),
        "levelling": SIZE * (1 - np.exp(-since / (count / 8))),
    }
    calm = {"flat": (0.0 * t, 0.0), "risen": (risen, 0.0)}
    return {**calm, **{name: (risen - fall, float(fall[-1])) for name, fall in falls.items()}}


def summary(found: list[Onset], onset: int, size: float) -> dict[str, float]:
    """Shares of the verdicts, and of intervals that cover."""
    seen = [one for one in found if one.verdict == "declines"]
    return {
        "declines": len(seen) / len(found),
        "no decline": sum(one.verdict == "no decline" for one in found) / len(found),
        "epoch covered": float(np.mean([one.low <= onset <= one.high for one in seen])) if size and seen else math.nan,
        "width": float(np.median([one.high - one.low for one in seen])) if size and seen else math.nan,
        "size covered": float(np.mean([one.decline_low <= size <= one.decline_high for one in found])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", type=int, default=300)
    parser.add_argument("--epochs", default="30,60")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    for count in map(int, options.epochs.split(",")):
        for correlation in (0.0, 0.3, 0.6, 0.8, 0.9):
            for name, (mean, size) in shapes(count).items():
                generator = np.random.default_rng([count, int(100 * correlation), len(name)])
                found = [
                    onset_of_decline(range(count), (mean + noise(correlation, count, generator)).tolist())
                    for _ in range(options.curves)
                ]
                rows.append({"epochs": count, "correlation": correlation, "curve": name})
                rows[-1] |= summary(found, count // 2, size)
                print(
                    "  ".join(f"{value:.3g}" if isinstance(value, float) else str(value) for value in rows[-1].values())
                )
    if options.json:
        options.json.write_text(json.dumps(finite({"curves": options.curves, "rows": rows}), indent=1) + "\n")


if __name__ == "__main__":
    main()
