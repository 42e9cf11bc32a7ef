"""The Fisher diagonal against loops of per-sample gradients, and against its closed form."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from training_cases import batch, flat, plain_copy, smooth_net

from landscape_lab.models import build_network
from landscape_lab.parameters import ParameterSpace
from landscape_lab.recipe import ModelRecipe
from landscape_lab.training import fisher
from landscape_lab.training.fisher import fisher_diagonal

TARGETS = [0, 1, 2, 3, 4, 5, 0, 0, 1, 0, 5]


def by_loop(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """1/n Σ (∂ log p(y | x) / ∂θ)², one sample at a time, at the model's own parameters and statistics."""
    model.eval()
    total = torch.zeros(sum(parameter.numel() for parameter in model.parameters()), dtype=images.dtype)
    for image, target in zip(images, targets, strict=True):
        log_p = model(image[None]).log_softmax(1)[0, target]
        total += flat(torch.autograd.grad(log_p, list(model.parameters()))) ** 2
    return total / len(targets)


def linear_model(scale: float = 1.0) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 4)).double()
    with torch.no_grad():
        model[1].weight.mul_(scale)
    return model


@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_empirical_equals_the_loop_at_other_parameters_and_statistics(chunk: int) -> None:
    model = smooth_net()
    images, targets = batch(1, TARGETS)
    space = ParameterSpace(model)
    there = plain_copy(smooth_net(seed=8))
    there.train()(batch(2, TARGETS)[0])  # moves the running statistics
    buffers = {name: buffer for name, buffer in there.named_buffers() if buffer.is_floating_point()}
    assert not torch.equal(there.encoder[2].running_mean, model.encoder[2].running_mean)
    point = flat(list(there.parameters()))
    found = fisher_diagonal(model, space, point, buffers, images, targets, chunk=chunk)
    expected = by_loop(there, images, targets)
    assert found.dtype == torch.float64
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-15)
    assert (expected > 1e-6).all()
    # Without buffers the model's own are used.
    own = fisher_diagonal(model, space, point, {}, images, targets)
    assert not torch.allclose(own, expected, rtol=1e-3)


def test_empirical_of_a_residual_network_in_float32() -> None:
    model = build_network(ModelRecipe(depth=8, width=2), in_channels=1, num_classes=6, seed=0)
    images, targets = batch(1, TARGETS, (8, 8))
    model.train()(images.float())
    space = ParameterSpace(model)
    found = fisher_diagonal(model, space, space.vector(), {}, images.float(), targets)
    assert found.dtype == torch.float32
    expected = by_loop(plain_copy(model).double(), images, targets)
    assert (found.double() - expected).norm() < 1e-4 * expected.norm()


def test_batch_mean_is_what_it_says() -> None:
    """Gradients of batches of 256, squared, summed, over n: as the released code has it."""
    model = linear_model()
    images, targets = batch(1, [c % 4 for c in range(300)])
    space = ParameterSpace(model)
    found = fisher_diagonal(model, space, space.vector(), {}, images, targets, estimator="batch-mean")
    expected = torch.zeros_like(found)
    for part in (slice(0, 256), slice(256, 300)):
        loss = F.cross_entropy(model(images[part]), targets[part])
        expected += flat(torch.autograd.grad(loss, list(model.parameters()))) ** 2
    assert torch.allclose(found, expected / 300, rtol=1e-10)
    empirical = fisher_diagonal(model, space, space.vector(), {}, images, targets)
    assert empirical.sum() > 256 * found.sum()


def test_true_uses_labels_drawn_from_the_model() -> None:
    """Of a softmax-linear model the expectation over labels is known: 1/n Σ p_c (1 - p_c) x_i²."""
    model, draws = linear_model(), 3000
    images, _ = batch(1, [0] * 5)
    many = images.repeat(draws, 1, 1, 1)
    space = ParameterSpace(model)
    found = fisher_diagonal(
        model,
        space,
        space.vector(),
        {},
        many,
        torch.zeros(len(many), dtype=torch.int64),  # the labels that come along are not used
        estimator="true",
        generator=torch.Generator().manual_seed(0),
        chunk=1024,
    )
    with torch.no_grad():
        p, x = model(images).softmax(1), images.flatten(1)
        weight = torch.einsum("nc,ni->ci", p * (1 - p), x**2) / len(x)
        expected = torch.cat([weight.reshape(-1), (p * (1 - p)).mean(0)])
    assert torch.allclose(found, expected, rtol=0.05)
    assert (found - expected).norm() < 0.02 * expected.norm()
    assert not torch.equal(found, expected)


