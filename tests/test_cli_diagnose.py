"""``landscape-lab diagnose`` on planted runs: what was planted is said, and nothing else is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import call, refused  # noqa: F401
from diagnosis_cases import EPOCHS, noise_images, planted, recipe_of, rising

from landscape_lab.diagnosis import Diagnosis
from landscape_lab.run import Run


def curves(level: float) -> list[list[float]]:
    return [rising(level, seed=c) for c in range(10)]


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("landscape_lab.studies.equal_sizes.DRAWS", 4)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("healthy") / "run"
    return planted(place, recipe_of(), curves(0.9), curves(2.0), steps=30)


def verdicts(call: Any, *arguments: str) -> dict[str, dict[str, Any]]:
    got = call("diagnose", *arguments, "--json")
    assert got.code == 0, got.err
    return {one["subject"]: one for one in json.loads(got.out)["findings"]}


def test_a_healthy_run_is_not_accused(call: Any, healthy: Path) -> None:
    found = verdicts(call, str(healthy))
    assert found["degradation"]["verdict"] == "no"
    assert found["onset"]["verdict"] == "no"
    assert all(one["verdict"] != "yes" for one in found.values())
    assert found["sharpness"]["numbers"]["ratio low"] < found["sharpness"]["numbers"]["ratio high"]


def test_a_forgetting_tail_is_said(call: Any, healthy: Path, tmp_path: Path) -> None:
    accuracy, quality = curves(0.9), curves(2.0)
    for c in (8, 9):
        accuracy[c], quality[c] = rising(0.8, 0.4, seed=c), rising(2.0, 0.8, seed=c)
    place = planted(tmp_path / "run", recipe_of(), accuracy, quality)
    # The network is the healthy one's: only the curves differ.
    for part in ("checkpoints", "results"):
        shutil.copytree(healthy / part, place / part, dirs_exist_ok=True)
    got = call("diagnose", str(place), "--tail-only", str(healthy))
    assert "Do the tail classes lose accuracy that they once had?  YES" in got.out
    found = verdicts(call, str(place), "--tail-only", str(healthy))
    for subject in ("degradation", "onset"):
        assert found[subject]["verdict"] == "yes"
        assert found[subject]["numbers"]["tail onset low"] <= 15 <= found[subject]["numbers"]["tail onset high"]
    assert found["degradation"]["numbers"]["tail decline"] == pytest.approx(0.4, abs=0.05)
    assert found["sharpness"]["verdict"] != "yes"
    # To its own solution a run has come all the way.
    assert found["distance"]["verdict"] == "no"
    assert found["distance"]["numbers"]["end"] == pytest.approx(0, abs=1e-6)
    assert found["distance"]["numbers"]["cosine"] == pytest.approx(1)
    stored = Run.open(place).load_result("diagnosis", Diagnosis)
    assert stored is not None
    assert stored.finding("onset").verdict == "yes"


def test_a_sharp_tail_is_said(call: Any, tmp_path: Path) -> None:
    place = planted(tmp_path / "run", recipe_of(), curves(0.9), curves(2.0), steps=25, unsure=(8, 9))
    found = verdicts(call, str(place))
    assert found["sharpness"]["verdict"] == "yes"
    assert found["sharpness"]["numbers"]["ratio low"] > 3
    assert "The losses differ" in found["sharpness"]["caution"]
    assert found["degradation"]["verdict"] == "no"
    assert found["onset"]["verdict"] == "no"


def test_noise_is_not_interpreted(call: Any, tmp_path: Path) -> None:
    """An untrained network on images of noise, with curves of noise."""
    root = noise_images(tmp_path / "images")
    stream = np.random.default_rng(5)
    accuracy, quality = (scale * stream.standard_normal((10, EPOCHS + 1)) for scale in (0.05, 0.2))
    recipe = recipe_of(name="folder", imbalance_ratio="natural")
    place = planted(tmp_path / "run", recipe, (0.2 + accuracy).tolist(), (0.5 + quality).tolist(), data_root=root)
    found = verdicts(call, str(place), "--data-root", root)
    assert {one["verdict"] for one in found.values()} <= {"cannot tell", "no"}
    assert found["onset"]["verdict"] == "cannot tell"
    assert found["gradients"]["verdict"] == "cannot tell"
    assert found["seeds"]["verdict"] == "cannot tell"


def test_wrong_input_is_one_line(refused: Any, healthy: Path, tmp_path: Path) -> None:
    assert "is not a run" in refused("diagnose", str(tmp_path))
    assert "holds no checkpoint of epoch 7" in refused("diagnose", str(healthy), "--epoch", "7")
