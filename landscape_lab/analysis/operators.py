"""Things that multiply a vector: the Hessian of a loss, without ever forming the matrix."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from landscape_lab.analysis.batches import Batches, Loss, batches_of, count_samples, loss_sum
from landscape_lab.errors import InputError
from landscape_lab.parameters import BatchNormPolicy, ParameterSpace, eval_mode

__all__ = ["Hessian", "Operator"]


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


class Hessian:
    r"""The Hessian of the mean loss over samples, in evaluation mode.

    .. math:: H = \frac{1}{n} \sum_{i=1}^{n} \nabla^2_\theta \, \ell(f_\theta(x_i), y_i)

    The mean is over samples, never over batches, so the split into batches does not matter, and for any
    partition of the samples into classes :math:`H = \sum_c (n_c / n) H_c` holds. BatchNorm uses its running
    statistics, dropout is off. Where a ReLU has a kink its curvature is not seen: this is the Hessian that
    automatic differentiation defines.

    Args:
        model: any module; never changed, and put back into its own mode after each product.
        loss: ``loss(output, target)``, of shape ``(B,)``; or a scalar, which is taken as the mean over the
            batch's samples and weighted by their number.
        batches: a pair of tensors, a list of batches, or a loader that gives the same samples at each
            reading.
        parameters: which parameters the Hessian is over (``None``: all trainable ones).
        batch_size: samples in memory at a time, for a pair of tensors; a loader keeps its own batches.

    Attributes:
        shape: ``(P, P)``.
        dtype: the parameters' dtype.
        device: the parameters' device; batches are moved there.
        samples: the number of samples ``n``.
        batch_norm: how BatchNorm normalises: ``"running"``.

    Raises:
        InputError: the batches hold no samples or change between readings, or the loss gives neither one
            value per sample nor a mean.

    Reference: B. Pearlmutter, *Fast exact multiplication by the Hessian*, Neural Computation 6 (1994).

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> data = torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)
        >>> Hessian(model, lambda output, target: (output - target).pow(2).sum(1), data).dense()
        tensor([[10.]])
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        batches: Batches,
        *,
        parameters: ParameterSpace | None = None,
        batch_size: int = 256,
    ) -> None:
        self._model = model
        self._loss = loss
        self._space = parameters or ParameterSpace(model)
        self._batches = batches_of(batches, batch_size)
        self.samples = count_samples(self._batches)
        self.shape = (self._space.size, self._space.size)
        self.dtype = self._space.dtype
        self.device = self._space.device
        self.batch_norm: BatchNormPolicy = "running"

    def __matmul__(self, v: Tensor, /) -> Tensor:
        """Multiply ``(P,)`` or ``(P, K)``; the ``K`` columns share each batch's forward pass and gradient.

        Raises:
            InputError: the product is not finite, or the loss does not depend on the parameters.
        """
        if v.shape[:1] != self.shape[1:] or v.dim() > 2:
            raise ValueError(
                f"expected a vector ({self.shape[1]},) or columns ({self.shape[1]}, K), got {tuple(v.shape)}"
            )
        columns = v[None] if v.dim() == 1 else v.T
        products = torch.zeros_like(columns, memory_format=torch.contiguous_format)
        # The fused attention kernels have no second derivative.
        with eval_mode(self._model, self.batch_norm), sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
            for inputs, targets in self._batches:
                self._add_products(inputs.to(self.device), targets.to(self.device), columns, products)
        products /= self.samples
        if not products.isfinite().all():
            raise InputError("a product with the Hessian is not finite: has the training of this model diverged?")
        return products.T.reshape(v.shape)

    def _add_products(self, inputs: Tensor, targets: Tensor, columns: Tensor, products: Tensor) -> None:
        parameters = self._space.parameters
        total = loss_sum(self._loss, self._model(inputs), targets)
        if not total.requires_grad:
            raise InputError("the loss does not depend on the parameters: is it detached, or under no_grad?")
        gradient = self._space.flatten(torch.autograd.grad(total, parameters, create_graph=True, allow_unused=True))
        if not gradient.requires_grad:  # the loss is linear in the parameters
            return
        for k, column in enumerate(columns):
            parts = torch.autograd.grad(
                gradient, parameters, column, retain_graph=k + 1 < len(columns), allow_unused=True
            )
            products[k] += self._space.flatten(parts)

    def dense(self) -> Tensor:
        """The matrix itself, ``(P, P)``, by ``P`` products; for models of a few thousand parameters."""
        return self @ torch.eye(self.shape[0], dtype=self.dtype, device=self.device)

    def to_scipy(self) -> Any:
        """The same operator as a :class:`scipy.sparse.linalg.LinearOperator` on NumPy arrays."""

        def product(v: Any) -> Any:
            return (self @ torch.as_tensor(v, dtype=self.dtype, device=self.device)).cpu().numpy()

        dtype = torch.empty(0, dtype=self.dtype).numpy().dtype
        return LinearOperator(self.shape, matvec=product, rmatvec=product, matmat=product, dtype=dtype)
