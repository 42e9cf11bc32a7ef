"""The page as bytes: what it holds, that it is whole, escaped, small and always the same."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from report_runs import HARSH, NAMES, TRICKY, bowl, record, surface, write_run

from landscape_lab import cli
from landscape_lab.analysis import Surface
from landscape_lab.errors import InputError
from landscape_lab.report import page, read_results, write_report
from landscape_lab.report.parts import escaped, packed, script_json
from landscape_lab.report.quality import quality
from landscape_lab.report.surfaces import surfaces
from landscape_lab.run import Run


class Page(HTMLParser):
    """Elements with their attributes, and the text of each kind of element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.stack: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "input"):
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.stack[-1] if self.stack else "", []).append(data)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("runs")
    return {"one": write_run(folder / "one"), "two": write_run(folder / "two", height=9.0, groups=False, seed=1)}


@pytest.fixture(scope="module")
def text(runs: dict[str, Run], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    assert write_report(runs, path) == path.stat().st_size < 10_000_000
    return path.read_text(encoding="utf-8")


def data_of(text: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL).group(1))


def unpacked(value: object) -> np.ndarray:
    if isinstance(value, list):
        return np.array([np.nan if item is None else item for item in value])
    assert value["dtype"] == "f4"
    return np.frombuffer(base64.b64decode(value["bdata"]), "<f4").reshape([*map(int, value["shape"].split(","))])


