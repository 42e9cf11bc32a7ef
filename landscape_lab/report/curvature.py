"""The curvature's tab: eigenvalue densities, and the ends and traces of the spectra, with their errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from landscape_lab.analysis import Spectrum
from landscape_lab.figures import Table
from landscape_lab.figures.arrays import as_array
from landscape_lab.figures.signed_log import SignedLog
from landscape_lab.numbers import number, with_error
from landscape_lab.report.parts import Chart, Control, Section, axes, band, colour_of, line
from landscape_lab.report.results import Results, Stored

__all__ = ["curvature", "subset_of"]

POINTS = 700  # of a curve: a spike is a few pixels wide
NAMES = {"hessian": "Hessian", "ggn": "Gauss-Newton matrix", "fisher": "empirical Fisher", "fisher-true": "Fisher"}


def curvature(found: Sequence[Results]) -> Section:
    """Densities of each run's spectra, λ_max and trace of each subset, over the epochs where there are several."""
    known = [(results, results.of(Spectrum, "hessian")) for results in found]
    every = [stored for _, entries in known for stored in entries]
    if not every:
        command = f"landscape-lab hessian {found[0].run.path.name} --classes head --classes tail"
        return Section("curvature", "Curvature", missing=[("No Hessian spectrum is stored:", command)])
    axis = _axis([stored.result for stored in every])
    charts = [*_densities(known, axis), *_over_epochs(known)]
    missing = [
        (f"No spectrum of {results.label}:", f"landscape-lab hessian {results.run.path.name}")
        for results, entries in known
        if not entries
    ]
    return Section(
        key="curvature",
        title="Curvature",
        lead=(
            "Eigenvalues of the matrix of second derivatives of the loss over a subset’s own samples. Large "
            "positive ones "
            "are directions in which the loss rises steeply. Compare head and tail with care: sharpness depends on "
            "the loss "
            "itself, and the two subsets rarely have the same."
        ),
        controls=[Control("run", "Run", {str(k): results.label for k, (results, has) in enumerate(known) if has})],
        charts=charts,
        tables=[(_table(known), {})],
        missing=missing,
    )


def _matrix(stored: Stored[Spectrum]) -> str:
    return NAMES.get(stored.result.operator, stored.result.operator)


def _axis(every: Sequence[Spectrum]) -> SignedLog:
    ends = [value for one in every for value in (one.lambda_max, one.lambda_min) if math.isfinite(value)]
    extent = max((abs(end) for end in ends), default=1.0) or 1.0
    threshold = 10.0 ** (math.ceil(math.log10(extent) - 1e-9) - 3)
    return SignedLog(threshold, min([*ends, -threshold]) * 1.6, max([*ends, threshold]) * 1.6)


