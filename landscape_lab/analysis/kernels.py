"""Convolution and BatchNorm whose second derivatives cost what they should."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["CheapSecondDerivatives", "RightForwardMode"]

_Layout = tuple[list[int], list[int], list[int], int]  # stride, padding, dilation, groups
_CONVOLUTIONS: dict[Callable[..., Tensor], int] = {F.conv1d: 1, F.conv2d: 2, F.conv3d: 3}


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, layout: _Layout) -> Tensor:
    stride, padding, dilation, groups = layout
    none = [0] * len(stride)
    return torch.ops.aten.convolution(x, weight, bias, stride, padding, dilation, False, none, groups)  # type: ignore[no-any-return]


def _convolution_backward(
    g: Tensor, x: Tensor, weight: Tensor, layout: _Layout, need_x: bool, need_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    stride, padding, dilation, groups = layout
    none = [0] * len(stride)
    mask = [need_x, need_weight, False]
    backward = torch.ops.aten.convolution_backward
    gx, gw, _ = backward(g, x, weight, None, stride, padding, dilation, False, none, groups, mask)
    return gx, gw


class _ConvolutionBackward(torch.autograd.Function):
    """``(g, x, W) -> (dL/dx, dL/dW)``, bilinear in ``g`` and ``(W, x)``."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, weight: Tensor, layout: _Layout, need_x: bool, need_weight: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        ctx.layout = layout
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(g, x, weight)
        return _convolution_backward(g, x, weight, layout, need_x, need_weight)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        u, v = cotangents  # of dL/dx and dL/dW
        g, x, weight = ctx.saved_tensors
        need_g, need_x, need_weight = ctx.needs_input_grad[:3]
        dg = dx = dw = None
        # <u, dL/dx> = <conv(u, W), g>, and <v, dL/dW> = <conv(x, v), g>. PyTorch's own formula computes the weight's
        # part by a convolution with an image-sized kernel, which is several times slower than this.
        if need_g:
            if u is not None:
                dg = _convolution(u, weight, None, ctx.layout)
            if v is not None:
                other = _convolution(x, v, None, ctx.layout)
                dg = other if dg is None else dg + other
        need_x, need_weight = need_x and v is not None, need_weight and u is not None
        if need_x or need_weight:
            at, by = x if u is None else u, weight if v is None else v
            dx, dw = _convolution_backward(g, at, by, ctx.layout, need_x, need_weight)
        return dg, dx, dw, None, None, None


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layout: _Layout) -> Tensor:
        ctx.layout = layout
        ctx.save_for_backward(x, weight)
        return _convolution(x, weight, bias, layout)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = cotangents
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        gx = gw = None
        if need_x or need_weight:
            gx, gw = _ConvolutionBackward.apply(g, x, weight, ctx.layout, need_x, need_weight)  # type: ignore[no-untyped-call]
        gb = g.sum([0, *range(2, g.dim())]) if need_bias else None
        return gx, gw, gb, None


class CheapSecondDerivatives(TorchFunctionMode):
    """Within the block, convolutions and evaluation-mode BatchNorm build graphs that are cheap to differentiate twice.

    The results are those of PyTorch but for rounding. Measured on a ResNet-20 (one CPU thread, channels-last, 64 images
    of 32 x 32): a product with a retained gradient graph takes 1.5 times less time. Half of that is convolution, whose
    second derivative PyTorch computes through convolutions with image-sized kernels; half is BatchNorm, which in
    evaluation mode is ``x * scale + shift`` and needs no more. Everything else is left to PyTorch, as are padding by
    name and calls in a form that is not known here.
    """

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Redirect the calls that have a cheaper form."""
        kwargs = kwargs or {}
        if torch.is_grad_enabled():
            if func in _CONVOLUTIONS:
                call = _convolution_call(_CONVOLUTIONS[func], *args, **kwargs)
                if call is not None:
                    return _Convolution.apply(*call)  # type: ignore[no-untyped-call]
            elif func is F.batch_norm:
                normalised = _affine(*args, **kwargs)
                if normalised is not None:
                    return normalised
        return func(*args, **kwargs)


class RightForwardMode(TorchFunctionMode):
    """Within the block, norms over the input's own statistics are written out.

    PyTorch's second derivatives of them in forward mode are wrong: with torch 2.13, ``jvp`` of ``jvp`` and ``jvp`` of
    ``grad`` through layer norm and instance norm lose a term.
    """

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Redirect layer, instance and batch norm."""
        kwargs = kwargs or {}
        written_out = _NORMS.get(func)
        result = None if written_out is None else written_out(*args, **kwargs)
        return func(*args, **kwargs) if result is None else result


def _standardised(x: Tensor, dims: list[int], eps: float) -> Tensor:
    centred = x - x.mean(dims, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(dims, keepdim=True) + eps)


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    result = _standardised(input, list(range(-len(normalized_shape), 0)), eps)
    result = result if weight is None else result * weight
    return result if bias is None else result + bias


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    if not use_input_stats:
        return None
    return _by_channel(_standardised(input, list(range(2, input.dim())), eps), weight, bias)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    if not training:
        return None
    return _by_channel(_standardised(input, [0, *range(2, input.dim())], eps), weight, bias)


def _by_channel(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    shape = (1, -1) + (1,) * (x.dim() - 2)
    x = x if weight is None else x * weight.view(shape)
    return x if bias is None else x + bias.view(shape)


_NORMS: dict[Any, Callable[..., Tensor | None]] = {
    F.layer_norm: _layer_norm,
    F.instance_norm: _instance_norm,
    F.batch_norm: _batch_norm,
}


def _convolution_call(
    dims: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> tuple[Tensor, Tensor, Tensor | None, _Layout] | None:
    if isinstance(padding, str) or input.dim() != dims + 2:
        return None

    def each(value: int | Sequence[int]) -> list[int]:
        listed = [value] if isinstance(value, int) else list(value)
        return listed * dims if len(listed) == 1 else listed

    return input, weight, bias, (each(stride), each(padding), each(dilation), groups)


def _affine(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    if training or running_mean is None or running_var is None:
        return None
    scale = torch.rsqrt(running_var + eps)
    scale = scale if weight is None else scale * weight
    shift = -running_mean * scale if bias is None else bias - running_mean * scale
    return _by_channel(input, scale, shift)
