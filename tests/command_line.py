"""The command line called in this process, and a small run to call it on: fixtures to import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from landscape_lab import cli

TINY = ["--set", "model.width=4", "--epochs", "2", "--set", "training.checkpoint_every=1"]


class Call:
    """What a call of the command line printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command line in this process."""

    def run(*arguments: str) -> Call:
        monkeypatch.setattr(sys, "argv", ["landscape-lab", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return Call(int(stop.value.code or 0), out, err)

    return run


@pytest.fixture
def refused(call: Any) -> Any:
    """Run the command line and expect one clear line, exit code 2 and no traceback."""

    def run(*arguments: str) -> str:
        got = call(*arguments)
        lines = got.err.strip().splitlines()
        assert got.code == 2, got.err
        assert lines[-1].startswith("error: ")
        assert [line for line in lines if line.startswith("error: ")] == [lines[-1]]
        assert "Traceback" not in got.err
        return str(lines[-1])

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("trained") / "run"
    command = [sys.executable, "-m", "landscape_lab", "train", "digits-lt-erm", *TINY, "--out", str(place)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return place