def _densities(known: Sequence[tuple[Results, Sequence[Stored[Spectrum]]]], axis: SignedLog) -> list[Chart]:
    points, sigma = (values[:: max(1, len(values) // POINTS)] for values in axis.grid())
    places = axis.to(*points)
    ticks = _ticks(axis)
    charts = []
    for k, (results, entries) in enumerate(known):
        by_epoch: dict[tuple[int | None, str], list[Stored[Spectrum]]] = {}
        for stored in entries:
            if stored.result.density is not None:
                by_epoch.setdefault((stored.epoch, _matrix(stored)), []).append(stored)
        for (epoch, matrix), group in by_epoch.items():
            traces: list[dict[str, Any]] = []
            highest = 1.0
            for place, stored in enumerate(group[:8]):
                subset = subset_of(stored)
                if stored.result.density is None:
                    continue
                density, stderr = stored.result.density.on_grid(torch.from_numpy(points), torch.from_numpy(sigma))
                error = np.nan_to_num(as_array(stderr))
                curve = as_array(density)
                highest = max(highest, float(curve.max()))
                name, colour = results.title(subset), colour_of(subset, place)
                floor = 1e-12
                traces += band(name, places, np.maximum(curve - error, floor), np.maximum(curve + error, floor), colour)
                traces.append(
                    line(
                        name, places, np.maximum(curve, floor), colour=colour, place=place, mode="lines", dash="solid",
                        legendgroup=traces[-1]["legendgroup"], customdata=[float(f"{v:.4g}") for v in points],
                        hovertemplate="λ = %{customdata}<br>density %{y:.3g}<extra>%{fullData.name}</extra>",
                    )
                )  # fmt: skip
            size = group[0].result.density.size if group[0].result.density else 1
            charts.append(
                Chart(
                    f"Eigenvalue density of the {matrix}, {results.label}, epoch {epoch}",
                    traces,
                    {
                        "xaxis": {"title": {"text": "eigenvalue λ (signed log axis)"}, "tickvals": ticks[0],
                                  "ticktext": ticks[1], "range": [float(places[0]), float(places[-1])]},
                        # A single eigenvalue is the least that there is to see.
                        "yaxis": {"title": {"text": "density"}, "type": "log",
                                  "range": [math.log10(0.02 / size / axis.high), math.log10(2 * highest)]},
                    },
                    _caption(group, axis),
                    {"run": str(k)},
                    height=420,
                    wide=True,
                )
            )  # fmt: skip
    return charts


def subset_of(stored: Stored[Spectrum]) -> str:
    """The subset's name is the middle of the file's: ``hessian/epoch-0060-tail-train``."""
    parts = stored.name.split("/")[-1].split("-")[2:]
    split = str(stored.settings.get("split", "train"))
    return "-".join(parts[: parts.index(split)] if split in parts else parts).replace("_", ",")


def _caption(group: Sequence[Stored[Spectrum]], axis: SignedLog) -> str:
    first = group[0]
    samples = "; ".join(f"{subset_of(stored)}: {stored.result.samples:,}" for stored in group)
    probes = first.result.density.nodes.shape[0] if first.result.density else 0
    return (
        f"Stochastic Lanczos quadrature with outliers deflated; bands: ± one standard error over {probes} random "
        "probes. "
        f"Smoothed by a Gaussian of fixed width on this axis, which is linear within ±{axis.threshold:g}. "
        f"Samples: {samples}, {first.settings.get('split', 'train')} images; "
        f"BatchNorm: {first.result.batch_norm} statistics. The errors are those of the probes, not of another draw "
        "of data "
        "or of another seed."
    )


def _ticks(axis: SignedLog) -> tuple[list[float], list[str]]:
    values = [0.0]
    for power in range(math.floor(math.log10(axis.threshold)), math.ceil(math.log10(max(axis.high, -axis.low)))):
        values += [value for value in (10.0**power, -(10.0**power)) if axis.low < value < axis.high]
    values.sort()
    return [float(place) for place in axis.to(*values)], [number(value) for value in values]


def _over_epochs(known: Sequence[tuple[Results, Sequence[Stored[Spectrum]]]]) -> list[Chart]:
    charts = []
    for k, (results, entries) in enumerate(known):
        curves: dict[str, list[Stored[Spectrum]]] = {}
        for stored in entries:
            if stored.epoch is not None and stored.result.operator == "hessian" and not stored.settings.get("block"):
                curves.setdefault(subset_of(stored), []).append(stored)
        if not any(len({stored.epoch for stored in one}) > 1 for one in curves.values()):
            continue
        traces = []
        for place, (subset, entries_of) in enumerate(curves.items()):
            epochs = [float(stored.epoch or 0) for stored in entries_of]
            values = [stored.result.lambda_max for stored in entries_of]
            errors = [stored.result.lambda_max_residual for stored in entries_of]
            name = results.title(subset)
            traces.append(line(name, epochs, values, colour=colour_of(subset, place), place=place, error=errors))
        charts.append(
            Chart(
                f"Largest eigenvalue over training: {results.label}",
                traces,
                axes("epoch", "λ_max", log=True),
                "Bars: the norm of the residual.",
                {"run": str(k)},
                wide=True,
            )
        )
    return charts


def _table(known: Sequence[tuple[Results, Sequence[Stored[Spectrum]]]]) -> Table:
    rows = []
    for results, entries in known:
        for stored in entries:
            one = stored.result
            negative = "–"
            if one.density is not None:
                mass = one.density.negative_mass()
                negative = f"{100 * mass.value:.1f} [{100 * mass.low:.1f}, {100 * mass.high:.1f}]"
            rows.append(
                (
                    results.label,
                    str(stored.epoch),
                    results.title(subset_of(stored)),
                    _matrix(stored),
                    f"{one.samples:,}",
                    with_error(one.lambda_max, one.lambda_max_residual) + ("" if one.converged else " (not converged)"),
                    with_error(one.lambda_min, one.lambda_min_residual),
                    with_error(one.trace.value, one.trace.stderr),
                    negative,
                )
            )
    return Table(
        "Spectra",
        ("run", "epoch", "classes", "matrix", "samples", "λ_max", "λ_min", "trace", "negative share, %"),
        tuple(rows),
        "λ ± the norm of the residual; trace ± standard error over probes; negative share: of the absolute "
        "curvature, with "
        "its 95 % interval over probes. None of these errors covers another seed.",
    )
