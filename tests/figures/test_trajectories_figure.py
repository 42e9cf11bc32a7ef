import dataclasses

import numpy as np
import pytest
from figure_results import HARSH, bowl, path, texts

from landscape_lab.figures import trajectories


def test_paths_and_residuals_are_drawn_where_they_are():
    paths = {"one": path((0.6, 0.5), 5, residual=2.0), HARSH: path((0.5, -0.4), 2)}
    figure = trajectories(paths, title=HARSH)
    plane, strip = figure.axes[:2]
    for run, line in zip(paths.values(), strip.lines, strict=True):
        assert line.get_xdata().tolist() == list(run.steps)
        np.testing.assert_allclose(line.get_ydata(), run.residuals)
        assert any(np.array_equal(drawn.get_xydata(), run.coordinates.numpy()) for drawn in plane.lines)
    assert strip.get_ylim()[0] == 0
    assert "60.0 % of the variance" in plane.get_xlabel()
    assert "25.0 % of the variance" in plane.get_ylabel()


def test_a_plane_without_variance_has_plain_labels():
    run = dataclasses.replace(path((0.6, 0.5), 5), explained_variance_ratio=None)
    assert "variance" not in texts(trajectories({"one": run}))


def test_on_a_surface_the_grid_gives_the_limits():
    figure = trajectories(
        {"one": path((4.0, 0.5), 6)}, surface=bowl({"all": 1.0, "tail": 70.0}, hole=True), subset="tail"
    )
    assert figure.axes[0].get_xlim() == (-1, 1)
    words = texts(figure)
    assert "500 samples (tail)" in words
    assert "Hatched" in words


def test_the_common_start_is_named_once():
    figure = trajectories({"a": path((0.6, 0.5), 5), "b": path((0.6, -0.5), 5)})
    assert [text.get_text() for text in figure.axes[0].texts].count("0") == 1


def test_a_single_point():
    trajectories({"one": path((0.1, 0.1), 1)})


def test_refusals():
    with pytest.raises(ValueError, match="at least one path"):
        trajectories({})
