import math

import numpy as np
import pytest

from landscape_lab.figures import AblationCurve, ablation, save

NAN = math.nan


def curve(*values, title="ours", half=0.5, **more):
    x = tuple(float(k) for k in range(1, len(values) + 1))
    low, high = (tuple(v + sign * half for v in values) for sign in (-1, 1))
    return AblationCurve(title, x, tuple(map(float, values)), low, high, **more)


def main_line(axes):
    (line,) = [line for line in axes.lines if line.get_marker() in ("s", "o")]
    return line


def test_lines_and_bands_are_the_numbers():
    figure = ablation([curve(50, 52, 51), curve(60, 61, 60.5, title="Paper", measured=False)], "G")
    ours, paper = figure.axes
    np.testing.assert_array_equal(main_line(ours).get_ydata(), [50, 52, 51])
    np.testing.assert_array_equal(main_line(paper).get_ydata(), [60, 61, 60.5])
    assert main_line(ours).get_color() != main_line(paper).get_color()
    edges = [tuple(line.get_ydata()) for line in ours.lines if line is not main_line(ours)]
    assert (49.5, 51.5, 50.5) in edges
    assert (50.5, 52.5, 51.5) in edges
    assert [text.get_text() for text in ours.get_xticklabels()] == ["1", "2", "3"]
    assert (ours.get_title(), paper.get_title()) == ("(a) ours", "(b) Paper")


def test_panels_span_the_same_and_hold_everything():
    points = ((40.0, 60.0), (52.0,), (51.0,))
    panels = ablation([curve(50, 52, 51, points=points), curve(80, 80.1, 80, half=0)], "G").axes
    spans = [np.ptp(axes.get_ylim()) for axes in panels]
    assert spans[0] == pytest.approx(spans[1])
    low, high = panels[0].get_ylim()
    assert low < 40
    assert high > 60


def test_a_flat_curve_does_not_show_noise_as_hills():
    (axes,) = ablation([curve(50, 50.01, 50, half=0)], "G").axes
    assert np.ptp(axes.get_ylim()) == pytest.approx(1.0)
    assert axes.get_title() == "ours"


def test_what_is_missing_is_a_gap_and_is_said():
    figure = ablation([curve(50, NAN, 51)], "G", ["A note."])
    line = main_line(figure.axes[0])
    assert np.isnan(line.get_ydata()[1])
    assert "No value at 2." in figure.get_supxlabel()
    assert "A note." in figure.get_supxlabel()


def test_negative_places_in_the_order_given():
    down = AblationCurve("ours", (-1.0, -2.0), (50.0, 51.0), (50.0, 51.0), (50.0, 51.0))
    (axes,) = ablation([down], "log Z").axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["−1", "−2"]
    np.testing.assert_array_equal(main_line(axes).get_ydata(), [50, 51])


@pytest.mark.parametrize(
    ("curves", "said"),
    [
        ([], "at least one curve"),
        ([curve(NAN, NAN)], "has no value"),
        ([curve(1, 2), curve(1, 2, 3)], "places of the first curve"),
        ([AblationCurve("ours", (1.0, 2.0), (1.0,), (1.0,), (1.0,))], "must have the length"),
    ],
)
def test_refused(curves, said):
    with pytest.raises(ValueError, match=said):
        ablation(curves, "G")


def test_the_same_bytes_again(tmp_path):
    first, again = (save(ablation([curve(50, 52)], "G"), tmp_path / name, ["png"])[0] for name in "ab")
    assert first.read_bytes() == again.read_bytes()