def test_nothing_is_loaded_from_elsewhere(text: str) -> None:
    found = Page(text)
    assert found.stack == []
    loading = [(tag, a) for tag, a in found.elements for name in ("src", "srcset", "data", "action") if name in a]
    assert loading == []
    links = [a["href"] for tag, a in found.elements if "href" in a]
    assert links
    assert all(link.startswith("#") for link in links)
    assert sum(tag == "script" for tag, _ in found.elements) == 3
    policy = [a["content"] for tag, a in found.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy[0].startswith("default-src 'none'")
    styles = "".join(found.texts["style"])
    assert "url(" not in styles
    assert "@import" not in styles


def test_class_names_are_text(text: str) -> None:
    assert HARSH not in text
    found = Page(text)
    assert any(HARSH in piece for piece in found.texts["p"])  # the finding
    assert any(HARSH in piece for piece in found.texts["th"])  # the table of classes
    assert any(TRICKY in piece for piece in found.texts["th"])
    data = re.search(r'id="data">(.*?)</script>', text, re.DOTALL).group(1)
    assert "<" not in data
    assert "\u2028" not in data
    names = [trace.get("name", "") for chart in data_of(text)["charts"] for trace in chart["traces"]]
    assert any(escaped(HARSH) in name for name in names)


def test_surfaces_are_the_stored_numbers(text: str, runs: dict[str, Run]) -> None:
    (plane,) = data_of(text)["surfaces"]["sets"]
    assert [run["label"] for run in plane["runs"]] == ["one", "two"]
    for run, height in zip(plane["runs"], (4.0, 9.0), strict=True):
        assert [point["epoch"] for point in run["points"]] == [0, 2, 4]
        for point in run["points"]:
            np.testing.assert_allclose(unpacked(point["x"]), np.linspace(-0.5, 0.5, 5))
            for subset, factor, more in zip(point["subsets"], (1, 2), (0.1, 0.3), strict=True):
                expected = bowl(factor * height, point["epoch"], more).numpy()
                np.testing.assert_allclose(unpacked(subset["loss"]), expected, rtol=1e-6)
                np.testing.assert_allclose(unpacked(subset["accuracy"]), 1 / (1 + expected), rtol=1e-6)


def test_points_without_a_finite_loss_are_gaps_and_evaluated_points_are_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", results=False)
    whole = surface(4.0, 4)
    whole.losses[0, 0, 0] = torch.inf
    whole.losses[1, 2, 2] = 1e39  # larger than float32
    more = {}
    if "evaluated" in Surface.__dataclass_fields__:
        on = torch.zeros(5, 5, dtype=torch.bool)
        on[::2, ::2] = True
        more = {"evaluated": on, "errors": torch.full((2, 5, 5), 0.125, dtype=torch.float64)}
    changed = Surface(*(getattr(whole, name) for name in ("x", "y", "losses", "accuracies", "subsets", "counts")),
                      "batch", **more)  # fmt: skip
    run.save_result("surface/some", changed, {"plane": "through three solutions"})
    (plane,) = surfaces(read_results({"run": run})).surfaces["sets"]
    (point,) = plane["runs"][0]["points"]
    assert not plane["centre"]  # without an epoch the origin is no solution
    assert "statistics of the batches at hand" in plane["note"]
    losses = [unpacked(subset["loss"]) for subset in point["subsets"]]
    assert np.argwhere(~np.isfinite(losses[0])).tolist() == [[0, 0]]
    assert np.argwhere(~np.isfinite(losses[1])).tolist() == [[2, 2]]
    if more:
        assert unpacked(point["evaluated"]).reshape(5, 5).tolist() == on.double().tolist()
        assert "0.12" in point["subsets"][0]["note"]
        assert "interpolated" in plane["note"]


def test_neural_collapse_is_told_of_each_run(text: str) -> None:
    found = Page(text)
    assert "Neural collapse of each run, training images" in found.texts["h3"]
    cells = found.texts["td"]
    for numbers in (["0.75", "0.375", "0.0625", "0.25"], ["0.125", "0.375", "0.0625", "0.25"]):
        starts = [k for k in range(len(cells)) if cells[k : k + 4] == numbers]
        # The last epoch: once in the table of all runs, and in that of each of two runs.
        assert len(starts) == (3 + 1 if numbers[0] == "0.125" else 2)


@pytest.fixture(scope="module")
def forgetting(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The tail's quality falls in a line from epoch 20 on; the head's rises to the end."""
    run = write_run(tmp_path_factory.mktemp("forgetting") / "run", results=False)
    noise, lines = np.random.default_rng(0).standard_normal((41, 2)).tolist(), []
    for epoch in range(41):
        line = record(epoch)
        tail = 3.0 - 0.1 * max(0, epoch - 20) + 0.02 * noise[epoch][0]
        values = [1.0, 2.0 + 0.05 * epoch + 0.02 * noise[epoch][1], 3.0, tail]
        line["train"] = {**line["train"], "quality": {"difference": values, "reciprocal": [1.0] * 4}}
        lines.append(line)
    run.save_metrics(lines)
    return run


def test_where_the_quality_begins_to_fall_is_marked(forgetting: Run) -> None:
    section = quality(read_results({"run": forgetting}))
    falls = {
        str(f["subject"]).split()[5].split("’")[0]: f for f in section.findings if f["facets"]["form"] == "difference"
    }
    assert falls["tail"]["verdict"] == "yes"
    assert falls["head"]["verdict"] != "yes"
    chart = next(chart for chart in section.charts if chart.facets["form"] == "difference")
    (mark,) = [trace for trace in chart.traces if trace["mode"] == "markers"]
    (band,) = chart.layout["shapes"]
    at, low, high = mark["x"][0], band["x0"], band["x1"]
    assert low <= 20 <= high
    assert low <= at <= high
    assert high - low < 12
    assert mark["y"][0] == pytest.approx(3.0 - 0.1 * max(0, at - 20), abs=0.1)
    assert at + mark["error_x"]["array"][0] == high
    assert at - mark["error_x"]["arrayminus"][0] == low
    told = falls["tail"]["sentence"]
    assert f"from epoch {at:g} (95 %: {low:g} to {high:g})" in told
    assert "p = 0.00" in told
    # The other form is the same at all epochs.
    flat = next(chart for chart in section.charts if chart.facets["form"] == "reciprocal")
    assert flat.layout["shapes"] == []
    others = [f for f in section.findings if f["facets"]["form"] == "reciprocal"]
    assert [f["verdict"] for f in others] == ["no", "no"]
    assert all("the same at all 40 epochs" in f["sentence"] for f in others)


def test_few_epochs_and_absent_classes_carry_no_verdict(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", results=False)
    section = quality(read_results({"run": run}))
    # The only class of the tail has no images.
    assert {f["subject"] for f in section.findings} == {"Does the quality of the head’s features fall in the end?"}
    assert {f["verdict"] for f in section.findings} == {"cannot tell"}
    assert all("known at 4 epochs, and a test needs 12" in f["sentence"] for f in section.findings)
    names = [trace["name"] for trace in section.charts[0].traces]
    assert names == ["head, train", "head, test"]
    assert section.missing == [("No neural collapse of run:", "landscape-lab features run")]


def test_equal_runs_give_equal_bytes(runs: dict[str, Run], text: str, tmp_path: Path) -> None:
    write_report(runs, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == text


def test_what_is_not_stored_names_the_command_that_makes_it(tmp_path: Path) -> None:
    write_report({"bare": write_run(tmp_path / "bare", results=False)}, tmp_path / "bare.html")
    found = Page((tmp_path / "bare.html").read_text(encoding="utf-8"))
    commands = [text.split()[1] for text in found.texts["code"] if text.startswith("landscape-lab ")]
    assert {"surface", "trajectory", "hessian", "gradients", "sharpness", "groups", "diagnose"} <= set(commands)
    assert set(commands) <= set(cli.cli.commands)
    tabs = [attributes for tag, attributes in found.elements if attributes.get("role") == "tab"]
    assert [tab["id"] for tab in tabs if tab.get("class") == "absent"] == [
        "tab-surfaces", "tab-trajectories", "tab-curvature", "tab-similarity", "tab-noise",
    ]  # fmt: skip


def test_a_page_that_is_too_large_gives_up_epochs_and_says_so(
    runs: dict[str, Run], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "LARGEST", len(text.encode()))
    write_report(runs, tmp_path / "smaller.html")
    (plane,) = data_of((tmp_path / "smaller.html").read_text(encoding="utf-8"))["surfaces"]["sets"]
    assert [point["epoch"] for point in plane["runs"][0]["points"]] == [0, 4]
    assert "Not all measured epochs" in plane["note"]
    monkeypatch.setattr(page, "LARGEST", 1000)
    with pytest.raises(InputError, match="name fewer runs"):
        write_report(runs, tmp_path / "none.html")
    assert not (tmp_path / "none.html").exists()


def test_seeds_of_a_recipe_get_mean_and_deviation(tmp_path: Path) -> None:
    runs = {str(seed): write_run(tmp_path / str(seed), results=False, seed=seed) for seed in range(3)}
    for seed, run in runs.items():
        line = record(4)
        line["test"] = {**line["test"], "accuracy": dict.fromkeys(line["test"]["accuracy"], 0.1 * (1 + int(seed)))}
        run.save_metrics([record(0), line])
    write_report(runs, tmp_path / "page.html")
    rows = re.findall(r"<tr><th.*?</tr>", (tmp_path / "page.html").read_text(encoding="utf-8"), re.DOTALL)
    (row,) = [row for row in rows if "3 seeds" in row]
    assert row.count("20.0 ± 10.0") == 6


def test_results_of_another_version_are_named_not_fatal(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run.path / "results" / "trajectory.json").write_text('{"kind": "Trajectory", "settings": {}, "result": {"a": 1}}')
    (run.path / "results" / "torn.json").write_text("{")
    write_report({"run": run}, tmp_path / "page.html")
    found = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Stored by another version and not read: run: trajectory" in found
    assert "No trajectory is stored" in found


def test_nothing_to_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name one at least"):
        write_report({}, tmp_path / "page.html")
    run = write_run(tmp_path / "run", results=False)
    run.save_metrics([])
    with pytest.raises(InputError, match="no recorded epoch"):
        write_report({"run": run}, tmp_path / "page.html")


def test_packing() -> None:
    values = np.linspace(-3, 7, 100)
    np.testing.assert_allclose(unpacked(packed(values)), values, rtol=1e-6)
    assert packed([1.0, None, float("inf")]) == [1.0, None, None]
    grid = torch.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(unpacked(packed(grid)), grid.numpy())


@pytest.mark.parametrize("name", NAMES)
def test_script_json_is_read_back(name: str) -> None:
    written = script_json({name: [name, 1.5, None]})
    assert json.loads(written) == {name: [name, 1.5, None]}
    assert "</" not in written
