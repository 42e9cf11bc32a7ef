"""The CIFAR ResNets: sizes by formula, the shortcut without parameters, the forward pass by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from landscape_lab.models import ResNetEncoder


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def formula(depth: int, width: int, in_channels: int) -> int:
    """3 x 3 convolutions without bias, each with a BatchNorm of two numbers a channel; nothing else."""
    blocks = (depth - 2) // 6
    pairs = [(in_channels, width)]
    for stage in range(3):
        out = width * 2**stage
        pairs += [(pairs[-1][1], out), (out, out)] + [(out, out)] * 2 * (blocks - 1)
    return sum(9 * a * b + 2 * b for a, b in pairs)


def reference(encoder: ResNetEncoder, x: Tensor) -> Tensor:
    """The network from its own tensors, block by block, in evaluation mode."""
    state = encoder.state_dict()

    def conv_norm(x: Tensor, conv: str, norm: str, stride: int) -> Tensor:
        x = F.conv2d(x, state[f"{conv}.weight"], stride=stride, padding=1)
        mean, var, gamma, beta = (
            state[f"{norm}.{name}"][:, None, None] for name in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * gamma + beta

    x = conv_norm(x, "conv1", "bn1", 1).relu()
    for stage in range(3):
        for block in range(len(encoder.stages[stage])):
            prefix = f"stages.{stage}.{block}"
            stride = 2 if stage and not block else 1
            out = conv_norm(x, f"{prefix}.conv1", f"{prefix}.bn1", stride).relu()
            out = conv_norm(out, f"{prefix}.conv2", f"{prefix}.bn2", 1)
            shortcut = torch.zeros_like(out)
            before = (out.shape[1] - x.shape[1]) // 2
            shortcut[:, before : before + x.shape[1]] = x[:, :, ::stride, ::stride]
            x = (out + shortcut).relu()
    return x.mean((2, 3))


@pytest.mark.parametrize(
    ("depth", "width", "in_channels", "expected"),
    [(32, 16, 3, 463_504), (20, 16, 3, 269_072), (8, 16, 3, 74_640), (8, 4, 1, 4_764)],
)
def test_number_of_parameters(depth: int, width: int, in_channels: int, expected: int) -> None:
    assert formula(depth, width, in_channels) == expected
    encoder = ResNetEncoder(depth, width, in_channels)
    assert size(encoder) == expected
    convolutions = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == depth - 1
    assert all(module.kernel_size == (3, 3) for module in convolutions)  # option A: no 1 x 1 shortcut


@pytest.mark.parametrize("depth", [2, 9, 18, 0])
def test_other_depths_are_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=f"depth must be 6 n \\+ 2 .*got {depth}"):
        ResNetEncoder(depth)


@pytest.mark.parametrize(("depth", "side"), [(8, 8), (14, 32), (8, 7)])
def test_forward_by_hand(depth: int, side: int) -> None:
    torch.manual_seed(0)
    encoder = ResNetEncoder(depth, width=3, in_channels=2).double().eval()
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight.data, module.bias.data):
                tensor.uniform_(0.5, 1.5)
    x = torch.randn(4, 2, side, side, dtype=torch.float64)
    features = encoder(x)
    assert features.shape == (4, encoder.feature_dim) == (4, 12)
    with torch.no_grad():
        expected = reference(encoder, x)
    assert expected.std() > 1e-3
    assert torch.allclose(features, expected, rtol=1e-10, atol=1e-12)


def test_initial_weights_are_kaiming_normal() -> None:
    torch.manual_seed(0)
    weight = ResNetEncoder(8, 32).stages[2][0].conv2.weight
    fan_in = weight[0].numel()
    assert weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.02)
    assert abs(weight.mean().item()) < 0.02 * weight.std().item()
    assert weight.abs().max() > 3.5 * weight.std()  # a uniform distribution ends at √3
