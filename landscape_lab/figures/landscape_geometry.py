"""Fig. 1: where training the tail alone, training on everything, and our method end in one plane of the loss."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscape_lab.analysis.surface import Surface
from landscape_lab.analysis.trajectory import Trajectory
from landscape_lab.figures.arrays import Array, as_array
from landscape_lab.figures.loss_scale import Kind, loss_scale, missing_note
from landscape_lab.figures.paths import PointName, draw_path, name_points
from landscape_lab.figures.style import OURS, STANDARD, in_paper_style
from landscape_lab.figures.text import caption, plain, plural, size_of, wrapped
from landscape_lab.numbers import number

__all__ = ["GeometryPaths", "landscape_geometry"]

LEGEND_INCHES = 2.4  # of a run's name
T0, T1, T2, STAR = r"$\theta(t_0)$", r"$\theta(t_1)$", r"$\theta(t_2)$", r"$\theta^*$"


@dataclass(frozen=True, eq=False)
class GeometryPaths:
    """Three runs from one initialisation θ(t0), projected onto one plane.

    Args:
        tail_only: trained on the tail's samples alone; ends at θ(t1).
        standard: standard training on all samples; ends at θ(t2).
        ours: the method under study, on all samples; ends at θ*.
        distances: distances in the full parameter space: ``"ours"`` is ‖θ* - θ(t1)‖ and ``"standard"``
            is ‖θ(t2) - θ(t1)‖; further entries are printed under their own name.
        names: the runs' names in the legend, for any of ``"tail_only"``, ``"standard"`` and ``"ours"``.
    """

    tail_only: Trajectory
    standard: Trajectory
    ours: Trajectory
    distances: dict[str, float]
    names: dict[str, str] = field(default_factory=dict)

    def name(self, run: str) -> str:
        """The legend's name of a run."""
        usual = {"tail_only": "Tail-only training", "standard": "Standard training", "ours": "Ours"}
        return wrapped(plain(self.names.get(run, usual[run])), LEGEND_INCHES, 8.5)


