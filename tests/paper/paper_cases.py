"""Finished runs made by hand, without training: what tables, figures and reports are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from landscape_lab.paper.experiments import Choices, Setting, recipe_key
from landscape_lab.run import Run

DIGITS = Choices("digits-lt", epochs=2)


def finished_run(
    folder: Path,
    choices: Choices,
    setting: Setting,
    seed: int,
    test: Sequence[Mapping[str, float]],
    *,
    groups: int | None = None,
    seconds: float = 1.0,
    device: str = "cpu",
) -> tuple[str, Run]:
    """A run whose epochs 1, 2 … had these test accuracies (fractions); its key, and it."""
    recipe = choices.recipe(setting, seed)
    info = {
        "versions": {"landscape-lab": "0", "torch": "0"},
        "device": device,
        "commit": "c0ffee",
        "data": {"name": choices.data, "fingerprint": "f"},
        "epoch_seconds": [seconds] * len(test),
    }
    key = recipe_key(recipe)
    run = Run.create(folder / f"run-{key}", recipe, info)
    start = {"epoch": 0, "test": {"accuracy": dict.fromkeys(("all", "many", "med", "few"), 0.99)}}
    lines = [start]
    for epoch, accuracy in enumerate(test):
        line = {"epoch": epoch + 1, "test": {"accuracy": dict(accuracy)}}
        lines.append(line if groups is None else {**line, "groups": [[g] for g in range(groups)]})
    run.save_metrics(lines)
    run.finish()
    return key, run
