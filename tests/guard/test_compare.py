"""Verdicts: against other libraries, by simulation, and on models that are known to be sharper."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from guard_cases import trained, twin
from guard_fixtures import everything, made_up, measured
from scipy import stats

from landscape_lab.analysis.multiplicity import holm
from landscape_lab.errors import InputError
from landscape_lab.guard import METRICS, GuardSettings, Measurement, Tolerance, compare, tolerances_of
from landscape_lab.guard.variance import Spread, added, chance, probe_spread, sample_spread

USUAL = tolerances_of([])


def test_the_test_is_students() -> None:
    assert chance(1.3, Spread(0.25, 7)) == pytest.approx(stats.t.sf(2.6, 7))
    assert chance(-1.0, Spread(0.0)) == 1.0
    assert chance(1.0, Spread(math.inf, 1)) == 1.0


def test_paired_probes_are_scipys_paired_test() -> None:
    generator = torch.Generator().manual_seed(0)
    old, new = torch.randn(2, 12, generator=generator, dtype=torch.float64)
    spread = probe_spread([new - old])
    expected = stats.ttest_rel(new.numpy(), old.numpy(), alternative="greater").pvalue
    assert chance(float((new - old).mean()), spread) == pytest.approx(expected)


def test_welchs_degrees_of_freedom() -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(9, generator=generator).double(), 3 * torch.randn(14, generator=generator).double()
    spread = added(probe_spread([x]), probe_spread([y]))
    expected = stats.ttest_ind(x.numpy(), y.numpy(), equal_var=False, alternative="greater").pvalue
    assert chance(float(x.mean() - y.mean()), spread) == pytest.approx(expected)


def test_the_draw_of_classes() -> None:
    values = torch.tensor([1.0, 3.0, 8.0, 2.0, 5.0, 5.0, 9.0])
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 3])
    # Class 1 was drawn whole; classes 2 and 3 have one sample each and are put together.
    spread = sample_spread(values, labels, {0: 0.5, 1: 0.0, 2: 1.0, 3: 1.0})
    first, alone = float(values[:3].var()), (5 - 7) ** 2 + (9 - 7) ** 2
    assert spread.variance == pytest.approx(0.5 * first / 3 + 2 * alone)
    assert sample_spread(values, labels, {0: 0.0, 1: 0.0, 2: 1.0}).variance == math.inf


def test_holm_is_the_literal_procedure() -> None:
    generator = torch.Generator().manual_seed(2)
    for _ in range(20):
        chances = torch.rand(7, generator=generator).pow(3).tolist()
        for level in (0.01, 0.05, 0.3):
            rejected = set()
            for rank, place in enumerate(sorted(range(7), key=chances.__getitem__)):
                if chances[place] > level / (7 - rank):
                    break
                rejected.add(place)
            assert {k for k, value in holm(dict(enumerate(chances))).items() if value <= level} == rejected


@pytest.mark.parametrize(
    ("ratio", "tolerance", "least", "most"), [(1.0, 0.0, 0.0, 0.065), (1.25, 0.25, 0.0, 0.065), (1.5, 0.25, 0.95, 1.0)]
)
def test_alarms_of_numbers_with_known_errors(ratio: float, tolerance: float, least: float, most: float) -> None:
    """A trace of 10 whose probes and samples spread, measured again as ``ratio`` times as large by other probes."""
    generator = torch.Generator().manual_seed(3)
    alarms, runs = 0, 600
    for _ in range(runs):
        shared = torch.randn(80, generator=generator, dtype=torch.float64)

        def draw_of(scale: float, shared: torch.Tensor = shared) -> Measurement:
            own = torch.randn(80, generator=generator, dtype=torch.float64)
            influences = scale * (10 + 3 * shared + 1.5 * own)
            probes = influences.mean() + scale * torch.randn(24, generator=generator, dtype=torch.float64)
            return made_up(float(probes.mean()), probes, influences)

        limits = {**USUAL, "trace": Tolerance(tolerance, relative=True)}
        alarms += compare(draw_of(1.0), draw_of(ratio), limits).outcome == "fail"
    assert least <= alarms / runs <= most


def test_the_same_model_passes_even_without_tolerance(quick: Measurement) -> None:
    again = measured(trained(0), everything())
    assert compare(quick, again, {name: Tolerance(0.0, relative=True) for name in METRICS}).outcome == "pass"


def test_a_twin_that_is_as_sharp_does_not_fail_and_one_that_is_sharper_does(quick: Measurement) -> None:
    net, data = trained(0), everything()
    settings = GuardSettings(metrics=("lambda_max", "trace"), probes=12)
    before = measured(net, data, settings)
    for sharper, outcome in ((1.0, "pass"), (1.2, "pass"), (1.5, "fail"), (0.5, "pass")):
        other = twin(net, 7, sharper)
        with torch.no_grad():  # not turned: on these very samples it is exactly so sharp
            order = torch.cdist(other.first.bias[:, None] * sharper**0.5, net.first.bias[:, None]).argmin(1)
            other.first.weight.copy_(net.first.weight[order] / sharper**0.5)
        found = compare(before, measured(other, data, settings), USUAL)
        largest = [one for one in found.verdicts if one.metric == "lambda_max"]
        assert [one.outcome for one in largest] == [outcome] * 3
        assert [one.change for one in largest] == pytest.approx([sharper] * 3, rel=1e-4)
        assert (found.outcome == "fail") == (outcome == "fail")


def test_less_quality_is_worse() -> None:
    influences = torch.linspace(-1, 1, 50, dtype=torch.float64)
    before, worse, better = (made_up(value, torch.zeros(0), influences, "quality") for value in (-1.0, -1.4, -0.2))
    assert compare(before, worse, USUAL).outcome == "fail"
    assert compare(before, better, USUAL).outcome == "pass"
    assert compare(before, made_up(-1.24, torch.zeros(0), influences + 0.1, "quality"), USUAL).outcome == "pass"


def test_unsure_where_the_interval_holds_both() -> None:
    probes = torch.tensor([8.0, 12.0, 9.0, 11.0], dtype=torch.float64)
    found = compare(made_up(10.0, probes), made_up(12.5, probes.flip(0) + 2.5), USUAL)
    assert found.outcome == "inconclusive"
    assert "probes" in found.verdicts[0].reason
    assert found.verdicts[0].low < 1.25 < found.verdicts[0].high


def test_a_trace_that_is_negative() -> None:
    probes = torch.tensor([-10.1, -9.9, -10.0, -10.0], dtype=torch.float64)
    assert compare(made_up(-10.0, probes), made_up(-12.0, probes - 2), USUAL).outcome == "pass"
    assert compare(made_up(-10.0, probes), made_up(5.0, probes + 15), USUAL).outcome == "fail"


def test_more_looks_make_each_stricter() -> None:
    probes = torch.tensor([9.0, 11.0, 9.5, 10.5, 10.0], dtype=torch.float64)
    new = torch.tensor([16.0, 14.0, 17.5, 12.5, 16.5], dtype=torch.float64)
    one, many = (compare(made_up(10.0, probes), made_up(15.3, new), USUAL, looks=looks) for looks in (1, 50))
    assert (one.outcome, many.outcome) == ("fail", "inconclusive")


def test_a_residual_is_an_error() -> None:
    nothing = torch.zeros(0, dtype=torch.float64)
    before, now = made_up(10.0, nothing), made_up(14.0, nothing)
    assert compare(before, now, USUAL).outcome == "fail"
    rough = replace(now, metrics=(replace(now.metrics[0], residual=5.0),))
    assert compare(before, rough, USUAL).outcome == "inconclusive"


@pytest.mark.parametrize("text", ["lots", "-5%", "speed=3%", "0.3", "trace=", "nan%"])
def test_wrong_tolerances_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--tolerance"):
        tolerances_of([text])


def test_tolerances() -> None:
    found = tolerances_of(["trace=50%,quality=1", "30%"])
    assert {name: str(value) for name, value in found.items()} == {
        "lambda_max": "30 %", "trace": "50 %", "average": "30 %", "epsilon": "30 %",
        "quality": "1", "similarity": "0.1",
    }  # fmt: skip
