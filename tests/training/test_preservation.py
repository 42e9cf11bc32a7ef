"""GKP's state: bank, groups, anchors, Fisher and penalty put together as Eq. 1 to 6 say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from training_cases import flat, plain_copy

from landscape_lab.data import Dataset, Split
from landscape_lab.models import Network, build_network
from landscape_lab.recipe import Recipe, load_recipe
from landscape_lab.training.preservation import Preservation
from landscape_lab.training.workspace import Workspace

COUNTS = [6, 5, 4, 2]


def dataset() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    targets = torch.tensor([c for c, n in enumerate(COUNTS) for _ in range(n)])
    targets = targets[torch.randperm(len(targets), generator=generator)]
    images = torch.randint(0, 256, (len(targets), 1, 8, 8), dtype=torch.uint8, generator=generator)
    split = Split(images, targets)
    return Dataset("toy", split, split, tuple("abcd"), (0.4,), (0.3,))


def recipe(**changes: Any) -> Recipe:
    settings = {"model.width": 2, "groups.count": 2, "gkp.strength": 7.0}
    return load_recipe("digits-lt-gkp", {**settings, **{key.replace("__", "."): v for key, v in changes.items()}})


def preservation(settings: Recipe) -> Preservation:
    data = dataset()
    model = build_network(settings.model, in_channels=1, num_classes=4, seed=0)
    return Preservation(Workspace(model), settings, data, data.train)


def wander(state: Preservation, qualities: list[list[float]]) -> list[Network]:
    """Move the model about and offer each place to the bank; returns a copy of each."""
    copies, generator = [], torch.Generator().manual_seed(1)
    for epoch, quality in enumerate(qualities, start=1):
        with torch.no_grad():
            state.work.theta.add_(0.05 * torch.randn(state.work.space.size, generator=generator))
            state.work.model.train()(state.dataset.normalise(state.train.images))  # running statistics
        state.remember(epoch, quality)
        copies.append(plain_copy(state.work.model))
    return copies


# Class 0 is best at epoch 1, classes 1 and 3 at epoch 2, class 2 at epoch 3.
QUALITIES = [[2.0, 1.0, 1.0, 1.0], [1.0, 3.0, 1.5, 1.5], [1.0, 1.0, 2.0, 1.0]]
BEST = [0, 1, 2, 1]


def averaged(copies: list[Network], group: tuple[int, ...], current: Network, whole: bool) -> Network:
    """Eq. 3, a copy for every class: the group's mean encoder, with the current classifier."""
    twin = plain_copy(current)
    state, stored = twin.state_dict(), [copies[BEST[c]].state_dict() for c in group]
    for name, tensor in state.items():
        if tensor.is_floating_point() and (whole or name.startswith("encoder.")):
            tensor.copy_(torch.stack([each[name].double() for each in stored]).mean(0))
    return twin.eval()


def fisher_by_loop(model: Network, images: Tensor, targets: Tensor) -> Tensor:
    total = torch.zeros(sum(parameter.numel() for parameter in model.parameters()), dtype=torch.float64)
    for image, target in zip(images, targets, strict=True):
        loss = F.cross_entropy(model(image[None]), target[None])
        total += flat(torch.autograd.grad(loss, list(model.parameters()))).double() ** 2
    return total / len(targets)


