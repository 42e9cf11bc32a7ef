"""The flat vector: views, adoption, restoring; evaluation mode and BatchNorm policies."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from landscape_lab.parameters import ParameterSpace, eval_mode, frozen_batch_statistics


class Tied(nn.Module):
    """Two layers that share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Dropout(0.5), nn.Linear(3, 2))


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_state(model: nn.Module, kept: dict[str, Tensor]) -> bool:
    now = model.state_dict()
    return now.keys() == kept.keys() and all(torch.equal(now[name], kept[name]) for name in kept)


# -- the vector ----------------------------------------------------------------------------------------------


def test_names_slices_and_order() -> None:
    model = small_net()
    space = ParameterSpace(model)
    assert space.names == ("0.weight", "0.bias", "1.weight", "1.bias", "4.weight", "4.bias")
    assert (space.size, space.sizes) == (12 + 3 + 3 + 3 + 6 + 2, (12, 3, 3, 3, 6, 2))
    assert space.slice_of("1.bias") == slice(18, 21)
    assert torch.equal(space.vector()[space.slice_of("4.weight")], model[4].weight.detach().reshape(-1))
    assert torch.equal(space.vector(), nn.utils.parameters_to_vector(model.parameters()).detach())
    assert space.vector(torch.float64).dtype == torch.float64


def test_vector_is_a_copy_and_views_share_memory() -> None:
    model = small_net()
    space = ParameterSpace(model)
    vector = space.vector()
    views = space.views(vector)
    assert [tuple(view.shape) for view in views.values()] == [tuple(shape) for shape in space.shapes]
    vector[space.slice_of("0.bias")] = 7.0
    assert views["0.bias"].tolist() == [7.0] * 3
    views["4.bias"][1] = -2.0
    assert vector[-1] == -2.0
    assert not (model[0].bias == 7.0).any()


def test_flatten_inverts_views_and_fills_unused_with_zeros() -> None:
    space = ParameterSpace(small_net())
    vector = torch.arange(float(space.size))
    assert torch.equal(space.flatten(list(space.views(vector).values())), vector)
    parts: list[Tensor | None] = list(space.views(vector).values())
    parts[1] = None
    expected = vector.clone()
    expected[12:15] = 0
    assert torch.equal(space.flatten(parts), expected)


def test_range_of_a_module() -> None:
    model = nn.Module()
    model.one, model.onemore = nn.Linear(2, 2), nn.Linear(2, 1)
    space = ParameterSpace(model)
    assert space.range_of("one") == slice(0, 6)  # not onemore, whose name begins alike
    assert space.range_of("onemore") == slice(6, 9)
    with pytest.raises(ValueError, match="no parameter lies in 'two'"):
        space.range_of("two")


def test_frozen_parameters_are_left_out() -> None:
    model = small_net()
    model[0].bias.requires_grad_(False)
    space = ParameterSpace(model)
    assert "0.bias" not in space.names
    assert space.size == 26
    kept = model[0].bias.clone()
    flat, _ = space.adopt()
    flat.zero_()
    assert torch.equal(model[0].bias, kept)


def test_where_selects_by_name() -> None:
    space = ParameterSpace(small_net(), where=lambda name: name.startswith("4."))
    assert space.names == ("4.weight", "4.bias")


def test_a_tied_weight_counts_once() -> None:
    model = Tied()
    space = ParameterSpace(model)
    assert space.names == ("first.weight", "second.bias")
    flat, gradient = space.adopt()
    assert model.second.weight is model.first.weight
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    loss = model(x).square().sum()
    (expected,) = torch.autograd.grad(loss, [model.first.weight])
    model(x).square().sum().backward()
    assert torch.allclose(gradient[:9].view(3, 3), expected, rtol=1e-6)
    flat.zero_()
    assert not model.second.weight.any()
    with space.bound_to(torch.ones(space.size)):
        assert (model.second.weight == 1).all()
        assert (model.first.weight == 1).all()


def test_nothing_to_train() -> None:
    with pytest.raises(ValueError, match="no trainable parameters"):
        ParameterSpace(nn.Tanh())


def test_mixed_dtypes_are_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())
    with pytest.raises(ValueError, match="one dtype"):
        ParameterSpace(model)


# -- adopt and bound_to --------------------------------------------------------------------------------------


