from __future__ import annotations

import numpy as np
import pytest
import torch
from analysis_cases import Case, cross_entropy
from scipy.interpolate import CubicSpline, lagrange
from torch import Tensor

from landscape_lab.analysis import Line, Plane, evaluate
from landscape_lab.analysis.adaptive import _halved, _refined, evaluate_adaptively, nested_axis, nested_size
from landscape_lab.analysis.planes import random_plane
from landscape_lab.errors import InputError
from landscape_lab.parameters import ParameterSpace

SUBSETS = {"all": (0, 1, 2), "rare": (2,)}


def refined(losses: Tensor, tolerance: float) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """The adaptive grid for known losses ``(S, ny, nx)``, and the masks it asked for."""
    asked: list[Tensor] = []
    full = torch.stack([losses, losses * 0, losses * 0 + 0.5])

    def measured(wanted: Tensor) -> Tensor:
        asked.append(wanted)
        seen = torch.stack(asked).any(0)
        return torch.where(seen, full, torch.nan)  # what was not asked for is not known

    filled = _refined(measured, losses.shape[-1], losses.shape[-2], tolerance)
    return filled.values[0], filled.evaluated, filled.errors, asked


def grid(n: int) -> tuple[Tensor, Tensor]:
    axis = torch.linspace(-1, 1, n, dtype=torch.float64)
    b, a = torch.meshgrid(axis, axis, indexing="ij")
    return a, b


