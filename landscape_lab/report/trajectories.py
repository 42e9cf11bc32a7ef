"""The trajectories' tab: paths in a plane and off it, distances to a reference, barriers between solutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from landscape_lab.analysis import Trajectory
from landscape_lab.analysis.paths import Barrier, Distances
from landscape_lab.analysis.trajectory import JointTrajectory
from landscape_lab.figures import Table
from landscape_lab.numbers import with_error
from landscape_lab.report.parts import Chart, Control, Section, axes, colour_of, escaped, line, packed
from landscape_lab.report.results import Results

__all__ = ["best_path", "trajectories"]

LEAD = (
    "The way of training, seen in a plane. What the plane hides is drawn beside it: where the distance off the "
    "plane is as "
    "large as the path itself, neither the path’s shape nor a surface over the plane tells much about the loss on "
    "the way."
)
COMMON = "in common"


def trajectories(found: Sequence[Results]) -> Section:
    """Stored paths by run and in a common plane, distances and barriers."""
    charts: list[Chart] = []
    options: dict[str, str] = {}
    seen = set[tuple[str, ...]]()
    for results in found:
        for stored in results.of(JointTrajectory):
            joint = stored.result
            if tuple(joint.paths) not in seen:  # every run of the plane holds a copy
                seen.add(tuple(joint.paths))
                key = f"{COMMON} {len(seen)}"
                options[key] = f"{len(joint.paths)} runs in one plane"
                charts += _path_charts(joint.paths, "one plane for all runs", key, joint.explained_variance_ratio)
    for k, results in enumerate(found):
        path = best_path(results)
        if path is not None:
            options[str(k)] = results.label
            charts += _path_charts({results.label: path}, results.label, str(k), path.explained_variance_ratio)
    tables: list[tuple[Table, Mapping[str, str]]] = []
    far = [(results, stored.result) for results in found for stored in results.of(Distances)]
    for reference in dict.fromkeys(one.reference for _, one in far):
        charts.append(_distance_chart([(results, one) for results, one in far if one.reference == reference]))
    charts += [_layer_chart(results, one, str(k)) for k, (results, one) in enumerate(far)]
    barriers = [(results, stored.result) for results in found for stored in results.of(Barrier)]
    for results, found_barrier in barriers:
        charts.append(_barrier_chart(results, found_barrier))
    if barriers:
        tables.append((_barrier_table(barriers), {}))
    missing = []
    paths = " ".join(results.run.path.name for results in found)
    if not options:
        missing.append(("No trajectory is stored:", f"landscape-lab trajectory {paths}"))
    if not far:
        missing.append(("No distances to a tail-only solution are stored:", "landscape-lab trajectory --help"))
    if not barriers:
        missing.append(("No barrier between solutions is stored:", "landscape-lab barrier --help"))
    return Section(
        key="trajectories",
        title="Trajectories",
        lead=LEAD if charts else "",
        controls=[
            Control("path", "Plane", options),
            Control("layers", "Layers of", {str(k): results.label for k, (results, _) in enumerate(far)}),
        ],
        charts=charts,
        tables=tables,
        missing=missing,
    )


def best_path(results: Results) -> Trajectory | None:
    """The run's path in the plane of its own principal components, with its losses where they were measured."""
    paths = [stored.result for stored in results.of(Trajectory)]
    own = [path for path in paths if path.method == "pca"] or paths
    return max(own, key=lambda path: path.losses is not None, default=None)


