"""``landscape-lab hessian``: every subset, matrix, block and back end, for runs and for anybody's model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from command_line import call, refused, trained  # noqa: F401

from landscape_lab.analysis import Hessian, Spectrum, trace
from landscape_lab.curvature import CurvatureSettings, class_subsets, stratified
from landscape_lab.errors import InputError
from landscape_lab.run import Run
from landscape_lab.studies import Study

FEW = ["--probes", "6", "--steps", "12"]

TARGET = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    data = torch.randn(33, 6), torch.arange(33) % 3
    return model, nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 5.0])), [data]

def regression():
    return nn.Linear(4, 1), nn.MSELoss(), [(torch.randn(20, 4), torch.randn(20, 1))]

def noisy():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x):
            return nn.functional.dropout(self.layer(x))

    return Noisy(), nn.CrossEntropyLoss(), [(torch.randn(20, 6), torch.arange(20) % 3)]

def diverged():
    model, loss, data = make()
    model[0].weight.data.fill_(torch.nan)
    return model, loss, data

def straight():
    return make()[0], lambda output, target: (output * output.detach()).sum(1), make()[2]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "project.py").write_text(TARGET)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "project.py"


def test_every_class_head_tail_and_all(call: Any, trained: Path) -> None:
    got = call("hessian", str(trained), *FEW, "--classes", "each,head,tail,all", "--per-class", "5", "--json")
    assert got.code == 0, got.err
    found = json.loads(got.out)
    assert list(found) == [*map(str, range(10)), "head", "tail", "all"]
    assert found["0"]["samples"] == 5
    assert found["all"]["samples"] == 50
    # Unions weigh the classes by their true counts.
    counts = [124, 88, 63, 45, 32, 23, 16, 12, 8, 6]
    expected = sum(n * found[str(c)]["trace"] for c, n in enumerate(counts)) / sum(counts)
    error = sum((n * found[str(c)]["trace_stderr"]) ** 2 for c, n in enumerate(counts)) ** 0.5 / sum(counts)
    assert abs(found["all"]["trace"] - expected) < 5 * (found["all"]["trace_stderr"] ** 2 + error**2) ** 0.5
    low, high = found["tail"]["negative_mass"]["interval"]
    assert low < found["tail"]["negative_mass"]["value"] < high
    assert found["tail"]["lambda_max"] <= found["tail"]["lambda_max_upper"]
    for name in ("hessian-epoch-0002", "hessian-epoch-0002-values"):
        assert (trained / "figures" / f"{name}.png").stat().st_size > 1000
    table = call("hessian", str(trained), *FEW, "--classes", "each,head,tail,all", "--per-class", "5").out
    assert "negative mass" in table
    assert len([line for line in table.splitlines() if line.startswith("│")]) == 13


def test_matrices_and_blocks(call: Any, trained: Path) -> None:
    small = [*FEW, "--classes", "tail", "--json"]
    for matrix in ("ggn", "fisher", "fisher-true"):
        found = json.loads(call("hessian", str(trained), *small, "--operator", matrix).out)["tail"]
        assert found["operator"] == matrix
        assert found["lambda_min"] > -1e-4 * found["lambda_max"]
    got = call("hessian", str(trained), *small, "--blocks", "encoder.*", "--blocks", "classifier")
    found = json.loads(got.out)
    assert set(found) == {"tail, encoder.*", "tail, classifier"}
    whole = json.loads(call("hessian", str(trained), *small).out)["tail"]
    assert found["tail, encoder.*"]["parameters"] + found["tail, classifier"]["parameters"] == whole["parameters"]
    # A block's largest eigenvalue is at most the whole's.
    assert max(one["lambda_max"] for one in found.values()) <= whole["lambda_max"] * (1 + 1e-3)
    assert found["tail, classifier"]["block"] == "classifier"
    got = call("hessian", str(trained), *small, "--batch-norm", "reestimated")
    assert json.loads(got.out)["tail"]["batch_norm"] == "reestimated"


def test_an_error_is_reached_and_what_it_took_is_said(call: Any, trained: Path) -> None:
    tail = ["hessian", str(trained), "--classes", "8,9", "--steps", "0", "--probes", "8"]
    got = call(*tail, "--error", "0.1", "--json")
    found = json.loads(got.out)["8,9"]
    assert found["trace_stderr"] <= 0.1 * abs(found["trace"])
    assert found["products"] >= 20
    assert f"{found['products']} products for each subset" in call(*tail, "--error", "0.1").out
    short = json.loads(call(*tail, "--error", "0.001", "--max-products", "24", "--json").out)["8,9"]
    assert short["products"] <= 24 + 24
    assert short["trace_stderr"] > 0.001 * abs(short["trace"])


def test_the_error_of_the_draw_is_kept_apart(call: Any, trained: Path) -> None:
    got = call("hessian", str(trained), *FEW, "--classes", "tail", "--bootstrap", "50", "--json")
    found = json.loads(got.out)["tail"]
    assert found["data_stderr"]["resamples"] == 50
    assert found["data_stderr"]["lambda_max"] > found["lambda_max_residual"]


def test_epochs(call: Any, trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    arguments = ["hessian", str(run), "--epochs", "all", "--probes", "6", "--classes", "8,9"]
    got = call(*arguments, "--json")
    assert got.code == 0, got.err
    curve = json.loads(got.out)["8,9"]
    assert [one["epoch"] for one in curve] == [0, 1, 2]
    assert (run / "figures" / "hessian-epochs.png").stat().st_size > 1000
    # Each is right: the largest eigenvalue is the one that a cold start finds.
    cold = json.loads(call("hessian", str(run), "--steps", "0", "--probes", "6", "--classes", "8,9", "--epoch", "1",
                           "--seed", "5", "--json").out)["8,9"]  # fmt: skip
    assert curve[1]["lambda_max"] == pytest.approx(cold["lambda_max"], rel=2e-3)
    # Only the newest vectors are kept, to start the next checkpoint from.
    kept = [Run.open(run).load_result(f"hessian/epoch-{epoch:04d}-8_9-train", Spectrum) for epoch in range(3)]
    assert [one is not None and one.vectors is not None for one in kept] == [False, False, True]
    # Interrupted after two epochs, it goes on to the same.
    (run / "results" / "hessian" / "epoch-0002-8_9-train.json").unlink()
    again = Study(Run.open(run), torch.device("cpu"))
    assert len(json.loads(call(*arguments, "--json").out)["8,9"]) == 3
    assert again.run.load_result("hessian/epoch-0000-8_9-train", Spectrum) is not None
    monkeypatch.setattr("landscape_lab.studies.curvature.measure", None)  # a second computation would fail
    assert "epoch 2" in call(*arguments).out


def test_epochs_in_parallel(call: Any, trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    arguments = ["--epochs", "0,1,2", "--probes", "6", "--steps", "12", "--classes", "8,9", "--json"]
    alone = json.loads(call("hessian", str(trained), *arguments).out)["8,9"]
    shared = json.loads(call("hessian", str(run), *arguments, "--jobs", "2").out)["8,9"]
    assert shared == alone  # with densities no epoch depends on another


@pytest.mark.parametrize("backend", ["pyhessian", "scipy"])
def test_other_back_ends(call: Any, trained: Path, backend: str) -> None:
    options = ["--classes", "tail", "--probes", "6", "--steps", "0", "--json"]
    theirs = json.loads(call("hessian", str(trained), *options, "--backend", backend).out)["tail"]
    ours = json.loads(call("hessian", str(trained), *options).out)["tail"]
    assert theirs["backend"] == backend
    assert theirs["lambda_max"] == pytest.approx(ours["lambda_max"], rel=2e-2 if backend == "pyhessian" else 1e-3)
    assert (theirs["trace"] is None) == (backend == "scipy")


def test_check(call: Any, project: Path) -> None:
    got = call(
        "hessian", "--target", "project:make", "--classes", "2,all", "--probes", "10", "--steps", "20", "--check"
    )
    assert got.code == 0, got.err
    rows = [line for line in got.out.splitlines() if " pyhessian " in line or " scipy " in line]
    assert len(rows) == 2 * (3 + 2)
    assert not [line for line in rows if " NO " in line]


def test_a_model_that_is_not_ours(call: Any, project: Path, tmp_path: Path) -> None:
    got = call("hessian", "--target", "project.py:make", "--classes", "each,all", "--json", "--out", "found")
    assert got.code == 0, got.err
    found = json.loads(got.out)
    assert {name: one["samples"] for name, one in found.items()} == {"0": 11, "1": 11, "2": 11, "all": 33}
    assert json.loads((tmp_path / "found" / "hessian.json").read_text()).keys() == found.keys()
    assert (tmp_path / "found" / "hessian.png").stat().st_size > 1000
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    data, weight = (torch.randn(33, 6), torch.arange(33) % 3), torch.tensor([1.0, 2.0, 5.0])
    op = Hessian(model, lambda f, y: 33 / 88 * F.cross_entropy(f, y, weight=weight, reduction="none"), data)
    values = torch.linalg.eigvalsh(op.dense().double())
    assert found["all"]["lambda_max"] == pytest.approx(float(values[-1]), rel=1e-4)
    assert found["all"]["trace"] == pytest.approx(trace(op, products=100).value, rel=1e-5)  # both exact: P is small
    got = call("hessian", "--target", "project:regression", "--classes", "all", "--json")
    assert json.loads(got.out)["all"]["samples"] == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a run"),
        (["RUN", "--target", "project:make"], "has a recipe, which says model and data: leave --target out"),
        (["--target", "project:make", "--epoch", "3"], "--epoch is for runs"),
        (["--target", "project:make", "--samples", "3"], "--samples is for runs"),
        (["--target", "project:nothing"], "has no function 'nothing'"),
        (["--target", "nowhere:make"], "no module 'nowhere'"),
        (["--target", "project:make", "--classes", "7"], "no class 7"),
        (["--target", "project:noisy"], "different outputs for the same inputs"),
        (["--target", "project:diverged"], "the loss of the first 22 samples is nan"),
        (["--target", "project:straight"], "no second derivative"),
        (["--target", "project:regression", "--classes", "each"], "class"),
        (["RUN", "--classes", "each,headd"], "unknown classes 'headd' (did you mean 'head'?)"),
        (["RUN", "--classes", "groups"], "trained without groups"),
        (["RUN", "--blocks", "encodr"], "no trainable parameter matches 'encodr' (did you mean 'encoder'?)"),
        (["RUN", "--epochs", "0,9"], "no checkpoint of epoch 9"),
        (["RUN", "--epochs", "two"], "--epochs needs numbers"),
        (["RUN", "--jobs", "2"], "--jobs shares out epochs"),
        (["RUN", "--epoch", "1", "--epochs", "all"], "exclude each other"),
        (["RUN", "--error", "3"], "--error is relative"),
        (["RUN", "--memory", "-1"], "--memory must not be negative"),
        (["RUN", "--samples", "5", "--per-class", "5"], "exclude each other"),
        (["RUN", "--classes", "head,all", "--samples", "5"], "must not share classes"),
        (["RUN", "--backend", "pyhessian", "--operator", "ggn"], "PyHessian knows only the whole Hessian"),
        (["RUN", "--backend", "scipy", "--per-class", "4"], "cannot weigh classes by their counts"),
        (["RUN", "--steps", "2"], "too small"),
    ],
)
def test_bad_input(refused: Any, trained: Path, project: Path, arguments: list[str], message: str) -> None:
    before = sorted(path for path in trained.rglob("*"))
    given = [str(trained) if argument == "RUN" else argument for argument in arguments]
    assert message in refused("hessian", *given)
    assert sorted(path for path in trained.rglob("*")) == before


# -- what it is made of ----------------------------------------------------------------------------------------------


def test_names_of_subsets() -> None:
    known = {"head": [0, 1], "few": [], "all": [0, 1, 2]}
    assert class_subsets(["head,2", "0,2"], known, 3) == {"head": (0, 1), "2": (2,), "0,2": (0, 2)}
    assert list(class_subsets(["all, each"], known, 3)) == ["all", "0", "1", "2"]
    assert class_subsets(["2,2,0"], known, 3) == {"2,2,0": (2, 0)}
    with pytest.raises(InputError, match="no class in 'few'"):
        class_subsets(["few"], known, 3)
    with pytest.raises(InputError, match=r"no class 3: the classes are 0 to 2"):
        class_subsets(["3"], known, 3)


def test_a_stratified_draw() -> None:
    targets = torch.tensor([0] * 50 + [1] * 3 + [2] * 10)
    places = stratified(targets, 5)
    assert torch.bincount(targets[places]).tolist() == [5, 3, 5]
    assert len(places.unique()) == 13
    assert torch.equal(places, stratified(targets, 5))
    assert not torch.equal(places[:5], torch.arange(5))


def test_settings_tell_their_files_apart() -> None:
    assert CurvatureSettings().suffix == ""
    assert CurvatureSettings(operator="ggn", block="encoder.*").suffix == "-ggn-encoder.-"
    assert CurvatureSettings(batch_norm="batch").suffix == "-batch"


def test_groups_of_a_run(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    run.info["groups"] = {"1": [[0], list(range(1, 10))], "2": [[0, 1, 2], [3, 4, 5, 6, 7, 8, 9]]}
    study = Study(run, torch.device("cpu"))
    assert study.subset_classes(["groups,tail"]) == {
        "group-0": (0, 1, 2),
        "group-1": (3, 4, 5, 6, 7, 8, 9),
        "tail": (8, 9),
    }
    assert study.classes("group-1,tail") == (3, 4, 5, 6, 7, 8, 9)
