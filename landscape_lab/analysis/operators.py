"""Things that multiply a vector: Hessian, Gauss-Newton and Fisher matrices of a loss, without ever forming them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.func import jvp

from landscape_lab.analysis.batches import Batches, Loss
from landscape_lab.analysis.kernels import CheapSecondDerivatives
from landscape_lab.analysis.memory import GraphBudget
from landscape_lab.analysis.sample_operator import Product, SampleOperator
from landscape_lab.errors import InputError
from landscape_lab.parameters import BatchNormPolicy, ParameterSpace

__all__ = ["MATRICES", "Combination", "Fisher", "GaussNewton", "Hessian", "Matrix", "Operator"]

Matrix = Literal["hessian", "ggn", "fisher", "fisher-true"]


class Operator(Protocol):
    """A symmetric matrix of shape ``(P, P)`` known by its products; a square tensor is one too."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(P, P)``."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the vectors it multiplies."""

    @property
    def device(self) -> torch.device:
        """The device of the vectors it multiplies."""

    def __matmul__(self, v: Tensor, /) -> Tensor:
        """The product with ``(P,)`` or ``(P, K)``, of the same shape."""


class Hessian(SampleOperator):
    r"""The Hessian of the mean loss over samples.

    .. math:: H = \frac{1}{n} \sum_{i=1}^{n} \nabla^2_\theta \, \ell(f_\theta(x_i), y_i)

    Arguments, attributes and errors are those of :class:`SampleOperator`.

    Reference: B. Pearlmutter, *Fast exact multiplication by the Hessian*, Neural Computation 6 (1994).

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> data = torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)
        >>> Hessian(model, lambda output, target: (output - target).pow(2).sum(1), data).dense()
        tensor([[10.]])
    """

    name = "hessian"

    def _graph(self, inputs: Tensor, targets: Tensor) -> Product:
        space = self.space
        with CheapSecondDerivatives():
            total = self._total(self._model(inputs), targets)
            parts = torch.autograd.grad(total, space.parameters, create_graph=True, allow_unused=True)
            gradient = space.flatten(parts)
        if not self._walked:
            _refuse_dead_ends(gradient)
            self._walked = True
        if not gradient.requires_grad:  # the loss is linear in the parameters
            return torch.zeros_like

        def product(v: Tensor) -> Tensor:
            kept = torch.autograd.grad(gradient, space.parameters, v, retain_graph=True, allow_unused=True)
            return space.flatten(kept)

        return product

    def _forms(self, inputs: Tensor, targets: Tensor, v: Tensor) -> Tensor:
        losses = self._losses_along(inputs, targets, v)
        zero, one = v.new_zeros(()), v.new_ones(())

        def slope(t: Tensor) -> Tensor:
            return jvp(losses, (t,), (one,))[1]  # type: ignore[no-any-return]

        return jvp(slope, (zero,), (one,))[1]  # type: ignore[no-any-return]


class _OuterOperator(SampleOperator):
    r"""``J^T B J``: the model's Jacobian around a small matrix for each sample."""

    @abstractmethod
    def _outer(self, output: Tensor, targets: Tensor) -> Product:
        """The product of each sample's ``B_i`` with an array of the shape of :meth:`_inner`'s result."""

    def _inner(self, output: Tensor, targets: Tensor) -> Tensor:
        """What is differentiated by the parameters: the output, or the losses."""
        return output

    def _graph(self, inputs: Tensor, targets: Tensor) -> Product:
        space = self.space
        with CheapSecondDerivatives():
            output = self._model(inputs)
            self._total(output, targets)
            inner = self._inner(output, targets)
            # J v by differentiating u -> J^T u, which is linear: the graph of both is built once.
            dummy = torch.zeros_like(inner, requires_grad=True)
            parts = torch.autograd.grad(inner, space.parameters, dummy, create_graph=True, allow_unused=True)
            pulled = space.flatten(parts)
        outer = self._outer(output.detach(), targets)

        def product(v: Tensor) -> Tensor:
            (pushed,) = torch.autograd.grad(pulled, dummy, v, retain_graph=True)
            kept = torch.autograd.grad(inner, space.parameters, outer(pushed), retain_graph=True, allow_unused=True)
            return space.flatten(kept)

        return product

    def _forms(self, inputs: Tensor, targets: Tensor, v: Tensor) -> Tensor:
        def inner(t: Tensor) -> Tensor:
            return self._inner(outputs(t), targets)

        outputs = self._outputs_along(inputs, v)
        zero, one = v.new_zeros(()), v.new_ones(())
        output = outputs(zero)
        pushed = jvp(inner, (zero,), (one,))[1]
        with torch.enable_grad():
            bent = self._outer(output.detach(), targets)(pushed)
        form: Tensor = (pushed * bent).reshape(len(targets), -1).sum(1)
        return form


