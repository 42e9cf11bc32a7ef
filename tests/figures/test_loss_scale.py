import numpy as np
import pytest

from landscape_lab.figures.loss_scale import loss_scale


def test_wide_positive_losses_get_a_log_scale_and_narrow_ones_a_linear_one():
    assert loss_scale([np.array([0.1, 50.0])]).kind == "log"
    assert loss_scale([np.array([1.0, 5.0])]).kind == "linear"
    assert loss_scale([np.array([-1.0, 500.0])]).kind == "linear"


def test_what_is_not_finite_decides_nothing_and_is_masked():
    losses = np.array([0.1, np.nan, np.inf, 50.0, -np.inf])
    scale = loss_scale([losses])
    assert (scale.low, scale.high) == (0.1, 50.0)
    assert np.ma.getmaskarray(scale.height(losses)).tolist() == [False, True, True, False, True]


def test_zero_has_a_colour_on_a_log_scale():
    scale = loss_scale([np.array([0.0, 1e-9, 10.0])])
    assert scale.kind == "log"
    assert scale.clips_below
    assert "clipped at 0.001" in scale.note
    assert np.isfinite(scale.height(np.array([0.0]))).all()


def test_five_decades_at_most():
    scale = loss_scale([np.array([0.01, 1e12])])
    assert scale.high / scale.low == pytest.approx(1e5)
    assert scale.clips_above
    assert not scale.clips_below


@pytest.mark.parametrize("kind", ["linear", "sqrt", "log"])
def test_iso_lines_lie_inside_increase_and_are_few(kind):
    for low, high in [(0.02, 9.0), (1e-3, 300.0), (3.0, 3.5), (1e-8, 1e-6)]:
        scale = loss_scale([np.array([low, high])], kind=kind, lines=14)
        assert 2 <= len(scale.levels) <= 14
        assert all(scale.low < level < scale.high for level in scale.levels)
        assert sorted(set(scale.levels)) == list(scale.levels)
        inside = scale.norm(scale.heights)
        assert ((inside > 0) & (inside < 1)).all()


def test_square_root_lines_are_evenly_spaced_in_a_quadratic_bowl():
    levels = np.array(loss_scale([np.linspace(0, 3, 200) ** 2], kind="sqrt").levels)
    steps = np.diff(np.sqrt(levels))
    np.testing.assert_allclose(steps, steps[0])


def test_a_constant_or_missing_surface_still_has_a_scale():
    for values in (np.full((3, 3), 2.0), np.full((3, 3), np.nan)):
        scale = loss_scale([values])
        assert scale.low < scale.high


def test_limits():
    scale = loss_scale([np.array([0.01, 100.0])], limits=(0.1, 10.0))
    assert (scale.low, scale.high, scale.clips_below, scale.clips_above) == (0.1, 10.0, True, True)
    with pytest.raises(ValueError, match="increase"):
        loss_scale([np.array([0.1, 1.0])], limits=(2.0, 1.0))
    with pytest.raises(ValueError, match="positive"):
        loss_scale([np.array([0.1, 1.0])], kind="log", limits=(0.0, 1.0))
