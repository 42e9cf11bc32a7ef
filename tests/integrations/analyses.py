"""Every analysis of a run that another library's trainer has made, against that library's own model."""

from __future__ import annotations

import copy
import csv
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from landscape_lab.curvature import CurvatureSettings
from landscape_lab.export import export_csv
from landscape_lab.report import write_report
from landscape_lab.run import Run
from landscape_lab.studies import Study
from landscape_lab.studies.curvature import spectra
from landscape_lab.studies.features import features, quality_history
from landscape_lab.studies.gradients import gradients
from landscape_lab.studies.noise import noise_curve, sharpness
from landscape_lab.studies.paths import barrier_between, distances_to
from landscape_lab.studies.surfaces import surface
from landscape_lab.studies.trajectories import joint_trajectory, trajectory_of
from landscape_lab.target import Target

CPU = torch.device("cpu")
RESULTS = ("barrier", "features", "gradients", "hessian", "noise", "sharpness", "surface", "trajectory-losses")


class Theirs:
    """The library's trained model, called directly.

    Args:
        model: as it is after training.
        logits: of some samples, ``(B, 3)``.
        last: the layer that makes them of features.
        labels: ``(n,)``.
    """

    def __init__(self, model: nn.Module, logits: Any, last: str, labels: Tensor) -> None:
        self.model = copy.deepcopy(model).double().eval()
        self.logits, self.last, self.labels = logits, self.model.get_submodule(last), labels

    def losses(self, at: Tensor | None = None) -> Tensor:
        """``(n,)``, the loss of each sample; ``at``: with these trainable parameters ``(P,)``."""
        before = nn.utils.parameters_to_vector(self.model.parameters()).detach()
        with torch.no_grad():
            if at is not None:
                nn.utils.vector_to_parameters(at.double(), self.model.parameters())
            found = cross_entropy(self.logits(self.model), self.labels, reduction="none")
            nn.utils.vector_to_parameters(before, self.model.parameters())
        return found

    def features(self) -> Tensor:
        """What enters the last layer, ``(n, D)``."""
        seen: list[Tensor] = []
        with self.last.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach())):
            self.losses()
        return seen[0]

    def gradient(self, members: Tensor) -> Tensor:
        """Of the mean loss of some samples, ``(P,)``."""
        loss = cross_entropy(self.logits(self.model)[members], self.labels[members])
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(self.model.parameters()))])

    def curvature(self, members: Tensor, vector: Any) -> Any:
        """The Hessian of the mean loss of some samples times an array ``(P,)``, by differences of gradients."""
        way, step, sides = torch.as_tensor(vector).flatten(), 1e-5, []
        point = nn.utils.parameters_to_vector(self.model.parameters()).detach()
        for sign in (1, -1):
            nn.utils.vector_to_parameters(point + sign * step * way, self.model.parameters())
            sides.append(self.gradient(members))
        nn.utils.vector_to_parameters(point, self.model.parameters())
        return ((sides[0] - sides[1]) / (2 * step)).numpy()


def analyse(run: Run, target: Target, theirs: Theirs, place: Path) -> None:
    """Run each analysis, and compare one number of it with what the library's model gives."""
    study, labels = Study(run, CPU, target=target), theirs.labels
    tail = labels == 2
    losses = theirs.losses()
    before = copy.deepcopy(target.model.state_dict())

    seen = surface(study, ("all", "tail"), steps=3, extent=0.1)
    expected = torch.stack([losses.mean(), losses[tail].mean()])
    torch.testing.assert_close(seen.losses[:, 1, 1], expected, rtol=1e-4, atol=1e-5)
    assert bool((seen.losses[:, 0, 0] != expected).all())

    settings = CurvatureSettings(trace_products=4, density_products=40)
    found = spectra(study, ("tail",), settings=settings)["tail"]
    size = nn.utils.parameters_to_vector(theirs.model.parameters()).numel()
    products = LinearOperator((size, size), matvec=partial(theirs.curvature, tail), dtype=np.float64)
    assert found.lambda_max == pytest.approx(float(eigsh(products, k=1, which="LA", tol=1e-4)[0][0]), rel=1e-2)

    own, members = theirs.features(), [labels == c for c in range(3)]
    spread = torch.stack([(own[m] - own[m].mean(0)).square().sum(1).mean() for m in members])
    torch.testing.assert_close(features(study)["difference"].variance, spread, rtol=1e-3, atol=1e-6)
    history = quality_history(study)
    assert history.epochs == run.checkpoints()
    torch.testing.assert_close(history.quality[-1], features(study)["difference"].quality)

    whole = theirs.gradient(labels >= 0)
    cosines = torch.stack([torch.cosine_similarity(theirs.gradient(m), whole, dim=0) for m in members])
    torch.testing.assert_close(gradients(study).mean, cosines, rtol=1e-3, atol=1e-4)

    curve = noise_curve(study, ("all", "tail"), ratios=(0.0, 0.1), directions=2)
    torch.testing.assert_close(curve.losses[:, 0, 0], expected, rtol=1e-4, atol=1e-5)
    assert {one.kind for one in sharpness(study, ("tail",), directions=2, steps=2)} >= {"epsilon", "average"}

    path, _ = trajectory_of(run)
    assert path.steps == run.checkpoints()
    points, _ = run.trajectory()
    torch.testing.assert_close(points[-1].double(), nn.utils.parameters_to_vector(theirs.model.parameters()).detach())
    joint = joint_trajectory({"theirs": study}, "all").paths["theirs"]
    assert joint.losses is not None
    assert distances_to(run, run).full[0] == pytest.approx(float((points[0] - points[-1]).double().norm()), rel=1e-5)

    # At its end: the parameters of the epoch before, with the last one's BatchNorm statistics.
    ends = run.checkpoints()[-1], run.checkpoints()[-2]
    line = barrier_between(study, run, ("all",), epochs=ends, points=3, batch_norm="running").losses[0, [0, -1]]
    torch.testing.assert_close(
        line, torch.stack([losses.mean(), theirs.losses(points[-2]).mean()]), rtol=1e-4, atol=1e-5
    )

    assert write_report({"theirs": run}, place / "report.html") > 100_000
    files, unreadable = export_csv(run, place / "csv")
    assert not unreadable
    tables = {file.relative_to(place / "csv").parts[0] for file in files}
    assert tables >= {"metrics.csv", *RESULTS}, tables
    (table,) = (file for file in files if file.parent.name == "surface")
    with table.open() as text:
        rows = list(csv.DictReader(text))
    assert len(rows) == 2 * 9
    assert all(torch.equal(value, before[name]) for name, value in target.model.state_dict().items())
