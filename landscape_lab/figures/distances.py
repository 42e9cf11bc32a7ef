"""How far training is from a reference solution: over the epochs, and layer by layer at the end."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from landscape_lab.analysis.paths import Distances
from landscape_lab.figures.arrays import as_array
from landscape_lab.figures.style import CYCLE, in_paper_style
from landscape_lab.figures.text import capital, caption, plain, size_of, wrapped

__all__ = ["distance_curves"]

_NORMS = {"bn", "bn1", "bn2", "bn3", "norm", "norm1", "norm2"}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


@in_paper_style
def distance_curves(paths: Mapping[str, Distances], *, title: str = "", unit: str = "epoch") -> Figure:
    """Draw the distances of several runs to one reference: all parameters by epoch, and each layer at the last one.

    Args:
        paths: run → distances, all of one network and to one reference.
        title: above everything.
        unit: of the steps.

    Raises:
        ValueError: there is no run, or the layers differ.
    """
    if not paths:
        raise ValueError("at least one run is needed")
    layers = {found.names for found in paths.values()}
    if len(layers) > 1:
        raise ValueError("the runs are of different networks: their layers differ")
    # Vectors of BatchNorm and biases are left out where there would be too many names to read.
    names = layers.pop()
    weights = [k for k, name in enumerate(names) if name.endswith("weight") and not _NORMS & {*name.split(".")}]
    shown = list(range(len(names))) if len(names) <= 24 or not weights else weights
    height = max(3.6, 0.16 * len(shown) + 1.4)
    figure = Figure(figsize=(8.2, height + 0.25 * len(paths)), layout="constrained")
    whole, layer = figure.subplots(1, 2, width_ratios=[1.15, 1])
    for k, (run, found) in enumerate(paths.items()):
        color, marker = CYCLE[k % len(CYCLE)], MARKERS[k % len(MARKERS)]
        whole.plot(
            found.steps, as_array(found.full), "-", marker=marker, markersize=3, color=color,
            label=wrapped(plain(run), 6.8, 8.5),
        )  # fmt: skip
        at = as_array(found.relative_layers[:, -1])[shown]
        places = np.flatnonzero(np.isfinite(at))
        layer.plot(at[places], places, marker, color=color, markersize=4, alpha=0.85, markeredgewidth=0)
    whole.set(xlabel=capital(plain(unit)), ylabel=r"$\Vert\theta_t - \theta_\mathrm{ref}\Vert_2$")
    whole.set_ylim(bottom=0)
    whole.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True, steps=[1, 2, 5, 10]))
    whole.grid(True)
    step = max(1, -(-len(shown) // 48))
    layer.set_yticks(range(0, len(shown), step), [_short(names[k]) for k in shown[::step]], fontsize=6.5)
    layer.invert_yaxis()
    layer.set_xlim(left=0)
    layer.set_xlabel(r"Last, by layer: $\Vert\theta - \theta_\mathrm{ref}\Vert_2 / \Vert\theta_\mathrm{ref}\Vert_2$")
    layer.grid(True)
    width = 7.6
    widest = max(size_of(plain(run), 8.5)[0] for run in paths) + 0.6
    figure.legend(
        loc="outside upper center",
        ncols=max(1, min(len(paths), int(width / widest))),
        frameon=False,
        title=wrapped(plain(title), width, 11) if title else None,
        title_fontsize=11,
    )
    references = " and ".join(dict.fromkeys(plain(found.reference) for found in paths.values() if found.reference))
    caption(
        figure,
        [
            f"Reference: {references}." if references else "",
            "Left: in the space of all parameters. Right: layer by layer, relative to the reference’s own norm"
            + (" (weights only)." if len(shown) < len(names) else "."),
            "Between runs that do not share their initialisation, distances say little.",
        ],
    )
    return figure


def _short(name: str) -> str:
    return plain(name.removeprefix("encoder.").removesuffix(".weight"))
