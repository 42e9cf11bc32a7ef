"""GSA: laws of Eq. 12 to 14, and the whole step against a transcription without the flat buffer."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor
from training_cases import (
    CLASSES,
    Recorded,
    batch,
    buffers,
    flat,
    gradient_at,
    plain_copy,
    residual_net,
    smooth_net,
)

from landscape_lab.models import Network
from landscape_lab.recipe import GsaRecipe, SamRecipe
from landscape_lab.training.grouped_sharpness import GroupedSharpness, Perturbation
from landscape_lab.training.gsa import (
    orthogonal_parts,
    projections,
    radii,
)
from landscape_lab.training.losses import cross_entropy
from landscape_lab.training.sam import sam_step

GROUPS = torch.tensor([0, 0, 1, 1, 2, 2])  # of classes 0 … 5
SIZES = [70, 25, 9]
TARGETS = [0, 1, 2, 3, 4, 5, 0, 0, 1, 0, 2, 0]
WITHOUT_GROUP_1 = [5, 4, 0, 1, 0, 4, 0, 1]
GENERATOR = torch.Generator().manual_seed(11)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def sharpness(work: Recorded, recipe: GsaRecipe, *, groups: Tensor = GROUPS, **options: Any) -> GroupedSharpness:
    sizes = options.pop("sizes", SIZES)
    result = GroupedSharpness(work, recipe, groups, sizes, **options)
    # the log is float32, as training is
    result.log = Perturbation.zeros(len(sizes), torch.device("cpu"), torch.float64)
    return result


def counts(targets: Tensor, groups: Tensor = GROUPS, count: int = 3) -> list[int]:
    return torch.bincount(groups[targets], minlength=count).tolist()


@dataclass
class Twin:
    """The step as the paper writes it, group by group, with a pass of its own for each gradient."""

    recipe: GsaRecipe
    sizes: list[int]
    groups: Tensor = field(default_factory=lambda: GROUPS)
    ascend: str = "orthogonal"
    ema: Tensor | None = None
    epsilons: list[Tensor] = field(default_factory=list)
    rhos: dict[int, float] = field(default_factory=dict)

    def part(self, model: Network) -> slice:
        encoder = sum(parameter.numel() for parameter in model.encoder.parameters())
        total = sum(parameter.numel() for parameter in model.parameters())
        return {"all": slice(0, total), "encoder": slice(0, encoder), "classifier": slice(encoder, total)}[
            self.recipe.perturb
        ]

    def step(self, model: Network, images: Tensor, targets: Tensor) -> Tensor:
        recipe, where = self.recipe, self.part(model)
        theta = flat(list(model.parameters()))
        members = {g: (self.groups[targets] == g).nonzero().squeeze(1) for g in range(len(self.sizes))}
        members = {g: chosen for g, chosen in members.items() if len(chosen)}
        share = {g: len(chosen) / len(targets) for g, chosen in members.items()}
        weight = share if recipe.weight == "share" else dict.fromkeys(members, 1.0)

        # Eq. 11 and the global gradient
        gradient = {g: gradient_at(model, theta, images, targets, chosen) for g, chosen in members.items()}
        reference = gradient_at(model, theta, images, targets, torch.arange(len(targets)))
        if recipe.global_gradient != "project-batch":
            decay = recipe.ema_decay
            before = torch.zeros_like(reference) if self.ema is None else self.ema
            self.ema = reference if self.ema is None else decay * self.ema + (1 - decay) * reference
            reference = before if recipe.global_gradient == "subtract-ema" else self.ema

        self.epsilons, self.rhos, penalty, result = [], {}, torch.zeros(()), torch.zeros_like(theta)
        variable = theta.clone().requires_grad_()
        for g in members:
            # Eq. 12
            if recipe.global_gradient == "subtract-ema":
                removed = reference
            else:
                removed = reference * sum(reference * gradient[g]) / sum(reference * reference)
            left = gradient[g] - removed
            if self.ascend == "projection":
                left = removed
            elif math.sqrt(sum(left**2)) < 1e-3 * math.sqrt(sum(gradient[g] ** 2)):
                left = gradient[g]
            left = left[where]
            # Eq. 13
            d, size = len(left), max(self.sizes[g], 2)
            length = math.sqrt(sum(left**2))
            rho_star = (
                math.sqrt(math.sqrt(sum(theta[where] ** 2)) / (2 * length)) * d ** (-1 / 4) * (size - 1) ** (-1 / 4)
            )
            # Eq. 14, with Z rho* within its bounds
            rho = min(max(recipe.radius_scale * rho_star, recipe.rho_min), recipe.rho_max)
            if recipe.adaptive:
                scaled = theta[where].abs() * left
                epsilon = math.sqrt(d) * rho * theta[where] ** 2 * left / scaled.norm()
            else:
                epsilon = math.sqrt(d) * rho * left / length
            self.epsilons.append(epsilon)
            self.rhos[g] = rho
            # Eq. 15, second term
            penalty = penalty + weight[g] * variable[where].norm() / (2 * math.sqrt(size - 1) * rho_star)
        # Eq. 15, first term, and the sum of Eq. 16
        if recipe.passes == "merged":
            merged = sum(share[g] * epsilon for g, epsilon in zip(members, self.epsilons, strict=True))
            self.epsilons = [merged] * len(members)
        for g, epsilon in zip(members, self.epsilons, strict=True):
            moved = theta.clone()
            moved[where] += epsilon
            result += weight[g] * gradient_at(model, moved, images, targets, members[g])
        if recipe.passes == "merged":
            self.epsilons = self.epsilons[:1]
        if recipe.regulariser == "constant-rho":
            result += torch.autograd.grad(penalty, variable)[0]
        return result


# -- Eq. 12 --------------------------------------------------------------------------------------------------


def test_orthogonal_to_the_global_gradient() -> None:
    gradients, shares = random(4, 50), torch.tensor([0.5, 0.2, 0.2, 0.1], dtype=torch.float64)
    whole = shares @ gradients
    left = orthogonal_parts(gradients, projections(gradients, whole))
    assert (left @ whole).abs().max() < 1e-12 * gradients.norm() * whole.norm()
    # The weighted sum of the groups' gradients is the whole, of which nothing is left.
    assert (shares @ left).norm() < 1e-13 * whole.norm()
    assert (left.norm(dim=1) > 0.1 * gradients.norm(dim=1)).all()


def test_projection_by_hand() -> None:
    gradients = torch.tensor([[2.0, 1.0], [-1.0, 3.0], [0.0, 5.0]])
    whole = torch.tensor([4.0, 0.0])
    removed = projections(gradients, whole)
    assert removed.tolist() == [[2.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]
    assert orthogonal_parts(gradients, removed).tolist() == [[0.0, 1.0], [0.0, 3.0], [0.0, 5.0]]


def test_projection_on_a_zero_gradient_removes_nothing() -> None:
    gradients = torch.tensor([[1.0, 2.0], [-1.0, -2.0]])
    removed = projections(gradients, gradients.sum(0))
    assert not removed.any()
    assert torch.equal(orthogonal_parts(gradients, removed), gradients)


def test_where_next_to_nothing_is_left_the_group_keeps_its_own_gradient() -> None:
    whole = random(50)
    across = random(50)
    across -= whole * (across @ whole) / (whole @ whole)
    across *= whole.norm() / across.norm()
    gradients = torch.stack([whole, 3 * whole, whole + 5e-4 * across, whole + 5e-3 * across])
    left = orthogonal_parts(gradients, projections(gradients, whole))
    assert torch.equal(left[:3], gradients[:3])
    assert torch.allclose(left[3], 5e-3 * across, rtol=1e-9, atol=1e-15)


# -- Eq. 13 and 14 -------------------------------------------------------------------------------------------


def test_radii_by_hand() -> None:
    # ‖θ‖ = 8, d = 16, ‖ĝ‖ = 4 and 1, |G| - 1 = 16 and 1: (8/8)^½ 16^-¼ 16^-¼ and (8/2)^½ 16^-¼.
    theta = torch.full((16,), 2.0)
    directions = torch.stack([torch.full((16,), 1.0), torch.full((16,), 0.25)])
    assert radii(theta, directions, torch.tensor([17, 2])).tolist() == pytest.approx([0.25, 1.0], rel=1e-6)
    # One sample counts as two.
    assert radii(theta, directions, torch.tensor([17, 1])).tolist() == pytest.approx([0.25, 1.0], rel=1e-6)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [((0.0, math.inf), None), ((0.0035, math.inf), None), ((0.0, 1e-4), 1e-4), ((5.0, 6.0), 5.0)],
)
def test_norm_of_the_perturbation(bounds: tuple[float, float], expected: float | None) -> None:
    work = Recorded(smooth_net())
    model, d = plain_copy(work.model), work.space.size
    images, targets = batch(1, TARGETS)
    recipe = GsaRecipe(rho_min=bounds[0], rho_max=bounds[1], radius_scale=0.02)
    step = sharpness(work, recipe)
    step.step(images, targets, counts(targets))

    theta, stars = flat(list(model.parameters())), []
    whole = gradient_at(model, theta, images, targets, torch.arange(len(targets)))
    for g in range(3):
        own = gradient_at(model, theta, images, targets, (GROUPS[targets] == g).nonzero().squeeze(1))
        left = own - (own @ whole) / (whole @ whole) * whole
        stars.append(((theta.norm() / (2 * left.norm())) ** 0.5 * d**-0.25 * (SIZES[g] - 1) ** -0.25).item())
    rho = [expected or max(0.02 * star, bounds[0]) for star in stars]
    norms = [math.sqrt(d) * value for value in rho]
    assert [epsilon.norm().item() for epsilon in work.steps] == pytest.approx(norms, rel=1e-10)
    log = step.read_log()
    assert log["rho"] == pytest.approx(rho, rel=1e-10)
    assert log["epsilon_norm"] == pytest.approx(norms, rel=1e-10)
    assert log["steps"] == [1.0, 1.0, 1.0]
    if expected is None:
        assert len({round(value, 6) for value in rho}) > 1


def test_the_perturbations_of_the_groups_are_orthogonal_to_the_batch_gradient() -> None:
    work = Recorded(residual_net())
    images, targets = batch(1, TARGETS, (8, 8))
    everyone = torch.arange(len(targets))
    whole = gradient_at(work.model, work.theta, images, targets, everyone)
    sharpness(work, GsaRecipe()).step(images, targets, counts(targets))
    assert len(work.steps) == 3
    for epsilon in work.steps:
        assert abs(epsilon @ whole) < 1e-9 * epsilon.norm() * whole.norm()


def test_adaptive_radius_is_asams() -> None:
    work = Recorded(smooth_net())
    images, targets = batch(1, TARGETS)
    recipe = GsaRecipe(adaptive=True, rho_min=0.002, rho_max=0.002)
    sharpness(work, recipe).step(images, targets, counts(targets))
    for epsilon in work.steps:
        used = work.theta != 0
        radius = (epsilon[used] / work.theta[used].abs()).norm()
        assert radius.item() == pytest.approx(math.sqrt(work.space.size) * 0.002, rel=1e-10)
        assert not epsilon[~used].any()


# -- the whole step ------------------------------------------------------------------------------------------

LOOSE: dict[str, Any] = {"radius_scale": 0.05, "rho_max": math.inf}
VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "merged": {"passes": "merged"},
    "weight one": {"weight": "one"},
    "merged, weight one": {"passes": "merged", "weight": "one"},
    "encoder": {"perturb": "encoder"},
    "classifier": {"perturb": "classifier"},
    "adaptive": {"adaptive": True},
    "adaptive classifier": {"adaptive": True, "perturb": "classifier", "regulariser": "constant-rho"},
    "regulariser": {"regulariser": "constant-rho"},
    "regulariser, weight one": {"regulariser": "constant-rho", "weight": "one"},
    "project-ema": {"global_gradient": "project-ema", "ema_decay": 0.7},
    "subtract-ema": {"global_gradient": "subtract-ema", "ema_decay": 0.7},
    "bounded": {"rho_min": 0.01, "rho_max": 0.012},
    "like the release": {
        "global_gradient": "subtract-ema",
        "adaptive": True,
        "passes": "merged",
        "radius_scale": 0.1,
        "rho_min": 0.002,
        "rho_max": 0.003,
    },
}


@pytest.mark.parametrize(
    ("variant", "ascend"),
    [
        (name, ascend)
        for name, fields in VARIANTS.items()
        for ascend in ("orthogonal", "projection")
        if ascend == "orthogonal" or fields.get("global_gradient") != "subtract-ema"  # the recipe refuses it
    ],
)
def test_two_steps_equal_the_transcription(variant: str, ascend: str) -> None:
    recipe = msgspec.convert({**LOOSE, **VARIANTS[variant]}, GsaRecipe)
    work = Recorded(smooth_net())
    model = plain_copy(work.model)
    step = sharpness(work, recipe, ascend=ascend)
    twin = Twin(recipe, SIZES, ascend=ascend)
    plain: Tensor
    for seed, labels in enumerate([TARGETS, WITHOUT_GROUP_1, TARGETS]):
        images, targets = batch(seed, labels)
        work.steps.clear()
        work.gradient.fill_(3.0)  # what a step before left
        theta = work.theta.clone()
        losses, logits = step.step(images, targets, counts(targets))
        assert torch.equal(work.theta, theta)

        plain = gradient_at(model, theta, images, targets, torch.arange(len(targets)))
        expected = twin.step(model, images, targets)
        assert torch.allclose(work.gradient, expected, rtol=1e-8, atol=1e-11)
        assert (expected - plain).norm() > 1e-4 * plain.norm()
        assert len(work.steps) == len(twin.epsilons) == (1 if recipe.passes == "merged" else len(twin.rhos))
        for found, wanted in zip(work.steps, twin.epsilons, strict=True):
            assert torch.allclose(found, wanted, rtol=1e-8, atol=1e-12)
        log = step.read_log()
        assert log["rho"] == pytest.approx([twin.rhos.get(g, 0.0) for g in range(3)], rel=1e-9)
        assert log["steps"] == [float(g in twin.rhos) for g in range(3)]
        if step.ema is not None:
            assert torch.allclose(step.ema, twin.ema, rtol=1e-10, atol=1e-13)

        # The clean pass, and it alone, moves the running statistics.
        outputs = model(images).detach()
        assert torch.allclose(logits, outputs)
        assert torch.allclose(losses, cross_entropy(outputs, targets))
        found, wanted = buffers(work.model), buffers(model)
        assert all(torch.allclose(found[name], wanted[name], rtol=1e-12) for name in wanted)
        assert int(work.model.encoder[2].num_batches_tracked) == seed + 1

        with torch.no_grad():
            work.theta.sub_(0.2 * work.gradient)
        place = 0
        for parameter in model.parameters():
            parameter.data = work.theta[place : place + parameter.numel()].view_as(parameter).clone()
            place += parameter.numel()


@pytest.mark.parametrize("passes", ["exact", "merged"])
def test_a_residual_network_equals_the_transcription(passes: str) -> None:
    recipe = msgspec.convert({"passes": passes, "rho_max": 1.0}, GsaRecipe)
    work = Recorded(residual_net())
    model = plain_copy(work.model)
    images, targets = batch(3, TARGETS, (8, 8))
    sharpness(work, recipe).step(images, targets, counts(targets))
    expected = Twin(recipe, SIZES).step(model, images, targets)
    assert torch.allclose(work.gradient, expected, rtol=1e-8, atol=1e-11)
    model(images)
    found, wanted = buffers(work.model), buffers(model)
    assert all(torch.allclose(found[name], wanted[name], rtol=1e-12) for name in wanted)


@pytest.mark.parametrize("part", ["encoder", "classifier"])
def test_only_the_chosen_part_moves(part: str) -> None:
    work = Recorded(smooth_net())
    seen: list[Tensor] = []
    move = work.move_to

    def watch(origin: Tensor, step: Tensor, where: slice) -> None:
        move(origin, step, where)
        seen.append(work.theta - origin)

    work.move_to = watch  # type: ignore[method-assign]
    images, targets = batch(1, TARGETS)
    recipe = msgspec.convert({**LOOSE, "perturb": part}, GsaRecipe)
    sharpness(work, recipe).step(images, targets, counts(targets))
    other = "classifier" if part == "encoder" else "encoder"
    assert len(seen) == 3
    for difference in seen:
        assert difference[work.part(part)].norm() > 1e-3
        assert not difference[work.part(other)].any()
    assert work.gradient[work.part(other)].any()  # both parts are trained


def test_share_weights_add_up_to_the_batch_gradient() -> None:
    """With next to no perturbation the step is plain SGD (share), or the sum of group means (one)."""
    images, targets = batch(1, TARGETS)
    for weight in ("share", "one"):
        work = Recorded(smooth_net())
        recipe = msgspec.convert({"weight": weight, "rho_max": 1e-12}, GsaRecipe)
        everyone = torch.arange(len(targets))
        groups = [(GROUPS[targets] == g).nonzero().squeeze(1) for g in range(3)]
        parts = [everyone] if weight == "share" else groups
        expected = sum(gradient_at(work.model, work.theta, images, targets, part) for part in parts)
        sharpness(work, recipe).step(images, targets, counts(targets))
        assert torch.allclose(work.gradient, expected, rtol=1e-7, atol=1e-10)


def test_the_regularisers_gradient_by_finite_differences() -> None:
    """Of Σ_g w_g ‖θ‖ / (2 (|G_g| - 1)^½ ρ*_g), with the radii of where the step began."""
    images, targets = batch(1, TARGETS)
    results = {}
    for kind in ("none", "constant-rho"):
        work = Recorded(smooth_net())
        recipe = msgspec.convert({**LOOSE, "regulariser": kind}, GsaRecipe)
        step = sharpness(work, recipe)
        step.step(images, targets, counts(targets))
        results[kind] = work.gradient.clone()
    rho_star = torch.tensor(step.read_log()["rho"], dtype=torch.float64) / recipe.radius_scale
    shares = torch.tensor(counts(targets), dtype=torch.float64) / len(targets)
    theta = work.theta

    def value(point: Tensor) -> float:
        sizes = torch.tensor(SIZES, dtype=torch.float64)
        return (shares * point.norm() / (2 * (sizes - 1).sqrt() * rho_star)).sum().item()

    differences = torch.empty_like(theta)
    for i in range(len(theta)):
        step_i = torch.zeros_like(theta)
        step_i[i] = 1e-5
        differences[i] = (value(theta + step_i) - value(theta - step_i)) / 2e-5
    assert differences.norm() > 0.01
    assert torch.allclose(results["constant-rho"] - results["none"], differences, rtol=1e-6, atol=1e-8)


# -- one group, absent groups --------------------------------------------------------------------------------


@pytest.mark.parametrize("lonely", ["one group at all", "one group in the batch"])
def test_one_group_is_plain_sam(lonely: str) -> None:
    """Eq. 12 leaves exactly nothing; the group's own gradient is used, as plain SAM does."""
    if lonely == "one group at all":
        groups, sizes, labels = torch.zeros(CLASSES, dtype=torch.int64), [104], TARGETS
    else:
        groups, sizes, labels = GROUPS, SIZES, [2, 3, 3, 2, 2]
    images, targets = batch(1, labels)
    work = Recorded(smooth_net())
    d, rho = work.space.size, 0.01
    step = sharpness(work, GsaRecipe(rho_min=rho, rho_max=rho), groups=groups, sizes=sizes)
    step.step(images, targets, counts(targets, groups, len(sizes)))
    other = Recorded(smooth_net())
    sam_step(other, images, targets, SamRecipe(rho=math.sqrt(d) * rho))
    assert torch.allclose(work.gradient, other.gradient, rtol=1e-9, atol=1e-12)
    found, wanted = buffers(work.model), buffers(other.model)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_absent_groups_are_left_out() -> None:
    """A group that is not in the batch changes nothing but its own (empty) log."""
    images, targets = batch(1, WITHOUT_GROUP_1)
    work, other = Recorded(smooth_net()), Recorded(smooth_net())
    step = sharpness(work, GsaRecipe())
    step.step(images, targets, counts(targets))
    two = torch.tensor([0, 0, -1, -1, 1, 1])
    sharpness(other, GsaRecipe(), groups=two, sizes=[70, 9]).step(images, targets, counts(targets, two, 2))
    assert torch.equal(work.gradient, other.gradient)
    log = step.read_log()
    assert log["steps"] == [1.0, 0.0, 1.0]
    assert (log["rho"][1], log["epsilon_norm"][1]) == (0.0, 0.0)


