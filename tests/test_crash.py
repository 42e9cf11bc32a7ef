"""A run that is killed at any moment goes on and ends with the same bits as one that never was."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RECIPE = "digits-lt-gkp-gsa"
SMALL = {
    "model.width": 4,
    "training.checkpoint_every": 1,
    "training.epochs": 5,
    "training.milestones": [4],
    "groups.start_epoch": 1,
    "groups.period": 2,
    "groups.count": 3,
    "gsa.global_gradient": '"project-ema"',
}
# Children of a process that has imported the package already: a start then takes milliseconds, not seconds.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["landscape_lab.train", "landscape_lab.cli", "sklearn.cluster"])


def half(path: str) -> None:
    """Leave half of the temporary file, as a kill in the middle of a write would."""
    os.truncate(path, os.path.getsize(path) // 2)


def die_at(owner: Any, name: str, count: int, when: Callable[..., bool], before: Callable[..., None]) -> None:
    """Kill this process at the ``count``-th call of a function that meets a condition, with nothing cleaned up."""
    original, seen = getattr(owner, name), 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal seen
        seen += when(*args)
        if seen == count and when(*args):
            before(*args)
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, wrapped)


def child(out: str, moment: str | None, count: int) -> None:
    import torch

    from landscape_lab import files
    from landscape_lab.cli import main

    torch.set_num_threads(1)
    if moment == "step":
        die_at(torch.optim.SGD, "step", count, lambda *_: True, lambda *_: None)
    elif moment is not None:
        write = moment != "metrics"
        die_at(
            files.os, "replace", count, lambda _, target: moment in str(target),
            lambda source, _: half(source) if write else None,
        )  # fmt: skip
    settings = [part for field, value in SMALL.items() for part in ("--set", f"{field}={value}")]
    sys.argv = ["landscape-lab", "train", RECIPE, *settings, "--out", out]
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    main()


def start(out: Path, moment: str | None = None, count: int = 0) -> Any:
    process = CONTEXT.Process(target=child, args=(str(out), moment, count))
    process.start()
    return process


def train(out: Path, moment: str | None = None, count: int = 0) -> int:
    process = start(out, moment, count)
    process.join(120)
    return int(process.exitcode)


def bits(run: Path) -> dict[str, bytes]:
    """Everything that must not depend on interruptions: checkpoints, metrics, recipe."""
    files = [*sorted((run / "checkpoints").iterdir()), run / "metrics.jsonl", run / "recipe.toml"]
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    run = tmp_path_factory.mktemp("whole") / "run"
    assert train(run) == 0
    assert len(bits(run)) == 6 + 2  # the initialisation and five epochs
    return bits(run)


@pytest.mark.parametrize(
    ("moment", "count"),
    [("step", 1), ("step", 40), ("checkpoints", 1), ("checkpoints", 4), ("state", 3), ("bank-", 2), ("metrics", 5),
     ("run.json", 1), ("run.json", 6), ("run.json", 7), ("recipe", 1)],
)  # fmt: skip
def test_killed_at_a_chosen_moment(tmp_path: Path, whole: dict[str, bytes], moment: str, count: int) -> None:
    run = tmp_path / "run"
    assert train(run, moment, count) == -signal.SIGKILL
    assert train(run) == 0
    assert {name: whole[name] == content for name, content in bits(run).items()} == dict.fromkeys(whole, True)
    assert not [path for path in run.rglob("*") if path.name.endswith(".tmp")]
    assert not (run / "resume").exists()


def test_killed_at_random_moments(tmp_path: Path, whole: dict[str, bytes]) -> None:
    """Killed again and again, at times that nobody chose, and then let be."""
    run = tmp_path / "run"
    kills = 0
    for _ in range(7):
        process = start(run)
        process.join(random.uniform(0.2, 1.6))
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
    assert kills >= 5
    assert train(run) == 0
    assert {name: whole[name] == content for name, content in bits(run).items()} == dict.fromkeys(whole, True)
