"""The curvature of every class, group, head, tail and the whole at once, each from its own samples."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from landscape_lab.analysis.batches import Loss
from landscape_lab.analysis.estimates import DataError
from landscape_lab.analysis.lanczos import Krylov, normal_vector
from landscape_lab.analysis.operators import MATRICES, Combination, Matrix
from landscape_lab.analysis.sample_operator import SampleOperator
from landscape_lab.analysis.spectra import Spectrum, hessian_spectrum
from landscape_lab.analysis.trace import (
    BLOCK,
    TraceEstimate,
    complement_probes,
    deflated_samples,
    deflation_steps,
    reached,
    trace_estimate,
)
from landscape_lab.errors import InputError
from landscape_lab.parameters import BatchNormPolicy, ParameterSpace

__all__ = ["SubsetOperators", "data_errors", "subset_spectra", "subset_traces"]

Progress = Callable[[int], None]


class SubsetOperators:
    r"""One operator for each subset of the classes, over that subset's own samples alone.

    The samples are sorted into *atoms*: the coarsest parts from which every subset is a union (the classes themselves,
    if each class is asked for). A product of each atom with one vector gives the product of every subset, as for
    disjoint atoms :math:`M_{A \cup B} = \frac{w_A M_A + w_B M_B}{w_A + w_B}`; gradient graphs are kept once.

    Args:
        model: as for :class:`~landscape_lab.analysis.sample_operator.SampleOperator`, which also takes ``loss``,
            ``parameters``, ``batch_norm``, ``batch_size`` and ``memory_limit``.
        loss: a function of ``(output, target)``.
        data: inputs ``(n, …)`` and targets ``(n, …)``.
        subsets: name → classes.
        operator: which matrix.
        counts: the number of samples that each class stands for, where the data hold only a sample of each: unions
            weigh their classes by it. ``None``: the classes weigh what their samples do.
        labels: ``(n,)`` integers, each sample's class. ``None``: the targets.

    Raises:
        InputError: a subset has no samples, and what the operators refuse.

    Example:
        >>> data = torch.randn(12, 4), torch.arange(12) % 3
        >>> ops = SubsetOperators(nn.Linear(4, 3), nn.CrossEntropyLoss(), data, {"0": [0], "tail": [1, 2]})
        >>> ops["tail"].samples, len(ops.atoms)
        (8, 2)
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        data: tuple[Tensor, Tensor],
        subsets: Mapping[str, Sequence[int]],
        *,
        operator: Matrix = "hessian",
        parameters: ParameterSpace | str | None = None,
        batch_norm: BatchNormPolicy = "running",
        batch_size: int | None = None,
        memory_limit: int | None = None,
        counts: Mapping[int, float] | None = None,
        labels: Tensor | None = None,
    ) -> None:
        if operator not in MATRICES:
            raise ValueError(f"operator must be one of {', '.join(MATRICES)}, got {operator!r}")
        inputs, targets = data
        labels = targets if labels is None else labels.to(targets.device)
        if labels.dim() != 1 or labels.is_floating_point() or len(labels) != len(inputs):
            raise InputError("classes need targets, or labels, that are one integer a sample")
        present = {int(c) for c in labels.unique()}
        self.subsets = {name: tuple(dict.fromkeys(classes)) for name, classes in subsets.items()}
        for name, classes in self.subsets.items():
            if not present & set(classes):
                raise InputError(f"the subset {name!r} holds no samples: choose classes that the data contain")
        self.atoms = _atoms(self.subsets, present, single=counts is not None)
        used = torch.isin(labels, torch.tensor([c for atom in self.atoms for c in atom], device=labels.device))
        # Batches that mix the classes show how the loss averages over them.
        order = torch.randperm(int(used.sum()), generator=torch.Generator().manual_seed(0)).to(targets.device)
        mixed = inputs[used][order], targets[used][order]
        whole = MATRICES[operator](
            model,
            loss,
            mixed,
            parameters=parameters,
            batch_norm=batch_norm,
            batch_size=batch_size,
            memory_limit=memory_limit,
        )
        self._bytes, self._free = whole.graph_bytes, whole.budget.left
        self.atom_operators: tuple[SampleOperator, ...] = ()
        for atom in self.atoms:
            member = torch.isin(labels, torch.tensor(atom, device=labels.device))
            self.atom_operators += (whole.over((inputs[member], targets[member])),)
        weights = [1.0 if whole.is_sum else op.weight for op in self.atom_operators]
        if counts is not None and not whole.is_sum:
            # A class counts as often as it occurs, times the mean weight of its samples.
            pairs = zip(self.atoms, self.atom_operators, strict=True)
            weights = [counts[atom[0]] * op.weight / op.samples for atom, op in pairs]
        members = {
            name: [k for k, atom in enumerate(self.atoms) if set(atom) <= set(classes)]
            for name, classes in self.subsets.items()
        }
        self.shares: dict[str, Tensor] = {}
        self._operators: dict[str, SampleOperator | Combination] = {}
        for name, inside in members.items():
            total = 1.0 if whole.is_sum else sum(weights[k] for k in inside)
            share = torch.zeros(len(self.atoms), dtype=torch.float64)
            share[inside] = torch.tensor([weights[k] / total for k in inside], dtype=torch.float64)
            self.shares[name] = share
            self._operators[name] = (
                self.atom_operators[inside[0]]
                if len(inside) == 1
                else Combination([self.atom_operators[k] for k in inside], [float(share[k]) for k in inside])
            )
        self.shape, self.dtype, self.device = whole.shape, whole.dtype, whole.device
        self.space, self.name, self.batch_norm = whole.space, whole.name, whole.batch_norm

    def __getitem__(self, name: str) -> SampleOperator | Combination:
        """The operator of a subset."""
        return self._operators[name]

    def __iter__(self) -> Iterator[str]:
        """The names of the subsets."""
        return iter(self.subsets)

    def __len__(self) -> int:
        """The number of subsets."""
        return len(self.subsets)

    def focus(self, name: str) -> None:
        """Leave the memory for kept graphs to one subset, if not all graphs fit."""
        if self._bytes <= self._free:
            return
        for op, share in zip(self.atom_operators, self.shares[name].tolist(), strict=True):
            if not share:
                op.release()

    def forms(self, columns: Tensor, progress: Progress | None = None) -> tuple[Tensor, Tensor]:
        """``v^T M_a v`` of every atom for the columns ``(P, K)``, and the mean of the atoms' products.

        Returns:
            ``(atoms, K)``, float64, on the CPU, and ``(P, K)``.
        """
        total = torch.zeros_like(columns)
        forms = []
        for op in self.atom_operators:
            product = op @ columns
            forms.append((columns * product).sum(0).double())
            total.add_(product, alpha=1 / len(self.atom_operators))
        if progress:
            progress(columns.shape[1])
        return torch.stack(forms).cpu(), total