@in_paper_style
def landscape_geometry(
    tail: Surface,
    full: Surface,
    paths: GeometryPaths,
    *,
    tail_subset: str = "tail",
    full_subset: str = "all",
    scale: Kind = "auto",
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Draw the tail's loss and the full loss over the same plane, with the paths of training on top.

    The loss is clipped, and on a log scale, in the picture only; the label of the colour bar says so. Both panels
    have the same axes, in units of distance between parameter vectors.

    Args:
        tail: losses over the plane; the subset ``tail_subset`` is drawn in panel (a).
        full: losses over the same grid; ``full_subset`` is drawn in panel (b). It may be the same surface.
        paths: the three runs, and the distances between where they end.
        tail_subset: which subset of ``tail``; if it has only one, that one.
        full_subset: which subset of ``full``; if it has only one, that one.
        scale: of the colours.
        limits: the losses at which the colours end; see :func:`landscape_lab.figures.loss_scale.loss_scale`.

    Raises:
        ValueError: the surfaces lie on different grids, a subset is missing, or a distance is.

    References:
        Chen et al., CVPR 2026 (GKP+GSA), Fig. 1.
    """
    if not (torch.equal(tail.x, full.x) and torch.equal(tail.y, full.y)):
        raise ValueError("both surfaces must lie on the same grid, got two")
    if missing := {"ours", "standard"} - paths.distances.keys():
        raise ValueError(f"distances need 'ours' and 'standard', got no {sorted(missing)}")
    x, y = as_array(full.x), as_array(full.y)
    chosen = [(tail, _subset(tail, tail_subset)), (full, _subset(full, full_subset))]
    losses = [as_array(surface.of(subset)) for surface, subset in chosen]
    colours = loss_scale(losses, kind=scale, limits=limits)

    ratio = (y[-1] - y[0]) / (x[-1] - x[0])
    true_to_scale = 0.4 <= ratio <= 2.0
    height = 3.0 * (ratio if true_to_scale else 1.0)
    figure = Figure(figsize=(7.4, height + 1.65), layout="constrained")
    panels: list[Axes] = list(figure.subplots(1, 2, sharex=True, sharey=True))
    titles = ("(a) Tail-class loss geometry", "(b) Full dataset loss geometry")
    for axes, loss, title in zip(panels, losses, titles, strict=True):
        colours.fill(axes, x, y, loss)
        axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), xlabel=r"$\theta_1$  (distance)" + f"\n{title}")
        axes.set_box_aspect(ratio if true_to_scale else 1.0)
    panels[0].set_ylabel(r"$\theta_2$  (distance)")
    colours.bar(figure, panels[1:], r"$L(\theta)$")

    points = {run: as_array(getattr(paths, run).coordinates) for run in ("tail_only", "standard", "ours")}
    draw_path(panels[0], points["tail_only"], STANDARD, width=3.0, label=paths.name("tail_only"))
    draw_path(panels[1], points["standard"], STANDARD, width=3.0, label=paths.name("standard"))
    draw_path(panels[1], points["ours"], OURS, width=1.9, end="*", start=STANDARD, label=paths.name("ours"))
    ends = {run: path[-1] for run, path in points.items()}
    for axes, run, color, marker, size in (
        (panels[0], "standard", STANDARD, "o", 6),
        (panels[0], "ours", OURS, "*", 12),
        (panels[1], "tail_only", STANDARD, "o", 6),
    ):
        x1, y1 = ends[run]
        axes.plot(x1, y1, marker, markersize=size, color="white", markeredgecolor=color, markeredgewidth=1.2, zorder=6)
    names = [paths.name("standard"), paths.name("ours")]
    beside = "\n" not in "".join(names) and sum(size_of(name, 8.5)[0] for name in names) < 2.0
    for axes in panels:
        axes.legend(
            loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2 if beside else 1, frameon=False, borderaxespad=0.2
        )
    _caption(figure, chosen, paths, losses, true_to_scale)

    start = PointName.at(points["standard"][0], T0, STANDARD)
    t1 = PointName.at(ends["tail_only"], T1, STANDARD)
    t2 = PointName.at(ends["standard"], T2, STANDARD)
    star = PointName.at(ends["ours"], STAR, OURS)
    name_points(figure, panels[0], [start, t1, t2, star], [points["tail_only"]])
    name_points(figure, panels[1], [start, t2, star, t1], [points["standard"], points["ours"]])
    return figure


def _caption(
    figure: Figure,
    chosen: list[tuple[Surface, str]],
    paths: GeometryPaths,
    losses: list[Array],
    true_to_scale: bool,
) -> None:
    distances = dict(paths.distances)
    ours, standard = distances.pop("ours"), distances.pop("standard")
    off = [_off_plane(run) for run in (paths.tail_only, paths.standard, paths.ours)]
    ratio = paths.ours.explained_variance_ratio
    counts = [plural(surface.counts[surface.subsets.index(subset)], "sample") for surface, subset in chosen]
    policies = sorted({surface.batch_norm for surface, _ in chosen})
    caption(
        figure,
        [
            f"In the full parameter space ‖θ* − θ(t₁)‖ = {number(ours, 4)}",
            f"and ‖θ(t₂) − θ(t₁)‖ = {number(standard, 4)}.",
            *(f"{plain(name)}: {number(value, 4)}." for name, value in distances.items()),
            f"Distance off this plane: θ(t₁) {off[0]}, θ(t₂) {off[1]}, θ* {off[2]}.",
            f"The plane holds {100 * sum(ratio):.0f} % of the paths’ variance." if ratio else "",
            f"Loss over {counts[0]} (a) and {counts[1]} (b), BatchNorm statistics: {' and '.join(policies)}.",
            "Small dots: checkpoints; hollow: ends of runs drawn in the other panel.",
            "" if true_to_scale else "The two axes are not drawn to the same scale.",
            missing_note(losses),
        ],
    )


def _off_plane(run: Trajectory) -> str:
    residual, norm = float(run.residuals[-1]), float(run.norms[-1])
    # A point that spans the plane is off it by rounding only.
    return "0" if residual <= 1e-6 * norm else number(residual)


def _subset(surface: Surface, name: str) -> str:
    if name in surface.subsets:
        return name
    if len(surface.subsets) == 1:
        return surface.subsets[0]
    raise ValueError(f"the surface has no subset {name!r}, got {', '.join(surface.subsets)}")
