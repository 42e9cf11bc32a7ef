"""A matrix that is a mean over samples, multiplied part by part: what all of them share."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from typing_extensions import Self

from landscape_lab.analysis.batches import Batches, Loss, batches_of, count_samples, tensor_output
from landscape_lab.analysis.kernels import RightForwardMode
from landscape_lab.analysis.layout import channels_last, has_convolutions
from landscape_lab.analysis.losses import Objective, bends_as_told, objective_of
from landscape_lab.analysis.memory import GraphBudget, graph_bytes, is_out_of_memory
from landscape_lab.errors import InputError
from landscape_lab.parameters import (
    BatchNormPolicy,
    ParameterSpace,
    eval_mode,
    matching,
    reestimated_statistics,
    swapped_statistics,
)

__all__ = ["Part", "Product", "SampleOperator"]

Part = tuple[Tensor, Tensor]
Product = Callable[[Tensor], Tensor]  # (P,) -> (P,), over one part's samples, summed

# Bytes of graph that a part of the samples should take. Measured on a CPU: on 32 x 32 images of a ResNet-20 or -32
# parts of 32 to 64 samples (100 to 300 MB) are the fastest, on 8 x 8 images of a ResNet-8 parts of 256.
_PART_BYTES = {"cpu": 192 << 20, "cuda": 4 << 30}
_MOST = {"cpu": 256, "cuda": 1024}
_TRIAL = 32  # samples on which loss, determinism and memory are tried


class SampleOperator(ABC):
    r"""A matrix that is a mean over samples, :math:`\frac1n \sum_i M_i`, multiplied part by part.

    The mean is over samples, never over batches, so the split into batches does not matter: it is the matrix of the
    loss that one batch of all samples would have. A class-weighted mean divides by the weights of all samples, a loss
    that is a sum stays one. For any partition into classes :math:`M = \sum_c (n_c / n) M_c` holds.

    Dropout is off. Nothing of the model changes: weights, buffers, mode, ``requires_grad``, ``.grad``, random state.
    Fused attention kernels, which have no second derivative, are replaced by PyTorch's math kernel. Where a ReLU has a
    kink its curvature is not seen: these are the matrices that automatic differentiation defines.

    The samples are taken in parts whose gradient graphs fit the processor's caches, and as many graphs as memory allows
    are kept from one product to the next. Where memory runs out, parts are halved.

    Args:
        model: any module.
        loss: ``loss(output, target)``, of shape ``(B,)`` or a scalar; see
            :class:`~landscape_lab.analysis.losses.Objective` for how it averages.
        batches: a pair of tensors, a list of batches, or a loader that gives the same samples at each reading.
        parameters: which parameters the matrix is over: a space, a module's name or a glob (``"encoder"``,
            ``"encoder.*"``); ``None``: all trainable ones.
        batch_norm: ``"running"``: BatchNorm uses its running statistics. ``"batch"``: those of each batch as given,
            which then is never split. ``"reestimated"``: those of all given samples, estimated once, now.
        batch_size: samples in memory at a time; ``None``: as many as are fast.
        memory_limit: bytes that kept graphs may take; ``None``: half of the free memory; 0: keep none.

    Attributes:
        shape: ``(P, P)``.
        dtype: the parameters' dtype.
        device: the parameters' device; batches are moved there.
        samples: the number of samples ``n``.
        weight: what the sum over samples is divided by: ``n``, the sum of their class weights, or 1 for a sum.
        batch_norm: as given.
        batch_size: samples in a part.
        space: the parameters.
        name: what it is, for results.
        budget: the bytes that are left for kept graphs.

    Raises:
        InputError: there are no samples, they change between readings (random augmentation), the model is random in
            evaluation mode (dropout that is always on), the loss is not finite, cannot be averaged, or does not depend
            on the parameters.
    """

    name: ClassVar[str]

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        batches: Batches,
        *,
        parameters: ParameterSpace | str | None = None,
        batch_norm: BatchNormPolicy = "running",
        batch_size: int | None = None,
        memory_limit: int | GraphBudget | None = None,
    ) -> None:
        if batch_norm not in ("running", "batch", "reestimated"):
            raise ValueError(f"batch_norm must be 'running', 'batch' or 'reestimated', got {batch_norm!r}")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be positive, got {batch_size}")
        self._model = model
        self.space = _space_of(model, parameters)
        self.shape = (self.space.size, self.space.size)
        self.dtype = self.space.dtype
        self.device = self.space.device
        self.batch_norm: BatchNormPolicy = batch_norm
        self._batches = batches_of(batches, batch_size or _MOST.get(self.device.type, 256))
        self.samples = count_samples(self._batches)
        self._graphs: dict[int, tuple[Product, int]] = {}
        self._state: object = None
        self._walked = False
        budget = memory_limit if isinstance(memory_limit, GraphBudget) else GraphBudget(self.device, memory_limit)
        self.budget = budget
        self._statistics: Mapping[str, Tensor] = {}
        self._objective, self.channels_last = self._tried(loss)
        if batch_norm == "reestimated":
            self._statistics = reestimated_statistics(model, (self._moved(batch)[0] for batch in self._batches))
        self._graph_size = self._measured()  # bytes a sample
        fast = _PART_BYTES.get(self.device.type, 192 << 20) / max(self._graph_size, 1)
        most = _MOST.get(self.device.type, 256)
        # A power of two, so that nearly equal models get equal parts and equal bits.
        self.batch_size = batch_size or min(most, max(16, 1 << max(0, int(fast).bit_length() - 1)))
        self._lay_out()
        self._weigh()

    # -- products --------------------------------------------------------------------------------------------

    def __matmul__(self, v: Tensor, /) -> Tensor:
        """Multiply ``(P,)`` or ``(P, K)``; the ``K`` columns share each part's gradient graph.

        Raises:
            InputError: the product is not finite, memory does not suffice for one sample, or the loss has no second
                derivative.
        """
        if v.shape[:1] != self.shape[1:] or v.dim() > 2:
            raise ValueError(
                f"expected a vector ({self.shape[1]},) or columns ({self.shape[1]}, K), got {tuple(v.shape)}"
            )
        columns = v.detach()[None] if v.dim() == 1 else v.detach().T.contiguous()
        if not len(columns):
            return torch.zeros_like(v)
        products = torch.zeros_like(columns, memory_format=torch.contiguous_format)
        with self._evaluating(), torch.enable_grad():
            self._drop_stale_graphs()
            for index, part in enumerate(self._parts()):
                for product in self._products(index, part, columns):
                    products += product
        products /= self.weight
        if not products.isfinite().all():
            raise InputError(
                f"a product with the {self.name} matrix is not finite: the loss or its derivatives are NaN or overflow "
                "(has the training of this model diverged?)"
            )
        return products.T.reshape(v.shape)

    def quadratic_forms(self, v: Tensor) -> Tensor:
        """``v^T M_i v`` of every sample, in the order of the batches, ``(n,)``, without any backward pass.

        The matrices of the samples are scaled so that their mean is the matrix.

        Args:
            v: ``(P,)``.
        """
        if self.batch_norm == "batch":
            raise InputError("with the batches' own statistics a sample has no matrix of its own: use 'running'")
        scale = self.samples / self.weight
        with self._evaluating(), torch.no_grad(), RightForwardMode():
            forms = [self._forms(*self._moved(part), v.detach()) for part in self._parts()]
        return torch.cat(forms) * scale

    def dense(self) -> Tensor:
        """The matrix itself, ``(P, P)``, by ``P`` products; for models of a few thousand parameters."""
        return self @ torch.eye(self.shape[0], dtype=self.dtype, device=self.device)

    def to_scipy(self) -> Any:
        """The same operator as a :class:`scipy.sparse.linalg.LinearOperator` on NumPy arrays."""

        def product(v: Any) -> Any:
            return (self @ torch.as_tensor(v, dtype=self.dtype, device=self.device)).cpu().numpy()

        dtype = torch.empty(0, dtype=self.dtype).numpy().dtype
        return LinearOperator(self.shape, matvec=product, rmatvec=product, matmat=product, dtype=dtype)

    def over(self, batches: Batches) -> Self:
        """The same matrix over other samples: same loss, parameters, BatchNorm statistics, parts and memory budget.

        Nothing is tried again.

        Raises:
            InputError: there are no samples, or their weights are zero.
        """
        other = copy.copy(self)
        other._batches = batches_of(batches, self.batch_size)
        other.samples = count_samples(other._batches)
        other._graphs = {}
        other._lay_out()
        other._weigh()
        return other

    def _lay_out(self) -> None:
        """Bring images in memory into the layout that is fast, once."""
        if isinstance(self._batches, list) and self.channels_last:
            self._batches = [(channels_last(inputs), targets) for inputs, targets in self._batches]

    def _weigh(self) -> None:
        total = sum(self._objective.weight(targets) for _, targets in self._batches)
        self.weight = 1.0 if self._objective.is_sum else total
        if not self.weight:
            raise InputError("the weights of all samples are zero: the loss has no mean")

    @property
    def is_sum(self) -> bool:
        """Whether the matrix belongs to a sum over samples, not a mean."""
        return self._objective.is_sum

    @property
    def graph_bytes(self) -> int:
        """Bytes that the gradient graphs of all samples take."""
        return self._graph_size * self.samples

    def release(self) -> None:
        """Forget the kept graphs, which the next product builds again."""
        for _, size in self._graphs.values():
            self.budget.give(size)
        self._graphs.clear()

    def __del__(self) -> None:
        if hasattr(self, "_graphs"):
            self.release()

    # -- what the matrices are -------------------------------------------------------------------------------

    @abstractmethod
    def _graph(self, inputs: Tensor, targets: Tensor) -> Product:
        """The product with the sum of a part's matrices, as a function that keeps what its next call needs."""

    @abstractmethod
    def _forms(self, inputs: Tensor, targets: Tensor, v: Tensor) -> Tensor:
        """``v^T M_i v`` of each sample of a part."""

    def _losses_along(self, inputs: Tensor, targets: Tensor, v: Tensor) -> Callable[[Tensor], Tensor]:
        """The samples' losses, ``(B,)``, as a function of the distance moved along ``v``."""
        outputs = self._outputs_along(inputs, v)
        return lambda t: self._objective.per_sample(outputs(t), targets)

    def _outputs_along(self, inputs: Tensor, v: Tensor) -> Callable[[Tensor], Tensor]:
        start = {name: p.detach() for name, p in zip(self.space.names, self.space.parameters, strict=True)}
        way = self.space.views(v)

        def outputs(t: Tensor) -> Tensor:
            moved = {name: value + t * way[name] for name, value in start.items()}
            return functional_call(self._model, moved, (inputs,))  # type: ignore[no-any-return]

        return outputs

    # -- parts and their graphs ------------------------------------------------------------------------------

    def _parts(self) -> Iterator[Part]:
        for inputs, targets in self._batches:
            if self.batch_norm == "batch":
                yield inputs, targets
            else:
                yield from zip(inputs.split(self.batch_size), targets.split(self.batch_size), strict=True)

    def _moved(self, part: Part) -> Part:
        inputs, targets = part
        inputs = inputs.to(self.device)
        return channels_last(inputs) if self.channels_last else inputs, targets.to(self.device)

    def _products(self, index: int, part: Part, columns: Tensor) -> Iterator[Tensor]:
        """The products ``(K, P)`` of a part, or of its halves where memory does not suffice for the whole."""
        try:
            if index in self._graphs:
                product, _ = self._graphs[index]
            else:
                product = self._graph(*self._moved(part))
                self._keep(index, product, len(part[0]))
            yield torch.stack([product(column) for column in columns])
            return
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise _explained(error) from error
        # Outside of the handler, which holds on to the frames and with them to the graph.
        self.release()
        half = len(part[0]) // 2
        if not half or self.batch_norm == "batch":
            raise InputError(
                f"out of memory with a part of {len(part[0])} samples: use a smaller model, or --device cpu"
            )
        for some in zip(*(tensor.split((half, len(tensor) - half)) for tensor in part), strict=True):
            yield from self._products(-1, (some[0], some[1]), columns)

    def _keep(self, index: int, product: Product, samples: int) -> None:
        # A loader might give its samples in another order next time: only what is in memory can be told apart.
        if index < 0 or not isinstance(self._batches, list):
            return
        size = self._graph_size * samples
        if self.budget.take(size):
            self._graphs[index] = product, size

    def _drop_stale_graphs(self) -> None:
        """Forget the kept graphs if the model has changed since they were built."""
        tensors = [*self._model.parameters(), *self._model.buffers()]
        vector = self.space.vector()
        # Writing to .data changes neither address nor version.
        state = [(t.data_ptr(), t._version) for t in tensors], float(vector.sum()), float(vector.norm())
        if state != self._state:
            self.release()
            self._state = state

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(eval_mode(self._model, self.batch_norm))
            stack.enter_context(swapped_statistics(self._model, self._statistics)) if self._statistics else None
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            yield

    # -- what is tried first ---------------------------------------------------------------------------------

    def _tried(self, loss: Loss) -> tuple[Objective, bool]:
        """How the loss averages, and whether the model takes channels-last images; refuses random models."""
        fast = self.device.type == "cpu" and has_convolutions(self._model)
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), self._evaluating(), torch.no_grad(), _in_the_users_words():
            parts = self._trials()
            inputs, targets = next(parts)
            if fast:
                try:
                    self._model(channels_last(inputs))
                except RuntimeError:  # view() of an image needs the usual layout
                    fast = False
            torch.manual_seed(1)
            output = self._model(inputs)
            torch.manual_seed(2)
            again = self._model(inputs)
            output = tensor_output(output)
            if not torch.allclose(output, again, rtol=1e-4, atol=1e-6, equal_nan=True):
                raise InputError(
                    "the model gives different outputs for the same inputs in evaluation mode (dropout that is always "
                    "on, or noise): each product would be with another matrix; turn the randomness off"
                )

            def outputs() -> Iterator[Part]:
                yield output, targets
                for others, wanted in parts:
                    yield self._model(others), wanted

            objective = objective_of(loss, outputs())
            value = float(objective.total(output, targets))
            if not math.isfinite(value):
                raise InputError(
                    f"the loss of the first {len(inputs)} samples is {value}: has the training of this model "
                    "diverged, or do the inputs hold NaN?"
                )
            if not bends_as_told(objective, output, targets):
                raise InputError(
                    "the loss has no second derivative that automatic differentiation sees: its gradient changes with "
                    "the output, but not in the graph (is a custom function differentiable once only, or detached?)"
                )
        return objective, fast

    def _trials(self) -> Iterator[Part]:
        """The first samples of each batch, of two targets where the batch has two."""
        for inputs, targets in self._batches:
            some = torch.arange(min(len(inputs), _TRIAL))
            if targets.dim() and len(targets) > _TRIAL:
                other = (targets != targets[:1]).reshape(len(targets), -1).any(1).nonzero()
                if len(other):
                    some[-1] = int(other[0])
            some = some.to(inputs.device)
            yield inputs[some].to(self.device), targets[some.to(targets.device)].to(self.device)

    def _measured(self) -> int:
        """Bytes of graph a sample, from a few samples; refuses a loss that does not depend on the parameters."""
        inputs, targets = next(iter(self._batches))
        few = min(len(inputs), 8)
        part = self._moved((inputs[:few], targets[:few]))
        with self._evaluating(), torch.enable_grad(), _in_the_users_words():
            return graph_bytes(lambda: self._graph(*part)) // few

    def _total(self, output: Tensor, targets: Tensor) -> Tensor:
        total = self._objective.total(output, targets)
        if not total.requires_grad:
            raise InputError("the loss does not depend on the parameters: is it detached, or under no_grad?")
        return total


def _space_of(model: nn.Module, parameters: ParameterSpace | str | None) -> ParameterSpace:
    if isinstance(parameters, ParameterSpace):
        return parameters
    return ParameterSpace(model, None if parameters is None else matching(model, parameters))


@contextmanager
def _in_the_users_words() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise InputError("out of memory with a few samples: use a smaller model, or --device cpu") from error
        raise _explained(error) from error


def _explained(error: RuntimeError) -> Exception:
    """An error of automatic differentiation in the user's words, or the error itself."""
    text = str(error)
    signs = ("once_differentiable", "twice", "derivative for", "does not require grad", "not implemented for")
    if not any(sign in text for sign in signs):
        return error
    return InputError(f"the loss or the model has no second derivative: {text.splitlines()[0]}")