class _MeanOfAtoms:
    """The mean of the atoms' matrices, whose products also leave each atom's quadratic form behind."""

    def __init__(self, operators: SubsetOperators, progress: Progress | None) -> None:
        self._operators, self._progress = operators, progress
        self.shape, self.dtype, self.device = operators.shape, operators.dtype, operators.device
        self.forms: list[Tensor] = []

    def __matmul__(self, v: Tensor, /) -> Tensor:
        forms, product = self._operators.forms(v[:, None], self._progress)
        self.forms.append(forms)
        return product[:, 0]


def subset_traces(
    operators: SubsetOperators,
    *,
    products: int = 30,
    error: float | None = None,
    max_products: int = 2000,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, TraceEstimate]:
    r"""The traces of all subsets from the same products, each with its standard error.

    As :func:`~landscape_lab.analysis.trace.trace` by ``"deflated"``, with vectors that all subsets share: a Krylov
    space ``V`` of the mean of the atoms' matrices, in which a rare class weighs as much as a frequent one, and random
    vectors on its complement. Both give each atom's quadratic forms, from which every union follows:

    .. math:: \operatorname{tr} M_S = \sum_{v \in V} v^\top M_S v
              + (P - k) \, \mathbb{E}_{z \perp V, \|z\| = 1} \, z^\top M_S z

    For any ``S`` it is unbiased, whatever ``V`` is. So thirteen overlapping subsets cost one pass over the samples for
    each product, as one trace does.

    Args:
        operators: of the subsets.
        products: passes over the samples; two fifths go to ``V``.
        error: go on until every standard error is at most this fraction of its trace (see
            :func:`~landscape_lab.analysis.trace.reached`), or ``max_products`` are spent.
        max_products: passes at most.
        seed: of all random vectors.
        progress: called with the number of products just done.

    Raises:
        InputError: too few products for a standard error.
    """
    if products < 4:
        raise InputError(f"products={products} is too small: traces need 4 for a standard error")
    if error is not None and not error > 0:
        raise InputError(f"error must be positive, got {error}")
    size = operators.shape[0]
    if size <= products:
        identity = torch.eye(size, dtype=operators.dtype, device=operators.device)
        forms = torch.cat([operators.forms(some, progress)[0] for some in identity.split(BLOCK, dim=1)], dim=1)
        sums = {name: (operators.shares[name] @ forms).sum().reshape(1) for name in operators}
        return {name: TraceEstimate(float(value), 0.0, value, size, "exact", seed) for name, value in sums.items()}
    generator = torch.Generator().manual_seed(seed)
    mean = _MeanOfAtoms(operators, progress)
    krylov = Krylov(mean, normal_vector(mean, generator)).run(deflation_steps(products))
    captured = torch.cat(mean.forms, dim=1).sum(1)
    forms = torch.empty(len(operators.atoms), 0, dtype=torch.float64)
    wanted = products
    while True:
        while krylov.steps + forms.shape[1] < wanted:
            count = min(BLOCK, wanted - krylov.steps - forms.shape[1])
            seen, _ = operators.forms(complement_probes(mean, krylov, count, generator), progress)
            forms = torch.cat([forms, seen], dim=1)
        samples = {
            name: deflated_samples(float(share @ captured), share @ forms, size, krylov.steps)
            for name, share in operators.shares.items()
        }
        if error is None or wanted >= max_products or all(reached(some, error) for some in samples.values()):
            return {name: trace_estimate(some, wanted, "deflated", seed) for name, some in samples.items()}
        wanted = min(max_products, wanted + BLOCK)


