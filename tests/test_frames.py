"""Results as columns, frames, CSV files and in notebooks."""

from __future__ import annotations

import csv
import dataclasses
import html.parser
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import landscape_lab.analysis
import landscape_lab.diagnosis
from landscape_lab import Recorder, Run
from landscape_lab.analysis import (
    Barrier,
    Distances,
    Eigenpairs,
    Estimate,
    FeatureQuality,
    GradientSimilarity,
    JointTrajectory,
    NoiseCurve,
    Onset,
    Sharpness,
    SpectralDensity,
    Spectrum,
    Surface,
    TraceEstimate,
    Trajectory,
)
from landscape_lab.diagnosis import Diagnosis, Finding
from landscape_lab.errors import InputError
from landscape_lab.frames import to_csv, to_frame
from landscape_lab.studies.features import QualityHistory
from landscape_lab.tabular import Tabular, columns_of

nan = math.nan


def numbers(*shape: int) -> torch.Tensor:
    """Every entry another one, so that a wrong order shows."""
    return torch.arange(math.prod(shape), dtype=torch.float64).reshape(shape) + 0.25


def surface(**changes: Any) -> Surface:
    made = Surface(
        x=torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64),
        y=torch.tensor([-2.0, 2.0], dtype=torch.float64),
        losses=numbers(2, 2, 3),
        accuracies=numbers(2, 2, 3) / 100,
        subsets=("head", "tail"),
        counts=(20, 4),
        batch_norm="running",
        stderr=numbers(2, 2, 3) / 10,
        evaluated=torch.tensor([[True, False, True], [True, True, True]]),
    )
    return dataclasses.replace(made, **changes)


def path(steps: int = 3) -> Trajectory:
    return Trajectory(numbers(steps, 2), numbers(steps), numbers(steps), tuple(range(0, 10 * steps, 10)), None, "pca")


def spectrum() -> Spectrum:
    density = SpectralDensity(
        torch.tensor([[-1.0, 3.0, 0.0]]), torch.tensor([[0.25, 0.75, 0.0]]), size=8, products=6, method="slq", seed=0
    )
    trace = TraceEstimate(2.0, 0.5, torch.tensor([1.5, 2.5], dtype=torch.float64), 2, "hutchinson", 0)
    return Spectrum(3.0, 0.01, -1.0, 0.02, True, trace, density, 4, 8, "running")


ALL = [
    surface(),
    spectrum(),
    spectrum().density,
    spectrum().trace,
    Estimate(1.0, 0.1, 0.8, 1.2),
    Eigenpairs(numbers(2), numbers(5, 2), numbers(2), (True, False), 9, 0),
    FeatureQuality(numbers(3), numbers(3), numbers(3), torch.tensor([4, 0, 2]), "difference", 0.5),
    GradientSimilarity((0, 2), numbers(2), torch.tensor([0.1, nan]), numbers(2), torch.tensor([3, 1]), 3),
    path(),
    JointTrajectory({"a": path(), "b": path(2)}, (0.6, 0.2), 0.2),
    Distances(("w", "b"), numbers(3), numbers(2, 3), (0, 1, 2), numbers(2), numbers(3), numbers(3), "tail only"),
    Barrier(("all",), (9,), numbers(3), numbers(1, 3), numbers(1, 3), numbers(1), numbers(1), numbers(1), "running"),
    NoiseCurve(numbers(3), numbers(2, 4, 3), numbers(2, 4, 3), ("head", "tail"), (5, 6), 0, "running", "norm"),
    Sharpness("tail", "average", 0.5, 0.4, 0.6, 0.1, "over directions"),
    Onset("declines", 30.0, 25.0, 36.0, 0.01, 0.4, 0.3, 0.5, 0.05, 0.2, 0.1, 60),
    QualityHistory((0, 5), numbers(2, 3), "difference", "train"),
    Diagnosis(
        "run", 5, (Finding("onset", "no", "It <b>does</b> not.", {"p": 0.4}), Finding("seeds", "cannot tell", "", {}))
    ),
]


def test_a_surface_by_literal_loops() -> None:
    grid = surface()
    expected = [
        (name, y, x, grid.losses[s, j, i].item(), grid.accuracies[s, j, i].item(), bool(grid.evaluated[j, i]))
        for s, name in enumerate(("head", "tail"))
        for j, y in enumerate((-2.0, 2.0))
        for i, x in enumerate((-1.0, 0.0, 1.0))
    ]
    columns = columns_of(grid)
    names = ("subset", "y", "x", "loss", "accuracy", "evaluated")
    assert list(zip(*(columns[name] for name in names), strict=True)) == expected
    assert "interpolation_error" not in columns
    line = surface(y=torch.zeros(1, dtype=torch.float64), losses=numbers(2, 1, 3), accuracies=numbers(2, 1, 3))
    assert "y" not in columns_of(dataclasses.replace(line, stderr=None, evaluated=None))


def test_a_noise_curve_and_distances_by_literal_loops() -> None:
    curve = next(one for one in ALL if isinstance(one, NoiseCurve))
    expected = [
        (name, k, curve.ratios[r].item(), curve.losses[s, k, r].item())
        for s, name in enumerate(curve.subsets)
        for k in range(4)
        for r in range(3)
    ]
    columns = columns_of(curve)
    assert list(zip(*(columns[name] for name in ("subset", "direction", "ratio", "loss")), strict=True)) == expected
    far = next(one for one in ALL if isinstance(one, Distances))
    columns = columns_of(far)
    at = list(zip(columns["layer"], columns["step"], strict=True)).index(("b", 1))
    assert columns["distance"][at] == far.layers[1, 1].item()
    assert columns["relative"][at] == pytest.approx(far.layers[1, 1].item() / far.reference_norms[1].item())
    assert columns["distance"][:3] == far.full.tolist()


