"""SAM against the two steps of the textbook."""

from __future__ import annotations

import pytest
import torch
from training_cases import batch, buffers, flat, gradient_at, plain_copy, residual_net, smooth_net

from landscape_lab.recipe import SamRecipe
from landscape_lab.training.erm import erm_step
from landscape_lab.training.losses import cross_entropy
from landscape_lab.training.sam import ascent, sam_step
from landscape_lab.training.workspace import Workspace

TARGETS = [0, 1, 2, 3, 4, 5, 0, 0, 1, 0]
GENERATOR = torch.Generator().manual_seed(5)
EVERYONE = torch.arange(len(TARGETS))


def test_erm_is_the_gradient_of_the_mean_loss() -> None:
    images, targets = batch(1, TARGETS)
    work = Workspace(smooth_net())
    work.gradient.fill_(7.0)  # what a step before left
    twin = plain_copy(work.model)
    losses, logits = erm_step(work, images, targets)
    outputs = twin(images)
    expected = flat(torch.autograd.grad(cross_entropy(outputs, targets).mean(), list(twin.parameters())))
    assert torch.allclose(work.gradient, expected, rtol=1e-12, atol=1e-15)
    assert torch.allclose(logits, outputs.detach())
    assert torch.allclose(losses, -outputs.log_softmax(1)[EVERYONE, targets].detach())
    assert not losses.requires_grad
    assert not logits.requires_grad


@pytest.mark.parametrize("net", [smooth_net, residual_net])
@pytest.mark.parametrize("adaptive", [False, True])
def test_sam_is_the_textbooks_two_steps(net, adaptive: bool) -> None:  # type: ignore[no-untyped-def]
    images, targets = batch(2, TARGETS, (2, 3) if net is smooth_net else (8, 8))
    work = Workspace(net())
    twin, rho = plain_copy(work.model), 0.3
    theta = work.theta.clone()
    losses, logits = sam_step(work, images, targets, SamRecipe(rho=rho, adaptive=adaptive))

    clean = gradient_at(twin, theta, images, targets, EVERYONE)
    if adaptive:
        epsilon = rho * theta**2 * clean / (theta.abs() * clean).square().sum().sqrt()
    else:
        epsilon = rho * clean / clean.square().sum().sqrt()
    expected = gradient_at(twin, theta + epsilon, images, targets, EVERYONE)
    assert torch.allclose(work.gradient, expected, rtol=1e-9, atol=1e-12)
    assert (expected - clean).norm() > 1e-3 * clean.norm()
    assert torch.equal(work.theta, theta)

    # Losses, logits and the running statistics are those of the clean pass, and of it alone.
    outputs = twin(images).detach()
    assert torch.allclose(logits, outputs)
    assert torch.allclose(losses, cross_entropy(outputs, targets))
    found, wanted = buffers(work.model), buffers(twin)
    assert all(torch.allclose(found[name], wanted[name], rtol=1e-12) for name in wanted)
    assert {int(t) for name, t in found.items() if name.endswith("num_batches_tracked")} == {1}


def test_ascent_has_radius_rho() -> None:
    gradient = torch.randn(3, 7, generator=GENERATOR, dtype=torch.float64)
    theta = torch.randn(7, generator=GENERATOR, dtype=torch.float64)
    rho = torch.tensor([[0.1], [1.0], [30.0]], dtype=torch.float64)
    plain = ascent(gradient, theta, rho, adaptive=False)
    assert torch.allclose(plain.norm(dim=1), rho[:, 0])
    assert torch.allclose(torch.cosine_similarity(plain, gradient, dim=1), torch.ones(3, dtype=torch.float64))
    relative = ascent(gradient, theta, rho, adaptive=True)
    assert torch.allclose((relative / theta.abs()).norm(dim=1), rho[:, 0])


def test_adaptive_ascent_maximises_the_linearised_loss() -> None:
    """No direction within ‖ε / |θ|‖ = ρ gains more to first order (Kwon et al., Eq. 4)."""
    gradient = torch.randn(7, generator=GENERATOR, dtype=torch.float64)
    theta = torch.randn(7, generator=GENERATOR, dtype=torch.float64)
    best = ascent(gradient, theta, 0.5, adaptive=True) @ gradient
    others = torch.nn.functional.normalize(torch.randn(2000, 7, generator=GENERATOR, dtype=torch.float64))
    gains = (0.5 * others * theta.abs()) @ gradient
    assert gains.max() <= best
    assert gains.max() > 0.8 * best


@pytest.mark.parametrize("adaptive", [False, True])
def test_ascent_of_a_zero_gradient_is_zero(adaptive: bool) -> None:
    gradient = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    result = ascent(gradient, torch.ones(2), 0.1, adaptive)
    assert torch.allclose(result, torch.tensor([[0.0, 0.0], [0.06, 0.08]]))