def subset_spectra(
    operators: SubsetOperators,
    *,
    trace_products: int = 30,
    density_products: int = 100,
    error: float | None = None,
    max_products: int = 2000,
    resamples: int = 0,
    starts: Mapping[str, Tensor] | None = None,
    keep_vectors: bool = False,
    only: Collection[str] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    done: Callable[[str, Spectrum], None] | None = None,
) -> dict[str, Spectrum]:
    """Extreme eigenvalues, trace and density of every subset.

    A density takes vectors of its own for each subset, so that one pass over the samples serves every class, and
    another one every set of disjoint unions. Its Krylov space also sharpens the trace, which then is the subset's own
    affair. Without densities, the traces come from products that all subsets share.

    Args:
        operators: of the subsets.
        trace_products: passes over the samples for the traces.
        density_products: products for each subset's density; 0: no density, only both ends of the spectrum.
        error: see :func:`subset_traces`; also the tolerance of both ends relative to the largest magnitude.
        max_products: at most so many for each of them.
        resamples: bootstrap resamples of the samples for the error that their draw leaves; 0: none.
        starts: name → ``(P, 2)``: vectors of both ends from a model nearby, to start from where there is no density.
        keep_vectors: whether the results keep theirs.
        only: the subsets that are wanted; ``None``: all. The others still have their part in shared vectors.
        seed: of all random vectors.
        progress: called with the number of samples just multiplied by a vector.
        done: called with each subset's name and result as it comes.
    """
    total = sum(op.samples for op in operators.atom_operators)

    def tick(weight: int) -> Progress | None:
        return None if progress is None else lambda count: progress(count * weight)

    traces: dict[str, TraceEstimate] = {}
    if not density_products:
        traces = subset_traces(
            operators, products=trace_products, error=error, max_products=max_products, seed=seed, progress=tick(total)
        )
    found = {}
    for name in operators if only is None else [name for name in operators if name in only]:
        operators.focus(name)
        op = operators[name]
        spectrum = hessian_spectrum(
            op,
            trace_products=trace_products,
            density_products=density_products,
            trace_estimate=traces.get(name),
            error=error,
            max_products=max_products,
            start=None if starts is None else starts.get(name),
            keep_vectors=keep_vectors or bool(resamples),
            seed=seed,
            progress=tick(op.samples),
        )
        if resamples and spectrum.vectors is not None:
            errors = data_errors(op, spectrum.vectors, resamples=resamples, seed=seed, progress=tick(op.samples))
            spectrum = replace(spectrum, data=errors, vectors=spectrum.vectors if keep_vectors else None)
        found[name] = spectrum
        if done:
            done(name, spectrum)
    return found