def test_true_is_the_loop_over_the_drawn_labels() -> None:
    model = smooth_net().eval()
    images, targets = batch(1, TARGETS)
    space = ParameterSpace(model)

    def found(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return fisher_diagonal(model, space, space.vector(), {}, images, targets, estimator="true", generator=generator)

    with torch.no_grad():
        generator = torch.Generator().manual_seed(4)
        drawn = torch.multinomial(model(images).softmax(1), 1, generator=generator).squeeze(1)
    assert not torch.equal(drawn, targets)
    assert torch.allclose(found(4), by_loop(plain_copy(model), images, drawn), rtol=1e-10)
    assert torch.equal(found(4), found(4))
    assert not torch.equal(found(4), found(5))


def test_true_of_a_certain_model_is_the_empirical_of_its_own_labels() -> None:
    model = linear_model(scale=1000.0)
    images, _ = batch(1, TARGETS)
    space = ParameterSpace(model)
    with torch.no_grad():
        own = model(images).argmax(1)
        assert model(images).softmax(1).amax(1).min() > 1 - 1e-6
    true = fisher_diagonal(
        model, space, space.vector(), {}, images, own * 0, estimator="true", generator=torch.Generator()
    )
    assert torch.equal(true, fisher_diagonal(model, space, space.vector(), {}, images, own))


class Adjusted(nn.Module):
    """A model whose logits are raised by log shares, as its training loss sees them."""

    def __init__(self, model: nn.Module, adjustment: Tensor) -> None:
        super().__init__()
        self.model, self.adjustment = model, adjustment

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images) + self.adjustment


@pytest.mark.parametrize("estimator", ["empirical", "true", "batch-mean"])
def test_an_adjustment_of_the_logits(estimator: str) -> None:
    model = smooth_net().eval()
    images, targets = batch(1, TARGETS)
    space = ParameterSpace(model)
    adjustment = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.04, 0.01], dtype=torch.float64).log()

    def found(adjustment: Tensor | None) -> Tensor:
        generator = torch.Generator().manual_seed(4)
        vector = space.vector()
        return fisher_diagonal(
            model, space, vector, {}, images, targets, adjustment=adjustment, estimator=estimator, generator=generator
        )

    twin = Adjusted(plain_copy(model), adjustment)
    labels = targets
    if estimator == "true":  # drawn from the adjusted distribution
        with torch.no_grad():
            generator = torch.Generator().manual_seed(4)
            labels = torch.multinomial(twin(images).softmax(1), 1, generator=generator).squeeze(1)
    if estimator == "batch-mean":
        loss = F.cross_entropy(twin(images), labels)
        expected = flat(torch.autograd.grad(loss, list(twin.parameters()))) ** 2 / len(labels)
    else:
        expected = by_loop(twin, images, labels)
    assert torch.allclose(found(adjustment), expected, rtol=1e-10, atol=1e-16)
    assert not torch.allclose(found(adjustment), found(None), rtol=1e-2)
    assert torch.allclose(found(torch.zeros_like(adjustment)), found(None), rtol=1e-10, atol=1e-16)


def test_a_large_model_gets_smaller_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = smooth_net()
    images, targets = batch(1, TARGETS)
    space = ParameterSpace(model)
    seen, split = [], torch.Tensor.split

    def spy(tensor: Tensor, size: int, *args: int) -> tuple[Tensor, ...]:
        if tensor is targets:
            seen.append(size)
        return split(tensor, size, *args)

    monkeypatch.setattr(torch.Tensor, "split", spy)
    for room in (1 << 28, 3 * space.size * 8, 1):
        monkeypatch.setattr(fisher, "GRADIENT_BYTES", room)
        fisher_diagonal(model, space, space.vector(), {}, images, targets)
    assert seen == [64, 3, 1]


@pytest.mark.parametrize("estimator", ["empirical", "true", "batch-mean"])
def test_the_model_is_left_as_it_was(estimator: str) -> None:
    model = smooth_net()
    model.encoder[2].eval()
    images, targets = batch(1, TARGETS)
    space = ParameterSpace(model)
    theta, gradient = space.adopt()
    gradient.fill_(2.0)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    point = theta + 1
    kept = point.clone()
    result = fisher_diagonal(model, space, point, {}, images, targets, estimator=estimator, generator=torch.Generator())
    assert not result.requires_grad
    assert torch.equal(point, kept)
    assert (gradient == 2.0).all()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