def test_adopted_parameters_follow_the_buffer() -> None:
    model = small_net()
    space = ParameterSpace(model)
    before = space.vector()
    flat, gradient = space.adopt()
    assert torch.equal(flat, before)
    assert not gradient.any()
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    model.eval()
    model(x).square().mean().backward()
    first = gradient.clone()
    expected = torch.autograd.grad(model(x).square().mean(), list(model.parameters()))
    assert torch.allclose(first, torch.cat([part.reshape(-1) for part in expected]), rtol=1e-6, atol=1e-8)
    assert first.abs().max() > 0.01
    model(x).square().mean().backward()
    assert torch.allclose(gradient, 2 * first, rtol=1e-6)
    flat.sub_(0.5 * first)
    assert torch.equal(space.vector(), flat)
    assert torch.equal(space.vector(), before - 0.5 * first)


def test_bound_to_moves_and_puts_back() -> None:
    model = small_net()
    space = ParameterSpace(model)
    kept, pointers = state(model), [parameter.data_ptr() for parameter in model.parameters()]
    vector = torch.linspace(-1, 1, space.size)
    with space.bound_to(vector):
        assert torch.equal(space.vector(), vector)
        vector.mul_(2)
        assert torch.equal(space.vector(), vector)
    assert same_state(model, kept)
    assert [parameter.data_ptr() for parameter in model.parameters()] == pointers
    assert torch.equal(vector, 2 * torch.linspace(-1, 1, space.size))


def test_bound_to_puts_back_after_an_exception() -> None:
    model = small_net()
    space = ParameterSpace(model)
    kept = state(model)
    with pytest.raises(RuntimeError, match="on purpose"), space.bound_to(torch.zeros(space.size)):
        raise RuntimeError("on purpose")
    assert same_state(model, kept)


def test_bound_to_of_another_length_changes_nothing() -> None:
    model = small_net()
    space = ParameterSpace(model)
    kept = state(model)
    with pytest.raises(RuntimeError), space.bound_to(torch.zeros(space.size - 1)):
        pass
    assert same_state(model, kept)


# -- modes and BatchNorm -------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["running", "batch"])
@pytest.mark.parametrize("fails", [False, True])
def test_eval_mode_restores_mixed_modes(policy: str, fails: bool) -> None:
    model = small_net().train()
    model[1].eval()
    model[3].eval()
    before, tracked = modes(model), model[1].track_running_stats
    try:
        with eval_mode(model, policy):  # type: ignore[arg-type]
            assert not model.training
            assert not model[3].training
            assert model[1].training == (policy == "batch")
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert modes(model) == before
    assert model[1].track_running_stats == tracked


def test_eval_mode_by_running_statistics() -> None:
    model = small_net().train()
    model[1].running_mean.copy_(torch.tensor([1.0, -1.0, 0.5]))
    model[1].running_var.copy_(torch.tensor([4.0, 1.0, 0.25]))
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(2))
    hidden = model[0](x)
    norm = (hidden - model[1].running_mean) / (model[1].running_var + 1e-5).sqrt()
    kept = state(model)
    with eval_mode(model):
        assert torch.allclose(model(x), model[4](torch.tanh(norm)), rtol=1e-5, atol=1e-6)
    assert same_state(model, kept)


@pytest.mark.parametrize("how", ["eval_mode", "frozen_batch_statistics"])
def test_batch_statistics_without_updating_buffers(how: str) -> None:
    model = small_net().train()
    model[3].p = 0.0
    model[1].running_mean.fill_(3.0)
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(3))
    hidden = model[0](x)
    norm = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt()
    expected = model[4](torch.tanh(norm))
    kept = state(model)
    with eval_mode(model, "batch") if how == "eval_mode" else frozen_batch_statistics(model):
        assert torch.allclose(model(x), expected, rtol=1e-5, atol=1e-6)
    assert same_state(model, kept)  # num_batches_tracked too
    model(x)
    assert not same_state(model, kept)


def test_frozen_batch_statistics_restores_after_an_exception() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2, track_running_stats=False))
    with pytest.raises(RuntimeError), frozen_batch_statistics(model):
        raise RuntimeError
    assert [norm.track_running_stats for norm in model] == [True, False]


def test_instance_norm_keeps_its_buffers_in_evaluation() -> None:
    model = nn.Sequential(nn.InstanceNorm2d(3, track_running_stats=True)).train()
    kept = state(model)
    with eval_mode(model, "batch"):
        model(torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(4)))
    assert same_state(model, kept)
