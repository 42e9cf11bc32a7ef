"""``landscape-lab groups``: groups that are planted to follow something are found to, others are not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import call, refused, trained  # noqa: F401

from landscape_lab.analysis.multiplicity import holm
from landscape_lab.run import Run
from landscape_lab.studies import Study
from landscape_lab.studies.groups import GroupingExamination, class_relations, examine_groups

BEST = [1, 9, 1, 8, 2, 9, 1, 2, 8, 9]  # two clusters of epochs
BY_BEST = [[0, 2, 4, 6, 7], [1, 3, 5, 8, 9]]


def with_groups(source: Path, place: Path, last: list[list[int]]) -> Path:
    """A copy of a run that says that it grouped its classes, at first by their numbers."""
    shutil.copytree(source, place)
    run = Run.open(place)
    run.info["groups"] = {"1": [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]], "2": last}
    run.save_info()
    lines = run.metrics()
    lines[-1]["bank"] = {"epochs": BEST, "bytes": 0}
    run.save_metrics(lines)
    return place


@pytest.fixture
def grouped(trained: Path, tmp_path: Path) -> Path:
    return with_groups(trained, tmp_path / "grouped", BY_BEST)


def test_planted_groups_are_examined(call: Any, grouped: Path) -> None:
    got = call("groups", str(grouped), "--json", "--per-class", "10")
    assert got.code == 0, got.err
    (found,) = json.loads(got.out).values()
    assert found["groups"] == BY_BEST
    assert found["explained"]["best epoch"]["share"] > 0.8
    assert found["adjusted"]["explains best epoch"] == min(found["adjusted"].values())
    # Two groups of five: 126 ways to choose them, each seen from both sides.
    assert found["explained"]["best epoch"]["test"]["partitions"] == 252
    assert found["explained"]["best epoch"]["test"]["p_value"] == pytest.approx(2 / 252)
    assert found["adjusted"]["agrees with frequency"] > 0.05
    assert "superclasses" in found["missing"]
    assert Path(found["picture"]).exists()
    assert len(found["successive"]) == 1
    raw = {
        **{f"agrees with {k}": v["test"]["p_value"] for k, v in found["references"].items()},
        **{f"explains {k}": v["test"]["p_value"] for k, v in found["explained"].items()},
        **{f"within groups: {k}": v["test"]["p_value"] for k, v in found["contrasts"].items()},
    }
    assert holm(raw) == pytest.approx(found["adjusted"])
    table = call("groups", str(grouped), "--per-class", "10").out
    assert "explains best epoch" in table


def test_runs_are_compared_and_names_of_groups_do_not_matter(grouped: Path, trained: Path, tmp_path: Path) -> None:
    other = with_groups(trained, tmp_path / "other", BY_BEST[::-1])
    study = Study(Run.open(grouped), torch.device("cpu"))
    study.epoch()
    state = {name: tensor.clone() for name, tensor in study.model.state_dict().items()}
    found = examine_groups(study, [Run.open(other)], per_class=10)
    assert found.seeds["other"].rand == pytest.approx(1.0)
    assert found.seeds["other"].test.p_value == pytest.approx(2 / 252)
    assert isinstance(study.run.load_result("groups/epoch-0002", GroupingExamination), GroupingExamination)
    for name, tensor in study.model.state_dict().items():
        assert torch.equal(tensor, state[name])


def test_relations_use_the_runs_own_data(grouped: Path) -> None:
    study = Study(Run.open(grouped), torch.device("cpu"))
    seen: list[int] = []
    found = class_relations(study, per_class=8, progress=seen.append)
    images, targets = study.samples("all", "test")
    study.model.eval()
    with torch.no_grad():
        hits = study.model(images).argmax(1) == targets
    assert sum(seen) == 80 + 8 * 9 + 6  # the rarest class has 6 training images
    assert found.confusion.shape == (10, 10)
    assert torch.allclose(found.confusion.sum(1), torch.ones(10, dtype=torch.float64))
    # With all test images the diagonal is the accuracy of each class.
    every = class_relations(study, per_class=10_000)
    accuracy = torch.stack([hits[targets == c].double().mean() for c in range(10)])
    assert torch.allclose(every.confusion.diagonal(), accuracy)


def test_refusals(refused: Any, trained: Path, grouped: Path) -> None:
    assert "has no groups: train with a method that groups classes" in refused("groups", str(trained))
    assert "has no groups up to epoch 0" in refused("groups", str(grouped), "--epoch", "0")
