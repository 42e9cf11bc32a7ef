"""The largest curvature of every class at equal numbers of samples, so that rare and frequent classes compare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape_lab.analysis import Estimate, Hessian, top_eigenpairs
from landscape_lab.analysis.estimates import t_quantile
from landscape_lab.errors import InputError
from landscape_lab.parameters import eval_mode
from landscape_lab.studies.study import Progress, Study
from landscape_lab.tabular import Columns, Tabular, columns_of

__all__ = ["EqualSizes", "equal_sizes", "equal_sizes_cost", "log_ratio"]

DRAWS = 8
CALLS = 400  # draws of all classes together, if there are many classes
FEWEST = 4  # samples of a class, to draw half of them
MOST = 32
"""At most so many samples a draw: the comparison needs equal numbers, not large ones."""
_TOLERANCE = 0.05  # of an eigenvector: its eigenvalue is then known to 0.3 %


@dataclass(frozen=True, eq=False)
class EqualSizes(Tabular):
    """The largest Hessian eigenvalue of every class over random parts of one size, and of subsets over all samples.

    The largest eigenvalue of a mean over few samples is larger than over many of the same kind, as one unusual sample
    weighs more. A tail of 14 images looks sharper than a head of 212 for that alone; at equal sizes it does not.

    Attributes:
        classes: ``C'`` classes, those with four samples at least.
        counts: samples of each that were drawn from.
        size: samples of each draw, half of the smallest class or less.
        draws: ``(C', K)``, float64, the largest eigenvalue of each draw.
        subsets: ``S`` names.
        samples: of each subset, over which the following are taken.
        highest: ``(S,)``, float64, the largest eigenvalue.
        lowest: ``(S,)``, the smallest.
        losses: ``(S,)``, the mean loss.
        loss_stderr: ``(S,)``, its standard error from the draw of the samples.
        epoch: of the checkpoint.
    """

    classes: tuple[int, ...]
    counts: tuple[int, ...]
    size: int
    draws: Tensor
    subsets: tuple[str, ...]
    samples: tuple[int, ...]
    highest: Tensor
    lowest: Tensor
    losses: Tensor
    loss_stderr: Tensor
    epoch: int


@columns_of.register
def _(result: EqualSizes) -> Columns:
    draws = range(result.draws.shape[1])
    return {
        "class": [c for c in result.classes for _ in draws],
        "draw": [*draws] * len(result.classes),
        "samples": [result.size] * result.draws.numel(),
        "lambda_max": result.draws.flatten().tolist(),
    }


def equal_sizes(
    study: Study,
    epoch: int | None = None,
    *,
    subsets: Sequence[str] = ("head", "tail"),
    draws: int | None = None,
    samples: int | None = None,
    split: str = "train",
    progress: Progress | None = None,
) -> EqualSizes:
    """Measure the largest eigenvalue of every class's Hessian at equal numbers of samples.

    Args:
        study: the run.
        epoch: of the checkpoint; ``None``: the last.
        subsets: measured over all of their samples, as :meth:`Study.classes` takes them.
        draws: random parts of each class, without replacement; ``None``: 8, or fewer if there are over 50 classes.
        samples: at most so many of each subset, drawn at random; ``None``: all.
        split: ``train`` or ``test``.
        progress: called with the number of samples just multiplied by a vector; see :func:`equal_sizes_cost`.

    Raises:
        InputError: fewer than two classes have four samples.
    """
    epoch = study.epoch(epoch)
    counts, size, draws = _plan(study, split, draws)
    settings = {
        "epoch": epoch,
        "subsets": {name: list(study.classes(name)) for name in subsets},
        "draws": draws,
        "size": size,
        "samples": samples,
        "split": split,
    }

    def compute() -> EqualSizes:
        highest, lowest, losses, errors, sizes = [], [], [], [], []
        for name in subsets:
            inputs, targets = study.samples(name, split, samples)
            op = Hessian(study.model, study.loss, (inputs, targets))
            ends = top_eigenpairs(op, 1, which="BE", progress=_times(len(targets), progress)).values
            each = _losses(study, inputs, targets)
            highest.append(float(ends.max()))
            lowest.append(float(ends.min()))
            losses.append(float(each.mean()))
            errors.append(float(each.std() / len(each) ** 0.5))
            sizes.append(len(targets))
        rows = []
        for c in counts:
            inputs, targets = study.samples(str(c), split)
            stream = torch.Generator().manual_seed(0)
            row = []
            for _ in range(draws):
                some = torch.randperm(len(targets), generator=stream)[:size].to(targets.device)
                op = Hessian(study.model, study.loss, (inputs[some], targets[some]))
                found = top_eigenpairs(op, 1, tolerance=_TOLERANCE, progress=_times(size, progress))
                row.append(float(found.values[0]))
            rows.append(row)
        return EqualSizes(
            classes=tuple(counts),
            counts=tuple(counts.values()),
            size=size,
            draws=torch.tensor(rows, dtype=torch.float64),
            subsets=tuple(subsets),
            samples=tuple(sizes),
            highest=torch.tensor(highest, dtype=torch.float64),
            lowest=torch.tensor(lowest, dtype=torch.float64),
            losses=torch.tensor(losses, dtype=torch.float64),
            loss_stderr=torch.tensor(errors, dtype=torch.float64),
            epoch=epoch,
        )

    return study.stored(f"hessian/equal-sizes-{epoch:04d}-{split}", EqualSizes, settings, compute)


def equal_sizes_cost(
    study: Study, *, subsets: Sequence[str] = ("head", "tail"), samples: int | None = None, split: str = "train"
) -> int:
    """About how many samples :func:`equal_sizes` multiplies by a vector."""
    counts, size, draws = _plan(study, split, None)
    every = study.split(split).class_counts(study.num_classes)
    whole = [sum(every[c] for c in study.classes(name)) for name in subsets]
    # 25 and 8 products: what both ends, and one to 0.05, took on trained networks.
    return 25 * sum(min(n, samples or n) for n in whole) + 8 * draws * len(counts) * size


def _plan(study: Study, split: str, draws: int | None) -> tuple[dict[int, int], int, int]:
    """Samples of each class that has enough, the size of a draw, and how many there are."""
    every = study.split(split).class_counts(study.num_classes)
    counts = {c: n for c, n in enumerate(every) if n >= FEWEST}
    if len(counts) < 2:
        raise InputError(f"comparing sharpness needs two classes with {FEWEST} samples, and {len(counts)} has as many")
    return counts, min(min(counts.values()) // 2, MOST), draws or max(4, min(DRAWS, CALLS // len(counts)))


def _losses(study: Study, inputs: Tensor, targets: Tensor) -> Tensor:
    size = study.evaluation_batch_size
    with torch.no_grad(), eval_mode(study.model):
        parts = zip(inputs.split(size), targets.split(size), strict=True)
        return torch.cat([study.loss(study.model(some), labels).double() for some, labels in parts])


def _times(samples: int, progress: Progress | None) -> Progress | None:
    return None if progress is None else lambda products: progress(products * samples)


def log_ratio(found: EqualSizes, some: Sequence[int], others: Sequence[int]) -> tuple[Estimate, float]:
    r"""The mean over some classes of the logarithm of their largest eigenvalue, less that over other classes.

    Of each class the mean of :math:`\log \lambda` over :math:`K` parts of ``m`` of its ``n`` samples. The parts share
    samples, so that their spread :math:`s^2` tells less than the draw of the ``n`` samples left open. For a statistic
    that is a mean in first order, :math:`s^2` is :math:`1 - m/n` of the variance between parts of fresh samples, and
    the mean over all parts has ``m / n`` of that variance:

    .. math:: \mathrm{var} = \frac{s^2}{K} + s^2 \, \frac{m / n}{1 - m / n} .

    The interval is Student's, with Welch and Satterthwaite's degrees of freedom from ``min(K, n) - 1`` of each class.

    Args:
        found: of these classes, among others.
        some: classes; those that were not measured are left out.
        others: likewise.

    Returns:
        The estimate, whose error is that of the samples drawn; and the degrees of freedom. ``nan`` where one side has
        no class that was measured.

    Reference: B. Efron, C. Stein, *The jackknife estimate of variance*, Annals of Statistics 9 (1981), for the
    variance of statistics of parts.
    """
    logs = found.draws.clamp(min=1e-30).log()
    value, variances, freedoms = 0.0, [], []
    for sign, side in ((1, some), (-1, others)):
        places = [found.classes.index(c) for c in side if c in found.classes]
        if not places:
            return Estimate(math.nan, math.nan, math.nan, math.nan), math.nan
        value += sign * float(logs[places].mean())
        for k in places:
            share = found.size / found.counts[k]
            spread = float(logs[k].var())
            variances.append((spread / logs.shape[1] + spread * share / (1 - share)) / len(places) ** 2)
            freedoms.append(min(logs.shape[1], found.counts[k]) - 1)
    total = sum(variances)
    if total <= 0:
        return Estimate(value, 0.0, value, value), float(min(freedoms))
    freedom = total**2 / sum(v**2 / f for v, f in zip(variances, freedoms, strict=True))
    reach = t_quantile(int(freedom) + 1) * math.sqrt(total)
    return Estimate(value, math.sqrt(total), value - reach, value + reach), freedom
