"""The guard's numbers of the Hessian: largest eigenvalue and trace of every subset, each sample's part kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from landscape_lab.analysis import Combination, Loss, SubsetOperators, top_eigenpairs
from landscape_lab.analysis.lanczos import Krylov, normal_vector
from landscape_lab.guard.measured import Measured
from landscape_lab.guard.samples import Drawn
from landscape_lab.guard.settings import GuardSettings
from landscape_lab.parameters import ParameterSpace

__all__ = ["largest_eigenvalues", "operators_of", "traces"]

Progress = Callable[[int], None]


def operators_of(
    model: nn.Module,
    loss: Loss,
    drawn: Drawn,
    subsets: Mapping[str, Sequence[int]],
    parameters: ParameterSpace | None = None,
) -> SubsetOperators:
    """The Hessians of all subsets, a class an atom, weighed by what the classes stand for."""
    return SubsetOperators(
        model, loss, (drawn.inputs, drawn.targets), subsets, parameters=parameters, counts=drawn.population,
        labels=drawn.labels,
    )  # fmt: skip


def largest_eigenvalues(
    operators: SubsetOperators, drawn: Drawn, settings: GuardSettings, only: Collection[str]
) -> Iterator[Measured]:
    r"""The largest eigenvalue of each subset.

    To first order in a change of the matrix the eigenvector stays: a sample adds :math:`v^\top H_i v`.
    """
    for name in operators:
        if name not in only:
            continue
        pair = top_eigenpairs(operators[name], tolerance=settings.tolerance, seed=settings.seed)
        vector = pair.vectors[:, 0].to(operators.device, operators.dtype)
        classes = operators.subsets[name]
        forms = _forms(operators, drawn, vector[:, None], classes)[0]
        yield Measured(
            "lambda_max",
            name,
            float(pair.values[0]),
            influences=drawn.influences(forms, classes),
            residual=float(pair.residuals[0]),
        )


def traces(
    operators: SubsetOperators, drawn: Drawn, settings: GuardSettings, only: Collection[str], spend: int = 1
) -> Iterator[Measured]:
    r"""The trace of each subset, all from the same vectors.

    Eigenvectors :math:`V` of the classes' mean matrix are set aside; random vectors see the rest:
    :math:`\operatorname{tr} H_S = \operatorname{tr} V^\top H_S V + (P - k) \, \mathbb{E} \, z^\top H_S z`. This holds
    for any ``S`` and any ``V``. More probes begin with the same ones.
    """
    atoms = operators.atom_operators
    mean = Combination(list(atoms), [1 / len(atoms)] * len(atoms))
    generator = torch.Generator().manual_seed(settings.seed)
    size = operators.shape[0]
    krylov = Krylov(mean, normal_vector(mean, generator)).run(min(settings.deflation, size))
    ritz = krylov.ritz()
    # Pairs that have not converged are of no more use than random vectors, and cost a pass each.
    good = ritz.bounds <= 0.1 * ritz.values.abs()
    order = torch.where(good, ritz.values.abs(), 0.0).argsort(descending=True)[
        : min(settings.deflated, int(good.sum()))
    ]
    aside = krylov.lifted(ritz.vectors[:, order])
    del krylov
    source = torch.Generator().manual_seed(settings.seed + 1)
    probes = torch.stack([normal_vector(mean, source) for _ in range(settings.probes * spend)])
    for _ in range(2):
        probes = probes - (probes @ aside.T) @ aside
    probes = torch.nn.functional.normalize(probes, dim=1)
    everything = [c for atom in operators.atoms for c in atom]
    known = _forms(operators, drawn, aside.T, everything).sum(0)
    seen = (size - len(aside)) * _forms(operators, drawn, probes.T, everything)
    for name, classes in operators.subsets.items():
        if name in only:
            share = drawn.shares(classes)
            samples = float(known @ share) + seen @ share
            influences = drawn.influences(known + seen.mean(0), classes)
            yield Measured("trace", name, float(samples.mean()), samples, influences)


def _forms(operators: SubsetOperators, drawn: Drawn, columns: Tensor, classes: Sequence[int]) -> Tensor:
    """``v^T H_i v`` of the columns ``(P, K)`` and the samples, ``(K, n)``, float64; zero outside of the classes."""
    found = torch.zeros(columns.shape[1], len(drawn.labels), dtype=torch.float64)
    places = drawn.members(classes)
    some = drawn.inputs[places.to(drawn.inputs.device)], drawn.targets[places.to(drawn.targets.device)]
    op = operators.atom_operators[0].over(some)  # a pass of all samples, where a pass of each class takes longer
    for row, vector in enumerate(columns.T):
        found[row, places] = op.quadratic_forms(vector.contiguous()).double().cpu()
    return found
