"""Largest eigenvalues at equal numbers of samples: dense Hessians, and intervals that hold what they promise."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from command_line import trained  # noqa: F401

from landscape_lab.errors import InputError
from landscape_lab.run import Run
from landscape_lab.studies import Study
from landscape_lab.studies.equal_sizes import EqualSizes, equal_sizes, equal_sizes_cost, log_ratio


def of_draws(draws: torch.Tensor, counts: tuple[int, ...], size: int) -> EqualSizes:
    two = torch.ones(2, dtype=torch.float64)
    return EqualSizes(tuple(range(len(counts))), counts, size, draws, ("head", "tail"), (1, 1), two, two, two, two, 0)


@pytest.mark.parametrize("counts", [(8, 60), (14, 212)])
def test_the_interval_holds_the_truth(counts: tuple[int, int]) -> None:
    """Means of skewed samples, one law for both classes: the true ratio of typical values is 1."""
    stream = torch.Generator().manual_seed(0)
    size = min(counts) // 2
    inside, alarms, rounds = 0, 0, 400
    for _ in range(rounds):
        rows = []
        for count in counts:
            values = torch.randn(count, generator=stream, dtype=torch.float64).exp()
            parts = [values[torch.randperm(count, generator=stream)[:size]].mean() for _ in range(8)]
            rows.append(torch.stack(parts))
        found, _ = log_ratio(of_draws(torch.stack(rows), counts, size), [0], [1])
        inside += found.low <= 0 <= found.high
        alarms += found.low > 0
    assert inside / rounds >= 0.9  # 0.92 for eight samples
    assert alarms / rounds <= 0.04


def test_the_error_is_the_one_of_the_formula() -> None:
    draws = torch.tensor([[1.0, 2.0, 4.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    found, freedom = log_ratio(of_draws(draws, (10, 20), 5), [0], [1])
    spread = math.log(2) ** 2
    assert found.value == pytest.approx(math.log(2))
    assert found.stderr == pytest.approx(math.sqrt(spread / 3 + spread))  # m/n = 1/2
    assert freedom == pytest.approx(2)


def test_classes_that_were_not_measured_give_no_number() -> None:
    found, _ = log_ratio(of_draws(torch.ones(2, 3, dtype=torch.float64), (10, 20), 5), [7], [1])
    assert math.isnan(found.value)


def test_a_runs_eigenvalues_are_those_of_dense_hessians(trained: Path) -> None:
    study = Study(Run.open(trained), torch.device("cpu"))
    study.epoch()
    before = {name: tensor.clone() for name, tensor in study.model.state_dict().items()}
    done: list[int] = []
    found = equal_sizes(study, draws=2, samples=20, progress=done.append)
    assert found.classes == tuple(range(10))
    assert found.size == 3
    assert found.samples == (20, 14)
    assert sum(done) > 0
    assert equal_sizes_cost(study) > 0
    for name, tensor in study.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.grad is None for parameter in study.model.parameters())
    # The dense Hessian of the classifier's block bounds the largest eigenvalue from below (Cauchy's interlacing).
    inputs, targets = study.samples("tail")
    study.model.eval()
    with torch.no_grad():
        features = study.model.encoder(inputs).double()
    weight = study.model.classifier.weight.detach().double()
    bias = study.model.classifier.bias.detach().double()

    def loss(flat: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(features @ flat.reshape(weight.shape).T + bias, targets)

    block = torch.autograd.functional.hessian(loss, weight.flatten())
    assert float(found.highest[1]) >= float(torch.linalg.eigvalsh(block)[-1]) * (1 - 1e-4)
    with torch.no_grad():
        losses = F.cross_entropy(study.model(inputs), targets, reduction="none").double()
    assert float(found.losses[1]) == pytest.approx(float(losses.mean()), rel=1e-5)
    assert float(found.loss_stderr[1]) == pytest.approx(float(losses.std() / 14**0.5), rel=1e-5)
    again = equal_sizes(study, draws=2, samples=20, progress=lambda _: pytest.fail("not found again"))
    assert torch.equal(again.draws, found.draws)


def test_classes_too_small_are_refused(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study(Run.open(trained), torch.device("cpu"))
    monkeypatch.setattr("landscape_lab.studies.equal_sizes.FEWEST", 100)
    with pytest.raises(InputError, match="needs two classes with 100 samples"):
        equal_sizes(study)
