"""``sharpness``, ``trajectory`` of several runs and ``barrier``, on small runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import call, refused, trained  # noqa: F401

from landscape_lab.analysis import Distances, JointTrajectory
from landscape_lab.files import read_tensors, write_tensors
from landscape_lab.run import Run
from landscape_lab.studies import Study
from landscape_lab.studies.noise import USUAL_RATIOS
from landscape_lab.studies.paths import barrier_between, distances_to
from landscape_lab.studies.trajectories import joint_trajectory, losses_along, trajectory_of

FEW = ["--directions", "3", "--steps", "2"]


@pytest.fixture(scope="module")
def pair(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run, and a copy of it that went elsewhere: noise on its weights, more at each checkpoint."""
    other = tmp_path_factory.mktemp("moved") / "other"
    shutil.copytree(trained, other)
    run = Run.open(other)
    generator = torch.Generator().manual_seed(1)
    for epoch in run.checkpoints():
        tensors, _ = read_tensors(run.checkpoint_path(epoch))
        for name in run.info["parameters"]:
            noise = torch.randn(tensors[name].shape, generator=generator)
            tensors[name] = tensors[name] + 0.2 * epoch * tensors[name].std(correction=0) * noise
        write_tensors(run.checkpoint_path(epoch), tensors)
    return trained, other


def study_of(path: Path) -> Study:
    return Study(Run.open(path), torch.device("cpu"))


@pytest.mark.parametrize("command", ["sharpness", "barrier", "trajectory"])
def test_help_has_an_example(call: Any, command: str) -> None:
    got = call(command, "--help")
    assert got.code == 0
    assert f"landscape-lab {command}" in got.out.split("Example:")[1]


def test_sharpness(call: Any, pair: tuple[Path, Path]) -> None:
    got = call("sharpness", *map(str, pair), *FEW, "--classes", "tail", "--json")
    assert got.code == 0, got.err
    found = json.loads(got.out)
    assert set(found) == {path.name for path in pair}
    first = found[pair[0].name]
    assert first["ratios"] == list(USUAL_RATIOS)
    tail = first["subsets"]["tail"]
    assert tail["samples"] == 14
    assert len(tail["losses"]) == 3
    line = Run.open(pair[0]).metrics()[-1]
    counts = torch.tensor([8.0, 6.0])
    expected = float((torch.tensor(line["train"]["class_loss"][8:]) * counts).sum() / 14)
    assert [row[0] for row in tail["losses"]] == pytest.approx([expected] * 3, rel=1e-4)
    numbers = tail["sharpness"]
    assert set(numbers) == {"average", "epsilon", "adaptive-worst"}
    assert numbers["average"]["loss"] == pytest.approx(expected, rel=1e-4)
    # The average is that of the curve at the same ratio, over the same directions.
    at = list(USUAL_RATIOS).index(0.1)
    assert numbers["average"]["value"] == pytest.approx(tail["mean"][at] - expected, rel=1e-3)
    assert numbers["adaptive-worst"]["value"] > numbers["average"]["value"]
    assert len(list((pair[0] / "figures").glob("noise-2-runs-epoch-0002.*"))) == 3
    # Another setting is another result; the same one is read back.
    before = (pair[0] / "results" / "noise").stat().st_mtime_ns
    again = call("sharpness", *map(str, pair), *FEW, "--classes", "tail", "--json")
    assert json.loads(again.out) == found
    assert (pair[0] / "results" / "noise").stat().st_mtime_ns == before
    got = call("sharpness", str(pair[0]), *FEW, "--classes", "tail", "--parameters", "classifier", "--rise")
    assert got.code == 0, got.err
    assert "classifier" in got.out
    assert "adaptive worst rise" in got.out


def test_sharpness_refusals(refused: Any, pair: tuple[Path, Path]) -> None:
    one = str(pair[0])
    assert "named twice" in refused("sharpness", one, one)
    assert "no trainable parameter matches 'clasifier'" in refused("sharpness", one, *FEW, "--parameters", "clasifier")
    assert "rho must be positive" in refused("sharpness", one, *FEW, "--rho", "0")


def test_several_trajectories(call: Any, pair: tuple[Path, Path]) -> None:
    got = call("trajectory", *map(str, pair), "--losses", "tail", "--reference", str(pair[1]), "--json")
    assert got.code == 0, got.err
    found = json.loads(got.out)["runs"]
    points = {path.name: Run.open(path).trajectory()[0].double() for path in pair}
    goal = points[pair[1].name][-1]
    rows = torch.cat([*points.values()])
    for name, run in found.items():
        assert run["epochs"] == [0, 1, 2]
        # In a plane through the mean, squares of coordinates and residuals add up to those of the distances to it.
        squares = torch.tensor(run["coordinates"]).double().square().sum(1) + torch.tensor(run["residuals"]).square()
        torch.testing.assert_close(
            squares.double(), (points[name] - rows.mean(0)).square().sum(1), rtol=1e-4, atol=1e-6
        )
        expected = (points[name] - goal).norm(dim=1).tolist()
        assert run["distances"]["full"] == pytest.approx(expected)
        layers = torch.tensor(list(run["distances"]["layers"].values()), dtype=torch.float64)
        assert layers.square().sum(0).sqrt().tolist() == pytest.approx(expected)
        assert len(run["losses"]) == len(run["plane_losses"]) == 3
    assert found[pair[1].name]["distances"]["full"][-1] == 0
    for stem in ("trajectory-2-runs", "distances-2-runs"):
        assert (pair[0] / "figures" / f"{stem}.png").exists()
    # Stored, for the report to find.
    run = Run.open(pair[0])
    joint = run.load_result("trajectory-joint", JointTrajectory, {"runs": [path.name for path in pair]})
    assert joint is not None
    assert joint.paths[pair[1].name].losses.tolist() == found[pair[1].name]["losses"]
    stored = run.load_result(f"distances/{pair[1].name}", Distances, {"reference": pair[1].name, "epoch": 2})
    assert stored.full.tolist() == found[pair[0].name]["distances"]["full"]
    table = call("trajectory", str(pair[0]), "--reference", str(pair[1]))
    assert "to the reference" in table.out


