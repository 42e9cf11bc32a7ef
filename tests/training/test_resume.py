"""Stopped runs go on to the same bytes, wherever they were stopped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loop_cases import CASES, EPOCHS, Stopped, contents, recipe, stop_after, trainer_at


@pytest.mark.parametrize("case", CASES)
def test_stopped_and_resumed_it_is_the_same_to_the_byte(
    case: str, tmp_path: Path, finished: Callable[[str], Path]
) -> None:
    path, steps = tmp_path / "run", trainer_at(tmp_path / "other", recipe(case)).loader.batches_per_epoch
    assert steps == 3
    # After the first step, within the first epoch with groups, after it, after the very last step, before the end.
    stops = [
        {"on_step": stop_after(1)},
        {"on_step": stop_after(steps + 2)},
        {"on_epoch": stop_after(1)},
        {"on_step": stop_after(steps)},
        {"on_epoch": stop_after(1)},
    ]
    done = []
    for stop in stops:
        trainer = trainer_at(path, recipe(case))
        done.append(trainer.progress.epoch)
        assert trainer.steps_left == (EPOCHS - done[-1]) * steps
        with pytest.raises(Stopped):
            trainer.train(**stop)
        assert not trainer.run.finished
    assert done == [0, 0, 1, 2, 2]
    last = trainer_at(path, recipe(case))
    last.train()
    assert last.run.finished
    assert contents(path) == contents(finished(case))


@pytest.mark.parametrize("case", ["gkp ncut"])
def test_killed_before_any_write_it_goes_on_to_the_same_bytes(
    case: str, tmp_path: Path, finished: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies on the disk before each move and each removal is what a killed process leaves behind."""
    path, replace, unlink = tmp_path / "run", os.replace, Path.unlink
    left: list[Path] = []

    def keep() -> None:
        left.append(tmp_path / f"left-{len(left)}")
        shutil.copytree(path, left[-1])

    def replacing(source: Any, target: Any) -> None:
        keep()
        replace(source, target)

    def unlinking(file: Path, missing_ok: bool = False) -> None:
        if file.exists():
            keep()
        unlink(file, missing_ok)

    monkeypatch.setattr(os, "replace", replacing)
    monkeypatch.setattr(Path, "unlink", unlinking)
    trainer_at(path, recipe(case)).train()
    monkeypatch.undo()
    assert contents(path) == contents(finished(case))
    assert len(left) >= 20
    begun = set()
    for place in left:
        trainer = trainer_at(place, recipe(case))
        begun.add(trainer.progress.epoch)
        if not trainer.run.finished:
            trainer.train()
        with trainer.run.lock():  # clears what the killed process was writing
            pass
        files = contents(place)
        files.pop(".lock", None)
        assert files == contents(path), place.name
    assert begun == {0, 1, 2, 3}
