import math
from dataclasses import replace

import numpy as np
import pytest
from figure_results import HARSH, spectrum_of, texts
from matplotlib.collections import PolyCollection
from scipy.integrate import trapezoid

from landscape_lab.figures import hessian_density, spectrum
from landscape_lab.figures.hessian_density import GRID


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


def test_refusals():
    with pytest.raises(ValueError, match="at least one method"):
        hessian_density({})
    with pytest.raises(ValueError, match="must have the subsets head, tail"):
        hessian_density({"a": study()["CE"], "b": {"head": spectrum_of(1.0)}})