def test_trajectory_refusals(refused: Any, pair: tuple[Path, Path], tmp_path: Path) -> None:
    assert "--through is for a single run" in refused("trajectory", *map(str, pair), "--through", "0,1,2")
    other = tmp_path / "other"
    shutil.copytree(pair[1], other)
    text = (other / "recipe.toml").read_text().replace("width = 4", "width = 5")
    (other / "recipe.toml").write_text(text)
    assert "of different networks" in refused("trajectory", str(pair[0]), str(other))
    assert "of different networks" in refused("barrier", str(pair[0]), str(other))


def test_losses_in_the_plane_are_the_true_ones_where_the_path_is_in_it(pair: tuple[Path, Path]) -> None:
    study = study_of(pair[0])
    path, plane = trajectory_of(study.run, [0, 1, 2])
    assert float(path.residuals.max()) < 1e-3
    calls: list[int] = []
    found = losses_along(study, path, plane, "tail", progress=calls.append)
    assert sum(calls) == 6
    assert found.losses is not None
    torch.testing.assert_close(found.plane_losses, found.losses, rtol=1e-3, atol=1e-4)
    # With all training images in one batch, statistics over it and statistics of the batch are nearly one.
    batch = losses_along(study, path, plane, "all", batch_norm="batch")
    again = losses_along(study, path, plane, "all")
    torch.testing.assert_close(batch.losses, again.losses, rtol=0.1, atol=0.02)
    joint = joint_trajectory({"a": study, "b": study_of(pair[1])}, "tail")
    assert joint.residual_ratio == pytest.approx(1 - sum(joint.explained_variance_ratio))
    # The true losses do not depend on the plane.
    torch.testing.assert_close(joint.paths["a"].losses, found.losses)


def test_barrier(call: Any, pair: tuple[Path, Path]) -> None:
    got = call("barrier", *map(str, pair), "--points", "5", "--json")
    assert got.code == 0, got.err
    found = json.loads(got.out)["subsets"]
    assert set(found) == {"head", "tail", "all", *map(str, range(10))}
    assert found["tail"]["samples"] == 14
    # A subset's curve is the mean of its classes'.
    tail = [(8 * a + 6 * b) / 14 for a, b in zip(found["8"]["losses"], found["9"]["losses"], strict=True)]
    assert found["tail"]["losses"] == pytest.approx(tail)
    for one in found.values():
        t = torch.linspace(0, 1, 5).tolist()
        rises = [
            loss - (1 - a) * one["losses"][0] - a * one["losses"][-1] for a, loss in zip(t, one["losses"], strict=True)
        ]
        assert one["barrier"] == pytest.approx(max(rises), abs=1e-9)
    table = call("barrier", *map(str, pair), "--points", "5", "--per-class", "4", "--classes", "tail,8,9")
    assert "lowest accuracy" in table.out
    assert (pair[0] / "figures" / f"barrier-{pair[1].name}-epoch-2.png").exists()
    got = call("barrier", str(pair[0]), str(pair[0]), "--epochs", "1,2", "--points", "3", "--classes", "head", "--json")
    assert json.loads(got.out)["ends"] == [f"{pair[0].name}, epoch 1", f"{pair[0].name}, epoch 2"]


def test_barriers_weigh_classes_and_go_both_ways(pair: tuple[Path, Path]) -> None:
    there, back = study_of(pair[0]), study_of(pair[1])
    one = barrier_between(there, back.run, ["tail", "8", "9"], points=3, per_class=4)
    a, b = one.losses[1], one.losses[2]
    torch.testing.assert_close(one.losses[0], (8 * a + 6 * b) / 14)
    assert one.counts == (8, 4, 4)
    # The same line from the other end; both runs were trained on the same images.
    other = barrier_between(back, there.run, ["tail", "8", "9"], points=3, per_class=4)
    torch.testing.assert_close(other.losses, one.losses.flip(1), rtol=1e-4, atol=1e-5)


def test_barrier_refusals(refused: Any, pair: tuple[Path, Path]) -> None:
    one, other = map(str, pair)
    assert "name two runs, or two epochs" in refused("barrier", one, one)
    assert "no checkpoint of epoch 7; it has 0, 1, 2" in refused("barrier", one, other, "--epochs", "7,2")
    assert "needs two numbers" in refused("barrier", one, other, "--epochs", "7")


def test_the_distance_to_a_reference_needs_its_epoch(pair: tuple[Path, Path]) -> None:
    one, other = (Run.open(path) for path in pair)
    found = distances_to(one, other, 0)
    assert found.reference == f"{pair[1].name}, epoch 0"
    with pytest.raises(ValueError, match="no checkpoint of epoch 9"):
        distances_to(one, other, 9)
