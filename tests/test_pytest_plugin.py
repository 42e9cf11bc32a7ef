"""The pytest plugin, in test sessions of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from landscape_lab.guard import GuardSettings, draw, measure

pytest_plugins = ["pytester"]

MODEL = """
import torch, pytest
from torch import nn
SHARPER = {sharper}

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 5, generator=generator) / SHARPER**0.5)
    def forward(self, x):
        return x @ (SHARPER**0.5 * self.weight).T

def data():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(60, 5, generator=generator), torch.arange(60) % 3

def test_it(sharpness):
    found = sharpness.check(
        Net(), data(), nn.CrossEntropyLoss(), classes={{"tail": [2], "all": [0, 1, 2]}}, {options}
        metrics=("lambda_max", "trace"), probes=4, whole=True,
    )
"""


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """Measure something first: a session within takes back what it imported, and torch cannot be loaded twice."""
    import landscape_lab.guard.baseline
    import landscape_lab.guard.formats
    import landscape_lab.guard.guarding
    import landscape_lab.target  # noqa: F401

    inputs, targets = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 2
    data = draw(inputs, targets, targets)
    measure(nn.Linear(2, 2), nn.CrossEntropyLoss(), data, {"all": (0, 1)}, GuardSettings(metrics=("lambda_max",)))


@pytest.fixture
def session(pytester: pytest.Pytester):
    def run(*arguments: str, sharper: float = 1.0, options: str = "") -> pytest.RunResult:
        pytester.makepyfile(test_net=MODEL.format(sharper=sharper, options=options))
        return pytester.runpytest_inprocess("-p", "landscape_lab.pytest_plugin", "-p", "no:cacheprovider", *arguments)

    return run


def test_a_baseline_is_written_kept_and_guarded(session, pytester: pytest.Pytester) -> None:
    result = session()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*there is no baseline *test_net-test_it.json*pytest --landscape-update*"])
    session("--landscape-update").assert_outcomes(passed=1)
    written = (pytester.path / "landscape" / "test_net-test_it.json").read_bytes()
    session().assert_outcomes(passed=1)
    session(sharper=1.2).assert_outcomes(passed=1)
    sharper = session(sharper=1.5)
    sharper.assert_outcomes(failed=1)
    sharper.stdout.fnmatch_lines(["*worse than the baseline: 4 of 4 numbers*", "*largest eigenvalue*of tail*+50 %*"])
    session(sharper=1.5, options="tolerance='60%',").assert_outcomes(passed=1)
    assert (pytester.path / "landscape" / "test_net-test_it.json").read_bytes() == written


def test_other_samples_and_wrong_settings_fail_in_one_line(session, pytester: pytest.Pytester) -> None:
    session("--landscape-update").assert_outcomes(passed=1)
    source = MODEL.format(sharper=1.0, options="").replace("manual_seed(1)", "manual_seed(2)")
    pytester.makepyfile(test_net=source)
    result = pytester.runpytest_inprocess("-p", "landscape_lab.pytest_plugin", "-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(["*other data: the inputs are not the same*"])
    session(options="speed=3,").stdout.fnmatch_lines(["*no setting 'speed'*"])


def test_nothing_is_imported_before_it_is_used() -> None:
    code = "import landscape_lab.pytest_plugin, sys; print(sorted({'torch', 'numpy', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_it_is_registered() -> None:
    from importlib.metadata import entry_points

    assert [point.value for point in entry_points(group="pytest11") if "landscape" in point.name] == [
        "landscape_lab.pytest_plugin"
    ]
