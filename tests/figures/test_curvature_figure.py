import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from figure_results import HARSH, spectrum_of, texts, with_data
from matplotlib.collections import LineCollection, PolyCollection

from landscape_lab.figures import curvature_bars, curvature_curves, save


def subsets(classes, epoch=0):
    """Classes whose curvature grows and whose samples fall with their number, and three groups."""
    found = {
        f"class {k}": replace(spectrum_of(10.0 + 3 * k + epoch), samples=max(500 // (k + 1), 5)) for k in range(classes)
    }
    return {**found, "head": spectrum_of(9.0 + epoch), "tail": spectrum_of(40.0 + epoch), "all": spectrum_of(8.0)}


def over(classes, epochs=(0, 10, 20)):
    found = {epoch: subsets(classes, epoch) for epoch in epochs}
    return {name: {epoch: found[epoch][name] for epoch in epochs} for name in found[epochs[0]]}


@pytest.fixture(scope="module")
def thirteen():
    return curvature_bars(subsets(10), title=HARSH)


@pytest.fixture(scope="module")
def hundred():
    return curvature_bars(subsets(100))


def values(axes):
    """The drawn points of a panel, from left to right."""
    return [float(line.get_ydata()[0]) for line in axes.lines if line.get_marker() == "o"]


def segments(axes, color=None):
    """The vertical lines of a panel as (x, low, high, linewidth)."""
    found = []
    for child in axes.collections:
        if isinstance(child, LineCollection):
            found += [(p[0][0], p[0][1], p[1][1], child.get_linewidth()[0]) for p in child.get_segments()]
    return found


# -- one epoch -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [10, 100])
def test_every_subset_is_drawn_in_order_and_the_groups_stand_apart(classes, thirteen, hundred):
    figure = thirteen if classes == 10 else hundred
    largest, groups, traces, trace_groups, counts, group_counts = figure.axes
    assert values(largest) == [10.0 + 3 * k for k in range(classes)]
    assert values(groups) == [9.0, 40.0, 8.0]
    assert values(traces) == pytest.approx([25.0 + 7.5 * k for k in range(classes)])
    assert values(trace_groups) == pytest.approx([22.5, 100.0, 20.0])
    assert [bar.get_height() for bar in counts.patches] == [max(500 // (k + 1), 5) for k in range(classes)]
    assert [label.get_text() for label in group_counts.get_xticklabels()] == ["head", "tail", "all"]
    assert largest.get_ylim() == groups.get_ylim()
    assert traces.get_ylim() == trace_groups.get_ylim()
    assert largest.get_yscale() == "log"


def test_groups_go_on_as_lines_of_their_colour_among_the_classes(hundred):
    lines = {float(line.get_ydata()[0]): line.get_color() for line in hundred.axes[0].lines if line.get_marker() != "o"}
    assert lines == {9.0: "#0b67a8", 40.0: "#d8392f", 8.0: "#333333"}


@pytest.mark.parametrize("classes", [10, 100])
def test_no_two_names_overlap_and_none_is_cut_off(classes, thirteen, hundred):
    figure = thirteen if classes == 10 else hundred
    figure.canvas.draw()
    for axes in figure.axes[4:]:
        boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
        assert len(boxes) >= 3
        assert all(left.x1 <= right.x0 + 0.5 for left, right in itertools.pairwise(boxes))
        assert min(box.y0 for box in boxes) > 0


def test_intervals_are_those_of_the_results():
    result = replace(spectrum_of(10.0), lambda_max_upper=12.0)
    axes = curvature_bars({"a": result}).axes
    assert segments(axes[0])[0][:3] == pytest.approx((0, 10.0 - 0.01, 12.0))
    assert segments(axes[1])[0][:3] == pytest.approx((0, result.trace.low, result.trace.high))
    below = replace(result, lambda_max_upper=math.nan)
    assert segments(curvature_bars({"a": below}).axes[0])[0][:3] == pytest.approx((0, 9.99, 10.01))


def test_errors_from_the_samples_are_wide_and_pale_and_apart():
    figure = curvature_bars({"a": with_data(spectrum_of(10.0), 2.0), "b": spectrum_of(20.0)})
    wide = [line for line in segments(figure.axes[0]) if line[3] > 3]
    thin = [line for line in segments(figure.axes[0]) if line[3] < 3]
    assert [line[:3] for line in wide] == [pytest.approx((0, 10 - 1.96 * 2, 10 + 1.96 * 2))]
    assert [line[0] for line in thin] == [0, 1]
    words = texts(figure)
    assert "… from the draw of the samples" in words
    assert "± 1.96 bootstrap standard errors, 50 resamples" in words
    assert "draw of the samples" not in texts(curvature_bars({"a": spectrum_of(10.0)})).lower()


def test_negative_values_make_the_axis_signed():
    axes = curvature_bars({"a": spectrum_of(-3.0), "b": spectrum_of(200.0)}).axes[0]
    assert axes.get_yscale() == "symlog"
    low, high = axes.get_ylim()
    assert low < -3.0 < 200.0 < high
    assert 0.0 in axes.get_yticks()
    below = curvature_bars({"a": spectrum_of(-3.0), "b": spectrum_of(-200.0)}).axes[0]
    assert {-100.0, 0.0} <= set(below.get_yticks())


def test_an_interval_that_reaches_zero_stays_in_the_picture():
    low, high = curvature_bars({"a": with_data(spectrum_of(10.0), 50.0)}).axes[0].get_ylim()
    assert 0 < low < 10.0 < high


def test_what_failed_is_marked():
    figure = curvature_bars(
        {"a": spectrum_of(10.0, converged=False), "b": spectrum_of(math.nan), "c": spectrum_of(3.0)}
    )
    points = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [line.get_markerfacecolor() for line in points] == ["white", points[1].get_color()]
    assert [list(line.get_xdata()) for line in figure.axes[0].lines if line.get_marker() == "x"] == [[1]]
    assert "λ not converged" in texts(figure)
    assert "not finite" in texts(figure)


def test_counts_given_win_over_the_samples_measured_on():
    axes = curvature_bars({"a": spectrum_of(1.0), "b": spectrum_of(2.0)}, counts={"a": 5000}).axes[2]
    assert [bar.get_height() for bar in axes.patches] == [5000, 133]


def test_degenerate_bars_are_drawn():
    curvature_bars({"all": spectrum_of(0.0, smallest=0.0)})
    curvature_bars({name: spectrum_of(2.0) for name in ("head", "tail")})
    curvature_bars({"word " * 30 + str(k): spectrum_of(1e-7 * 10**k) for k in range(14)})


def test_the_caption_tells_what_was_computed(thirteen):
    words = texts(thirteen)
    assert r"$1 'dog'" in words  # the title, its dollar escaped
    assert "H over 50 to 500 samples" in words
    assert "BatchNorm statistics: running" in words
    ggn = curvature_bars({"all": replace(spectrum_of(2.0), operator="ggn", batch_norm="batch")})
    assert "G (Gauss–Newton matrix) over 133 samples" in texts(ggn)
    assert r"$\mathrm{Tr}(G)$" in texts(ggn)


# -- over the epochs -----------------------------------------------------------------------------------------


def curves(axes, count):
    return [line for line in axes.lines if len(line.get_xdata()) == count]


def test_rows_are_quantities_and_lines_are_subsets():
    figure = curvature_curves(over(3))
    assert [axes.get_ylabel() for axes in figure.axes] == [
        r"$\lambda_{\max}$", r"$\mathrm{Tr}(H)$", "Negative mass (%)",
    ]  # fmt: skip
    drawn = {tuple(line.get_ydata()) for line in curves(figure.axes[0], 3)}
    assert drawn == {tuple(r.lambda_max for r in curve.values()) for curve in over(3).values()}
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(over(3))


def test_without_densities_there_is_no_negative_mass():
    spectra = {"all": {0: replace(spectrum_of(1.0), density=None), 5: replace(spectrum_of(2.0), density=None)}}
    assert len(curvature_curves(spectra).axes) == 2


def test_the_negative_mass_is_that_of_the_density_in_per_cent():
    result = spectrum_of(10.0, smallest=-2.0)
    axes = curvature_curves({"all": {0: result, 1: replace(result, density=None), 2: result}}).axes[2]
    (line,) = curves(axes, 3)
    expected = 100 * result.density.negative_mass().value
    assert np.allclose(line.get_ydata(), [expected, math.nan, expected], equal_nan=True)
    assert axes.get_ylim()[0] == 0


def test_bands_are_the_intervals():
    spectra = {"all": {epoch: spectrum_of(10.0 + epoch) for epoch in (0, 4)}}
    traces = curvature_curves(spectra).axes[1]
    (band,) = [child for child in traces.collections if isinstance(child, PolyCollection)]
    corners = band.get_paths()[0].vertices
    for epoch, result in spectra["all"].items():
        heights = corners[corners[:, 0] == epoch, 1]
        assert heights.min() == pytest.approx(result.trace.low)
        assert heights.max() == pytest.approx(result.trace.high)


def test_a_hundred_lines_are_coloured_by_frequency_under_the_groups():
    figure = curvature_curves(over(100))
    assert figure.axes[-1].get_ylabel() == "Samples of the class"
    lines = curves(figure.axes[0], 3)
    assert len(lines) == 103
    assert len({line.get_color() for line in lines}) > 30
    groups = [line for line in lines if line.get_color() in ("#0b67a8", "#d8392f", "#333333")]
    assert len(groups) == 3
    assert min(line.get_linewidth() for line in groups) > 3 * lines[0].get_linewidth()
    bands = [child for child in figure.axes[1].collections if isinstance(child, PolyCollection)]
    assert len(bands) == 3
    assert "Of single classes they are in the median ± 0.1 % (λ" in texts(figure).replace(r"$\lambda_{\max}$", "λ")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["head", "tail", "all"]


def test_equally_frequent_classes_are_coloured_by_their_place():
    spectra = {f"{k}": {0: spectrum_of(1.0 + k), 9: spectrum_of(2.0 + k)} for k in range(30)}
    assert curvature_curves(spectra).axes[-1].get_ylabel() == "Class, in the order given"


def test_errors_from_the_samples_are_dotted_where_few_lines_are_drawn():
    few = {name: {e: with_data(spectrum_of(10.0 + e), 2.0) for e in (0, 5)} for name in ("cat", "dog")}
    figure = curvature_curves(few)
    dotted = [line for line in curves(figure.axes[0], 2) if line.get_linestyle() != "-"]
    assert {tuple(line.get_ydata()) for line in dotted} == {(13.92, 18.92), (6.08, 11.08)}
    assert "Dotted: 95 % intervals from the draw" in texts(figure)
    many = {f"{k}": few["cat"] for k in range(6)}
    assert "Dotted" not in texts(curvature_curves(many))
    assert "intervals of the groups from the draw" in texts(curvature_curves({**many, "head": few["cat"]}))


def test_points_that_did_not_converge_are_hollow():
    spectra = {"all": {0: spectrum_of(5.0), 1: spectrum_of(6.0, converged=False), 2: spectrum_of(7.0)}}
    figure = curvature_curves(spectra)
    hollow = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "white" and len(line.get_xdata())]
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in hollow] == [([1], [6.0])]
    assert "not converged" in texts(figure)


def test_single_epochs_and_missing_epochs_are_drawn():
    curvature_curves({"head": {7: with_data(spectrum_of(5.0), 1.0)}, "tail": {7: spectrum_of(8.0)}})
    figure = curvature_curves({"head": {0: spectrum_of(5.0), 9: spectrum_of(6.0)}, "tail": {9: spectrum_of(8.0)}})
    assert len(curves(figure.axes[0], 2)) == 1
    curvature_curves({"all": {0: spectrum_of(math.nan), 1: spectrum_of(0.0)}})


# -- both ----------------------------------------------------------------------------------------------------


def test_refusals():
    with pytest.raises(ValueError, match="at least one spectrum"):
        curvature_bars({})
    with pytest.raises(ValueError, match="at least one subset with one epoch"):
        curvature_curves({"all": {}})


def test_files_repeat_byte_for_byte(tmp_path):
    for form, draw in (("png", lambda: curvature_bars(subsets(1))), ("svg", lambda: curvature_curves(over(1)))):
        first, again = (save(draw(), tmp_path / name, [form])[0] for name in "ab")
        assert first.read_bytes() == again.read_bytes()