def _path_charts(
    paths: Mapping[str, Trajectory], what: str, option: str, ratio: tuple[float, float] | None
) -> list[Chart]:
    traces: list[dict[str, Any]] = []
    off: list[dict[str, Any]] = []
    losses: list[dict[str, Any]] = []
    begun = set[tuple[float, float]]()
    for place, (name, path) in enumerate(paths.items()):
        x, y = path.coordinates.T
        colour = colour_of("", place)
        labels = [f"epoch {step}" for step in path.steps]
        # Runs with one beginning: its epoch is written once.
        marked = {len(labels) - 1} | (set() if (float(x[0]), float(y[0])) in begun else {0})
        begun.add((float(x[0]), float(y[0])))
        traces.append(
            line(
                name, x, y, colour=colour, place=place, mode="lines+markers+text", hovertext=labels,
                text=[str(step) if k in marked else "" for k, step in enumerate(path.steps)],
                textposition=["middle right", *["top center"] * (len(labels) - 1)],
                hovertemplate="%{hovertext}<br>(%{x:.3g}, %{y:.3g})<extra></extra>",
            )
        )  # fmt: skip
        off.append(line(f"{name}: off the plane", list(path.steps), path.residuals, colour=colour, place=place))
        if path.losses is not None:
            losses.append(
                line(
                    f"{name}: at the checkpoint",
                    list(path.steps),
                    path.losses,
                    colour=colour,
                    place=place,
                    dash="solid",
                )
            )
        if path.plane_losses is not None:
            losses.append(
                line(f"{name}: at its projection", list(path.steps), path.plane_losses, colour=colour, place=place + 1,
                     dash="dot")
            )  # fmt: skip
    facets = {"path": option}
    words = (
        "Dots: checkpoints; the first and the last are named by their epoch. Axes: Euclidean distances in the space of "
        "all parameters."
    )
    if ratio:
        words += f" The axes explain {100 * ratio[0]:.1f} % and {100 * ratio[1]:.1f} % of the variance."
    layout = axes("first axis", "second axis")
    layout["xaxis"]["constrain"] = layout["yaxis"]["constrain"] = "domain"
    layout["yaxis"]["scaleanchor"] = "x"  # angles are as in the plane
    charts = [
        Chart(
            f"Path of training: {what}",
            traces,
            layout,
            words,
            facets,
            height=440,
        ),
        Chart(
            f"Distance off the plane: {what}",
            off,
            axes("epoch", "distance", zero=True),
            "Euclidean distance of each checkpoint to the plane.",
            facets,
            height=440,
        ),
    ]  # fmt: skip
    if losses:
        subsets = sorted({path.subset for path in paths.values() if path.subset})
        charts.append(
            Chart(
                f"True loss beside the plane’s: {what}",
                losses,
                axes("epoch", "loss", log=True),
                "Solid: the loss at the checkpoint; dotted: at its projection onto the plane, which is what a "
                "surface over "
                f"the plane shows. {'; '.join(subsets)}",
                facets,
                wide=True,
            )
        )
    return charts


def _distance_chart(far: Sequence[tuple[Results, Distances]]) -> Chart:
    traces = []
    for place, (results, one) in enumerate(far):
        colour = colour_of("", place)
        traces.append(line(results.label, list(one.steps), one.full, colour=colour, place=place))
    first = far[0][1]
    ends, start = [first.steps[0], first.steps[-1]], [float(first.full[0])] * 2
    traces.append(line("as far as at the start", ends, start, colour="@c6", dash="dot", mode="lines"))
    return Chart(
        f"Distance to {first.reference or 'the reference'}",
        traces,
        axes("epoch", "‖θ − reference‖", zero=True),
        "Euclidean, over all parameters. Below the dotted line a run is nearer to that solution than where it began.",
        height=440,
    )


def _layer_chart(results: Results, one: Distances, option: str) -> Chart:
    relative = one.relative_layers
    heat = {
        "type": "heatmap",
        "x": [str(step) for step in one.steps],
        "y": [escaped(name) for name in one.names],
        "z": packed(relative),
        "colorscale": "Viridis",
        "zmin": 0,
        "zmax": float(torch.nan_to_num(relative, posinf=0).max()),
        "hovertemplate": "%{y}<br>epoch %{x}: %{z:.3g}<extra></extra>",
        "colorbar": {"thickness": 12, "outlinewidth": 0},
    }
    return Chart(
        f"Distance by layer, relative to the reference’s norm: {results.label}",
        [heat],
        {
            "xaxis": {"title": {"text": "epoch"}, "type": "category"},
            "yaxis": {"autorange": "reversed", "tickfont": {"size": 9}},
        },
        f"Of each parameter tensor to that of {one.reference or 'the reference'}, divided by the norm of the latter.",
        {"layers": option},
        height=max(440, 13 * len(one.names) + 90),
    )


def _barrier_chart(results: Results, found: Barrier) -> Chart:
    traces = [
        line(results.title(name), found.coordinates, found.losses[k], colour=colour_of(name, k), place=k, mode="lines")
        for k, name in enumerate(found.subsets)
        if len(found.subsets) <= 6 or not name.isdigit()  # single classes are in the table
    ]
    ends = " to ".join(found.ends)
    return Chart(
        f"Loss on the line between two solutions: {ends}",
        traces,
        axes("t", "loss", zero=True),
        f"Linear interpolation of the parameters; BatchNorm: {found.batch_norm} statistics.",
    )


def _barrier_table(barriers: Sequence[tuple[Results, Barrier]]) -> Table:
    rows = [
        (
            " to ".join(found.ends),
            results.title(name),
            f"{found.counts[k]:,}",
            with_error(float(found.barrier[k]), float(found.stderr[k])),
            f"{float(found.at[k]):.2f}",
        )
        for results, found in barriers
        for k, name in enumerate(found.subsets)
    ]
    return Table(
        "Barriers",
        ("between", "classes", "samples", "barrier", "at t"),
        tuple(rows),
        "How far the loss rises above the straight line between its ends (Frankle et al. 2020) ± the standard error "
        "over "
        "samples at that point.",
    )
