"""Another program's sweep over our plane gives our surface, and leaves the caller's model alone."""

from __future__ import annotations

import pytest
import torch
from analysis_cases import Case, cross_entropy
from test_side_effects import Snapshot

from landscape_lab.analysis import evaluate
from landscape_lab.analysis.loss_landscapes_backend import loss_landscapes_surface
from landscape_lab.analysis.planes import random_plane
from landscape_lab.errors import InputError
from landscape_lab.parameters import ParameterSpace

pytest.importorskip("loss_landscapes")
SUBSETS = {"all": (0, 1, 2), "rare": (2,)}


@pytest.mark.parametrize("steps", [5, 6])
@pytest.mark.parametrize("normalisation", ["filter", "layer", "norm"])
def test_it_agrees_with_ours_at_every_point(conv: Case, normalisation: str, steps: int) -> None:
    before = Snapshot(conv.model)
    theirs = loss_landscapes_surface(
        conv.model,
        cross_entropy,
        conv.batches,
        extent=0.7,
        steps=steps,
        subsets=SUBSETS,
        num_classes=3,
        seed=2,
        normalisation=normalisation,
    )
    before.assert_same(conv.model)
    plane = random_plane(ParameterSpace(conv.model), seed=2, normalisation=normalisation)
    axis = torch.linspace(-0.7, 0.7, steps, dtype=torch.float64)
    ours = evaluate(conv.model, cross_entropy, conv.batches, plane, x=axis, y=axis, subsets=SUBSETS, num_classes=3)
    torch.testing.assert_close(theirs.losses, ours.losses, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(theirs.stderr, ours.stderr, rtol=1e-8, atol=1e-10)
    assert torch.equal(theirs.accuracies, ours.accuracies)
    assert torch.equal(theirs.x, ours.x)


def test_what_it_cannot_do_is_refused(conv: Case) -> None:
    arguments = {"extent": 1.0, "steps": 3, "subsets": SUBSETS, "num_classes": 3}
    with pytest.raises(InputError, match="always scales"):
        loss_landscapes_surface(conv.model, cross_entropy, conv.batches, **{**arguments, "normalisation": "none"})
    with pytest.raises(InputError, match="two steps"):
        loss_landscapes_surface(conv.model, cross_entropy, conv.batches, **{**arguments, "steps": 1})
