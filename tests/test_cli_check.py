"""``check``: its exit codes, its formats, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import junitparser
import pytest
from command_line import call, refused, trained  # noqa: F401

from landscape_lab.files import read_tensors, write_tensors

QUICK = ["--metrics", "lambda_max,trace,quality", "--samples", "8", "--probes", "4"]


@pytest.fixture(scope="module")
def baselines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("baselines")


@pytest.fixture
def baseline(trained: Path, call: Any, baselines: Path) -> Path:
    path = baselines / "sharpness.json"
    if not path.exists():
        got = call("check", str(trained), "--baseline", str(path), "--update", *QUICK, "--json")
        assert got.code == 0, got.err
        assert {one["metric"] for one in json.loads(got.out)["metrics"]} == {"lambda_max", "trace", "quality"}
    return path


@pytest.fixture(scope="module")
def sharper(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with the last layer's weights three times as large: another function, and a sharper one."""
    place = tmp_path_factory.mktemp("sharper") / "run"
    shutil.copytree(trained, place)
    last = sorted((place / "checkpoints").glob("epoch-*.safetensors"))[-1]
    tensors, notes = read_tensors(last)
    for name in tensors:
        if name.startswith("classifier"):
            tensors[name] = 3 * tensors[name]
    write_tensors(last, tensors, {key: value for key, value in notes.items() if key != "crc32"})
    return place


def test_the_same_run_passes(trained: Path, baseline: Path, call: Any) -> None:
    got = call("check", str(trained), "--baseline", str(baseline))
    assert got.code == 0, got.err
    assert "no worse than tolerated: 9 numbers" in got.out


def test_a_sharper_run_fails_in_every_format(sharper: Path, baseline: Path, call: Any, tmp_path: Path) -> None:
    summary, xml = tmp_path / "summary.md", tmp_path / "junit.xml"
    summary.write_text("before\n")
    got = call(
        "check", str(sharper), "--baseline", str(baseline), "--json", "--annotations",
        "--markdown", str(summary), "--junit", str(xml),
    )  # fmt: skip
    content = json.loads(got.out)
    assert got.code == 1, got.err
    assert content["outcome"] == "fail"
    failed = [one for one in content["metrics"] if one["outcome"] == "fail"]
    assert failed
    assert got.err.count("::error ") == len(failed)
    assert summary.read_text().startswith("before\n### ")
    (suite,) = junitparser.JUnitXml.fromfile(str(xml))
    assert (suite.tests, suite.failures) == (9, len(failed))


def test_only_some_classes_and_a_wide_tolerance(sharper: Path, baseline: Path, call: Any) -> None:
    got = call(
        "check", str(sharper), "--baseline", str(baseline), "--classes", "tail", "--json",
        "--tolerance", "100000%", "--tolerance", "quality=1000",
    )  # fmt: skip
    assert got.code == 0, got.err
    assert {one["subset"] for one in json.loads(got.out)["metrics"]} == {"tail"}


def test_what_is_refused(trained: Path, baseline: Path, refused: Any, tmp_path: Path) -> None:
    run = str(trained)
    assert "there is no baseline" in refused("check", run, "--baseline", str(tmp_path / "none.json"))
    edited = tmp_path / "edited.json"
    document = json.loads(baseline.read_text())
    document["content"]["metrics"][0]["value"] = 1e9
    edited.write_text(json.dumps(document))
    assert "changed by hand" in refused("check", run, "--baseline", str(edited))
    assert "probes 4, not 9" in refused("check", run, "--baseline", str(baseline), "--probes", "9")
    assert "no classes 'many'" in refused("check", run, "--baseline", str(baseline), "--classes", "many")
    assert "--tolerance" in refused("check", run, "--baseline", str(baseline), "--tolerance", "lots")
    assert "metrics must be" in refused("check", run, "--baseline", str(edited), "--update", "--metrics", "speed")
    assert "compares nothing" in refused("check", run, "--baseline", str(edited), "--update", "--tolerance", "9%")


def test_a_diverged_run_is_refused(trained: Path, baseline: Path, refused: Any, tmp_path: Path) -> None:
    place = tmp_path / "run"
    shutil.copytree(trained, place)
    last = sorted((place / "checkpoints").glob("epoch-*.safetensors"))[-1]
    tensors, notes = read_tensors(last)
    tensors = {
        name: tensor * float("nan") if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
    }
    write_tensors(last, tensors, {key: value for key, value in notes.items() if key != "crc32"})
    assert "not finite" in refused("check", str(place), "--baseline", str(baseline))
