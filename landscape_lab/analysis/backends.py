"""Other people's estimates of the same numbers: PyHessian and scipy's ``eigsh``, to check ours against."""

from __future__ import annotations

import math
import time
import types
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from scipy.stats import wasserstein_distance
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from landscape_lab.analysis.batches import Batches, Loss, batches_of, count_samples
from landscape_lab.analysis.losses import objective_of
from landscape_lab.analysis.memory import GraphBudget, graph_bytes
from landscape_lab.analysis.operators import Operator
from landscape_lab.analysis.spectra import SpectralDensity, Spectrum
from landscape_lab.errors import InputError
from landscape_lab.parameters import ParameterSpace, eval_mode
from landscape_lab.tabular import Tabular

__all__ = ["Comparison", "Reference", "TorchWithEig", "compare", "pyhessian_reference", "rebound", "scipy_reference"]

SAME_WITHIN = 3.0  # combined errors
DENSITY_WITHIN = 0.01  # of the spectrum's span
_PROBE = 8  # samples whose gradient graph is measured
_MOST = 1000  # products that eigsh may spend


@dataclass(frozen=True, eq=False)
class Reference(Tabular):
    """What another program says about a Hessian; ``None`` where it says nothing.

    Attributes:
        backend: its name.
        lambda_max: the largest eigenvalue.
        lambda_min: the smallest eigenvalue.
        trace: the trace.
        trace_stderr: its standard error over the probes.
        density: the distribution of eigenvalues, as that program weighs it.
        products: products with the Hessian that it spent.
        seconds: how long it took.
        lambda_error: how far off its own stopping rule lets the extreme eigenvalues be.
    """

    backend: str
    lambda_max: float | None
    lambda_min: float | None
    trace: float | None
    trace_stderr: float | None
    density: SpectralDensity | None
    products: int
    seconds: float
    lambda_error: float = 0.0


@dataclass(frozen=True, eq=False)
class Comparison(Tabular):
    """One number from two programs.

    Attributes:
        quantity: ``"lambda_max"``, ``"lambda_min"``, ``"trace"`` or ``"density"``.
        ours: our value; ``nan`` for the density, which is no single number.
        ours_error: its error.
        theirs: the reference's value.
        theirs_error: its error, ``None`` if it has none.
        difference: ``ours - theirs``; for the density the Wasserstein-1 distance over the spectrum's span.
        agrees: whether the difference is within three combined errors; for the density, within 0.01.
        backend: whose value ``theirs`` is.
    """

    quantity: str
    ours: float
    ours_error: float
    theirs: float
    theirs_error: float | None
    difference: float
    agrees: bool
    backend: str