def data_errors(
    op: SampleOperator | Combination,
    vectors: Tensor,
    *,
    probes: int = 10,
    resamples: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> DataError:
    r"""The standard errors that the draw of the samples leaves, by the bootstrap: how far another draw would differ.

    The forms :math:`v^\top M_i v` of all samples come from one pass for each vector, and the samples are drawn again
    with replacement. For an end of the spectrum the eigenvector is held fixed: to first order in the change of the
    matrix, that is how its eigenvalue moves. For the trace the random vectors add to the spread between samples; what
    they add is estimated from the spread between vectors, and taken out. Where too little would be left to tell it from
    zero, the result is an upper limit instead, at most the whole spread.

    Args:
        op: of one subset.
        vectors: ``(P, 2)``, of the largest and the smallest eigenvalue.
        probes: random vectors for the trace.
        resamples: bootstrap draws.
        seed: of vectors and draws.
        progress: called with 1 after each pass.

    Reference: B. Efron, *Bootstrap methods: another look at the jackknife*, Annals of Statistics 7 (1979).
    """
    generator = torch.Generator().manual_seed(seed)

    def forms(v: Tensor) -> Tensor:
        values = op.quadratic_forms(v).double().cpu()
        if progress:
            progress(1)
        return values

    ends = [forms(v.to(op.device, op.dtype)) for v in vectors.T]
    seen = []
    for _ in range(probes):
        z = normal_vector(op, generator)
        seen.append(forms(z / z.norm()) * op.shape[0])
    traces = torch.stack(seen)
    n = op.samples
    draws = torch.randint(0, n, (resamples, n), generator=generator)
    spread = [float(values[draws].mean(1).std()) for values in (*ends, traces.mean(0))]
    # What the vectors add to the spread is known well; the spread itself, of n samples, to a factor √(2/n).
    noise = float(traces.var(0).mean()) / probes / n
    between, margin = spread[2] ** 2 - noise, 2 * (2 / n) ** 0.5 * spread[2] ** 2
    if between < margin:
        between = min(max(between, 0.0) + margin, spread[2] ** 2)
    return DataError(trace=between**0.5, lambda_max=spread[0], lambda_min=spread[1], resamples=resamples)


def _atoms(subsets: Mapping[str, Sequence[int]], present: set[int], single: bool) -> tuple[tuple[int, ...], ...]:
    """Classes that the same subsets hold, together; ``single``: each alone."""
    groups: dict[object, list[int]] = {}
    for c in sorted(present):
        key = tuple(name for name, classes in subsets.items() if c in classes)
        if key:
            groups.setdefault((c,) if single else key, []).append(c)
    return tuple(map(tuple, groups.values()))
