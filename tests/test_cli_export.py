"""``export``: CSV files that other programs read, and event files as TensorBoard itself reads them."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import call, refused, trained  # noqa: F401

from landscape_lab import Recorder, Run
from landscape_lab.analysis import SpectralDensity, Spectrum, TraceEstimate
from landscape_lab.export import KINDS, stored_results
from landscape_lab.files import write_json


def spectrum() -> Spectrum:
    nodes = torch.tensor([[-0.5, 1e-9, 0.02, 4.0], [-0.5, 1e-9, 0.03, 4.0]], dtype=torch.float64)
    weights = torch.tensor([[0.1, 0.6, 0.2, 0.1], [0.1, 0.5, 0.3, 0.1]], dtype=torch.float64)
    density = SpectralDensity(nodes, weights, size=20, products=9, method="slq", seed=0)
    trace = TraceEstimate(7.25, 0.5, torch.tensor([7.0, 7.5], dtype=torch.float64), 2, "hutchinson", 0)
    return Spectrum(4.0, 0.01, -0.5, 0.02, True, trace, density, 4, 20, "running")


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A run of somebody else's loop, with a stored spectrum; a class's name has a slash."""
    place = tmp_path / "mine"
    recorder = Recorder(place, torch.nn.Linear(2, 3), class_counts=[5, 3, 1], class_names=["cat", "dog/wolf", "owl"])
    for epoch in (1, 2):
        recorder.epoch({"lr": 0.1 / epoch, "test": {"class_accuracy": [0.5, float("nan"), epoch / 4]}})
    recorder.finish()
    settings = {"epoch": 2, "split": "train", "classes": [2]}
    Run.open(place).save_result("hessian/epoch-0002-tail-train", spectrum(), settings)
    return place


def test_csv_files_hold_every_stored_result(call: Any, recorded: Path, tmp_path: Path) -> None:
    got = call("export", str(recorded), "--csv", str(tmp_path / "out"), "--json")
    assert got.code == 0, got.err
    folder = tmp_path / "out" / "mine"
    files = [
        folder / name for name in ("metrics", "hessian/epoch-0002-tail-train", "hessian/epoch-0002-tail-train-density")
    ]
    assert json.loads(got.out) == {"mine": {"csv": [f"{path}.csv" for path in files]}}
    with open(f"{files[1]}.csv", encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (float(row["trace"]), float(row["lambda_max"]), row["samples"]) == (7.25, 4.0, "4")
    with open(f"{files[2]}.csv", encoding="utf-8", newline="") as file:
        assert sum(float(row["weight"]) for row in csv.DictReader(file)) == pytest.approx(2.0)


def test_what_cannot_be_read_is_named_and_the_rest_is_written(call: Any, recorded: Path, tmp_path: Path) -> None:
    write_json(recorded / "results" / "other.json", {"kind": "Surface", "settings": {}, "result": {"x": 1}})
    write_json(recorded / "results" / "newer.json", {"kind": "NotYetKnown", "settings": {}, "result": {}})
    got = call("export", str(recorded), "--csv", str(tmp_path / "out"))
    assert got.code == 0
    assert "results/other.json" in got.err
    assert "results/newer.json" in got.err
    assert "3 CSV files" in got.err


def test_tensorboard_reads_scalars_histograms_and_pictures(call: Any, recorded: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logs = tmp_path / "logs"
    for _ in range(2):  # an export anew takes the place of the one before
        got = call("export", str(recorded), "--tensorboard", str(logs), "--no-pictures")
        assert got.code == 0, got.err
    (file,) = (path for path in logs.rglob("*") if path.is_file())
    assert "tfevents" in file.name
    events = accumulator.EventAccumulator(str(logs / "mine"), size_guidance={"histograms": 0}).Reload()
    assert [(e.step, e.value) for e in events.Scalars("lr")] == [(1, pytest.approx(0.1)), (2, pytest.approx(0.05))]
    assert [e.value for e in events.Scalars("test/class_accuracy/2 owl")] == [0.25, 0.5]
    assert not [tag for tag in events.Tags()["scalars"] if "dog/wolf" in tag]
    assert [(e.step, e.value) for e in events.Scalars("hessian/tail/trace")] == [(2, 7.25)]
    (event,) = events.Histograms("hessian/tail/eigenvalues")
    held = event.histogram_value
    assert event.step == 2
    assert (held.min, held.max, held.num) == (-0.5, 4.0, pytest.approx(20.0))
    # 20 eigenvalues, by hand: 2 at -0.5, 2 at 4, between them 11 next to zero and 5 near 0.025
    pairs = list(zip(held.bucket_limit, held.bucket, strict=True))
    assert sum(count for limit, count in pairs if limit < -0.1) == pytest.approx(2)
    assert sum(count for limit, count in pairs if limit > 1) == pytest.approx(2)
    assert sum(count for limit, count in pairs if 0 < limit < 0.01) == pytest.approx(11)
    assert held.sum == pytest.approx(20 * (0.1 * -0.5 + 0.1 * 4 + 0.1 * 0.02 + 0.15 * 0.03), rel=1e-6)


def test_pictures_of_a_trained_run(trained: Path, call: Any, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    got = call("export", str(trained), "--tensorboard", str(tmp_path / "logs"), "--json")
    assert got.code == 0, got.err
    events = accumulator.EventAccumulator(str(tmp_path / "logs" / "run")).Reload()
    assert events.Tags()["images"] == ["pictures/feature-quality"]
    (picture,) = events.Images("pictures/feature-quality")
    assert picture.step == 2
    assert picture.encoded_image_string.startswith(b"\x89PNG")
    assert events.Scalars("test/accuracy/tail")


def test_bad_input(refused: Any, recorded: Path, tmp_path: Path, monkeypatch: Any) -> None:
    assert "--tensorboard DIR or --csv DIR" in refused("export", str(recorded))
    assert "--no-pictures is for" in refused("export", str(recorded), "--csv", str(tmp_path), "--no-pictures")
    assert "named twice" in refused("export", str(recorded), str(recorded), "--csv", str(tmp_path / "out"))
    assert "is not a run" in refused("export", str(tmp_path), "--csv", str(tmp_path / "out"))
    for name in [name for name in sys.modules if "tensorboard" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert "landscape-lab[tensorboard]" in refused("export", str(recorded), "--tensorboard", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_every_kind_that_studies_store_is_known() -> None:
    source = "".join(
        path.read_text() for path in (Path(__file__).parent.parent / "landscape_lab" / "studies").glob("*.py")
    )
    import re

    stored = set(re.findall(r"\.stored\(\s*[^,]+(?:\([^)]*\))?, (\w+)[,\[]", source))
    assert "Surface" in stored
    assert stored <= set(KINDS), stored - set(KINDS)


def test_stored_results_of_a_run_without_any(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "run", torch.nn.Linear(2, 3), class_counts=[5, 3, 1])
    recorder.finish()
    assert stored_results(Run.open(tmp_path / "run")) == ({}, [])
