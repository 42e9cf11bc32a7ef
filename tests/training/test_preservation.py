"""GKP's state: bank, groups, anchors, Fisher and penalty put together as Eq. 1 to 6 say."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from training_cases import flat, plain_copy

from landscape_lab.data import Dataset, Split
from landscape_lab.models import Network, build_network
from landscape_lab.recipe import Recipe, load_recipe
from landscape_lab.training.losses import base_loss
from landscape_lab.training.preservation import Preservation, Regrouping
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


def preservation(settings: Recipe, folder: Path | None = None) -> Preservation:
    data = dataset()
    model = build_network(settings.model, in_channels=1, num_classes=4, seed=0)
    base = base_loss(settings.loss, data.class_counts, torch.device("cpu"))
    return Preservation(Workspace(model, base), settings, data, data.train, folder)


def wander(state: Preservation, qualities: list[list[float]]) -> list[Network]:
    """Move the model about and offer each place to the bank; returns a copy of each."""
    copies, generator = [], torch.Generator().manual_seed(1)
    for epoch, quality in enumerate(qualities, start=1):
        with torch.no_grad():
            state.work.theta.add_(0.05 * torch.randn(state.work.space.size, generator=generator))
            state.work.model.train()(state.dataset.normalise(state.train.images))  # running statistics
        state.remember(epoch, quality)
        state.bank.save()
        copies.append(plain_copy(state.work.model))
    return copies


# Class 0 is best at epoch 1, classes 1 and 3 at epoch 2, class 2 at epoch 3.
QUALITIES = [[2.0, 1.0, 1.0, 1.0], [1.0, 3.0, 1.5, 1.5], [1.0, 1.0, 2.0, 1.0]]
BEST = [0, 1, 2, 1]


def averaged(copies: list[Network], group: tuple[int, ...], current: Network, part: str) -> Network:
    """Eq. 3, a copy for every class: the group's mean of what the bank holds, else the current parameters."""
    twin = plain_copy(current)
    state, stored = twin.state_dict(), [copies[BEST[c]].state_dict() for c in group]
    for name, tensor in state.items():
        module = name.split(".")[0]
        held = {"encoder": module == "encoder", "all-but-classifier": module != "classifier", "all": True}[part]
        if tensor.is_floating_point() and held:
            tensor.copy_(torch.stack([each[name].double() for each in stored]).mean(0))
    return twin.eval()


def fisher_by_loop(model: Network, images: Tensor, targets: Tensor, raised: Tensor) -> Tensor:
    total = torch.zeros(sum(parameter.numel() for parameter in model.parameters()), dtype=torch.float64)
    for image, target in zip(images, targets, strict=True):
        loss = F.cross_entropy(model(image[None]) + raised, target[None])
        gradients = torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True, allow_unused=True)
        total += flat(gradients).double() ** 2
    return total / len(targets)


