from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from figure_results import HARSH, path, texts

from landscape_lab.analysis.paths import Barrier, distances
from landscape_lab.errors import InputError
from landscape_lab.figures import barrier_curves, distance_curves, trajectories


def barrier_of(*heights: float) -> Barrier:
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    top = torch.tensor(heights, dtype=torch.float64)
    losses = 0.1 + 4 * top[:, None] * t * (1 - t) + 0.2 * t
    names = ("head", "tail", "all", "3", "4")[: len(heights)]
    errors = torch.full_like(top, 0.1)
    errors[-1] = torch.nan
    at = torch.full_like(top, 0.5)
    return Barrier(
        names, (212, 14, 417, 45, 1)[: len(heights)], t, losses, losses, top, errors, at, "reestimated", ("one", HARSH)
    )


def test_barriers_are_drawn_as_tall_as_they_are() -> None:
    found = barrier_of(0.5, 2.0, 1.0, 0.0, 3.0)
    figure = barrier_curves(found, labels=["head", "tail", "all", HARSH, "4"])
    curves, bars = figure.axes[:2]
    np.testing.assert_allclose([bar.get_width() for bar in bars.patches], [0.5, 2, 1, 0, 3])
    for k, name in enumerate(("head", "tail", "all")):
        (line,) = [line for line in curves.lines if line.get_label().startswith(f"{name} (")]
        np.testing.assert_allclose(line.get_ydata(), found.losses[k])
    # The dots stand where the loss is furthest above its chord.
    dots = [line for line in curves.lines if line.get_marker() == "o"]
    np.testing.assert_allclose([dot.get_xdata()[0] for dot in dots], [0.5] * 3)
    np.testing.assert_allclose([dot.get_ydata()[0] for dot in dots], found.losses[:3, 2])
    assert "reestimated" in texts(figure)


def test_an_infinite_barrier_says_so() -> None:
    found = barrier_of(0.5, 2.0)
    infinite = torch.tensor([0.5, torch.inf], dtype=torch.float64)
    figure = barrier_curves(dataclasses.replace(found, barrier=infinite), title=HARSH)
    assert "not finite" in texts(figure)
    with pytest.raises(ValueError, match="expected 2 labels"):
        barrier_curves(found, labels=["one"])
    with pytest.raises(InputError, match="no subset 'few'"):
        barrier_curves(found, ["few"])


def test_distances_are_drawn_where_they_are() -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = {"encoder.conv1.weight": 5, "encoder.bn1.weight": 2, "classifier.bias": 3}
    reference = torch.randn(10, generator=generator)
    reference[-3:] = 0  # relative to nothing, its distance is infinite: left out
    runs = {
        name: distances(torch.randn(4, 10, generator=generator), reference, sizes, [0, 5, 10, 20], name="tail-only")
        for name in ("one", HARSH)
    }
    figure = distance_curves(runs)
    whole, layer = figure.axes[:2]
    for found, line, dots in zip(runs.values(), whole.lines, layer.lines, strict=True):
        assert line.get_xdata().tolist() == [0, 5, 10, 20]
        np.testing.assert_allclose(line.get_ydata(), found.full)
        np.testing.assert_allclose(dots.get_xdata(), found.relative_layers[:2, -1])
    assert "tail-only" in texts(figure)
    with pytest.raises(ValueError, match="at least one run"):
        distance_curves({})
    other = distances(torch.zeros(1, 4), torch.ones(4), {"w": 4})
    with pytest.raises(ValueError, match="different networks"):
        distance_curves({**runs, "other": other})


def test_many_layers_show_their_weights_only() -> None:
    sizes = {name: 1 for k in range(20) for name in (f"l{k}.weight", f"l{k}.bias", f"l{k}.bn1.weight")}
    figure = distance_curves({"one": distances(torch.zeros(2, 60), torch.ones(60), sizes)})
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == [f"l{k}" for k in range(20)]
    assert "weights only" in texts(figure)


def test_true_losses_are_drawn_beside_the_planes() -> None:
    run = path((0.6, 0.5), 5, residual=2.0)
    true, shown = torch.linspace(2, 1, 5).double(), torch.linspace(2, 0.5, 5).double()
    measured = dataclasses.replace(run, losses=true, plane_losses=shown, subset="tail, 14 train samples")
    figure = trajectories({"one": measured, "two": path((0.1, 0.1), 3)})
    lines = figure.axes[2].lines
    np.testing.assert_allclose(lines[0].get_ydata(), true)
    np.testing.assert_allclose(lines[1].get_ydata(), shown)
    assert [line.get_linestyle() for line in lines] == ["-", "--"]
    assert "tail, 14 train samples" in texts(figure)
    assert len(trajectories({"one": run}).axes) == 2
