"""``report`` as a user meets it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from command_line import TINY, call, refused, trained  # noqa: F401
from PIL import Image

from landscape_lab.analysis import Surface
from landscape_lab.curvature import CurvatureSettings
from landscape_lab.report import fill
from landscape_lab.run import Run

# The loss at the centre of the left pane, as the hover tells it.
CENTRE = "() => document.querySelector('[data-pane=left] .flat').data[0].customdata[2][2]"


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

    monkeypatch.setattr("landscape_lab.studies.subject.dataset_of", never)
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


def test_runs_that_were_really_trained(
    call: Any, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From ``train`` to the page, as a user goes: no error, every tab draws, the slider moves the surfaces."""
    playwright = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    executable = next((path for name in names if (path := shutil.which(name))), None)
    if executable is None:
        pytest.skip("needs Chromium or Chrome on the path")
    monkeypatch.setattr(fill, "GRID", 5)
    monkeypatch.setattr("landscape_lab.studies.equal_sizes.DRAWS", 2)
    monkeypatch.setattr(fill, "CurvatureSettings", lambda: CurvatureSettings(trace_products=4, density_products=20))
    erm, groups, tail, page_file = (tmp_path / name for name in ("erm", "groups", "tail", "report.html"))
    shutil.copytree(trained, erm)
    for recipe, place, more in (
        ("digits-lt-gkp-gsa", groups, []),
        ("digits-lt-erm", tail, ["--set", "data.classes=tail", "--set", "training.drop_last=false"]),
    ):
        got = call("train", recipe, *TINY, *more, "--out", str(place))
        assert got.code == 0, got.err
    got = call("report", str(erm), str(groups), "--tail-only", str(tail), "--samples", "8", "-o", str(page_file))
    assert got.code == 0, got.err
    assert "left out" not in got.err
    problems: list[str] = []
    with playwright.sync_playwright() as program:
        browser = program.chromium.launch(
            executable_path=executable, args=["--enable-unsafe-swiftshader", "--use-angle=swiftshader"]
        )
        page = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme="dark")
        page.set_default_timeout(60_000)
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(page_file.as_uri())
        drawn = {}
        for tab in page.locator("[role=tab]").all():
            tab.click()
            panel = page.locator(f"#{tab.get_attribute('aria-controls')}")
            for chart in panel.locator(".chart:visible").all():
                chart.locator(".main-svg").first.wait_for()
            drawn[tab.get_attribute("aria-controls")] = panel.locator(
                ".chart:visible, table:visible, .pane:visible"
            ).count()
        assert len(drawn) == 10
        assert all(drawn.values()), drawn
        assert page.locator("#quality h3", has_text="Neural collapse of each run").count() == 1
        page.locator("#tab-surfaces").click()
        slider, losses = page.locator("#epoch-slider"), []
        slider.press("End")
        for epoch in (2, 1, 0):
            assert slider.get_attribute("aria-valuetext") == f"epoch {epoch}"
            losses.append(page.evaluate(CENTRE))
            slider.press("ArrowLeft")
        browser.close()
    stored = [
        Run.open(erm).load_result(path.relative_to(erm / "results").with_suffix("").as_posix(), Surface)
        for path in sorted((erm / "results" / "surface").rglob("*.json"), reverse=True)
    ]
    assert losses == [pytest.approx(float(one.losses[one.subsets.index("head")][2, 2]), rel=1e-5) for one in stored]
    assert len(set(losses)) == 3
    assert problems == []