@pytest.mark.parametrize(
    ("weight", "size", "part", "changes"),
    [
        ("one", "samples", "encoder", {}),
        ("share", "samples", "encoder", {}),
        ("one", "classes", "encoder", {}),
        ("one", "samples", "all", {}),
        ("one", "samples", "all-but-classifier", {"model__projection": True}),
        ("one", "samples", "encoder", {"gkp__fisher_normalised": True}),
        ("share", "classes", "all", {"gkp__fisher_normalised": True}),
        ("one", "samples", "encoder", {"loss__logit_adjustment": 1.0}),
        ("one", "samples", "encoder", {"groups__bank_mebibytes": 0}),
    ],
)
def test_the_penalty_is_equations_3_to_6(
    weight: str, size: str, part: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    settings = recipe(gkp__weight=weight, groups__size=size, gkp__parameters=part, **changes)
    raised = torch.zeros(4)
    if settings.loss.logit_adjustment:
        raised = torch.tensor([math.log(n / sum(COUNTS)) for n in COUNTS])
    state = preservation(settings, tmp_path)
    copies = wander(state, QUALITIES)
    assert state.bank.epochs == [b + 1 for b in BEST]
    assert (state.bank.nbytes == 0) == (settings.groups.bank_mebibytes == 0)
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
        model = averaged(copies, group, state.work.model, part)
        split = state.train.only(group)
        fisher = fisher_by_loop(model, state.dataset.normalise(split.images), split.targets, raised)[state.held]
        if settings.gkp.fisher_normalised:
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
        parameters, statistics = state.bank.snapshot(epoch)
        assert torch.equal(parameters, flat(list(model.encoder.parameters())))
        moving = [b for name, b in model.encoder.named_buffers() if name.endswith(("_mean", "_var"))]
        assert torch.equal(statistics, flat(moving))
        assert len(moving) == 2 * 7


def test_with_more_than_the_encoder_the_heads_running_statistics_are_held_too() -> None:
    state = preservation(recipe(gkp__parameters="all-but-classifier", model__projection=True))
    copies = wander(state, QUALITIES)
    parameters, statistics = state.bank.snapshot(1)
    moving = [b for name, b in copies[0].named_buffers() if name.endswith(("_mean", "_var"))]
    assert len(moving) == 2 * (7 + 2)
    assert torch.equal(statistics, flat(moving))
    kept = [p for name, p in copies[0].named_parameters() if not name.startswith("classifier.")]
    assert torch.equal(parameters, flat(kept))


def test_the_affinity_may_count_the_running_statistics() -> None:
    for counted in (False, True):
        state = preservation(recipe(groups__statistics=counted))
        copies = wander(state, QUALITIES)
        names = [n for n in copies[0].state_dict() if n.startswith("encoder.") and not n.endswith("tracked")]
        if not counted:
            names = [name for name in names if "running" not in name]
        vectors = torch.stack([flat([model.state_dict()[name] for name in names]) for model in copies]).double()
        assert torch.allclose(torch.from_numpy(state.bank.gram()), vectors @ vectors.T, rtol=1e-12)


def test_the_initial_encoder_counts_where_classes_are_grouped_before_the_first_epoch() -> None:
    later = preservation(recipe(groups__start_epoch=1))
    assert not later.remember(0, QUALITIES[0])
    assert later.bank.epochs == [-1] * 4
    state = preservation(recipe(groups__start_epoch=0))
    initial = state.work.theta[state.held].clone()
    assert state.remember(0, [math.nan, *QUALITIES[0][1:]])
    assert state.bank.epochs == [0] * 4
    assert torch.equal(state.bank.snapshot(0)[0], initial)
    done = state.regroup(0)
    assert done.groups == ((0, 1, 2, 3),)  # one encoder: nothing to tell classes by
    assert done.encoders == 1
    assert state.penalty is not None
    assert state.penalty.value(state.work.theta[state.held] + 1) == 0.0  # there is no other group
    assert not state.remember(1, [math.nan, 0.0, 0.0, 0.0])
    assert state.remember(2, [0.0, 0.0, 5.0, 0.0])
    assert state.bank.epochs == [2, 0, 2, 0]
    assert state.regroup(2).groups == ((0, 2), (1, 3))


def test_a_regrouping_says_what_it_did() -> None:
    state = preservation(recipe())
    wander(state, QUALITIES)
    first = state.regroup(5)
    assert first.epoch == 5
    assert first.groups == state.groups
    assert first.classes == tuple(map(len, state.groups))
    assert first.samples == tuple(sum(COUNTS[c] for c in group) for group in state.groups)
    assert first.encoders == 3
    assert first.adjusted_rand_index is None
    assert first.clustering_seconds > 0
    assert first.fisher_seconds > 0
    assert state.regroup(6).adjusted_rand_index == 1.0
    state.groups = ((0, 1), (2, 3))
    state.bank.update(7, [9.0, -9.0, 9.0, -9.0], state.bank.snapshot(1))
    state.bank.update(8, [-9.0, 9.0, -9.0, 9.0], state.bank.snapshot(2))
    crossed = state.regroup(8)
    assert crossed.groups == ((0, 2), (1, 3))
    # Of the six pairs each partition joins two, and none is joined by both: (0 - 2/3) / (2 - 2/3).
    assert crossed.adjusted_rand_index == pytest.approx(-0.5)


def test_groupings_are_the_same_whatever_the_memory(tmp_path: Path) -> None:
    found: list[tuple[Regrouping, Tensor, Tensor]] = []
    for name, mebibytes in (("a", 1024), ("b", 0)):
        state = preservation(recipe(groups__bank_mebibytes=mebibytes), tmp_path / name)
        wander(state, QUALITIES)
        done = state.regroup(5)
        assert state.penalty is not None
        found.append((done, state.penalty.stiffness, state.penalty.anchor))
    assert found[0][0].groups == found[1][0].groups
    assert torch.equal(found[0][1], found[1][1])
    assert torch.equal(found[0][2], found[1][2])


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
    assert state.regroup(5).fisher_seconds == 0.0
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
