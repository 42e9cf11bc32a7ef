"""The baseline's file: comes back as it was, and is refused where it is not what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from guard_fixtures import made_up

from landscape_lab.errors import InputError
from landscape_lab.guard import Measurement, compare, tolerances_of
from landscape_lab.guard.baseline import _digest, check_same, read_baseline, write_baseline


@pytest.fixture
def path(tmp_path: Path, quick: Measurement) -> Path:
    place = tmp_path / "sharpness.json"
    write_baseline(place, quick)
    return place


def test_it_comes_back(path: Path, quick: Measurement) -> None:
    again = read_baseline(path)
    assert [(one.metric, one.subset, one.value) for one in again.metrics] == [
        (one.metric, one.subset, one.value) for one in quick.metrics
    ]
    for one, other in zip(again.metrics, quick.metrics, strict=True):
        assert torch.equal(one.probes, other.probes)
        assert torch.equal(one.influences, other.influences)
    check_same(path, again, quick)
    assert compare(again, quick, tolerances_of([])).outcome == "pass"
    before = path.read_bytes()
    write_baseline(path, again)
    assert path.read_bytes() == before


def test_it_may_be_formatted_otherwise(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    read_baseline(path)


def edited(path: Path, change: Callable[[Any], None], *, signed: bool = False) -> str:
    document = json.loads(path.read_text())
    change(document)
    if signed:
        document["sha256"] = _digest(document["content"])
    path.write_text(json.dumps(document))
    with pytest.raises(InputError) as error:
        read_baseline(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_number_changed_by_hand_is_refused(path: Path) -> None:
    def change(document: Any) -> None:
        document["content"]["metrics"][0]["value"] *= 2

    assert "was changed by hand" in edited(path, change)


def test_another_version_is_refused(path: Path) -> None:
    assert "format 9" in edited(path, lambda document: document.update(format_version=9))


def test_nan_is_refused(path: Path) -> None:
    def change(document: Any) -> None:
        document["content"]["metrics"][0]["value"] = float("nan")

    assert "not a finite number" in edited(path, change, signed=True)


@pytest.mark.parametrize("content", ["[]", '{"format": "other"}', "{", ""])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "b.json").write_text(content)
    with pytest.raises(InputError):
        read_baseline(tmp_path / "b.json")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no baseline .* --update"):
        read_baseline(tmp_path / "b.json")


def test_a_number_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not finite"):
        write_baseline(tmp_path / "b.json", made_up(float("inf"), torch.ones(3)))
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": {"samples": 3}}, "other data: the numbers of samples"),
        ({"network": {"parameters": 5, "names": "x"}}, "another network"),
        ({"subsets": {"head": (0, 1)}}, "other classes in 'head'"),
    ],
)
def test_other_measurements_are_refused(path: Path, quick: Measurement, change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_same(path, read_baseline(path), replace(quick, **change))


def test_other_settings_are_refused(path: Path, quick: Measurement) -> None:
    other = replace(quick, settings=msgspec.structs.replace(quick.settings, probes=7, seed=4))
    with pytest.raises(InputError, match="probes 6 instead of 7, seed 0 instead of 4"):
        check_same(path, read_baseline(path), other)
