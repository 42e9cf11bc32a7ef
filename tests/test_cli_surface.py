"""``surface`` on a small run: every kind of plane, what is stored, what is refused, how it goes on."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from command_line import call, refused, trained  # noqa: F401 - fixtures
from torch import nn

from landscape_lab.analysis import Surface
from landscape_lab.analysis.planes import random_plane
from landscape_lab.run import Run
from landscape_lab.studies import Study, surfaces


@pytest.fixture
def study(trained: Path) -> Study:
    return Study(Run.open(trained), torch.device("cpu"))


def direct(study: Study, vector: torch.Tensor, subset: str, split: str = "train") -> tuple[float, float]:
    """Loss and accuracy of a subset at a point, by a plain evaluation of a copy."""
    model = copy.deepcopy(study.model).eval()
    nn.utils.vector_to_parameters(vector, model.parameters())
    inputs, targets = study.samples(subset, split)
    output = model(inputs).detach()
    return F.cross_entropy(output, targets).item(), (output.argmax(1) == targets).double().mean().item()


def test_the_numbers_are_plain_evaluations(call: Any, trained: Path, study: Study) -> None:
    command = [
        "surface",
        str(trained),
        "--steps",
        "3",
        "--extent",
        "0.5",
        "--classes",
        "each,tail",
        "--seed",
        "3",
        "--line",
    ]
    got = json.loads(call(*command, "--json").out)
    study.epoch()
    plane = random_plane(study.space, seed=3)
    assert list(got["subsets"]) == [*map(str, range(10)), "tail"]
    assert (got["points"], got["evaluated"], got["x"]) == (3, 3, [-0.5, 0.0, 0.5])
    for name in ("0", "9", "tail"):
        loss, accuracy = direct(study, plane.point(0.5, 0.0), name)
        assert got["losses"][name][0][2] == pytest.approx(loss, rel=1e-4)
        assert got["accuracies"][name][0][2] == pytest.approx(accuracy)
        assert got["subsets"][name]["centre"] == pytest.approx(direct(study, plane.origin, name)[0], rel=1e-4)
    assert Path(got["picture"]).stat().st_size > 10_000
    table = call(*command)
    assert "around epoch 2, direction 1 (filter-normalised)" in table.out
    assert "±" in table.out


@pytest.mark.parametrize(
    ("options", "name", "shape"),
    [
        ({"directions": "eigenvectors:tail"}, "eigenvector 1 of tail in ‖θ‖, λ = ", (3, 3)),
        ({"directions": "head-tail"}, "down the head's gradient, in ‖θ‖", (3, 3)),
        ({"directions": "pca"}, "component 1 (", (3, 3)),
        ({"directions": "checkpoints:0,1,2"}, "from epoch 0 towards epoch 1", (3, 3)),
        ({"directions": "checkpoints:0,2"}, "from epoch 0 (0) to epoch 2 (1)", (1, 3)),
        ({"line": True, "normalisation": "layer", "biases": "in"}, "direction 1 (layer-normalised)", (1, 3)),
        ({"adaptive": True, "per_class": 2}, "direction 1 (filter-normalised)", (9, 9)),
    ],
)
def test_every_kind_of_plane(study: Study, options: dict[str, Any], name: str, shape: tuple[int, int]) -> None:
    found = surfaces.surface(study, ["head", "tail"], steps=3, **options)
    assert found.names[0].startswith(name)
    assert found.batch_norm == ("reestimated" if found.marks else "running")
    assert found.losses.shape == (2, *shape)
    assert bool(found.losses.isfinite().all())
    assert (found.evaluated is not None) == ("adaptive" in options)
    if not found.marks and "per_class" not in options:  # the middle is the solution
        assert float(found.losses[1, shape[0] // 2, 1]) == pytest.approx(
            direct(study, study.space.vector(), "tail")[0], rel=1e-4
        )


def test_marks_lie_at_their_checkpoints(trained: Path, study: Study) -> None:
    found = surfaces.surface(study, ["tail"], directions="checkpoints:0,2", steps=7, batch_norm="running")
    assert found.marks == (("epoch 0", 0.0, 0.0), ("epoch 2", 1.0, 0.0))
    points, _ = study.run.trajectory()
    at = int((found.x - 1.0).abs().argmin())
    a = float(found.x[at])
    loss, _ = direct(study, points[0] + a * (points[2] - points[0]), "tail")
    assert float(found.losses[0, 0, at]) == pytest.approx(loss, rel=1e-4)
    assert float(found.x[0]) < 0 < 1 < float(found.x[-1])


def test_two_runs_share_their_random_directions(trained: Path, study: Study) -> None:
    raw = []
    for epoch in (0, 2):
        study.epoch(epoch)
        plane = random_plane(study.space, seed=5)
        weight = study.space.slice_of(study.space.names[0])
        raw.append(F.normalize(plane.x[weight].view(study.space.shapes[0]).flatten(1), dim=1))
    torch.testing.assert_close(raw[0], raw[1])


def test_a_stopped_sweep_goes_on_where_it_was(
    trained: Path,
    study: Study,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(surfaces, "KEEP_EVERY", 0.0)
    seen: list[int] = []

    def stop(points: int) -> None:
        seen.append(points)
        if len(seen) == 6:
            raise KeyboardInterrupt

    arguments: dict[str, Any] = {"steps": 4, "extent": 0.3, "seed": 8}
    with pytest.raises(KeyboardInterrupt):
        surfaces.surface(study, ["head", "tail"], progress=stop, **arguments)
    partial = list((trained / "results" / "partial").rglob("*.json"))
    assert len(partial) == 1
    later: list[int] = []
    again = surfaces.surface(study, ["head", "tail"], progress=later.append, **arguments)
    assert later == [5] + [1] * 11
    assert not list((trained / "results" / "partial").rglob("*.*"))
    stored = study.run.load_result(_name("epoch-0002-train-head+tail-to-0.3"), Surface)
    assert stored is not None
    assert torch.equal(stored.losses, again.losses)
    (trained / "results" / f"{_name('epoch-0002-train-head+tail-to-0.3')}.json").unlink()
    whole = surfaces.surface(study, ["head", "tail"], **arguments)
    for field in ("losses", "accuracies", "stderr"):
        assert torch.equal(getattr(again, field), getattr(whole, field)), field


def _name(rest: str) -> str:
    return f"surface/{rest}"


def test_a_result_is_computed_once_for_its_settings(call: Any, trained: Path, study: Study) -> None:
    progress: list[int] = []
    arguments: dict[str, Any] = {"steps": 3, "extent": 0.4, "progress": progress.append}
    first = surfaces.surface(study, ["tail"], **arguments)
    assert sum(progress) == 9
    second = surfaces.surface(study, ["tail"], **arguments)
    assert sum(progress) == 9
    assert torch.equal(first.losses, second.losses)
    assert second.names == first.names
    surfaces.surface(study, ["tail"], **{**arguments, "normalisation": "layer"})
    assert sum(progress) == 18


def test_the_other_program_agrees(call: Any, trained: Path, refused: Any) -> None:
    pytest.importorskip("loss_landscapes")
    got = json.loads(call("surface", str(trained), "--steps", "3", "--backend", "loss-landscapes", "--json").out)
    assert 0 <= got["difference_from_ours"] < 1e-3
    assert "nothing else" in refused("surface", str(trained), "--line", "--backend", "loss-landscapes")


def test_many_subsets_fit_into_a_file_name(trained: Path, study: Study) -> None:
    names = [f"{a},{b}" for a in range(10) for b in range(a)]
    found = surfaces.surface(study, names, steps=2, line=True)
    assert len(found.subsets) == 45
    assert found.losses.shape == (45, 1, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "1"], "--steps must be at least 2"),
        (["--extent", "-1"], "--extent positive"),
        (["--directions", "randon"], "no directions 'randon' (did you mean 'random'?)"),
        (["--directions", "checkpoints"], "checkpoints:A,B,C"),
        (["--directions", "checkpoints:0,7"], "has 0, 1, 2"),
        (["--directions", "checkpoints:0,x"], "needs two or three epochs"),
        (["--directions", "checkpoints:0,1,2", "--line"], "give checkpoints:A,B"),
        (["--classes", "middle"], "middle"),
        (["--adaptive", "--tolerance", "0"], "tolerance must be positive"),
        (["--samples", "3", "--per-class", "3"], "exclude each other"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(refused: Any, trained: Path, options: list[str], message: str) -> None:
    assert message in refused("surface", str(trained), *options)


def test_help_has_examples(call: Any) -> None:
    text = call("surface", "--help").out
    assert "checkpoints:0,30,60" in text
    assert "Example" in text
