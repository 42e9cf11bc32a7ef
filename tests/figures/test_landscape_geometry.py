import dataclasses

import numpy as np
import pytest
import torch
from figure_results import HARSH, bowl, geometry_paths, texts
from matplotlib.colors import to_hex
from matplotlib.contour import ContourSet

from landscape_lab.figures import landscape_geometry
from landscape_lab.figures.style import OURS


def draw(**options):
    surface = bowl({"all": 1.0, "tail": 80.0}, hole=True)
    return landscape_geometry(surface, surface, geometry_paths(ours=HARSH), **options)


def test_both_panels_have_the_same_axes_colours_and_iso_lines():
    a, b = draw().axes[:2]
    assert a.get_xlim() == b.get_xlim() == (-1, 1)
    assert a.get_ylim() == b.get_ylim() == (-1, 1)
    sets = [[child for child in axes.get_children() if isinstance(child, ContourSet)] for axes in (a, b)]
    for one, two in zip(*sets, strict=True):
        assert one.levels.tolist() == two.levels.tolist()
        assert (one.norm.vmin, one.norm.vmax) == (two.norm.vmin, two.norm.vmax)


def test_ticks_are_numbers():
    figure = draw()
    labels = [label.get_text() for axes in figure.axes[:2] for label in axes.get_xticklabels()]
    assert any(any(character.isdigit() for character in label) for label in labels)


def test_the_paths_are_drawn_where_they_are():
    paths, figure = geometry_paths(), draw()
    for axes, run, color in ((0, "tail_only", "#000000"), (1, "standard", "#000000"), (1, "ours", OURS)):
        points = getattr(paths, run).coordinates.numpy()
        drawn = [
            line for line in figure.axes[axes].lines
            if np.array_equal(line.get_xydata(), points) and to_hex(line.get_color()) == color
        ]  # fmt: skip
        assert len(drawn) == 1, run


def test_the_caption_tells_distances_residual_policy_and_samples():
    words = texts(draw())
    for part in (
        "= 3.142",
        "= 27.18",
        "θ* 1.25",
        "θ(t₁) 0",
        "statistics: running",
        "500 samples (a)",
        "1,000 samples (b)",
    ):
        assert part in words, part
    assert "85 % of the paths’ variance" in words
    assert "Hatched: no finite value (8 of 242" in words


def test_clipping_is_told():
    words = texts(draw(limits=(0.1, 10.0)))
    assert "log colours; colours clipped at 0.1 and 10" in words


def test_names_are_drawn_as_they_are():
    assert HARSH.replace("$", r"\$") in texts(draw())


def test_two_checkpoints_and_points_outside_the_picture():
    paths = geometry_paths()
    far = dataclasses.replace(paths.ours, coordinates=paths.ours.coordinates[[0, -1]] * 3)
    surface = bowl({"tail": 1.0})
    figure = landscape_geometry(surface, surface, dataclasses.replace(paths, ours=far))
    assert figure.axes[1].get_xlim() == (-1, 1)


def test_a_diverged_run_is_drawn_as_far_as_it_went():
    paths = geometry_paths()
    coordinates = paths.ours.coordinates.clone()
    coordinates[4:] = torch.nan
    surface = bowl({"tail": 1.0})
    landscape_geometry(
        surface, surface, dataclasses.replace(paths, ours=dataclasses.replace(paths.ours, coordinates=coordinates))
    )


def test_refusals():
    surface = bowl({"all": 1.0, "tail": 2.0})
    with pytest.raises(ValueError, match="same grid"):
        landscape_geometry(surface, bowl({"all": 1.0, "tail": 2.0}, n=7), geometry_paths())
    with pytest.raises(ValueError, match="no subset 'few'"):
        landscape_geometry(surface, surface, geometry_paths(), tail_subset="few")
    with pytest.raises(ValueError, match="no \\['standard'\\]"):
        landscape_geometry(surface, surface, dataclasses.replace(geometry_paths(), distances={"ours": 1.0}))