class GaussNewton(_OuterOperator):
    r"""The generalised Gauss-Newton matrix: the Hessian without the curvature of the model itself.

    .. math:: G = \frac{1}{n} \sum_i J_i^\top \, \nabla^2_f \ell(f_i, y_i) \, J_i

    Positive semi-definite for a convex loss. Arguments are those of :class:`SampleOperator`.

    Reference: N. Schraudolph, *Fast curvature matrix-vector products for
    second-order gradient descent*, Neural Computation 14 (2002).
    """

    name = "ggn"

    def _outer(self, output: Tensor, targets: Tensor) -> Product:
        with torch.enable_grad():
            at = output.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(self._objective.total(at, targets), at, create_graph=True)

        def product(u: Tensor) -> Tensor:
            if not gradient.requires_grad:  # the loss is linear in the output
                return torch.zeros_like(u)
            (bent,) = torch.autograd.grad(gradient, at, u, retain_graph=True)
            return bent

        return product


class Fisher(_OuterOperator):
    r"""The Fisher matrix, empirical or true.

    .. math:: F = \frac{1}{n} \sum_i g_i g_i^\top \quad\text{(empirical)}, \qquad
              F = \frac{1}{n} \sum_i \mathbb{E}_{y \sim p(\cdot \mid x_i)} \, g_i(y) \, g_i(y)^\top \quad\text{(true)}

    with ``g_i`` the gradient of sample ``i``'s loss, at its own target or at targets drawn from the model's softmax;
    the expectation is a sum over all classes. For cross-entropy the true Fisher matrix is the Gauss-Newton matrix.

    Reference: F. Kunstner, L. Balles, P. Hennig, *Limitations of the empirical Fisher approximation for natural
    gradient descent*, NeurIPS 2019, arXiv:1905.12558.

    Args:
        kind: ``"empirical"`` or ``"true"``; all others are those of :class:`SampleOperator`.
    """

    name = "fisher"

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        batches: Batches,
        *,
        kind: Literal["empirical", "true"] = "empirical",
        parameters: ParameterSpace | str | None = None,
        batch_norm: BatchNormPolicy = "running",
        batch_size: int | None = None,
        memory_limit: int | GraphBudget | None = None,
    ) -> None:
        if kind not in ("empirical", "true"):
            raise ValueError(f"kind must be 'empirical' or 'true', got {kind!r}")
        self.kind = kind
        self.name = "fisher" if kind == "empirical" else "fisher-true"  # type: ignore[misc]
        super().__init__(
            model,
            loss,
            batches,
            parameters=parameters,
            batch_norm=batch_norm,
            batch_size=batch_size,
            memory_limit=memory_limit,
        )

    def _inner(self, output: Tensor, targets: Tensor) -> Tensor:
        return self._objective.per_sample(output, targets) if self.kind == "empirical" else output

    def _outer(self, output: Tensor, targets: Tensor) -> Product:
        if self.kind == "empirical":
            return lambda u: u
        if output.dim() != 2 or targets.is_floating_point():
            raise InputError("the true Fisher matrix needs outputs (B, classes) that are logits, and class targets")
        shares = output.softmax(1)
        with torch.enable_grad():
            at = output.clone().requires_grad_()
            slopes = torch.stack(
                [
                    torch.autograd.grad(self._objective.per_sample(at, torch.full_like(targets, c)).sum(), at)[0]
                    for c in range(output.shape[1])
                ]
            )  # (classes, B, outputs)

        def product(u: Tensor) -> Tensor:
            along = (slopes * u).sum(2) * shares.T
            return torch.einsum("cb,cbo->bo", along, slopes)

        return product


MATRICES: dict[Matrix, Callable[..., SampleOperator]] = {
    "hessian": Hessian,
    "ggn": GaussNewton,
    "fisher": Fisher,
    "fisher-true": partial(Fisher, kind="true"),
}
"""The matrices by name."""


class Combination:
    r"""A weighted sum of operators, :math:`\sum_k w_k M_k`: a union of classes from the classes.

    Args:
        operators: of one shape, dtype and device.
        weights: one for each.
    """

    def __init__(self, operators: Sequence[SampleOperator], weights: Sequence[float]) -> None:
        if not operators or len(operators) != len(weights):
            raise ValueError(f"expected as many weights as operators, got {len(operators)} and {len(weights)}")
        self._operators, self._weights = tuple(operators), tuple(weights)
        first = operators[0]
        self.shape, self.dtype, self.device = first.shape, first.dtype, first.device
        self.samples = sum(op.samples for op in operators)
        self.batch_norm, self.name, self.space = first.batch_norm, first.name, first.space

    def __matmul__(self, v: Tensor, /) -> Tensor:
        """The product with ``(P,)`` or ``(P, K)``."""
        total = torch.zeros_like(v)
        for op, weight in zip(self._operators, self._weights, strict=True):
            total.add_(op @ v, alpha=weight)
        return total

    def quadratic_forms(self, v: Tensor) -> Tensor:
        """``v^T M_i v`` of every sample, scaled so that their mean is the form of the combination."""
        return torch.cat(
            [
                op.quadratic_forms(v) * (weight * self.samples / op.samples)
                for op, weight in zip(self._operators, self._weights, strict=True)
            ]
        )

    def release(self) -> None:
        """Forget the kept graphs of all operators."""
        for op in self._operators:
            op.release()


def _refuse_dead_ends(gradient: Tensor) -> None:
    """Look for functions that are differentiable once only: autograd skips them where they lead to no parameter."""
    seen, waiting = set(), [gradient.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name().endswith("Error"):
            raise InputError("the loss or the model has no second derivative: a custom function is once_differentiable")
        waiting += [following for following, _ in node.next_functions]