@pytest.mark.parametrize(
    ("weight", "size", "part", "normalised"),
    [
        ("one", "samples", "encoder", False),
        ("share", "samples", "encoder", False),
        ("one", "classes", "encoder", False),
        ("one", "samples", "all", False),
        ("one", "samples", "encoder", True),
        ("share", "classes", "all", True),
    ],
)
def test_the_penalty_is_equations_3_to_6(weight: str, size: str, part: str, normalised: bool) -> None:
    settings = recipe(gkp__weight=weight, groups__size=size, gkp__parameters=part, gkp__fisher_normalised=normalised)
    state = preservation(settings)
    copies = wander(state, QUALITIES)
    assert state.bank.epochs == [b + 1 for b in BEST]
    before = {name: t.clone() for name, t in state.work.model.state_dict().items()}
    state.regroup(5)
    assert all(torch.equal(t, before[name]) for name, t in state.work.model.state_dict().items())
    assert not state.work.gradient.any()
    assert state.work.model.training
    assert len(state.groups) == 2
    assert state.penalty is not None

    theta = state.work.theta[state.held].double().requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    sizes = [sum(COUNTS[c] for c in g) if size == "samples" else len(g) for g in state.groups]
    assert state.sizes == sizes
    terms = []
    for group, count in zip(state.groups, sizes, strict=True):
        model = averaged(copies, group, state.work.model, part == "all")
        split = state.train.only(group)
        fisher = fisher_by_loop(model, state.dataset.normalise(split.images), split.targets)[state.held]
        if normalised:
            fisher /= fisher.mean()
        anchor = flat(list(model.parameters()))[state.held].double()
        terms.append(7.0 / 2 / count * (fisher * (theta - anchor) ** 2).sum())
    for g, group in enumerate(state.groups):
        share = sum(COUNTS[c] for c in group) / sum(COUNTS) if weight == "share" else 1.0
        total = total + share * sum(terms[j] for j in range(2) if j != g)
    (slope,) = torch.autograd.grad(total, theta)
    assert state.penalty.value(theta.detach().float()) == pytest.approx(total.item(), rel=1e-3)
    found = state.penalty.gradient(theta.detach().float()).double()
    assert slope.norm() > 1e-3
    assert (found - slope).norm() < 1e-3 * slope.norm()


def test_the_bank_holds_the_encoder_and_its_running_statistics() -> None:
    state = preservation(recipe())
    copies = wander(state, QUALITIES)
    for epoch, model in enumerate(copies, start=1):
        parameters, statistics = state.bank.snapshots[epoch]
        assert torch.equal(parameters, flat(list(model.encoder.parameters())))
        moving = [b for name, b in model.encoder.named_buffers() if name.endswith(("_mean", "_var"))]
        assert torch.equal(statistics, flat(moving))
        assert len(moving) == 2 * 7


def test_classes_know_their_group() -> None:
    state = preservation(recipe())
    wander(state, QUALITIES)
    state.regroup(5)
    group = state.class_group()
    assert group.dtype == torch.int64
    assert [sorted((group == g).nonzero().flatten().tolist()) for g in range(2)] == [list(g) for g in state.groups]


def test_without_gkp_there_is_no_penalty() -> None:
    settings = load_recipe("digits-lt-gsa", {"model.width": 2, "groups.count": 2})
    state = preservation(settings)
    wander(state, QUALITIES)
    state.regroup(5)
    assert state.penalty is None
    assert len(state.groups) == 2


@pytest.mark.parametrize(("source", "groups"), [("frequency", ((0, 1), (2, 3))), ("random", None)])
def test_ablated_groups(source: str, groups: tuple[tuple[int, ...], ...] | None) -> None:
    state = preservation(recipe(groups__source=source))
    wander(state, QUALITIES)
    state.regroup(5)
    first = state.groups
    assert groups is None or first == groups
    assert sorted(len(group) for group in first) == [2, 2]
    state.regroup(15)
    assert state.groups == first  # an ablation's groups stay


def test_at_most_so_many_samples_for_the_fisher() -> None:
    full, some = preservation(recipe()), preservation(recipe(gkp__fisher_samples=1))
    stiffness = []
    for state in (full, some):
        wander(state, QUALITIES)
        for epoch in (5, 5, 6):
            state.regroup(epoch)
            assert state.penalty is not None
            stiffness.append(state.penalty.stiffness)
    assert torch.equal(stiffness[0], stiffness[1])
    assert torch.equal(stiffness[0], stiffness[2])
    # One sample a group, another at another epoch, the same at the same.
    assert torch.equal(stiffness[3], stiffness[4])
    assert not torch.equal(stiffness[3], stiffness[5])
    assert not torch.equal(stiffness[3], stiffness[0])
