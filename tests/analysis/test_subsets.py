from __future__ import annotations

import pytest
import torch
from analysis_cases import Case, cross_entropy
from torch import Tensor, nn

from landscape_lab.analysis.operators import MATRICES, Combination, Fisher, GaussNewton
from landscape_lab.analysis.subsets import SubsetOperators, data_errors, subset_spectra, subset_traces
from landscape_lab.errors import InputError

EACH = {str(c): [c] for c in range(5)}
SUBSETS = {**EACH, "head": [0, 1], "tail": [3, 4], "all": [0, 1, 2, 3, 4]}


@pytest.fixture(scope="module")
def operators(mlp: Case) -> SubsetOperators:
    return SubsetOperators(mlp.model, cross_entropy, mlp.batches, SUBSETS)


def dense(case: Case, classes: list[int]) -> Tensor:
    H = case.dense(torch.isin(case.targets, torch.tensor(classes)))
    return (H + H.T) / 2


def test_every_subset_has_its_own_samples(mlp: Case, operators: SubsetOperators) -> None:
    assert operators.atoms == ((0,), (1,), (2,), (3,), (4,))
    v = torch.randn(443, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for name, classes in SUBSETS.items():
        torch.testing.assert_close(operators[name] @ v, dense(mlp, classes) @ v)
        assert operators[name].samples == int(torch.isin(mlp.targets, torch.tensor(classes)).sum())
    assert list(operators) == list(SUBSETS)
    assert len(operators) == 8


def test_classes_that_no_subset_tells_apart_stay_together(mlp: Case) -> None:
    some = SubsetOperators(mlp.model, cross_entropy, mlp.batches, {"head": [0, 1], "rest": [1, 2, 3]})
    assert some.atoms == ((0,), (1,), (2, 3))  # class 4 is in none
    assert isinstance(some["head"], Combination)
    torch.testing.assert_close(some["rest"] @ torch.ones(443).double(), dense(mlp, [1, 2, 3]).sum(1))


def test_weighted_means_and_sums_weigh_classes_alike(mlp: Case) -> None:
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0, 50.0], dtype=torch.float64)
    v = torch.randn(443, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for reduction in ("mean", "sum"):
        loss = nn.CrossEntropyLoss(weight=weight, reduction=reduction)
        found = SubsetOperators(mlp.model, loss, mlp.batches, {**EACH, "tail": [3, 4], "all": range(5)})
        for name, classes in (("4", [4]), ("tail", [3, 4]), ("all", range(5))):
            counts = [int((mlp.targets == c).sum()) for c in classes]
            expected = sum(n * float(weight[c]) * (dense(mlp, [c]) @ v) for c, n in zip(classes, counts, strict=True))
            if reduction == "mean":
                expected /= sum(n * float(weight[c]) for c, n in zip(classes, counts, strict=True))
            torch.testing.assert_close(found[name] @ v, expected)


def test_a_sample_of_each_class_stands_for_its_count(mlp: Case) -> None:
    first = torch.cat([(mlp.targets == c).nonzero()[:6, 0] for c in range(5)])
    data = mlp.inputs[first], mlp.targets[first]
    counts = {0: 700, 1: 90, 2: 20, 3: 12, 4: 8}
    found = SubsetOperators(mlp.model, cross_entropy, data, {"tail": [3, 4], "all": range(5)}, counts=counts)
    assert found.atoms == ((0,), (1,), (2,), (3,), (4,))
    few = Case(mlp.model, *data)
    v = torch.ones(443, dtype=torch.float64)
    expected = sum(counts[c] * (dense(few, [c]) @ v) for c in range(5)) / sum(counts.values())
    torch.testing.assert_close(found["all"] @ v, expected)


@pytest.mark.parametrize("matrix", MATRICES)
def test_each_kind_of_matrix(mlp: Case, matrix: str) -> None:
    found = SubsetOperators(mlp.model, cross_entropy, mlp.batches, {"tail": [3, 4]}, operator=matrix)
    assert found.name == found["tail"].name == matrix
    if matrix == "ggn":
        member = mlp.targets >= 3
        own = GaussNewton(mlp.model, cross_entropy, (mlp.inputs[member], mlp.targets[member]))
        v = torch.ones(443, dtype=torch.float64)
        torch.testing.assert_close(found["tail"] @ v, own @ v)
    assert isinstance(found.atom_operators[0], Fisher) == matrix.startswith("fisher")


# -- traces ----------------------------------------------------------------------------------------------------------


def test_shared_probes_estimate_every_trace_without_bias(mlp: Case, operators: SubsetOperators) -> None:
    exact = {name: float(dense(mlp, classes).trace()) for name, classes in SUBSETS.items()}
    runs = [subset_traces(operators, products=20, seed=seed) for seed in range(40)]
    for name, value in exact.items():
        found = torch.tensor([run[name].value for run in runs]).double()
        assert abs(float(found.mean()) - value) < 4 * float(found.std()) / 40**0.5
        covered = sum(run[name].low <= value <= run[name].high for run in runs)
        assert covered >= 34, name
        stated = torch.tensor([run[name].stderr for run in runs]).square().mean().sqrt()
        assert 0.6 < float(stated / found.std()) < 1.6


def test_traces_of_unions_add_up_exactly(operators: SubsetOperators) -> None:
    done: list[int] = []
    found = subset_traces(operators, products=25, progress=done.append)
    assert sum(done) == 25
    counts = {name: operators[name].samples for name in operators}
    for union, parts in (("head", "01"), ("tail", "34"), ("all", "01234")):
        expected = sum(counts[c] * found[c].samples for c in parts) / counts[union]
        torch.testing.assert_close(found[union].samples, expected)
    assert {(one.method, one.products, len(one.samples)) for one in found.values()} == {("deflated", 25, 15)}


def test_traces_with_few_parameters_are_exact() -> None:
    torch.manual_seed(0)
    X, y, model = torch.randn(20, 3).double(), torch.arange(20) % 2, nn.Linear(3, 2).double()
    found = subset_traces(
        SubsetOperators(model, cross_entropy, (X, y), {"0": [0], "1": [1], "all": [0, 1]}), products=9
    )
    for name, classes in (("0", [0]), ("1", [1]), ("all", [0, 1])):
        value = float(dense(Case(model, X, y), classes).trace())
        assert found[name].value == pytest.approx(value, rel=1e-12)
        assert (found[name].stderr, found[name].method) == (0.0, "exact")


def test_products_are_spent_until_the_error_is_reached(operators: SubsetOperators) -> None:
    found = subset_traces(operators, error=0.05, max_products=400)
    assert all(one.stderr <= 0.05 * abs(one.value) for one in found.values())
    spent = {one.products for one in found.values()}
    assert len(spent) == 1
    assert 30 < spent.pop() < 400
    short = subset_traces(operators, error=1e-6, max_products=41)
    assert {one.products for one in short.values()} == {41}
    with pytest.raises(InputError, match="error must be positive"):
        subset_traces(operators, error=0.0)
    with pytest.raises(InputError, match="need 4"):
        subset_traces(operators, products=3)


# -- spectra ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [0, 60])
def test_spectra_of_all_subsets(mlp: Case, operators: SubsetOperators, density: int) -> None:
    done: list[int] = []
    order: list[str] = []
    found = subset_spectra(
        operators,
        density_products=density,
        progress=done.append,
        done=lambda name, spectrum: order.append(name),
        keep_vectors=True,
    )
    assert order == list(SUBSETS) == list(found)
    assert sum(done) > 0
    for name, classes in SUBSETS.items():
        H, one = dense(mlp, classes), found[name]
        values = torch.linalg.eigvalsh(H)
        assert abs(one.lambda_max - float(values[-1])) <= one.lambda_max_residual + 1e-9
        assert abs(one.lambda_min - float(values[0])) <= one.lambda_min_residual + 1e-9
        assert one.lambda_max <= float(values[-1]) + 1e-9 <= one.lambda_max_upper + 2e-9
        assert abs(one.trace.value - float(H.trace())) < 6 * one.trace.stderr
        assert (one.density is None) == (density == 0)
        assert one.samples == operators[name].samples
        assert one.vectors is not None
        assert float((H @ one.vectors[:, 0] - one.lambda_max * one.vectors[:, 0]).norm()) < 1e-2 * float(values[-1])


def test_a_warm_start_spends_less_and_finds_the_same(operators: SubsetOperators) -> None:
    cold = subset_spectra(operators, density_products=0, keep_vectors=True)
    starts = {name: one.vectors for name, one in cold.items() if one.vectors is not None}
    warm = subset_spectra(operators, density_products=0, starts=starts, seed=1)
    assert sum(one.products for one in warm.values()) < sum(one.products for one in cold.values())
    for name in SUBSETS:
        assert warm[name].lambda_max == pytest.approx(cold[name].lambda_max, rel=2e-3)


def test_memory_goes_to_the_subset_at_hand(mlp: Case) -> None:
    whole = SubsetOperators(mlp.model, cross_entropy, mlp.batches, SUBSETS)
    limit = whole._bytes // 2
    tight = SubsetOperators(mlp.model, cross_entropy, mlp.batches, SUBSETS, memory_limit=limit)
    v = torch.ones(443, dtype=torch.float64)
    torch.testing.assert_close(tight["all"] @ v, whole["all"] @ v)
    tight.focus("tail")
    assert [bool(op._graphs) for op in tight.atom_operators[:3]] == [False] * 3
    _ = tight["tail"] @ v
    assert all(op._graphs for op in tight.atom_operators[3:])


def test_the_draw_of_the_samples_has_an_error_of_its_own(mlp: Case, operators: SubsetOperators) -> None:
    spectrum = subset_spectra(operators, density_products=0, resamples=500)["all"]
    assert spectrum.vectors is None
    assert spectrum.data is not None
    # Literally: draw samples again, and compute the matrix's trace and largest eigenvalue each time.
    forms = torch.stack([dense_of_one(mlp, i) for i in range(len(mlp.targets))])
    generator = torch.Generator().manual_seed(3)
    traces, tops = [], []
    for _ in range(60):
        draw = torch.randint(0, len(forms), (len(forms),), generator=generator)
        H = forms[draw].mean(0)
        traces.append(float(H.trace()))
        tops.append(float(torch.linalg.eigvalsh(H)[-1]))
    assert spectrum.data.trace == pytest.approx(float(torch.tensor(traces).std()), rel=0.4)
    assert spectrum.data.lambda_max == pytest.approx(float(torch.tensor(tops).std()), rel=0.4)


def test_a_draw_that_the_probes_drown_is_bounded_not_zero() -> None:
    """Samples that are all alike have no spread, but eight random vectors cannot know."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3)).double()
    X, y = torch.randn(1, 6).double().expand(20, 6), torch.zeros(20, dtype=torch.long)
    operators = SubsetOperators(model, cross_entropy, (X, y), {"0": [0]})
    found = data_errors(operators["0"], torch.eye(93, 2).double(), probes=8, resamples=100)
    assert found.lambda_max == pytest.approx(0, abs=1e-12)
    assert found.trace == pytest.approx(0, abs=1e-9)  # not even the vectors tell equal samples apart
    unequal = torch.cat([X, X[:1] + 1e-3 * torch.randn(20, 6).double()])
    operators = SubsetOperators(model, cross_entropy, (unequal, torch.zeros(40, dtype=torch.long)), {"0": [0]})
    assert 0 < data_errors(operators["0"], torch.eye(93, 2).double(), probes=2, resamples=100).trace < 1e-2


def dense_of_one(case: Case, i: int) -> Tensor:
    return case.dense(torch.tensor([i]))


def test_bad_input(mlp: Case) -> None:
    with pytest.raises(InputError, match="'far' holds no samples"):
        SubsetOperators(mlp.model, cross_entropy, mlp.batches, {"far": [9]})
    with pytest.raises(InputError, match="one integer a sample"):
        SubsetOperators(mlp.model, cross_entropy, (mlp.inputs, torch.randn(150)), {"0": [0]})
    with pytest.raises(ValueError, match="operator must be one of"):
        SubsetOperators(mlp.model, cross_entropy, mlp.batches, {"0": [0]}, operator="kfac")
