"""How the loss over many samples follows from the loss over parts of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from landscape_lab.analysis.batches import Loss, per_sample
from landscape_lab.errors import InputError

__all__ = ["Objective", "bends_as_told", "objective_of"]

_ADVICE = "let it return one value for each sample (reduction='none')"


@dataclass(frozen=True)
class Objective:
    """A loss as numerators and denominators that add up over any split of the samples.

    The loss over a set of samples is ``sum of total(part) / sum of weight(part)`` over its parts; for a loss that is a
    sum, the denominator is 1. So it is what the user's function would give for all samples in one batch.

    Attributes:
        loss: the user's function.
        kind: ``"samples"`` (one value each, averaged), ``"mean"``, ``"sum"``, or ``"weighted"`` (a mean that divides by
            the sum of class weights, or skips an ignored target).
        settings: of cross-entropy and negative log-likelihood, whose weighted mean is known.
    """

    loss: Loss
    kind: Literal["samples", "mean", "sum", "weighted"]
    settings: tuple[Callable[..., Tensor], dict[str, Any]] | None = None

    @property
    def is_sum(self) -> bool:
        """Whether the loss grows with the number of samples."""
        return self.kind == "sum"

    def total(self, output: Tensor, target: Tensor) -> Tensor:
        """The numerator of a part, a scalar that can be differentiated."""
        if self.settings is not None:
            function, settings = self.settings
            return function(output, target, **settings).sum()
        losses = self.loss(output, target)
        if self.kind == "samples":
            return losses.sum()
        return losses * len(target) if self.kind == "mean" else losses

    def weight(self, target: Tensor) -> float:
        """The denominator of a part; 1 or less for a sum, of which the whole has 1."""
        if self.kind == "sum":
            return 0.0
        if self.settings is None or target.is_floating_point():
            return float(len(target))
        settings = self.settings[1]
        counted = target[target != settings.get("ignore_index", -100)]
        weight = settings.get("weight")
        return float(len(counted) if weight is None else weight.to(counted.device)[counted].double().sum())

    def per_sample(self, output: Tensor, target: Tensor) -> Tensor:
        """The numerator of each sample, ``(B,)``."""
        if self.settings is not None:
            function, settings = self.settings
            return function(output, target, **settings).reshape(len(target), -1).sum(1)
        if self.kind == "samples":
            return per_sample(self.loss, output, target)
        return torch.stack([self.loss(output[i : i + 1], target[i : i + 1]) for i in range(len(target))])


def objective_of(loss: Loss, parts: Iterable[tuple[Tensor, Tensor]]) -> Objective:
    """Find out how a loss averages.

    Cross-entropy and negative log-likelihood, as modules or ``functools.partial`` of the functions, are known with
    their class weights and ignored targets. Any other scalar is compared with its values on single samples.

    Args:
        loss: ``loss(output, target)``, of shape ``(B,)`` or a scalar.
        parts: ``(output, target)`` of some samples, read until two different targets are seen.

    Raises:
        InputError: a scalar is neither the mean nor the sum over the samples, or the shape is another.
    """
    known = _known(loss)
    if known is not None:
        function, settings, reduction = known
        if reduction == "sum":
            return Objective(loss, "sum", (function, settings))
        if reduction == "none":
            return Objective(loss, "samples")
        special = settings.get("weight") is not None or "ignore_index" in settings
        return Objective(loss, "weighted" if special else "mean", (function, settings))
    kind: Literal["mean", "sum"] | None = None
    with torch.no_grad():
        for output, target in parts:
            value = loss(output, target)
            if not isinstance(value, Tensor):
                raise InputError(f"the loss must return a tensor, got {type(value).__name__}")
            if value.shape == target.shape[:1] and (value.dim() or not target.dim()):
                return Objective(loss, "samples")
            if value.dim():
                raise InputError(
                    f"the loss must give ({len(target)},) values or a scalar, but gave shape {tuple(value.shape)}: "
                    "reduce each sample to one number"
                )
            if len(target) < 2:
                continue
            kind = _kind_of(loss, output, target, value)
            if not bool((target == target[:1]).all()):
                break  # weights by class can only show where classes differ
    return Objective(loss, kind or "mean")


def bends_as_told(objective: Objective, output: Tensor, target: Tensor) -> bool:
    """Whether the second derivative by the output, as the graph has it, is the one that differences show.

    A function that is differentiable once only, or detached within, would be taken for a straight line in silence.

    Args:
        objective: of the loss.
        output: of some samples.
        target: of the same.
    """
    generator = torch.Generator().manual_seed(0)
    way = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output)
    own = getattr(objective.loss, "own_outputs", None)
    if own is not None:  # what comes after them is no output of the model, and must not be moved
        way[:, own:] = 0
    eps = torch.finfo(output.dtype).eps
    step = eps**0.25 * (float(output.abs().max()) or 1.0)

    def gradient(at: Tensor) -> tuple[Tensor, Tensor]:
        at = at.detach().requires_grad_()
        total = objective.total(at, target)
        if not total.requires_grad:
            return at, torch.zeros_like(at)
        return at, torch.autograd.grad(total, at, create_graph=True)[0]

    with torch.enable_grad():
        at, slope = gradient(output)
        told = torch.zeros_like(slope)
        if slope.requires_grad:
            (bent,) = torch.autograd.grad(slope, at, way, allow_unused=True)
            told = told if bent is None else bent
        seen = (gradient(output + step * way)[1] - gradient(output - step * way)[1]).detach() / (2 * step)
    if not bool(seen.isfinite().all() and told.isfinite().all()):
        return True
    rounding = 20 * eps / step * (1 + float(slope.detach().abs().max()))
    # At a kink between the two points, as of the hinge or the absolute value, the differences see what is not there for
    # the graph; but that is so for few outputs, and a missing term is missed for all.
    wrong = (seen - told).abs() > 0.5 * seen.abs() + rounding
    return float(wrong.double().mean()) < 0.4


def _kind_of(loss: Loss, output: Tensor, target: Tensor, value: Tensor) -> Literal["mean", "sum"]:
    singles = torch.stack([loss(output[i : i + 1], target[i : i + 1]) for i in range(len(target))])
    # A scalar that is not finite says nothing here, and is told as such by the product.
    if not (value.isfinite() and singles.isfinite().all()):
        return "mean"
    scale = float(singles.abs().mean()) + 1e-30
    for kind, expected in (("mean", singles.mean()), ("sum", singles.sum())):
        if abs(float(value - expected)) <= 1e-4 * scale * (len(target) if kind == "sum" else 1):
            return kind  # type: ignore[return-value]
    raise InputError(
        "the loss is a scalar that is neither the mean nor the sum over its samples (does it divide by class weights, "
        f"or add a term of its own?): {_ADVICE}"
    )


def _known(loss: Loss) -> tuple[Callable[..., Tensor], dict[str, Any], str] | None:
    """Function without reduction, its settings, and the reduction, where the loss is one that PyTorch defines."""
    if isinstance(loss, nn.CrossEntropyLoss):
        smoothing = {"label_smoothing": loss.label_smoothing}
        function: Callable[..., Tensor] = F.cross_entropy
    elif type(loss) is nn.NLLLoss:
        smoothing, function = {}, F.nll_loss
    elif isinstance(loss, functools.partial) and loss.func in (F.cross_entropy, F.nll_loss) and not loss.args:
        settings = dict(loss.keywords)
        reduction = settings.pop("reduction", "mean")
        if settings.keys() & {"size_average", "reduce"}:
            return None
        return loss.func, {**settings, "reduction": "none"}, reduction
    elif loss is F.cross_entropy or loss is F.nll_loss:
        return loss, {"reduction": "none"}, "mean"
    else:
        return None
    settings = {"weight": loss.weight, "ignore_index": loss.ignore_index, "reduction": "none", **smoothing}
    return function, settings, loss.reduction
