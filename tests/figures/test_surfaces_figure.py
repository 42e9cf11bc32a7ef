import dataclasses

import numpy as np
import pytest
import torch
from figure_results import HARSH, bowl, texts
from matplotlib.contour import ContourSet

from landscape_lab.figures import surfaces


def line(n=9):
    full = bowl({"all": 1.0, "head": 2.0, HARSH: 300.0}, n=n)
    losses = full.losses[:, n // 2 : n // 2 + 1].clone()
    losses[2, 0, 0] = torch.inf
    return dataclasses.replace(full, y=torch.zeros(1).double(), losses=losses, accuracies=torch.exp(-losses))


@pytest.mark.parametrize("subsets", [1, 2, 4, 5])
def test_a_panel_for_each_subset_all_on_one_scale(subsets):
    curvatures = {f"class {k}": 4.0**k for k in range(subsets)}
    figure = surfaces(bowl(curvatures, hole=True))
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert len(panels) == subsets
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in panels}) == 1
    sets = [[child for child in axes.get_children() if isinstance(child, ContourSet)] for axes in panels]
    assert len({tuple(found[0].levels) for found in sets}) == 1
    assert "Hatched: no finite value" in texts(figure)
    assert all(axes.patch.get_hatch() for axes in panels)


def test_a_finite_surface_is_not_hatched():
    figure = surfaces(bowl({"all": 1.0}))
    assert "Hatched" not in texts(figure)
    assert not figure.axes[0].patch.get_hatch()


def test_accuracies():
    figure = surfaces(bowl({"all": 1.0, HARSH: 9.0}), quantity="accuracy", title=HARSH)
    assert "Accuracy" in texts(figure)


def test_nothing_finite_at_all():
    surface = bowl({"all": 1.0})
    surfaces(dataclasses.replace(surface, losses=torch.full_like(surface.losses, torch.nan)))


def test_a_line_gives_curves_with_gaps():
    result = line()
    figure = surfaces(result, title="a line", names=("Distance", ""))
    left, right = figure.axes[:2]
    assert left.get_yscale() == "log"
    curves = [curve for curve in left.lines if len(curve.get_xdata()) == 9]
    assert len(curves) == 3
    assert np.isnan(curves[2].get_ydata()[0])
    np.testing.assert_allclose(curves[0].get_ydata(), result.losses[0, 0])
    assert len({curve.get_color() for curve in curves}) == 3
    assert right.get_ylabel() == "Accuracy"
    assert "No finite loss at 1 of 27 points" in texts(figure)


def test_a_cut_line_says_so():
    figure = surfaces(line(), limits=(0.1, 10.0))
    assert figure.axes[0].get_ylim() == pytest.approx((0.1, 10.0))
    assert "cut off" in texts(figure)


def test_a_single_point_is_refused():
    surface = bowl({"all": 1.0})
    with pytest.raises(ValueError, match="two points along x, got 1"):
        surfaces(dataclasses.replace(surface, x=surface.x[:1], losses=surface.losses[:, :, :1]))