def pyhessian_reference(
    model: nn.Module,
    loss: Loss,
    batches: Batches,
    *,
    trace_products: int = 30,
    density_steps: int = 50,
    density_runs: int = 1,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> Reference:
    """Let PyHessian measure the largest eigenvalue, the trace and the density, over all trainable parameters.

    PyHessian is used as it is published, but for what would stop it or change the caller's things:

    - its ``density`` calls ``torch.eig``, which PyTorch has removed. A copy of the method, made for this call, sees a
      stand-in for ``torch`` that has one; neither module is changed.
    - its ``trace`` stops when two running means are near each other, or after two samples once their mean is negative.
      Here that rule is off: all ``trace_products`` samples are averaged, and give a standard error.
    - it leaves the model in evaluation mode, gradients on the parameters and numbers taken from the global generator.
      All are put back. Its retained graph is set free.
    - its power iteration finds the eigenvalue of largest *magnitude*, which is given as ``lambda_max`` or
      ``lambda_min`` by its sign; the other is ``None``.

    All samples go in as one batch (its ``data=``) if the gradient graph, measured on a few samples, fits into half of
    the free memory; otherwise batches that fit (its ``dataloader=``), which it averages by their number of samples.
    The loss is scaled so that this is the right average also for class-weighted means, sums and unequal batches.

    Args:
        model: any module; every trainable parameter must take part in the loss.
        loss: as for :class:`~landscape_lab.analysis.operators.Hessian`.
        batches: as there.
        trace_products: samples of Hutchinson's estimate, at least two.
        density_steps: Lanczos steps of each run; 0 for no density.
        density_runs: starting vectors.
        tolerance: relative change of the eigenvalue between two power iterations to stop at (100 at most).
        seed: of its random vectors.

    Raises:
        InputError: PyHessian is not installed, a parameter does not take part, or the result is not finite.

    Reference: Z. Yao, A. Gholami, K. Keutzer, M. Mahoney, *PyHessian: neural networks through the lens of the
    Hessian*, 2020, arXiv:1912.07145.
    """
    if trace_products < 2:
        raise InputError(f"trace_products={trace_products} is too small: a standard error needs 2")
    library = _pyhessian()
    space = ParameterSpace(model)
    parts = batches_of(batches)
    samples = count_samples(parts)
    steps = min(density_steps, space.size)
    began = time.perf_counter()
    with _put_back(model, space.device, seed):
        criterion = _criterion(model, loss, parts, samples, space.device)
        size = _largest_batch(model, criterion, parts, samples, space)
        adapted = _Adapted(library, model, criterion, parts, size if size < samples else None, space.device)
        leading, error = adapted.leading(tolerance)
        values = adapted.trace_samples(trace_products)
        density = adapted.density(steps, density_runs, space.size, seed) if steps and density_runs else None
    if not (math.isfinite(leading) and values.isfinite().all()):
        raise InputError("PyHessian's products are not finite: has the training of this model diverged?")
    return Reference(
        backend="pyhessian",
        lambda_max=leading if leading >= 0 else None,
        lambda_min=leading if leading < 0 else None,
        trace=float(values.mean()),
        trace_stderr=float(values.std()) / len(values) ** 0.5,
        density=density,
        products=adapted.products,
        seconds=time.perf_counter() - began,
        lambda_error=error,
    )


def _pyhessian() -> Any:
    try:
        import pyhessian
    except ImportError:
        raise InputError("the reference needs PyHessian: pip install pyhessian==0.1") from None
    return pyhessian


@contextmanager
def _put_back(model: nn.Module, device: torch.device, seed: int) -> Iterator[None]:
    """Within the block PyHessian may do as it does; at the end the caller's things are as they were."""
    parameters = list(model.parameters())
    kept = [parameter.grad for parameter in parameters]
    cuda = device.type == "cuda"
    with (
        eval_mode(model),
        sdpa_kernel(SDPBackend.MATH),  # the fused attention kernels have no second derivative
        torch.random.fork_rng(devices=[device] if cuda else []),
        torch.cuda.device(device) if cuda else nullcontext(),
        torch.enable_grad(),
        warnings.catch_warnings(),
    ):
        # What it warns of, a graph that is never freed, is seen to below.
        warnings.filterwarnings("ignore", message="Using backward\\(\\) with create_graph=True")
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed(seed)
        try:
            for parameter in parameters:
                parameter.grad = None
            yield
        finally:
            # Only without these gradients, which refer to the graph that refers to them, is the graph set free.
            for parameter, gradient in zip(parameters, kept, strict=True):
                parameter.grad = None
                parameter.grad = gradient


def _criterion(
    model: nn.Module, loss: Loss, parts: Iterable[tuple[Tensor, Tensor]], samples: int, device: torch.device
) -> Loss:
    """A scalar loss whose average over batches, weighted by their samples, is the loss over all of them."""

    def outputs() -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, targets in parts:
            yield model(inputs.to(device)), targets.to(device)

    with torch.no_grad():
        objective = objective_of(loss, outputs())
    weight = 1.0 if objective.is_sum else sum(objective.weight(targets) for _, targets in parts)

    def criterion(output: Tensor, target: Tensor) -> Tensor:
        return objective.total(output, target) * (samples / len(target) / weight)

    return criterion


def _largest_batch(
    model: nn.Module, criterion: Loss, parts: Iterable[tuple[Tensor, Tensor]], samples: int, space: ParameterSpace
) -> int:
    """How many samples' gradient graphs fit into memory at once; also checks that every parameter takes part."""
    inputs, targets = next((x[:_PROBE].to(space.device), y[:_PROBE].to(space.device)) for x, y in parts if len(x))

    def build() -> object:
        value = criterion(model(inputs), targets)
        if not value.requires_grad:
            raise InputError("the loss does not depend on the parameters: is it detached, or under no_grad?")
        gradients = torch.autograd.grad(value, space.parameters, create_graph=True, allow_unused=True)
        for name, gradient in zip(space.names, gradients, strict=True):
            if gradient is None or not gradient.requires_grad:
                what = "is not used by the loss" if gradient is None else "enters the loss only linearly"
                raise InputError(
                    f"PyHessian cannot do this model: parameter {name!r} {what}; set its requires_grad to False "
                    "(that changes nothing but the count of zero eigenvalues), or leave this reference out"
                )
        return gradients

    each = graph_bytes(build) / len(inputs)
    budget, size = GraphBudget(space.device), samples
    while size > 1 and not budget.take(int(size * each)):
        size //= 2
    return size


class _Adapted:
    """PyHessian on one model, its methods run as copies that see a few other names."""

    def __init__(
        self,
        library: Any,
        model: nn.Module,
        criterion: Loss,
        parts: Iterable[tuple[Tensor, Tensor]],
        batch_size: int | None,
        device: torch.device,
    ) -> None:
        self.products = 0
        self._quotients: list[float] = []
        cuda = device.type == "cuda"
        if batch_size is None:
            inputs, targets = (torch.cat([batch[i] for batch in parts]) for i in (0, 1))
            self._theirs = library.hessian(model, criterion, data=(inputs, targets), cuda=cuda)
        else:
            loader = _Pieces(parts, batch_size)
            self._theirs = library.hessian(model, criterion, dataloader=loader, cuda=cuda)
            product = self._theirs.dataloader_hv_product
            self._theirs.dataloader_hv_product = lambda v: self._seen(v, *product(v))

    def leading(self, tolerance: float) -> tuple[float, float]:
        """The eigenvalue of largest magnitude, and how far off it may be."""
        ((value,), _) = self._run("eigenvalues", maxIter=100, tol=tolerance)
        # Power iteration converges geometrically: from its last steps follows how much is still to come, which is more
        # than the last step where the next eigenvalue is near.
        error = tolerance * abs(value)
        if len(self._quotients) >= 3:
            first, second, third = self._quotients[-3:]
            ratio = min(abs(third - second) / (abs(second - first) + 1e-30), 0.99)
            error = max(error, abs(third - second) * ratio / (1 - ratio))
        return value, error

    def trace_samples(self, count: int) -> Tensor:
        """``(count,)`` samples of Hutchinson's estimate."""
        # With tol=0 a negative mean would stop it after two samples; no number is below minus infinity.
        return torch.tensor(self._run("trace", maxIter=count, tol=-math.inf), dtype=torch.float64)

    def density(self, steps: int, runs: int, size: int, seed: int) -> SpectralDensity:
        """The density, each run a row."""
        tables = self._run("density", iter=steps, n_v=runs)
        nodes, weights = (torch.from_numpy(np.array(table, dtype=np.float64)) for table in tables)
        return SpectralDensity(
            nodes=nodes, weights=weights, size=size, products=steps * runs, method="pyhessian", seed=seed
        )

    def _run(self, name: str, **options: Any) -> Any:
        """Call a copy of the method ``name`` whose globals are the module's but for two names."""
        self._quotients = []
        method = getattr(type(self._theirs), name)
        product = method.__globals__["hessian_vector_product"]

        def counted(gradient: Any, parameters: Any, v: Any) -> Any:
            return self._seen(v, None, product(gradient, parameters, v))[1]

        return rebound(method, torch=TorchWithEig(), hessian_vector_product=counted)(self._theirs, **options)

    def _seen(self, v: Any, quotient: Any, Hv: Any) -> tuple[Any, Any]:
        self.products += 1
        if quotient is None:
            quotient = sum(float((a * b).sum()) for a, b in zip(v, Hv, strict=True))
        self._quotients.append(quotient)
        return quotient, Hv


def rebound(function: Any, **names: Any) -> Any:
    """A copy of a function that finds other values under some global names; its module stays as it is."""
    known = {**function.__globals__, **names}
    return types.FunctionType(function.__code__, known, function.__name__, function.__defaults__, function.__closure__)


class TorchWithEig:
    """``torch`` with the ``eig`` that it had until 1.12, for symmetric matrices."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def eig(matrix: Tensor, eigenvectors: bool = False) -> tuple[Tensor, Tensor]:
        """Real and imaginary parts of the eigenvalues ``(m, 2)``, and the eigenvectors as columns."""
        values, vectors = torch.linalg.eigh(matrix)
        return torch.stack([values, torch.zeros_like(values)], dim=1), vectors


class _Pieces:
    """Batches cut to at most ``size`` samples, to be read again and again."""

    def __init__(self, parts: Iterable[tuple[Tensor, Tensor]], size: int) -> None:
        self._parts = parts
        self._size = size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, targets in self._parts:
            yield from zip(inputs.split(self._size), targets.split(self._size), strict=True)


def scipy_reference(op: Operator, *, tolerance: float = 1e-4, seed: int = 0) -> Reference:
    """Let ARPACK, through :func:`scipy.sparse.linalg.eigsh`, find both ends of the spectrum.

    It shares our product, but nothing of our Lanczos method. An eigenvalue of residual ``tolerance * |lambda|`` is
    accepted; one that does not get there in about 1,000 products is ``None``.

    Args:
        op: an operator, or a symmetric matrix.
        tolerance: relative residual to stop at.
        seed: of the starting vector.

    Raises:
        InputError: fewer than three parameters.
    """
    size = op.shape[0]
    if size < 3:
        raise InputError(f"eigsh needs three parameters to find two eigenvalues, got {size}")
    began, products = time.perf_counter(), 0

    def product(v: Any) -> Any:
        nonlocal products
        products += 1
        return (op @ torch.as_tensor(v, dtype=op.dtype, device=op.device).reshape(-1)).numpy(force=True)

    dtype = torch.empty(0, dtype=op.dtype).numpy().dtype
    start = np.random.default_rng(seed).standard_normal(size).astype(dtype)
    steps = min(size, 20)
    try:
        found = eigsh(
            LinearOperator((size, size), matvec=product, dtype=dtype),
            k=2,
            which="BE",
            ncv=steps,
            v0=start,
            tol=tolerance,
            maxiter=_MOST // steps,
            return_eigenvectors=False,
        )
    except ArpackNoConvergence as failure:
        found = failure.eigenvalues
    values = sorted(float(value) for value in found)
    # Where one end alone has converged it is the larger in magnitude, whose sign tells the end.
    largest = values[-1] if values and (len(values) == 2 or values[0] >= 0) else None
    smallest = values[0] if values and (len(values) == 2 or values[0] < 0) else None
    return Reference(
        backend="scipy",
        lambda_max=largest,
        lambda_min=smallest,
        trace=None,
        trace_stderr=None,
        density=None,
        products=products,
        seconds=time.perf_counter() - began,
        lambda_error=tolerance * max(map(abs, values), default=0.0),
    )


def compare(spectrum: Spectrum, references: Sequence[Reference]) -> tuple[Comparison, ...]:
    r"""Set our numbers beside theirs.

    Two numbers agree if they differ by at most three times :math:`\sqrt{e_1^2 + e_2^2}`. Our error is the residual for
    an eigenvalue and the standard error for the trace; theirs is the tolerance of their stopping rule and their
    standard error. A density has no error: it agrees within 1 % of the span, where PyHessian's of 1 x 50 steps
    differ from ours and from the exact one by 0.1 to 0.3 % (8 seeds, 1,838 parameters; more for smaller networks).

    Args:
        spectrum: ours.
        references: theirs, of the same samples and parameters.

    Returns:
        A comparison for each number that both have.
    """
    found = []
    for other in references:
        for quantity, ours, error, bound in (
            ("lambda_max", spectrum.lambda_max, spectrum.lambda_max_residual, "lambda_max_upper"),
            ("lambda_min", spectrum.lambda_min, spectrum.lambda_min_residual, "lambda_min_lower"),
        ):
            theirs = getattr(other, quantity)
            if theirs is None:
                continue
            # The far end of our interval, where the spectrum has one.
            reach = abs(getattr(spectrum, bound, math.nan) - ours)
            error = max(error, reach) if math.isfinite(reach) else error
            found.append(_compared(other, quantity, ours, error, theirs, other.lambda_error))
        if other.trace is not None:
            found.append(
                _compared(other, "trace", spectrum.trace.value, spectrum.trace.stderr, other.trace, other.trace_stderr)
            )
        if other.density is not None and spectrum.density is not None:
            span = spectrum.lambda_max - spectrum.lambda_min
            distance = _distance(spectrum.density, other.density) / span if span > 0 else math.nan
            agrees = distance <= DENSITY_WITHIN
            found.append(Comparison("density", math.nan, math.nan, math.nan, None, distance, agrees, other.backend))
    return tuple(found)


def _compared(
    other: Reference, quantity: str, ours: float, ours_error: float, theirs: float, theirs_error: float | None
) -> Comparison:
    difference = ours - theirs
    # Rounding alone: two float32 sums over a network's samples differ by 1e-5 of the value.
    combined = math.hypot(ours_error, theirs_error or 0.0, 1e-5 * abs(theirs))
    agrees = abs(difference) <= SAME_WITHIN * combined
    return Comparison(quantity, ours, ours_error, theirs, theirs_error, difference, agrees, other.backend)


def _distance(a: SpectralDensity, b: SpectralDensity) -> float:
    """The Wasserstein-1 distance between two densities, each averaged over its probes."""
    (x, u), (y, v) = ((d.nodes.flatten().numpy(), (d.weights / len(d.weights)).flatten().numpy()) for d in (a, b))
    return float(wasserstein_distance(x, y, u, v))