def test_the_log_is_a_mean_over_the_steps_with_the_group_and_starts_anew() -> None:
    work = Recorded(smooth_net())
    step, rhos = sharpness(work, GsaRecipe(rho_max=1.0)), []
    for seed, labels in enumerate([TARGETS, WITHOUT_GROUP_1]):
        images, targets = batch(seed, labels)
        step.step(images, targets, counts(targets))
        rhos.append(Twin(step.recipe, SIZES))
        rhos[-1].step(plain_copy(work.model), images, targets)
    first, second = (twin.rhos for twin in rhos)
    log = step.read_log()
    assert log["steps"] == [2.0, 1.0, 2.0]
    assert log["rho"] == pytest.approx([(first[0] + second[0]) / 2, first[1], (first[2] + second[2]) / 2])
    assert step.read_log()["steps"] == [0.0, 0.0, 0.0]


# -- GSA-proj ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", ["project-batch", "project-ema"])
def test_projection_ascends_along_the_global_gradient_only(reference: str) -> None:
    work = Recorded(smooth_net())
    recipe = msgspec.convert({"global_gradient": reference}, GsaRecipe)
    step = sharpness(work, recipe, ascend="projection")
    ema = None
    for seed in range(2):
        images, targets = batch(seed, TARGETS)
        everyone = torch.arange(len(targets))
        whole = gradient_at(work.model, work.theta, images, targets, everyone)
        own = [
            gradient_at(work.model, work.theta, images, targets, (GROUPS[targets] == g).nonzero().squeeze(1))
            for g in range(3)
        ]
        ema = whole if ema is None else 0.9 * ema + 0.1 * whole
        along = whole if reference == "project-batch" else ema
        work.steps.clear()
        step.step(images, targets, counts(targets))
        for epsilon, gradient in zip(work.steps, own, strict=True):
            cosine = torch.cosine_similarity(epsilon, along, dim=0).item()
            assert cosine == pytest.approx(math.copysign(1.0, (gradient @ along).item()), abs=1e-9)
        with torch.no_grad():
            work.theta.sub_(0.1 * work.gradient)


def test_a_float32_step_stays_finite_when_a_group_is_learnt() -> None:
    """A vanishing group gradient makes Eq. 13 grow without limit; the bound holds it."""
    work = Recorded(smooth_net().float())
    with torch.no_grad():
        work.model.classifier.weight.zero_()
        work.model.classifier.bias.copy_(torch.tensor([200.0, 0, 0, 0, 0, 0]))
    images, targets = batch(1, [0, 0, 0, 2, 3, 5])
    step = GroupedSharpness(work, GsaRecipe(), GROUPS, SIZES)
    step.step(images.float(), targets, counts(targets))
    assert torch.isfinite(work.gradient).all()
    log = step.read_log()
    assert max(log["rho"]) <= 3e-3 * (1 + 1e-6)
    assert all(math.isfinite(value) for value in log["epsilon_norm"])
