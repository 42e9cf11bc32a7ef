"""The surfaces' tab: planes in common, at all epochs and of all runs that were measured, on one scale."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from landscape_lab.analysis import Surface
from landscape_lab.numbers import number, with_error
from landscape_lab.report.parts import Chart, Section, axes, colour_of, escaped, line, packed
from landscape_lab.report.results import Results, Stored
from landscape_lab.report.trajectories import best_path

__all__ = ["surfaces", "thinned"]

# What may differ between the surfaces that one scale holds: everything else is the plane's.
MOVING = ("epoch", "subsets")
LEAD = (
    "The loss around solutions, for the samples of head, tail and other classes, from one sweep. Both panes have the "
    "same axes, colours and iso-lines, at all epochs and for all runs of the plane: what looks steeper is steeper. "
    "Turn "
    "a surface with the mouse or a finger, and the other turns with it."
)


def surfaces(found: Sequence[Results]) -> Section:
    """All stored surfaces, those over planes for turning, those along lines as curves."""
    planes: dict[str, dict[int, list[Stored[Surface]]]] = {}
    lines: list[tuple[Results, Stored[Surface]]] = []
    for k, results in enumerate(found):
        for stored in results.of(Surface):
            if len(stored.result.x) < 2:
                continue
            if len(stored.result.y) < 2:
                lines.append((results, stored))
                continue
            planes.setdefault(_plane_key(stored), {}).setdefault(k, []).append(stored)
    # The plane that most runs and epochs share comes first.
    ranked = sorted(planes.items(), key=lambda item: -sum(map(len, item[1].values())))
    sets = [_set(found, members) for _, members in ranked]
    missing = []
    if not sets:
        missing.append(("No loss surface is stored:", f"landscape-lab surface {found[0].run.path.name}"))
    return Section(
        key="surfaces",
        title="Surfaces",
        lead=LEAD if sets else "",
        surfaces={"sets": sets} if sets else None,
        charts=[_line_chart(results, stored) for results, stored in lines],
        missing=missing,
    )


def thinned(section: Section) -> Section:
    """The section with every second epoch of its surfaces left out; the same if there is nothing to leave out."""
    if section.surfaces is None:
        return section
    changed = False
    sets = []
    for one in section.surfaces["sets"]:
        runs = []
        for run in one["runs"]:
            points = run["points"]
            kept = [point for k, point in enumerate(reversed(points)) if k % 2 == 0][::-1]
            changed |= len(kept) < len(points)
            runs.append({**run, "points": kept})
        said = " Not all measured epochs are in this file, which would be too large."
        sets.append({**one, "runs": runs, "note": one["note"].removesuffix(said) + said})
    return dataclasses.replace(section, surfaces={"sets": sets}) if changed else section


def _plane_key(stored: Stored[Surface]) -> str:
    settings = {key: value for key, value in stored.settings.items() if key not in MOVING}
    # Without an epoch the plane is a particular one, such as that through three solutions.
    place = [] if stored.epoch is not None else [stored.name]
    return json.dumps([settings, place, stored.result.batch_norm], sort_keys=True, default=str)


def _set(found: Sequence[Results], members: Mapping[int, list[Stored[Surface]]]) -> dict[str, Any]:
    some = next(iter(members.values()))[-1]
    runs = []
    for k, entries in members.items():
        points: dict[int, dict[str, Any]] = {}
        for stored in entries:
            epoch = found[k].last["epoch"] if stored.epoch is None else stored.epoch
            point = _point(found[k], stored)
            same = points.get(epoch)
            if same and same["x"] == point["x"] and same["y"] == point["y"]:  # more subsets on the same grid
                known = {subset["key"] for subset in same["subsets"]}
                same["subsets"] += [subset for subset in point["subsets"] if subset["key"] not in known]
            else:
                points[epoch] = {"epoch": epoch, **point}
        runs.append({"label": escaped(found[k].label), "points": [points[epoch] for epoch in sorted(points)]})
    names = _axes(some)
    return {
        "label": escaped(_label(some)),
        "note": _note(some),
        "x_title": escaped(names[0]),
        "y_title": escaped(names[1]),
        "centre": some.epoch is not None,
        "runs": runs,
    }


def _axes(stored: Stored[Surface]) -> tuple[str, str]:
    return getattr(stored.result, "names", ("direction 1", "direction 2"))


def _label(stored: Stored[Surface]) -> str:
    settings = stored.settings
    words = [str(settings.get("directions", "random" if "seed" in settings else settings.get("plane", stored.name)))]
    if settings.get("extent") is not None:
        words.append(f"±{settings['extent']:g}")
    if settings.get("split", "train") != "train":
        words.append(f"{settings['split']} images")
    if settings.get("samples"):
        words.append(f"at most {settings['samples']:,} samples a subset")
    if settings.get("seed"):
        words.append(f"seed {settings['seed']}")
    words.append(f"{len(stored.result.x)} × {len(stored.result.y)}")
    return ", ".join(words)


def _note(stored: Stored[Surface]) -> str:
    surface, settings = stored.result, stored.settings
    directions = str(settings.get("directions", "random" if "seed" in settings else ""))
    words = []
    if directions == "random":
        kind = settings.get("normalisation", "filter")
        scale = "not normalised" if kind == "none" else f"{kind}-normalised (Li et al. 2018)"
        words.append(f"Two random directions, {scale}, the same at all epochs and for all runs of one network.")
    elif directions:
        words.append(f"Directions: {directions}; axes: {', '.join(_axes(stored))}.")
    samples = settings.get("samples")
    drawn = f"at most {samples:,} of each subset, drawn at random" if samples else "all of each subset"
    words.append(f"Samples: {settings.get('split', 'train')} images, {drawn}, unaugmented.")
    policy = {
        "running": "BatchNorm uses the running statistics of the solution at every point.",
        "batch": "BatchNorm normalises by the statistics of the batches at hand.",
    }
    words.append(policy.get(surface.batch_norm, f"BatchNorm: {surface.batch_norm}."))
    words.append("Colours between grid points are interpolated linearly by the picture.")
    evaluated = getattr(surface, "evaluated", None)
    if evaluated is not None and not bool(evaluated.all()):
        words.append(
            "The loss was evaluated at the points that are marked lightly; values between them were interpolated "
            "before "
            "the picture was made."
        )
    return " ".join(words)


def _point(results: Results, stored: Stored[Surface]) -> dict[str, Any]:
    surface = stored.result
    stderr, errors = getattr(surface, "stderr", None), getattr(surface, "errors", None)
    evaluated = getattr(surface, "evaluated", None)
    nx, ny = len(surface.x), len(surface.y)
    i, j = int(surface.x.abs().argmin()), int(surface.y.abs().argmin())
    at_centre = float(surface.x[i].abs() + surface.y[j].abs()) < 1e-9 * float(surface.x.abs().max() + 1e-300)
    subsets = []
    for k, (name, count) in enumerate(zip(surface.subsets, surface.counts, strict=True)):
        centre = None
        if at_centre:
            loss = float(surface.losses[k, j, i])
            centre = (
                number(loss) if stderr is None else f"{with_error(loss, float(stderr[k, j, i]))} (s.e. over samples)"
            )
        note = ""
        if errors is not None and float(errors[k].max()) > 0:
            note = f"Estimated interpolation error: at most {number(float(errors[k].max()), 2)}."
        subsets.append(
            {
                "key": name,
                "title": escaped(results.title(name)),
                "count": int(count),
                "loss": packed(surface.losses[k]),
                "accuracy": packed(surface.accuracies[k]),
                "centre": centre,
                "note": note,
            }
        )
    point: dict[str, Any] = {"x": packed(surface.x), "y": packed(surface.y), "subsets": subsets}
    if evaluated is not None and not bool(evaluated.all()):
        point["evaluated"] = packed(evaluated.double().reshape(ny * nx))
    path = _path(results, stored)
    return {**point, "path": path} if path else point


def _path(results: Results, stored: Stored[Surface]) -> dict[str, Any] | None:
    """The way of training, where the plane is that of its principal components."""
    if stored.settings.get("directions") != "pca":
        return None
    path = best_path(results)
    if path is None or path.method != "pca":
        return None
    x, y = path.coordinates.T
    return {"x": packed(x), "y": packed(y), "labels": [f"epoch {step}" for step in path.steps]}


def _line_chart(results: Results, stored: Stored[Surface]) -> Chart:
    surface = stored.result
    traces = []
    for k, name in enumerate(surface.subsets):
        colour = colour_of(name, k)
        traces.append(line(results.title(name), surface.x, surface.losses[k, 0], colour=colour, place=k, mode="lines"))
    when = "" if stored.epoch is None else f", epoch {stored.epoch}"
    return Chart(
        f"Loss along a line: {results.label}{when}",
        traces,
        axes(escaped(_axes(stored)[0]), "loss", log=True),
        _note(stored),
    )  # fmt: skip