def test_midpoints_are_those_of_the_polynomial_through_four_points() -> None:
    values = torch.randn(7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = _halved(values, -1)
    assert torch.equal(found[::2], values)
    for k in range(6):
        first = min(max(k - 1, 0), 3)
        polynomial = lagrange(np.arange(first, first + 4), values[first : first + 4].numpy())
        assert float(found[2 * k + 1]) == pytest.approx(polynomial(k + 0.5))
    # A cubic comes out exactly, at the ends too, as from a spline without knots.
    t = torch.arange(6).double()
    cubic = t**3 - 2 * t
    spline = CubicSpline(t.numpy(), cubic.numpy())
    np.testing.assert_allclose(_halved(cubic, -1), spline(np.arange(11) / 2), atol=1e-12)


def test_a_cubic_surface_needs_the_first_grid_only() -> None:
    a, b = grid(65)
    losses = torch.stack([5 + a**3 - b**2 + a * b**3, 3 + a])
    values, evaluated, errors, _ = refined(losses, 0.01)
    assert int(evaluated.sum()) == 81
    torch.testing.assert_close(values, losses)
    assert float(errors.max()) < 1e-12


def test_points_go_where_the_surface_bends() -> None:
    a, b = grid(65)
    kink = 3 + (a - 0.317 * b - 0.1).abs()
    values, evaluated, errors, _ = refined(kink[None], 0.005)
    distance = (a - 0.317 * b - 0.1).abs()
    assert int(evaluated.sum()) < 0.4 * 65**2
    assert float(evaluated[distance < 0.05].double().mean()) > 0.6
    assert float(evaluated[distance > 0.4].double().mean()) < 0.1
    true = (values[0] - kink).abs()
    assert float(true[evaluated].max()) < 1e-14
    assert float(errors[0][evaluated].abs().max()) == 0.0
    assert float(true.max()) <= 2 * 0.005 * float(kink.mean())
    # The estimate is no smaller than nine in ten of the errors that are there.
    there = true > 1e-12
    assert float((true <= errors[0])[there].double().mean()) > 0.9


def test_one_subset_that_bends_is_enough() -> None:
    a, b = grid(33)
    smooth, bent = 3 + a, 3 + (a + b).abs()
    alone = refined(bent[None], 0.005)[1]
    together = refined(torch.stack([smooth, bent]), 0.005)[1]
    assert torch.equal(alone, together)
    assert int(refined(smooth[None], 0.005)[1].sum()) == 81


def test_wide_losses_are_interpolated_as_logarithms() -> None:
    a, b = grid(33)
    losses = torch.exp(6 * a + 2 * b)  # its logarithm is a plane
    values, evaluated, errors, _ = refined(losses[None], 0.01)
    assert int(evaluated.sum()) < 200
    assert float(((values[0] - losses) / (losses + 1e-3)).abs().max()) < 0.01
    bowl = 1e-3 * (a**2 + b**2)  # interpolated losses are not below zero
    assert float(refined((1000 * bowl)[None], 0.3)[0].min()) >= 0
    assert float(errors.min()) >= 0


def test_what_is_not_finite_stays_so_and_its_border_is_found() -> None:
    a, b = grid(65)
    wall = a + b > 0.71
    losses = torch.where(wall, torch.inf, 3 + a)
    values, evaluated, _, _ = refined(losses[None], 0.05)
    finite = values[0].isfinite()
    assert not bool((finite & wall).any())
    assert float((finite & ~wall).sum() / (~wall).sum()) > 0.9
    assert int(evaluated.sum()) < 0.6 * 65**2
    nothing = refined(torch.full((1, 17, 17), torch.nan, dtype=torch.float64), 0.05)
    assert not bool(nothing[0].isfinite().any())


def test_a_tolerance_of_nothing_is_the_full_grid(conv: Case) -> None:
    plane = random_plane(ParameterSpace(conv.model))
    x, y = nested_axis(-1, 1, 10), nested_axis(-1, 0.5, 17)
    arguments = {"x": x, "y": y, "subsets": SUBSETS, "num_classes": 3}
    full = evaluate(conv.model, cross_entropy, conv.batches, plane, **arguments)
    fine = evaluate_adaptively(conv.model, cross_entropy, conv.batches, plane, tolerance=1e-300, **arguments)
    rough = evaluate_adaptively(conv.model, cross_entropy, conv.batches, plane, tolerance=0.05, **arguments)
    assert len(x) == 17
    assert bool(fine.evaluated.all())
    torch.testing.assert_close(fine.losses, full.losses, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fine.stderr, full.stderr, rtol=1e-12, atol=1e-12)
    assert torch.equal(fine.accuracies, full.accuracies)
    at = rough.evaluated
    assert 81 <= int(at.sum()) < 289
    torch.testing.assert_close(rough.losses[:, at], full.losses[:, at], rtol=1e-12, atol=1e-12)
    off = ((rough.losses - full.losses).abs() / (full.losses + 1e-3)).flatten(1).max(1).values
    assert float(off.max()) < 0.1


def test_a_line_is_refined_along_itself(conv: Case) -> None:
    space = ParameterSpace(conv.model)
    plane = random_plane(space)
    line = Line(plane.origin, plane.x)
    x = nested_axis(-2, 2, 65)
    arguments = {"x": x, "subsets": SUBSETS, "num_classes": 3}
    found = evaluate_adaptively(conv.model, cross_entropy, conv.batches, line, tolerance=0.02, **arguments)
    full = evaluate(conv.model, cross_entropy, conv.batches, line, **arguments)
    assert found.losses.shape == (2, 1, 65)
    assert 9 <= int(found.evaluated.sum()) < 65
    off = ((found.losses - full.losses).abs() / (full.losses + 1e-3)).max()
    assert float(off) < 0.05


def test_a_stopped_adaptive_sweep_goes_on(conv: Case) -> None:
    plane = random_plane(ParameterSpace(conv.model))
    x = nested_axis(-1, 1, 17)
    arguments = {"x": x, "y": x, "subsets": SUBSETS, "num_classes": 3, "tolerance": 0.02}
    whole = evaluate_adaptively(conv.model, cross_entropy, conv.batches, plane, **arguments)
    kept = []

    def stop(_: int) -> None:
        if len(kept) >= 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_adaptively(
            conv.model,
            cross_entropy,
            conv.batches,
            plane,
            keep=kept.append,
            keep_every=0.0,
            progress=stop,
            **arguments,
        )
    points: list[int] = []
    again = evaluate_adaptively(
        conv.model, cross_entropy, conv.batches, plane, known=kept[-1], progress=points.append, **arguments
    )
    assert points[0] == 100
    assert sum(points) == int(whole.evaluated.sum())
    for name in ("losses", "accuracies", "stderr", "errors", "evaluated"):
        assert torch.equal(getattr(again, name), getattr(whole, name)), name


def test_nested_axes() -> None:
    assert [nested_size(n) for n in (2, 9, 10, 25, 33, 51)] == [9, 9, 17, 33, 33, 65]
    axis = nested_axis(-2, 1, 20)
    assert (len(axis), float(axis[0]), float(axis[-1])) == (33, -2.0, 1.0)


def test_bad_input(conv: Case) -> None:
    plane = Plane(*torch.randn(3, 123, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    arguments = {"subsets": SUBSETS, "num_classes": 3}
    axis = nested_axis(-1, 1, 9)
    with pytest.raises(InputError, match="tolerance must be positive, got 0"):
        evaluate_adaptively(conv.model, cross_entropy, conv.batches, plane, x=axis, y=axis, tolerance=0.0, **arguments)
    with pytest.raises(InputError, match="9, 17, 33, 65 … points, got 12"):
        evaluate_adaptively(conv.model, cross_entropy, conv.batches, plane, x=axis, y=axis[:1].repeat(12), **arguments)
