import math
import sys
from dataclasses import replace

import numpy as np
import pytest
from figure_results import HARSH, spectrum_of, texts
from matplotlib.collections import LineCollection, PolyCollection
from scipy.integrate import trapezoid

from landscape_lab.figures import hessian_density, save, spectrum
from landscape_lab.figures.hessian_density import GRID
from landscape_lab.numbers import with_error


def study():
    return {
        "CE": {"head": spectrum_of(38.15), "tail": spectrum_of(74.99, smallest=-7.0)},
        HARSH: {"head": spectrum_of(0.08, smallest=-0.02), "tail": spectrum_of(30.9, converged=False)},
    }


@pytest.fixture(scope="module")
def figure():
    return hessian_density(study())


def curve(axes):
    (line,) = [line for line in axes.lines if len(line.get_xdata()) == GRID]
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


def test_rows_are_subsets_columns_are_methods_and_all_axes_are_one(figure):
    assert len(figure.axes) == 4
    titles = [axes.get_title() for axes in figure.axes]
    assert [title[:9] for title in titles[::2]] == ["(a) CE: h", "(c) CE: t"]
    assert len({(axes.get_xlim(), axes.get_ylim(), axes.get_xscale(), axes.get_yscale()) for axes in figure.axes}) == 1
    assert figure.axes[0].get_xscale() == "symlog"
    assert figure.axes[0].get_yscale() == "log"


def test_every_eigenvalue_is_inside_the_picture(figure):
    low, high = figure.axes[0].get_xlim()
    assert low < -7.0
    assert high > 74.99


def test_a_lone_outlier_is_a_spike_of_the_right_place_mass_and_visibility(figure):
    for axes, largest in zip(figure.axes, (38.15, 0.08, 74.99, 30.9), strict=True):
        x, y = curve(axes)
        near = (x > largest * 0.8) & (x < largest * 1.25)
        assert x[near][y[near].argmax()] == pytest.approx(largest, rel=0.03)
        # The kernel's width changes along the spike by a few per cent, and with it the mass.
        assert trapezoid(y[near], x[near]) == pytest.approx(1e-4, rel=0.1)
        assert y[near].max() > 5 * axes.get_ylim()[0]


def test_the_whole_density_has_mass_one(figure):
    for axes in figure.axes:
        x, y = curve(axes)
        assert trapezoid(y, x) == pytest.approx(1.0, rel=0.02)


def test_no_false_spike_where_linear_meets_logarithmic():
    # An eigenvalue just inside the threshold: one maximum, and no second beyond the threshold.
    x, y = curve(spectrum({"all": spectrum_of(0.95, smallest=-0.2)}, threshold=1.0).axes[0])
    near = y[(x > 0.7) & (x < 1.4)]
    rising = (np.diff(near) > 0).astype(int)
    assert (np.diff(rising) == -1).sum() == 1


def test_numbers_carry_their_errors(figure):
    words = texts(figure)
    assert r"$\lambda_{\max}$: 74.99 ± 0.07" in words
    assert r"$\mathrm{Tr}(H)$: 187.5 ± 0.7" in words
    assert r"$\lambda_{\min}$: −7 ± 1e−5" in words
    assert words.count("(not converged)") == 1
    assert "133 samples" in words
    assert "BatchNorm statistics: running" in words


