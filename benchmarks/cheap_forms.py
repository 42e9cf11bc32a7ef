"""Do the cheap forms of GSA end where the exact one does? Runs with several seeds, and a paired test with its power.

    python benchmarks/cheap_forms.py --data digits-lt --seeds 5 --out runs/cheap-forms/digits-lt
    python benchmarks/cheap_forms.py --data cifar10-lt --data-root ~/data --seeds 3 --out runs/cheap-forms/cifar10-lt \\
        --set model.depth=8 --set model.width=8 --epochs 12

What exists is not trained again, so a stopped call goes on; ``--forms`` trains some of them, for a second process.
The table needs all of them.
"""

from __future__ import annotations

import argparse
import math
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from scipy import stats

from landscape_lab.data import Dataset, dataset_of
from landscape_lab.devices import resolve_device
from landscape_lab.files import write_json
from landscape_lab.recipe import Recipe, load_recipe, parse_assignment, rescaled
from landscape_lab.run import Run
from landscape_lab.studies import Study
from landscape_lab.studies.curvature import spectra
from landscape_lab.train import train_run

FORMS: dict[str, dict[str, Any]] = {
    "exact": {},
    "merged": {"gsa.passes": "merged"},
    "stochastic": {"gsa.passes": "stochastic"},
    "exact, every 4th, reuse": {"gsa.every": 4, "gsa.between": "reuse"},
    "stochastic, every 4th, reuse": {"gsa.passes": "stochastic", "gsa.every": 4, "gsa.between": "reuse"},
    "stochastic, every 4th": {"gsa.passes": "stochastic", "gsa.every": 4},
    "merged, every 4th, held": {"gsa.passes": "merged", "gsa.every": 4, "gsa.between": "hold"},
    "exact, first view": {"gsa.ascent_views": "first"},
    "merged, first view, every 4th, held": {
        "gsa.passes": "merged",
        "gsa.ascent_views": "first",
        "gsa.every": 4,
        "gsa.between": "hold",
    },
    "no GSA (gkp)": {"method": "gkp"},
}
QUANTITIES = ("all", "few", "tail λ_max", "tail quality")


@dataclass(frozen=True)
class Comparison:
    """A form against the exact one in one quantity, over the same seeds.

    Attributes:
        mean: of the differences (form less exact).
        low, high: 95 % confidence interval of that mean (Student's t).
        p: of the paired t-test.
        power: chance of p < 0.05 if the true difference were one standard deviation of the exact runs over seeds.
        detectable: the difference that would be found with a chance of 80 %.
    """

    mean: float
    low: float
    high: float
    p: float
    power: float
    detectable: float


def compare(form: list[float], exact: list[float]) -> Comparison:
    """Paired t-test of equal length lists, and its power."""
    differences = [a - b for a, b in zip(form, exact, strict=True)]
    n = len(differences)
    mean, error = statistics.mean(differences), statistics.stdev(differences) / math.sqrt(n)
    quantile = stats.t.ppf(0.975, n - 1)
    p = float(2 * stats.t.sf(abs(mean / error), n - 1)) if error else 1.0

    def power(difference: float) -> float:
        if not error:
            return 1.0
        shift = difference / error
        # scipy gives NaN for the far tail of a large shift, which is nothing.
        far = np.nan_to_num(stats.nct.cdf(-quantile, n - 1, shift))
        return float(stats.nct.sf(quantile, n - 1, shift) + far)

    low, high = 0.0, 20.0 * error
    while high - low > 1e-3 * error:
        middle = (low + high) / 2
        low, high = (middle, high) if power(middle) < 0.8 else (low, middle)
    spread = statistics.stdev(exact)
    return Comparison(mean, mean - quantile * error, mean + quantile * error, p, power(spread), high)


def plan(options: argparse.Namespace, form: str, seed: int) -> Recipe:
    """The recipe of one run."""
    changes = {**dict(map(parse_assignment, options.set)), "seed": seed}
    if options.data_root:
        changes["data.root"] = str(Path(options.data_root).absolute())
    changes.setdefault("training.checkpoint_every", 10_000)
    readings = dict(FORMS[form])
    method = readings.pop("method", "gkp-gsa")
    recipe = load_recipe(f"{options.data}-{method}", changes)
    recipe = rescaled(recipe, options.epochs) if options.epochs else recipe
    gsa = {name.removeprefix("gsa."): value for name, value in readings.items()}
    return msgspec.structs.replace(recipe, gsa=msgspec.structs.replace(recipe.gsa, **gsa))


def measure(run: Run, dataset: Dataset, device: torch.device) -> dict[str, float]:
    """Accuracy in %, λ_max of the tail and its mean feature quality (Eq. 19, training images), last epoch."""
    last = run.metrics()[-1]
    tail = run.info["subsets"]["tail"]
    quality = last["train"]["quality"]["difference"]
    few = "few" if last["test"]["accuracy"]["few"] is not None else "tail"
    spectrum = spectra(Study(run, device, dataset=dataset), ("tail",), samples=1024)["tail"]
    return {
        "all": 100 * last["test"]["accuracy"]["all"],
        "few": 100 * last["test"]["accuracy"][few],
        "tail λ_max": spectrum.lambda_max,
        "tail quality": statistics.mean(quality[c] for c in tail),
        "seconds an epoch": statistics.median(run.info["epoch_seconds"]),
    }


def main() -> None:
    """Train, measure, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits-lt", help="digits-lt, digits-lt-bcl, cifar10-lt …")
    parser.add_argument("--data-root")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--forms", nargs="*", default=[], help=f"of {', '.join(FORMS)}")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("runs/cheap-forms"))
    options = parser.parse_args()
    several = plan(options, "exact", 0).loss.name == "bcl"
    forms = options.forms or [form for form in FORMS if several or "view" not in form]
    device = resolve_device(options.device)
    dataset = dataset_of(plan(options, "exact", 0).data)
    found: dict[str, list[dict[str, float]]] = {form: [] for form in forms}
    for seed in range(options.seeds):
        for form in forms:
            name = form.replace(", ", "-").replace(" ", "-").strip("()")
            run = train_run(plan(options, form, seed), options.out / f"{name}-seed{seed}", device, dataset=dataset)
            found[form].append(measure(run, dataset, device))
    if "exact" not in forms or options.seeds < 2:
        return
    rows = {}
    for form in forms:
        values = {quantity: [one[quantity] for one in found[form]] for quantity in found[form][0]}
        rows[form] = {
            "values": values,
            "against exact": {
                quantity: asdict(compare(values[quantity], [one[quantity] for one in found["exact"]]))
                for quantity in QUANTITIES
                if form != "exact"
            },
        }
    write_json(options.out / "comparison.json", {"recipe": options.data, "seeds": options.seeds, "forms": rows})
    print(table(rows))


def table(rows: dict[str, Any]) -> str:
    """The comparison in Markdown."""
    lines = ["| form | " + " | ".join(QUANTITIES) + " | s/epoch |", "|---|" + "---|" * (len(QUANTITIES) + 1)]
    for form, row in rows.items():
        cells = []
        for quantity in QUANTITIES:
            values = row["values"][quantity]
            cell = f"{statistics.mean(values):.3g} ± {statistics.stdev(values):.2g}"
            if form != "exact":
                c = row["against exact"][quantity]
                cell += f" ({c['mean']:+.2g}, p {c['p']:.2f}, power {c['power']:.2f}, finds {c['detectable']:.2g})"
            cells.append(cell)
        lines.append(f"| {form} | {' | '.join(cells)} | {statistics.median(row['values']['seconds an epoch']):.3g} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
