"""``report`` as a user meets it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from command_line import call, refused, trained  # noqa: F401
from PIL import Image

from landscape_lab.report import fill
from landscape_lab.run import Run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_help_has_an_example(call: Any) -> None:
    got = call("report", "--help")
    assert got.code == 0
    assert "landscape-lab report runs/" in got.out.split("Example:")[1]


def test_stored_needs_neither_model_nor_data(call: Any, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("--stored must not open the run for analysis")

    monkeypatch.setattr("landscape_lab.studies.study.dataset_of", never)
    before = sorted(run.rglob("*"))
    got = call("report", str(run), "--stored", "-o", str(run.parent / "page.html"), "--json")
    assert got.code == 0, got.err
    page = run.parent / "page.html"
    assert json.loads(got.out) == {"page": str(page), "bytes": page.stat().st_size, "pictures": [], "left_out": []}
    assert sorted(run.rglob("*")) == before


def test_what_is_missing_is_computed_once(call: Any, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fill, "GRID", 3)
    page, pictures = run.parent / "page.html", run.parent / "pictures"
    arguments = ["report", str(run), "-o", str(page), "--samples", "6"]
    got = call(*arguments)
    assert got.code == 0, got.err
    assert " to compute, about " in got.err
    stored = sorted((run / "results").rglob("*.json"))
    assert {path.relative_to(run / "results").parts[0] for path in stored} >= {
        "surface", "hessian", "gradients", "noise", "sharpness", "trajectory.json", "diagnosis.json",
    }  # fmt: skip
    first, times = page.read_bytes(), [path.stat().st_mtime_ns for path in stored]
    style = run.parent / "large.mplstyle"
    style.write_text("font.size: 20\nfigure.facecolor: ff0000\nsavefig.facecolor: ff0000\n")
    size = matplotlib.rcParams["font.size"]
    got = call(*arguments, "--pictures", str(pictures), "--style", str(style), "--json")
    assert got.code == 0, got.err
    assert "to compute" not in got.err
    assert page.read_bytes() == first
    assert [path.stat().st_mtime_ns for path in stored] == times
    drawn = [Path(file) for file in json.loads(got.out)["pictures"]]
    assert {"feature-quality.png", "hessian-density.pdf", "gradient-similarity.svg"} <= {path.name for path in drawn}
    assert any(path.name.startswith("surface-epoch-0002") for path in drawn)
    assert Image.open(pictures / "feature-quality.png").convert("RGB").getpixel((0, 0)) == (255, 0, 0)
    assert matplotlib.rcParams["font.size"] == size
    assert Run.open(run).finished


def test_wrong_input(refused: Any, run: Path) -> None:
    page = str(run.parent / "page.html")
    assert "is not a run" in refused("report", str(run.parent), "--stored", "-o", page)
    assert "is a folder" in refused("report", str(run), "--stored", "-o", str(run.parent))
    assert "is named twice" in refused("report", str(run), str(run), "--stored", "-o", page)
    assert "--pictures" in refused("report", str(run), "--stored", "-o", page, "--style", "x.mplstyle")
    pictures = ["--pictures", str(run.parent / "p")]
    missing = str(run.parent / "none.mplstyle")
    assert "cannot be read" in refused("report", str(run), "--stored", "-o", page, *pictures, "--style", missing)
    wrong = run.parent / "wrong.mplstyle"
    wrong.write_text("font.sise: 8\n")
    assert "font.sise" in refused("report", str(run), "--stored", "-o", page, *pictures, "--style", str(wrong))