def test_the_band_is_one_standard_error():
    result = spectrum_of(10.0)
    axes = spectrum({"all": result}).axes[0]
    x, y = curve(axes)
    (band,) = [child for child in axes.collections if isinstance(child, PolyCollection)]
    edge = band.get_paths()[0].vertices
    # Each probe by itself has no error, but their spread gives it.
    single = [
        replace(result.density, nodes=row[None], weights=share[None])
        for row, share in zip(result.density.nodes, result.density.weights, strict=True)
    ]
    heights = np.stack([curve(spectrum({"all": replace(result, density=density)}).axes[0])[1] for density in single])
    expected = y + heights.std(0, ddof=1) / 3**0.5
    for k in (GRID // 3, GRID // 2, y.argmax()):
        above = edge[np.isclose(edge[:, 0], x[k]), 1].max()
        assert above == pytest.approx(expected[k], rel=1e-6)


def test_one_probe_has_no_error():
    assert "one probe: no error" in texts(spectrum({"all": spectrum_of(10.0, probes=1)}, title="a run"))


def test_tiny_curvature_moves_the_threshold():
    low, high = spectrum({"all": spectrum_of(3e-4, smallest=-1e-5)}).axes[0].get_xlim()
    assert -1e-2 < low < 0 < high < 1e-2


def test_a_zero_hessian_is_drawn():
    spectrum({"all": spectrum_of(0.0, smallest=0.0)})


def test_diverged_values_are_told():
    words = texts(spectrum({"all": spectrum_of(math.nan)}))
    assert "not finite" in words


def column(axes):
    return axes.get_subplotspec().colspan.start


def many(count):
    return {f"class {k}": replace(spectrum_of(10.0 + k), samples=count - k) for k in range(count)}


@pytest.mark.parametrize(("count", "columns"), [(3, 1), (4, 2), (7, 3)])
def test_one_runs_subsets_fill_a_grid(count, columns):
    figure = spectrum(many(count), title="run 7, epoch 3")
    assert len(figure.axes) == count
    assert [column(axes) for axes in figure.axes] == [k % columns for k in range(count)]
    # Exactly the panels with nothing below them have numbers on the x axis.
    numbered = [axes.xaxis.get_major_ticks()[0].label1.get_visible() for axes in figure.axes]
    assert numbered == [k + columns >= count for k in range(count)]
    assert texts(figure).count("run 7") == (count if columns == 1 else 1)
    if columns > 1:
        assert all(f"({count - k} sample" in axes.get_title() for k, axes in enumerate(figure.axes))
    assert figure.get_figheight() < 15


def test_of_very_many_subsets_the_groups_and_evenly_spaced_others_are_drawn(monkeypatch):
    monkeypatch.setattr(sys.modules["landscape_lab.figures.hessian_density"], "MOST", 6)
    figure = spectrum({**many(100), "head": spectrum_of(5.0), "tail": spectrum_of(6.0), "all": spectrum_of(7.0)})
    names = [axes.get_title().split(" (")[0].split(") ")[1] for axes in figure.axes]
    assert names[-3:] == ["Head", "Tail", "All"]
    numbers = [int(name.removeprefix("Class ")) for name in names[:-3]]
    assert numbers == [0, 50, 99]
    assert "6 of 103 subsets: the named groups" in texts(figure)
    several = hessian_density({name: many(40) for name in ("a", "b", "c")})
    assert len(several.axes) == 6
    assert "2 of 40 subsets" in texts(several)


def without(result):
    return replace(result, density=None)


def test_spectra_without_density_are_left_out():
    figure = spectrum({"head": spectrum_of(5.0), "tail": without(spectrum_of(6.0)), "all": spectrum_of(7.0)})
    assert [axes.get_title() for axes in figure.axes] == ["(a) Head", "(b) All"]
    assert "Measured without a density and left out: tail." in texts(figure)
    with pytest.raises(ValueError, match="at least one spectrum with a density"):
        spectrum({"head": without(spectrum_of(5.0))})


def test_of_several_methods_only_empty_rows_and_columns_go():
    head, tail = spectrum_of(5.0), spectrum_of(6.0)
    figure = hessian_density(
        {
            "a": {"head": head, "tail": without(tail), "all": without(head)},
            "b": {"head": head, "tail": tail, "all": without(head)},
            "c": {"head": without(head), "tail": without(tail), "all": without(head)},
        }
    )
    assert [axes.get_title() for axes in figure.axes] == ["(a) a: head", "(b) b: head", "(c) a: tail", "(d) b: tail"]
    assert "no density" in [text.get_text() for text in figure.axes[2].texts]


def test_upper_limit_negative_mass_and_outliers():
    result = spectrum_of(38.15, smallest=-7.0)
    limited = replace(result, lambda_max_upper=38.4412, density=replace(result.density, outliers=2))
    figure = spectrum({"all": limited})
    words = texts(figure)
    assert "95 %: ≤ 38.45" in words  # rounded up
    share = limited.density.negative_mass()
    assert f"neg. mass: {with_error(100 * share.value, 100 * share.stderr)} %" in words
    assert "found one by one" in words
    (ticks,) = [
        child for child in figure.axes[0].collections if isinstance(child, LineCollection) and child.get_segments()
    ]
    assert sorted(segment[0][0] for segment in ticks.get_segments()) == pytest.approx([-7.0, 38.15])
    words = texts(spectrum({"all": spectrum_of(38.15, smallest=-1e-7)}))  # its residual is 1e-5
    assert "neg. mass" not in words
    assert "95 %" not in words
    assert "found one by one" not in words


def test_other_operators_are_named():
    words = texts(spectrum({"all": replace(spectrum_of(2.0), operator="ggn")}))
    assert "Eigenvalue of the Gauss–Newton matrix" in words
    assert r"$\mathrm{Tr}(G)$" in words
    assert "‖Gv − λv‖" in words
    assert "G (Gauss–Newton matrix) over 133 samples" in words
    unknown = replace(spectrum_of(2.0), operator="mine", samples=0, batch_norm="none")
    words = texts(spectrum({"all": unknown}))
    assert "A (mine), 10,000 parameters." in words
    both = texts(spectrum({"a": spectrum_of(2.0), "b": replace(spectrum_of(2.0), operator="fisher")}))
    assert "F (empirical Fisher matrix) and H over" in both


def covered(figure):
    """The panels whose numbers lie on their curve."""
    figure.canvas.draw()
    found = []
    for axes in figure.axes:
        box = axes.texts[0].get_window_extent()
        points = axes.transData.transform(np.column_stack(curve(axes)))
        beside = points[(points[:, 0] > box.x0) & (points[:, 0] < box.x1)]
        if len(beside) and beside[:, 1].max() > box.y0 + 1:
            found.append(axes.get_title())
    return found


def test_numbers_never_lie_on_a_curve():
    full = {name: replace(result, lambda_max_upper=1.02 * result.lambda_max) for name, result in many(5).items()}
    assert not covered(spectrum(full))
    one = {"all": full["class 3"]}
    assert not covered(spectrum(one))
    assert not covered(hessian_density({"a": one, "b": one, "c": one}))


def test_grids_repeat_byte_for_byte(tmp_path):
    first, again = (save(spectrum(many(4)), tmp_path / name, ["png"])[0] for name in "ab")
    assert first.read_bytes() == again.read_bytes()


def test_refusals():
    with pytest.raises(ValueError, match="at least one method"):
        hessian_density({})
    with pytest.raises(ValueError, match="must have the subsets head, tail"):
        hessian_density({"a": study()["CE"], "b": {"head": spectrum_of(1.0)}})
