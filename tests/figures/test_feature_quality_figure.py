import dataclasses
import math

import pytest
from figure_results import HARSH, bowl, quality_panel, texts
from matplotlib.contour import ContourSet

from landscape_lab.figures import feature_quality, quality_curves

SHARP, FLAT = {"head": 1.0, "tail": 90.0}, {"head": 0.8, "tail": 3.0}


def panels():
    return [
        quality_panel("Standard", (0, 10, 20, 30), bowl(SHARP)),
        quality_panel(HARSH, (0, 40), bowl(FLAT, hole=True), level=5.0),
    ]


@pytest.fixture(scope="module")
def figure():
    return feature_quality(panels())


@pytest.fixture(scope="module")
def short():
    return feature_quality(panels(), forms=["difference"])


def split(figure, rows):
    curves, contours = figure.axes[: 2 * rows], figure.axes[2 * rows : 2 * rows + 4]
    return curves, contours


def test_curves_of_one_form_share_their_axes(figure):
    curves, _ = split(figure, rows=2)
    for one, two in (curves[:2], curves[2:]):
        assert one.get_ylim() == two.get_ylim()
        assert one.get_xlim() == two.get_xlim()
        low, high = one.get_ylim()
        values = [value for axes in (one, two) for line in axes.lines for value in line.get_ydata()]
        assert low < min(values)
        assert max(values) < high


def test_all_contour_plots_share_axes_and_levels_and_are_square(short):
    _, contours = split(short, rows=1)
    lines = [
        [child for child in axes.get_children() if isinstance(child, ContourSet) and not child.filled]
        for axes in contours
    ]
    assert all(len(found) == 1 for found in lines)
    assert len({tuple(found[0].levels) for found in lines}) == 1
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in contours}) == 1
    assert all(axes.get_box_aspect() == 1 for axes in contours)


def test_the_sharper_bowl_crosses_more_lines(short):
    _, contours = split(short, rows=1)

    def crossed(axes):
        lines = next(child for child in axes.get_children() if isinstance(child, ContourSet) and not child.filled)
        return sum(len(path.vertices) > 0 for path in lines.get_paths())

    head, tail, _, milder = (crossed(axes) for axes in contours)
    assert tail > milder > head >= 1


def test_numbers_of_classes_and_samples_are_in_the_legend(figure):
    words = texts(figure)
    assert "Head: 1 class, 7,997 training images" in words
    assert "Tail: 2 classes, 133 training images" in words


def test_no_verdict_but_the_callers_numbers(figure):
    words = texts(figure)
    assert r"$\lambda_{\max}$ 75" in words
    assert "flat" not in words.lower()
    assert "sharp" not in words.lower()


def test_test_features_are_dashed():
    panel = panels()[0]
    figure = quality_curves(dataclasses.replace(panel, surface=None, test_curves=panel.curves), forms=["reciprocal"])
    assert [line.get_linestyle() for line in figure.axes[0].lines] == ["-", "--", "-", "--"]
    assert "Tail: 2 classes, test features" in texts(figure)


def test_one_run_is_one_column():
    figure = quality_curves(dataclasses.replace(panels()[0], surface=None))
    assert len(figure.axes) == 2
    assert "(a)" not in texts(figure)


def test_a_missing_value_is_a_gap():
    panel = quality_panel("x", (0, 5, 10), None)
    curves = {"difference": {"head": (-1.0, math.nan, -2.0), "tail": (math.nan,) * 3}}
    figure = quality_curves(dataclasses.replace(panel, curves=curves))
    assert math.isnan(figure.axes[0].lines[0].get_ydata()[1])


def test_rise_starts_at_zero():
    figure = feature_quality(panels(), forms=["difference"], contours="rise")
    assert "less $L$ at the centre" in texts(figure)


def test_a_surface_below_the_first_line_says_so():
    few = [quality_panel("x", (0, 1), bowl({"head": 1e-9, "tail": 1.0}))]
    words = texts(feature_quality(few, forms=["difference"], scale="linear"))
    assert "no iso-line: between 0.01 and 0.01" in words


def test_refusals():
    one, two = panels()
    with pytest.raises(ValueError, match="at least one panel"):
        feature_quality([])
    with pytest.raises(ValueError, match="no quality of the form 'ratio'"):
        feature_quality([one], forms=["ratio"])
    with pytest.raises(ValueError, match="a value for each epoch, got 4 for 1"):
        feature_quality([dataclasses.replace(one, epochs=(0,))])
    with pytest.raises(ValueError, match="same grid"):
        feature_quality([one, dataclasses.replace(two, surface=bowl(FLAT, n=5))])
    with pytest.raises(ValueError, match="equal subsets"):
        feature_quality([one, dataclasses.replace(two, surface=bowl({"few": 1.0, "tail": 1.0}))])
