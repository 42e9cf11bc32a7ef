"""The cheap forms of the GSA step against the exact one, and against plain autograd on copies."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from training_cases import batch, buffers, contrast_net, flat, plain_copy, smooth_net

from landscape_lab.models import Network
from landscape_lab.recipe import GsaRecipe
from landscape_lab.training.grouped_sharpness import GroupedSharpness, Perturbation
from landscape_lab.training.gsa import orthogonal_parts, projections, radii
from landscape_lab.training.losses import BalancedContrast, BaseLoss, CrossEntropy
from landscape_lab.training.sam import ascent
from landscape_lab.training.workspace import Workspace

GROUPS = torch.tensor([0, 1, 1, 2])
SIZES = [70, 25, 9]
TARGETS = torch.tensor([0, 1, 3, 0, 2, 0, 0, 3])
SHARES = [4 / 8, 2 / 8, 2 / 8]


def bcl() -> BalancedContrast:
    return BalancedContrast(torch.tensor([0.0, -0.4, -0.9, -2.0], dtype=torch.float64), 2.0, 0.6, 0.2)


def views(seed: int, base: BaseLoss) -> Tensor:
    return batch(seed, TARGETS.tolist() * base.views)[0]


CASES = {
    "CE": (lambda: smooth_net(classes=4), CrossEntropy),
    "BCL": (contrast_net, bcl),
}


def sharpness(case: str, **readings: Any) -> GroupedSharpness:
    net, base = CASES[case]
    recipe = GsaRecipe(**{"rho_max": 1.0, "radius_scale": 0.05, **readings})
    result = GroupedSharpness(Workspace(net(), base()), recipe, GROUPS, SIZES)
    result.log = Perturbation.zeros(3, torch.device("cpu"), torch.float64)
    return result


def stepped(gsa: GroupedSharpness, seed: int = 0, **options: Any) -> Tensor:
    counts = torch.bincount(GROUPS[TARGETS], minlength=3).tolist()
    gsa.step(views(seed, gsa.work.base), TARGETS, counts, **options)
    return gsa.work.gradient.clone()


def at(model: Network, theta: Tensor) -> Network:
    twin, place = plain_copy(model), 0
    for parameter in twin.parameters():
        parameter.data = theta[place : place + parameter.numel()].view_as(parameter).clone()
        place += parameter.numel()
    return twin


def gradient(model: Network, base: BaseLoss, images: Tensor, weights: Tensor, within: bool = False) -> Tensor:
    """Gradient of the weighted sum of losses, by autograd on a copy."""
    twin = plain_copy(model)
    losses = base.losses(base.outputs(twin, images), TARGETS, GROUPS if within else None)
    return _flat_gradient(losses @ weights, twin)


def _flat_gradient(value: Tensor, model: Network) -> Tensor:
    parameters = list(model.parameters())
    found = torch.autograd.grad(value, parameters, allow_unused=True)
    return flat([torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)])


def means() -> Tensor:
    members = (GROUPS[TARGETS] == torch.arange(3)[:, None]).double()
    return members / members.sum(1, keepdim=True)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("weight", ["share", "one"])
@pytest.mark.parametrize("reading", ["project-batch", "project-ema", "subtract-ema"])
@pytest.mark.parametrize("more", [{}, {"contrast": "within-group"}, {"regulariser": "constant-rho", "adaptive": True}])
def test_stochastic_averages_to_exact(case: str, weight: str, reading: str, more: dict[str, Any]) -> None:
    readings = {"weight": weight, "global_gradient": reading, **more}
    exact = stepped(sharpness(case, **readings))
    chances = SHARES if weight == "share" else [1 / 3] * 3
    mean, each = torch.zeros_like(exact), []
    for group, chance in enumerate(chances):
        gsa = sharpness(case, passes="stochastic", **readings)
        each.append(stepped(gsa, draw=sum(chances[:group]) + chance / 2))
        assert gsa.log.steps.tolist() == [float(g == group) for g in range(3)]
        mean += chance * each[-1]
    assert not torch.allclose(each[0], each[1], rtol=1e-3)
    assert torch.allclose(mean, exact, rtol=1e-9, atol=1e-12)


def test_the_draw_has_the_groups_shares() -> None:
    gsa = sharpness("CE", passes="stochastic")
    for draw, group in [(0.0, 0), (0.49, 0), (0.5, 1), (0.74, 1), (0.75, 2), (1 - 1e-16, 2)]:
        gsa.read_log()
        stepped(gsa, draw=draw)
        assert gsa.log.steps.argmax() == group


def test_the_log_tells_how_far_a_perturbed_gradient_is_from_the_plain_one() -> None:
    gsa = sharpness("CE", passes="stochastic")
    work, images = gsa.work, views(0, gsa.work.base)
    start, theta = plain_copy(work.model), work.theta.clone()
    gradients = torch.stack([gradient(start, work.base, images, weights) for weights in means()])
    parts = orthogonal_parts(gradients, projections(gradients, torch.tensor(SHARES, dtype=torch.float64) @ gradients))
    rho = 0.05 * radii(theta, parts, torch.tensor(SIZES))
    epsilons = ascent(parts, theta, len(theta) ** 0.5 * rho[:, None], adaptive=False)
    stepped(gsa, draw=0.6)
    stepped(gsa, draw=0.6)
    log = gsa.read_log()
    moved = gradient(at(start, theta + epsilons[1]), work.base, images, means()[1])
    assert log["difference_norm"] == pytest.approx([0, float((moved - gradients[1]).norm()), 0])


@pytest.mark.parametrize("passes", ["exact", "merged", "stochastic"])
@pytest.mark.parametrize("case", CASES)
def test_a_step_between_reuses_the_difference(case: str, passes: str) -> None:
    gsa = sharpness(case, passes=passes, every=3, between="reuse")
    first = stepped(gsa, draw=0.6)
    assert torch.equal(first, stepped(sharpness(case, passes=passes), draw=0.6))
    base, one = gsa.work.base, torch.full((8,), 1 / 8, dtype=torch.float64)
    plain = gradient(gsa.work.model, base, views(0, base), one)
    gsa.work.theta.add_(0.01)
    for number in (1, 2):
        there = gradient(gsa.work.model, base, views(number, base), one)
        assert torch.allclose(stepped(gsa, number, number=number), there + first - plain, rtol=1e-9, atol=1e-12)
    again = sharpness(case, passes=passes)
    again.work.theta.add_(0.01)
    assert torch.allclose(stepped(gsa, 3, number=3, draw=0.1), stepped(again, 3, draw=0.1), rtol=1e-10, atol=1e-13)


def test_a_held_step_between_is_the_gradient_at_the_last_perturbation() -> None:
    gsa = sharpness("CE", passes="merged", every=3, between="hold")
    work, one = gsa.work, torch.full((8,), 1 / 8, dtype=torch.float64)
    before, theta = plain_copy(work.model), work.theta.clone()
    first = stepped(gsa)
    assert torch.equal(first, stepped(sharpness("CE", passes="merged")))
    gradients = torch.stack([gradient(before, work.base, views(0, work.base), weights) for weights in means()])
    shares = torch.tensor(SHARES, dtype=torch.float64)
    parts = orthogonal_parts(gradients, projections(gradients, shares @ gradients))
    rho = 0.05 * radii(theta, parts, torch.tensor(SIZES))
    held = shares @ ascent(parts, theta, len(theta) ** 0.5 * rho[:, None], adaptive=False)
    for number in (1, 2):
        work.theta.add_(0.01)
        theta, before = work.theta.clone(), plain_copy(work.model)
        expected = gradient(at(before, theta + held), work.base, views(number, work.base), one)
        assert torch.allclose(stepped(gsa, number, number=number), expected, rtol=1e-9, atol=1e-12)
        assert torch.equal(work.theta, theta)


def test_a_plain_step_between_is_plain() -> None:
    gsa = sharpness("CE", every=2)
    stepped(gsa)
    there = gradient(gsa.work.model, gsa.work.base, views(1, gsa.work.base), torch.full((8,), 1 / 8).double())
    assert torch.allclose(stepped(gsa, 1, number=1), there, rtol=1e-10, atol=1e-13)


def test_reuse_under_one_weight_a_group_is_relative_to_the_same_weights() -> None:
    gsa = sharpness("CE", every=2, weight="one", between="reuse")
    first = stepped(gsa)
    summed = gradient(gsa.work.model, gsa.work.base, views(0, gsa.work.base), means().sum(0))
    there = gradient(gsa.work.model, gsa.work.base, views(1, gsa.work.base), torch.full((8,), 1 / 8).double())
    assert torch.allclose(stepped(gsa, 1, number=1), there + first - summed, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("ascent_from", ["all", "within-group", "first"])
@pytest.mark.parametrize("every", [1, 4])
def test_bcl_equals_the_transcription(ascent_from: str, every: int) -> None:
    readings = {"ascent_views": "first"} if ascent_from == "first" else {}
    if ascent_from == "within-group":
        readings["contrast"] = "within-group"
    gsa = sharpness("BCL", every=every, between="reuse", **readings)
    start, theta, images = plain_copy(gsa.work.model), gsa.work.theta.clone(), views(0, gsa.work.base)
    base = gsa.work.base
    result = torch.zeros_like(theta)
    rows = []
    for weights in means():
        if ascent_from == "first":
            twin = plain_copy(start)
            logits = twin(images[:8]) + base.adjustment
            rows.append(
                _flat_gradient(2 * torch.nn.functional.cross_entropy(logits, TARGETS, reduction="none") @ weights, twin)
            )
        else:
            rows.append(gradient(start, base, images, weights, within=ascent_from == "within-group"))
    gradients = torch.stack(rows)
    mean = torch.tensor(SHARES, dtype=torch.float64) @ gradients
    parts = orthogonal_parts(gradients, projections(gradients, mean))
    rho = 0.05 * radii(theta, parts, torch.tensor(SIZES))
    epsilons = ascent(parts, theta, len(theta) ** 0.5 * rho[:, None], adaptive=False)
    for share, weights, epsilon in zip(SHARES, means(), epsilons, strict=True):
        result += share * gradient(at(start, theta + epsilon), base, images, weights)
    assert torch.allclose(stepped(gsa), result, rtol=1e-9, atol=1e-12)
    assert torch.equal(gsa.work.theta, theta)
    # running statistics: those of one clean pass over all views
    clean = plain_copy(start)
    base.outputs(clean, images)
    for name, buffer in buffers(gsa.work.model).items():
        assert torch.allclose(buffer.double(), dict(clean.named_buffers())[name].double(), rtol=1e-12), name


@pytest.mark.parametrize("case", CASES)
def test_the_released_direction_equals_the_transcription(case: str) -> None:
    readings = {"contrast": "within-group", "passes": "merged", "adaptive": True}
    gsa = sharpness(case, global_gradient="accumulated-ema", ema_decay=0.9, **readings)
    base, average = gsa.work.base, {}
    pull, share = torch.linspace(-1, 1, gsa.work.space.size, dtype=torch.float64), 0.8
    for seed in (0, 1, 2):
        start, theta, images = plain_copy(gsa.work.model), gsa.work.theta.clone(), views(seed, base)
        shared = gradient(start, base, images, means().sum(0), within=True)
        shared = share * shared + (1 - share) * pull
        epsilon = torch.zeros_like(theta)
        for group in range(3):
            before = shared.clone()
            if group in average:
                shared = shared - average[group]
                average[group] = 0.9 * average[group] + 0.1 * before
            else:
                average[group] = before
            rho = 0.05 * (theta.norm() / (2 * shared.norm())).sqrt() * len(theta) ** -0.25 * (SIZES[group] - 1) ** -0.25
            scaled = theta.abs() * shared
            epsilon += SHARES[group] * len(theta) ** 0.5 * rho * theta.abs() * scaled / scaled.norm()
        expected = gradient(at(start, theta + epsilon), base, images, torch.full((8,), 1 / 8, dtype=torch.float64))
        assert torch.allclose(stepped(gsa, seed, share=share, pull=pull), expected, rtol=1e-9, atol=1e-12)
        gsa.work.theta.sub_(gsa.work.gradient, alpha=0.1)


def test_forms_that_make_no_sense_are_refused() -> None:
    for readings in ({"global_gradient": "accumulated-ema"}, {"ascent_views": "first"}):
        with pytest.raises(ValueError, match="stochastic"):
            GsaRecipe(passes="stochastic", **readings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="merged"):
        GsaRecipe(passes="exact", between="hold")
