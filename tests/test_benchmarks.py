"""The statistics of the benchmarks."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats


@pytest.fixture(scope="module")
def cheap_forms() -> ModuleType:
    path = Path(__file__).resolve().parent.parent / "benchmarks" / "cheap_forms.py"
    spec = importlib.util.spec_from_file_location("cheap_forms", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_paired_test_is_scipys_and_its_power_is_what_simulation_finds(cheap_forms: ModuleType) -> None:
    generator = np.random.default_rng(0)
    form, exact = generator.normal(1, 1, 5).tolist(), generator.normal(0, 1, 5).tolist()
    found, other = cheap_forms.compare(form, exact), stats.ttest_rel(form, exact)
    assert found.p == pytest.approx(other.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(other.confidence_interval()))
    spread, limit = np.std(np.subtract(form, exact), ddof=1), stats.t.ppf(0.975, 4)
    for shift, power in ((np.std(exact, ddof=1), found.power), (found.detectable, 0.8)):
        draws = generator.normal(shift, spread, (40_000, 5))
        t = draws.mean(1) / (draws.std(1, ddof=1) / np.sqrt(5))
        assert np.mean(np.abs(t) > limit) == pytest.approx(power, abs=0.01)  # its standard error is 0.0025


def test_equal_runs_do_not_differ(cheap_forms: ModuleType) -> None:
    found = cheap_forms.compare([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert (found.mean, found.p) == (0, 1)
