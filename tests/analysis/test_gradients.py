from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from analysis_cases import Case, cross_entropy
from torch import Tensor, nn

from landscape_lab.analysis.gradients import gradient_similarity
from landscape_lab.errors import InputError
from landscape_lab.parameters import ParameterSpace


def naive(case: Case, batch_size: int, label: int, prefix: str = "") -> list[float]:
    """The cosines of one class, by a forward and a backward pass of its samples alone."""

    def gradient(inputs: Tensor, targets: Tensor) -> Tensor:
        model = copy.deepcopy(case.model).eval()
        F.cross_entropy(model(inputs), targets).backward()
        named = [p for name, p in model.named_parameters() if p.grad is not None and name.startswith(prefix)]
        return torch.cat([p.grad.flatten() for p in named])

    cosines = []
    for inputs, targets in zip(case.inputs.split(batch_size), case.targets.split(batch_size), strict=True):
        member = targets == label
        if member.any():
            ours, whole = gradient(inputs[member], targets[member]), gradient(inputs, targets)
            cosines.append(float(F.cosine_similarity(ours, whole, dim=0)))
    return cosines


@pytest.mark.parametrize("classes", [None, [0, 1, 2], [2], [1, 0]])
@pytest.mark.parametrize("batch_size", [5, 24])
def test_against_a_backward_pass_for_each_class(conv: Case, classes: list[int] | None, batch_size: int) -> None:
    done: list[int] = []
    result = gradient_similarity(
        conv.model, cross_entropy, conv.batches, classes, batch_size=batch_size, progress=done.append
    )
    assert result.classes == tuple(classes or (0, 1, 2))
    assert result.batches == len(done) == math.ceil(24 / batch_size)
    for k, label in enumerate(result.classes):
        cosines = torch.tensor(naive(conv, batch_size, label), dtype=torch.float64)
        assert int(result.present[k]) == len(cosines)
        assert float(result.mean[k]) == pytest.approx(float(cosines.mean()), rel=1e-10)
        if len(cosines) > 1:
            assert float(result.std[k]) == pytest.approx(float(cosines.std()), rel=1e-8)
            assert float(result.stderr[k]) == pytest.approx(float(cosines.std()) / len(cosines) ** 0.5)
        else:
            assert result.std[k].isnan()


def test_absent_classes_are_counted_and_skipped(conv: Case) -> None:
    order = conv.targets.argsort()
    sorted_case = Case(conv.model, conv.inputs[order], conv.targets[order])
    result = gradient_similarity(conv.model, cross_entropy, sorted_case.batches, [0, 1, 2, 9], batch_size=9)
    # In order: 9 of class 0; 5 of class 0 and 4 of class 1; 3 of class 1 and 3 of class 2.
    assert result.present.tolist() == [2, 2, 1, 0]
    assert result.batches == 3
    assert result.mean[3].isnan()
    mixed = naive(sorted_case, 9, 0)[1]
    assert float(result.mean[0]) == pytest.approx((1.0 + mixed) / 2)  # alone, a class is the whole batch
    assert result.std.isnan().tolist() == [False, False, True, True]


def test_part_of_the_parameters(conv: Case) -> None:
    encoder = ParameterSpace(conv.model, where=lambda name: name.startswith("conv"))
    result = gradient_similarity(conv.model, cross_entropy, conv.batches, [2], parameters=encoder, batch_size=8)
    cosines = naive(conv, 8, 2, "conv")
    assert float(result.mean[0]) == pytest.approx(sum(cosines) / len(cosines))


def test_training_mode_does_not_matter(conv: Case) -> None:
    results = [gradient_similarity(conv.model.train(mode), cross_entropy, conv.batches).mean for mode in (True, False)]
    assert torch.equal(*results)


def test_a_zero_gradient_counts_as_zero() -> None:
    model = nn.Linear(2, 1, bias=False)
    data = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1])
    result = gradient_similarity(model, lambda output, target: output[:, 0], data)
    assert result.mean.tolist() == [1.0, 0.0]


def test_bad_input(conv: Case) -> None:
    with pytest.raises(InputError, match="no classes"):
        gradient_similarity(conv.model, cross_entropy, conv.batches, [])
    with pytest.raises(InputError, match="holds no samples"):
        gradient_similarity(conv.model, cross_entropy, (conv.inputs[:0], conv.targets[:0]))
    with pytest.raises(InputError, match="reduction='none'"):
        gradient_similarity(conv.model, nn.CrossEntropyLoss(), conv.batches)
