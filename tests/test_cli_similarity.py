"""``features`` and ``gradients`` on a small run: tables, JSON, pictures, stored results, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import call, refused, trained  # noqa: F401

from landscape_lab.analysis.multiplicity import holm
from landscape_lab.run import Run
from landscape_lab.studies import Study
from landscape_lab.studies.features import onsets, quality_history
from landscape_lab.studies.gradients import gradients


def test_pairs_of_classes(call: Any, trained: Path) -> None:
    got = call("gradients", str(trained), "--epochs", "2", "--classes", "0,5,9", "--between", "--json")
    found = json.loads(got.out)["2"]
    assert list(found) == ["0", "5", "9"]
    assert found["9"]["absent"] == found["9"]["batches"] - found["9"]["present"]
    assert found["0"]["between"]["5"] == found["5"]["between"]["0"]
    assert found["0"]["between"]["0"]["mean"] == pytest.approx(1)
    assert (trained / "figures" / "class-similarity.png").exists()
    table = call("gradients", str(trained), "--epochs", "2", "--classes", "0,5,9", "--between").out
    assert "Class against class at epoch 2" in table
    assert "absent from" in table


def test_any_part_of_the_parameters(call: Any, refused: Any, trained: Path) -> None:
    parts = ("all", "classifier", "encoder.conv1", "*.bn1.*")
    means = [
        json.loads(call("gradients", str(trained), "--epochs", "2", "--parameters", part, "--json").out)["2"]["0"][
            "mean"
        ]
        for part in parts
    ]
    assert len(set(means)) == len(parts)
    assert "did you mean 'encoder'" in refused("gradients", str(trained), "--parameters", "encodr")


def test_a_result_with_pairs_serves_without_them(trained: Path) -> None:
    study = Study(Run.open(trained), torch.device("cpu"))
    first = gradients(study, 1, (0, 9), between=True)
    done: list[int] = []
    again = gradients(study, 1, (0, 9), progress=done.append)
    assert not done
    assert torch.equal(first.mean, again.mean)


def test_features_with_neural_collapse(call: Any, trained: Path) -> None:
    found = json.loads(call("features", str(trained), "--json").out)
    assert set(found["neural_collapse"]) == {"nc1", "nc2_norms", "nc2_angles", "nc3"}
    within = [one["within"] for one in found["classes"]]
    assert found["neural_collapse"]["nc1"] == pytest.approx(sum(within) / len(within))
    assert "NC3 classifier" in call("features", str(trained)).out


def test_history(call: Any, refused: Any, trained: Path) -> None:
    found = json.loads(call("features", str(trained), "--history", "--json").out)
    assert found["epochs"] == [0, 1, 2]
    assert found["onsets"]["difference"]["tail"]["verdict"] == "cannot tell"  # two epochs tell nothing
    assert (trained / "figures" / "feature-quality-history-train.png").exists()
    out = call("features", str(trained), "--history").out
    assert "cannot tell" in out
    assert "Neural collapse over the run" in out
    assert "leave --epoch out" in refused("features", str(trained), "--history", "--epoch", "1")


def test_a_forgetting_tail_is_found_in_recorded_metrics(call: Any, trained: Path, tmp_path: Path) -> None:
    run = Run.open(trained)
    line = run.metrics()[-1]
    epochs, generator = 40, torch.Generator().manual_seed(0)
    noise = 0.03 * torch.randn(epochs + 1, 10, generator=generator)
    lines = []
    for epoch in range(epochs + 1):
        rise = 3 * (1 - 2.7 ** (-epoch / 4))
        quality = [rise - (0.04 * max(0, epoch - 20) if c in (8, 9) else 0) + float(noise[epoch, c]) for c in range(10)]
        splits = {
            split: {**line[split], "quality": {"difference": quality, "reciprocal": quality}}
            for split in ("train", "test")
        }
        lines.append({**line, **splits, "epoch": epoch})
    planted = Run(tmp_path / "planted", run.recipe, run.info)
    planted.save_metrics(lines)
    history = quality_history(planted)
    assert history.epochs == tuple(range(epochs + 1))
    assert history.quality.shape == (epochs + 1, 10)
    found = onsets(history, {name: run.info["subsets"][name] for name in ("head", "tail")})
    assert found["tail"].verdict == "declines"
    assert found["tail"].low <= 20 <= found["tail"].high
    assert found["tail"].decline_low <= 0.8 <= found["tail"].decline_high
    assert found["head"].verdict == "no decline"


def test_quality_of_checkpoints_that_metrics_lack(trained: Path) -> None:
    run = Run.open(trained)
    recorded = quality_history(run, "test", "reciprocal")
    run.metrics = lambda: []  # type: ignore[method-assign]
    computed = quality_history(Study(run, torch.device("cpu")), "test", "reciprocal")
    assert computed.epochs == recorded.epochs
    torch.testing.assert_close(computed.quality, recorded.quality, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_holm() -> None:
    found = holm({"a": 0.02, "b": 0.3, "c": 0.01, "d": float("nan")})
    assert [found[name] for name in "abc"] == pytest.approx([0.04, 0.3, 0.03])
    assert found["d"] != found["d"]
