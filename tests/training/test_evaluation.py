"""Evaluation of a split: class by class, in evaluation mode, whatever the batches."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from training_cases import batch, smooth_net

from landscape_lab.training.epoch_log import EpochLog
from landscape_lab.training.evaluation import assess, shot_accuracies

TARGETS = [0, 1, 2, 3, 5, 0, 0, 1, 0, 5, 3]  # none of class 4


def test_by_class_and_independent_of_the_batches() -> None:
    model = smooth_net().float()
    images, targets = batch(1, TARGETS)
    images = images.float()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ticks: list[int] = []
    parts = list(zip(images.split(4), targets.split(4), strict=True))
    result = assess(model, parts, 6, progress=ticks.append)
    assert ticks == [1, 1, 1]
    assert model.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())

    model.eval()
    with torch.no_grad():
        features = model.encoder(images)
        logits = model.classifier(features)
        losses = F.cross_entropy(logits, targets, reduction="none")
    assert torch.allclose(result.features, features)
    assert torch.equal(result.targets, targets)
    assert result.counts == [4, 2, 1, 2, 0, 2]
    for c in range(6):
        if c == 4:
            assert math.isnan(result.accuracy[c])
            assert math.isnan(result.loss[c])
        else:
            own = targets == c
            assert result.accuracy[c] == (logits[own].argmax(1) == c).double().mean().item()
            assert result.loss[c] == pytest.approx(losses[own].mean().item(), rel=1e-6)
    assert result.mean_loss == pytest.approx(losses.mean().item(), rel=1e-6)


@pytest.mark.parametrize("normalised", [False, True])
def test_quality_is_equations_17_to_19(normalised: bool) -> None:
    images, targets = batch(1, TARGETS)
    result = assess(smooth_net(), [(images, targets)], 6)
    features = F.normalize(result.features, dim=1) if normalised else result.features
    means = {c: features[targets == c].mean(0) for c in set(TARGETS)}
    for form, beta in (("difference", 0.5), ("reciprocal", 1.0)):
        quality = result.quality(form, beta, normalised)
        assert math.isnan(quality[4])
        for c, mean in means.items():
            if TARGETS.count(c) == 1:
                continue  # the variance is zero; only its floor is left
            distance = min((mean - other).norm().item() for d, other in means.items() if d != c)
            variance = (features[targets == c] - mean).square().sum(1).mean().item()
            first = distance if form == "difference" else -1 / distance
            assert quality[c] == pytest.approx(first - beta * math.log(variance), rel=1e-4)


def test_no_batches() -> None:
    with pytest.raises(ValueError, match="no batches"):
        assess(smooth_net(), [], 6)


def test_shot_accuracies_weigh_classes_alike() -> None:
    accuracy = [0.5, 1.0, 0.0, 0.25]
    groups = {"many": (0, 1), "few": (2, 3), "none": ()}
    assert shot_accuracies(accuracy, groups) == {"many": 0.75, "few": 0.125, "none": None}


def test_epoch_log_weighs_samples_for_losses_and_steps_for_norms() -> None:
    log = EpochLog(torch.device("cpu"))
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0]])
    log.add(torch.tensor([1.0, 2.0, 3.0]), logits, torch.tensor([0, 0, 0]), torch.tensor(4.0), torch.tensor(1.0))
    log.add(torch.tensor([10.0]), logits[:1], torch.tensor([1]), torch.tensor(0.0), torch.tensor(0.0))
    means = log.means()
    assert means == pytest.approx(
        {"loss": 4.0, "accuracy": 0.5, "loss_gradient": 2.0, "penalty_gradient": 0.5, "ratio": 0.125}
    )
