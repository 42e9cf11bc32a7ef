"""What to measure of the curvature, of which classes: the settings that a stored result is found by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from landscape_lab.analysis import Loss, Matrix, Spectrum, SubsetOperators, subset_spectra
from landscape_lab.errors import InputError, nearest
from landscape_lab.parameters import BatchNormPolicy

__all__ = ["DENSITY_PRODUCTS", "TRACE_PRODUCTS", "CurvatureSettings", "class_subsets", "measure", "stratified"]

TRACE_PRODUCTS, DENSITY_PRODUCTS = 30, 100
"""Products with a vector that are spent on the trace and on the density."""


@dataclass(frozen=True)
class CurvatureSettings:
    """What :func:`~landscape_lab.analysis.subsets.subset_spectra` is asked for.

    Attributes:
        operator: ``"hessian"``, ``"ggn"``, ``"fisher"`` or ``"fisher-true"``.
        block: a module, parameter or glob: only this diagonal block of the matrix. ``None``: all parameters.
        batch_norm: how BatchNorm normalises.
        trace_products: test vectors for the trace.
        density_products: products for the density; 0: only both ends of the spectrum.
        error: relative error to spend products for; ``None``: as many as said.
        max_products: at most so many, with ``error``.
        resamples: bootstrap draws of the samples; 0: none.
        seed: of all random vectors.
    """

    operator: Matrix = "hessian"
    block: str | None = None
    batch_norm: BatchNormPolicy = "running"
    trace_products: int = TRACE_PRODUCTS
    density_products: int = DENSITY_PRODUCTS
    error: float | None = None
    max_products: int = 2000
    resamples: int = 0
    seed: int = 0

    def stored(self) -> dict[str, Any]:
        """As what a stored result is compared with."""
        return asdict(self)

    @property
    def suffix(self) -> str:
        """What tells files of this matrix apart: empty for the whole Hessian."""
        parts: list[str] = [self.operator] if self.operator != "hessian" else []
        parts += ["".join(c if c.isalnum() or c in "._" else "-" for c in self.block)] if self.block else []
        parts += [self.batch_norm] if self.batch_norm != "running" else []
        return "".join(f"-{part}" for part in parts)

    def cost(self, subset_samples: Sequence[int], all_samples: int) -> int:
        """About how many samples will be multiplied by a vector, for a progress bar."""
        probes = 10 if self.resamples else 0
        if self.density_products:
            return sum(subset_samples) * (self.trace_products + self.density_products + 2 + probes)
        return all_samples * self.trace_products + sum(subset_samples) * (30 + probes)


def measure(
    model: nn.Module,
    loss: Loss,
    data: tuple[Tensor, Tensor],
    subsets: Mapping[str, Sequence[int]],
    settings: CurvatureSettings,
    *,
    labels: Tensor | None = None,
    counts: Mapping[int, float] | None = None,
    memory_limit: int | None = None,
    **options: Any,
) -> dict[str, Spectrum]:
    """The spectra of all subsets, as the settings say.

    Args:
        model: with ``loss``, ``data``, ``labels``, ``counts`` and ``memory_limit`` as for
            :class:`~landscape_lab.analysis.subsets.SubsetOperators`.
        loss: of ``(output, target)``.
        data: inputs and targets.
        subsets: name → classes.
        settings: what to measure.
        labels: the class of each sample.
        counts: what each class stands for.
        memory_limit: bytes that kept graphs may take.
        **options: ``starts``, ``keep_vectors``, ``only``, ``progress`` and ``done`` of
            :func:`~landscape_lab.analysis.subsets.subset_spectra`.
    """
    operators = SubsetOperators(
        model,
        loss,
        data,
        subsets,
        operator=settings.operator,
        parameters=settings.block,
        batch_norm=settings.batch_norm,
        memory_limit=memory_limit,
        counts=counts,
        labels=labels,
    )
    return subset_spectra(
        operators,
        trace_products=settings.trace_products,
        density_products=settings.density_products,
        error=settings.error,
        max_products=settings.max_products,
        resamples=settings.resamples,
        seed=settings.seed,
        **options,
    )


def class_subsets(
    wanted: Sequence[str],
    known: Mapping[str, Sequence[int]],
    num_classes: int,
    groups: Sequence[Sequence[int]] = (),
) -> dict[str, tuple[int, ...]]:
    """The subsets that a user names.

    Args:
        wanted: each a name or several with commas between: ``each`` (every class by itself), ``groups`` (every group),
            a name of ``known``, a class number; numbers alone with commas between, such as ``0,3,7``, are one subset.
        known: name → classes, ``all`` among them.
        num_classes: the number of classes.
        groups: the classes of each group, if there are any.

    Raises:
        InputError: no such subset or class, or a subset without classes.

    Example:
        >>> class_subsets(["each,tail"], {"tail": [1, 2]}, 3)
        {'0': (0,), '1': (1,), '2': (2,), 'tail': (1, 2)}
        >>> class_subsets(["0,2"], {}, 3)
        {'0,2': (0, 2)}
    """
    named_groups = {f"group-{g}": classes for g, classes in enumerate(groups)}
    known = {**known, **named_groups}
    found: dict[str, tuple[int, ...]] = {}
    for text in wanted:
        parts = [part.strip() for part in text.split(",")]
        numbers = all(part.isdigit() for part in parts)
        for name in [",".join(parts)] if numbers else parts:
            if name == "each":
                found |= {str(c): (c,) for c in range(num_classes)}
            elif name == "groups":
                if not groups:
                    raise InputError("this was trained without groups: it has classes, head, tail and all")
                found |= {group: tuple(classes) for group, classes in named_groups.items()}
            elif name in known:
                if not known[name]:
                    raise InputError(f"there is no class in {name!r} here")
                found[name] = tuple(known[name])
            elif name.replace(",", "").isdigit():
                classes = tuple(dict.fromkeys(map(int, name.split(","))))
                wrong = [c for c in classes if c >= num_classes]
                if wrong:
                    raise InputError(f"there is no class {wrong[0]}: the classes are 0 to {num_classes - 1}")
                found[name] = classes
            else:
                names = ["each", *known]
                raise InputError(
                    f"unknown classes {name!r}{nearest(name, names)}; use {', '.join(names)}, or numbers such as 0,3,7"
                )
    return found


def stratified(targets: Tensor, per_class: int) -> Tensor:
    """Places of at most ``per_class`` samples of each class, drawn at random, always the same ones.

    Args:
        targets: ``(n,)`` integers.
        per_class: at least 1.
    """
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0)).to(targets.device)
    parts = [order[targets[order] == c][:per_class] for c in targets.unique().tolist()]
    return torch.cat(parts)
