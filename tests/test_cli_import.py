"""``landscape-lab import``, and runs that were not trained by us, from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import call, refused  # noqa: F401 - fixtures
from torch import nn

from landscape_lab import Recorder
from landscape_lab.run import Run

TARGET = """
import torch
from torch import nn

def make():
    generator = torch.Generator().manual_seed(0)
    targets = torch.tensor([0] * 12 + [1] * 6 + [2] * 2)
    return nn.Linear(4, 3), nn.CrossEntropyLoss(), (torch.randn(20, 4, generator=generator), targets), ["a", "b", "c"]

def nonsense():
    return 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(TARGET)
    (tmp_path / "saved").mkdir()
    for epoch in (1, 2, 10):
        torch.save({"state_dict": nn.Linear(4, 3).state_dict()}, tmp_path / "saved" / f"epoch_{epoch}.pth")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_becomes_a_run(folder: Path, call: Any) -> None:
    got = call("import", "saved", "--target", "mine.py:make", "--out", "runs/theirs", "--json")
    assert got.code == 0, got.err
    content = json.loads(got.out)
    assert content["class_counts"] == [12, 6, 2]
    assert list(content["files"]) == ["1", "2", "10"]
    assert Run.open("runs/theirs").checkpoints() == (1, 2, 10)
    got = call("import", "saved/epoch_1.pth", "--target", "mine.py:make", "--out", "runs/one", "--epochs", "0")
    assert "runs/one: 1 checkpoints, 2 parameter tensors, 3 classes" in got.out
    assert "epochs by --epochs; tail: c" in got.out


def test_what_is_refused_leaves_nothing(folder: Path, refused: Any) -> None:
    def no(*arguments: str, target: str = "mine.py:make") -> str:
        message: str = refused("import", *arguments, "--target", target, "--out", "runs/theirs")
        assert not (folder / "runs").exists()
        return message

    assert "does not exist" in no("absent")
    assert "a number" not in no("saved", target="mine.py:nonsense")
    assert "--epochs needs numbers" in no("saved", "--epochs", "a")
    torch.save(nn.Linear(5, 3).state_dict(), "saved/epoch_3.pth")
    told = "epoch_3.pth does not fit the model: 'weight' has another shape: expected shape (3, 4), found shape (3, 5)"
    assert told in no("saved")
    torch.save(nn.Linear(4, 3), "saved/epoch_3.pth")
    assert "needs arbitrary unpickling" in no("saved")


def test_runs_of_every_origin_are_listed(folder: Path, call: Any, refused: Any) -> None:
    call("import", "saved", "--target", "mine.py:make", "--out", "runs/theirs")
    with Recorder("runs/mine", nn.Linear(4, 3), class_counts=[12, 6, 2]) as recording:
        recording.epoch({"test": {"accuracy": 0.75}})
    Recorder("runs/none", nn.Linear(4, 3), class_counts=[12, 6, 2]).epoch({"loss": 1})
    got = call("runs", "--json")
    found = {entry["run"]: entry for entry in json.loads(got.out)}
    assert found["runs/theirs"]["origin"] == "import"
    assert (found["runs/theirs"]["epoch"], found["runs/theirs"]["method"]) == (10, None)
    assert found["runs/mine"]["accuracy"]["all"] == 0.75
    assert found["runs/none"]["accuracy"]["all"] is None
    text = call("runs").out
    assert "recorded" in text
    assert "imported" in text
    assert "75.0" in text
    assert "holds a run that was recorded by a Recorder" in refused("train", "digits-lt-erm", "--out", "runs/mine")
    assert "not trained from a recipe" in refused("hessian", "runs/mine")