def test_padding_of_a_density_is_left_out_and_the_weights_sum_to_one() -> None:
    columns = columns_of(spectrum().density)
    assert columns == {"probe": [0, 0], "eigenvalue": [-1.0, 3.0], "weight": [0.25, 0.75]}


@pytest.mark.parametrize("result", ALL, ids=lambda result: type(result).__name__)
def test_every_kind_has_columns_of_one_length_and_plain_values(result: Any) -> None:
    columns = columns_of(result)
    assert len({len(values) for values in columns.values()}) == 1
    assert all(
        value is None or type(value) in (int, float, str, bool) for values in columns.values() for value in values
    )


@pytest.mark.parametrize("result", ALL, ids=lambda result: type(result).__name__)
def test_a_notebook_gets_well_formed_html(result: Any) -> None:
    text = result._repr_html_()
    open_tags: list[str] = []

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Reader().feed(text)
    assert open_tags == []
    assert type(result).__name__ in text
    assert "<td" in text
    assert "tensor(" not in text
    assert len(text) < 20_000


def test_what_a_notebook_shows_is_escaped_short_and_rounded() -> None:
    assert "It &lt;b&gt;does&lt;/b&gt; not." in ALL[-1]._repr_html_()
    assert "It <b>" not in ALL[-1]._repr_html_()
    long = QualityHistory(tuple(range(40)), numbers(40, 10), "difference", "train")._repr_html_()
    assert "… 380 more rows" in long
    assert "0.3333" in Estimate(1 / 3, 0.1, 0.0, 1.0)._repr_html_()
    assert "–" in Estimate(1.0, nan, 0.0, 1.0)._repr_html_()
    # of a surface: where it is lowest and highest, not its 12 points
    assert surface()._repr_html_().count("<tr>") == 3


def test_all_results_of_the_analyses_are_shown_in_notebooks() -> None:
    others = {"Line", "Plane", "Objective", "Curves", "Evidence"}  # what analyses take, or pass on
    for package in (landscape_lab.analysis, landscape_lab.diagnosis):
        for name in package.__all__:
            kind = getattr(package, name)
            if isinstance(kind, type) and dataclasses.is_dataclass(kind):
                assert issubclass(kind, Tabular) or name in others, name


def test_frames_and_their_facts() -> None:
    pandas = pytest.importorskip("pandas")
    frame = to_frame(surface())
    assert isinstance(frame, pandas.DataFrame)
    assert frame.attrs == {"kind": "Surface", "batch_norm": "running"}
    lowest = frame.groupby("subset")["loss"].min()
    assert lowest["tail"] == 6.25
    pair = to_frame({"head": spectrum(), "tail": spectrum()})
    assert list(pair["name"]) == ["head", "tail"]
    assert list(pair["trace_stderr"]) == [0.5, 0.5]
    assert list(to_frame([Estimate(1.0, 0.0, 1.0, 1.0), Estimate(2.0, 0.0, 2.0, 2.0)])["value"]) == [1.0, 2.0]
    assert to_frame(ALL[-1])["verdict"].tolist() == ["no", "cannot tell"]
    assert to_frame([]).empty


@pytest.mark.parametrize(
    "wrong", [3, "text", torch.zeros(3), Estimate, {"a": 1}, {"name": {"a": Estimate(1, 1, 1, 1)}}]
)
def test_what_is_no_result_is_refused(wrong: Any) -> None:
    with pytest.raises(InputError) as caught:
        columns_of(wrong)
    assert "\n" not in str(caught.value)


def test_csv_gives_the_numbers_back(tmp_path: Path) -> None:
    cosines = torch.tensor([1 / 3, nan], dtype=torch.float64)
    result = GradientSimilarity((0, 2), cosines, numbers(2), numbers(2), torch.tensor([3, 0]), 3)
    with open(to_csv(result, tmp_path / "deep" / "x.csv"), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["0", "2"]
    assert float(rows[0]["cosine"]) == 1 / 3  # every digit
    assert rows[1]["cosine"] == ""
    names = QualityHistory((0,), numbers(1, 1), "difference", "train")
    comma = to_csv({'a,"b"\nü': names}, tmp_path / "comma.csv")
    with open(comma, encoding="utf-8", newline="") as file:
        assert next(csv.DictReader(file))["name"] == 'a,"b"\nü'


def test_a_runs_metrics(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "run", torch.nn.Linear(2, 3), class_counts=[5, 3, 1])
    recorder.epoch({"lr": 0.1, "test": {"class_accuracy": [0.5, nan, 1.0], "accuracy": {"tail": 0.25}}})
    recorder.finish()
    columns = columns_of(Run.open(tmp_path / "run"))
    rows = set(zip(*columns.values(), strict=True))
    assert {(1, "lr", None, 0.1), (1, "test/class_accuracy", 2, 1.0), (1, "test/class_accuracy", 1, None)} <= rows
    assert (1, "test/accuracy/tail", None, 0.25) in rows
    assert not any(metric == "epoch" for metric in columns["metric"])


def test_columns_need_no_pandas() -> None:
    code = (
        "import sys; sys.modules['pandas'] = None\n"
        "from landscape_lab.frames import to_csv, to_frame\n"
        "from landscape_lab.analysis import Estimate\n"
        "one = Estimate(1.0, 0.1, 0.8, 1.2)\n"
        "assert one._repr_html_()\n"
        "try: to_frame(one)\n"
        "except ModuleNotFoundError as error: assert 'landscape-lab[frames]' in str(error), error\n"
        "else: raise SystemExit('pandas was found')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
