"""The loss under random noise on the parameters, against the noise's norm relative to theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from landscape_lab.analysis.batches import Batches, Loss
from landscape_lab.analysis.directions import filter_normalised, layer_normalised, random_direction
from landscape_lab.analysis.estimates import t_quantile
from landscape_lab.analysis.surface import Line, evaluate
from landscape_lab.errors import InputError, nearest
from landscape_lab.parameters import BatchNormPolicy, ParameterSpace
from landscape_lab.tabular import Tabular

__all__ = ["NoiseCurve", "NoiseNormalisation", "noise_curve", "noise_directions"]

NoiseNormalisation = Literal["norm", "filter", "layer"]


@dataclass(frozen=True, eq=False)
class NoiseCurve(Tabular):
    r"""Losses of ``S`` subsets at :math:`\theta + r \|\theta\| d_k`, for ``K`` random unit vectors and ``R`` ratios.

    Attributes:
        ratios: ``(R,)``, float64, :math:`r = \|\varepsilon\| / \|\theta\|`, ascending.
        losses: ``(S, K, R)``, float64, mean over the subset's samples.
        accuracies: ``(S, K, R)``, the fraction classified correctly.
        subsets: names, in the order of the first axis.
        counts: samples of each subset.
        seed: of the directions.
        batch_norm: how BatchNorm normalised.
        normalisation: how the noise is spread: ``"norm"`` (isotropic), ``"filter"`` or ``"layer"``.
        parameters: which parameters have the noise, as the caller named them.
        norm: :math:`\|\theta\|` of those.
    """

    ratios: Tensor
    losses: Tensor
    accuracies: Tensor
    subsets: tuple[str, ...]
    counts: tuple[int, ...]
    seed: int
    batch_norm: str
    normalisation: str
    parameters: str = "all"
    norm: float = float("nan")

    def of(self, subset: str) -> Tensor:
        """The losses ``(K, R)`` of one subset.

        Raises:
            InputError: there is no such subset.
        """
        return self.losses[self._place(subset)]

    def band(self, subset: str, level: float = 0.95, *, of: Literal["losses", "accuracies"] = "losses") -> Tensor:
        """Mean over the directions and Student's interval of that mean, ``(3, R)``: mean, low, high.

        The interval tells the Monte-Carlo error of the directions; the samples are taken as they are.
        """
        values = self.losses if of == "losses" else self.accuracies
        values = values[self._place(subset)]
        count = len(values)
        mean = values.mean(0)
        if count < 2:
            return torch.stack([mean, torch.full_like(mean, torch.nan), torch.full_like(mean, torch.nan)])
        half = t_quantile(count, level) * values.std(0) / count**0.5
        return torch.stack([mean, mean - half, mean + half])

    def without_noise(self, subset: str) -> float:
        """The loss of one subset at the ratio 0.

        Raises:
            InputError: there is no such subset, or the ratios do not begin with 0.
        """
        if float(self.ratios[0]) != 0:
            raise InputError("the noise curve has no loss without noise: let its ratios begin with 0")
        return float(self.losses[self._place(subset), 0, 0])

    def _place(self, subset: str) -> int:
        if subset not in self.subsets:
            raise InputError(f"no subset {subset!r} in this noise curve{nearest(subset, self.subsets)}")
        return self.subsets.index(subset)


def noise_directions(
    space: ParameterSpace, count: int, *, seed: int = 0, normalisation: NoiseNormalisation = "norm"
) -> Iterator[Tensor]:
    r"""Random directions ``(P,)`` of the length :math:`\|\theta\|`, one after another.

    Args:
        space: the parameters, at the values that set the length.
        count: how many; one seed gives the same first directions whatever the count, on every device.
        seed: of all of them.
        normalisation: ``"norm"``: independent normal entries; ``"filter"`` or ``"layer"``: each filter or tensor in
            proportion to its own norm, biases and BatchNorm left out (:func:`filter_normalised`); all scaled to
            :math:`\|\theta\|`.

    Raises:
        InputError: no direction is asked for, or a filter-normalised one of a model without matrices.
    """
    if count < 1:
        raise InputError(f"at least one direction is needed, got {count}")
    spread = {"norm": None, "filter": filter_normalised, "layer": layer_normalised}
    if normalisation not in spread:
        raise InputError(f"normalisation must be one of {', '.join(spread)}, got {normalisation!r}")
    normalise = spread[normalisation]
    # Read now: the caller may move the model before the first direction is drawn.
    origin = space.vector()
    length = origin.double().norm()

    def drawn() -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(count):
            direction = random_direction(space, generator=generator)
            if normalise is not None:
                with space.bound_to(origin):
                    direction = normalise(direction, space)
            own = direction.double().norm()
            if normalise is not None and not bool(own > 0):
                raise InputError(f"the chosen parameters have no filters: {normalisation!r} noise would be zero")
            yield direction * (length / own).to(direction.dtype)

    return drawn()


def noise_curve(
    model: nn.Module,
    loss: Loss,
    batches: Batches,
    *,
    ratios: Sequence[float] | Tensor,
    directions: int = 10,
    subsets: Mapping[str, Sequence[int]],
    num_classes: int,
    parameters: ParameterSpace | None = None,
    name: str = "all",
    normalisation: NoiseNormalisation = "norm",
    batch_norm: BatchNormPolicy = "running",
    batch_size: int = 512,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> NoiseCurve:
    r"""Measure the loss under noise of growing norm, as figure 1 of the CC-SAM paper does.

    Args:
        model: any classifier with outputs ``(B, C)``; put back as it was.
        loss: ``(output, target) -> (B,)``.
        batches: inputs and int64 targets.
        ratios: :math:`\|\varepsilon\| / \|\theta\|`, not negative, ascending; zero costs one evaluation in all.
        directions: random directions, each followed through all ratios.
        subsets: name to class numbers, all scored in one sweep.
        num_classes: targets lie in ``0 .. num_classes - 1``.
        parameters: which have the noise, and whose norm counts (``None``: all that are trainable). The paper disturbs
            the classifier only.
        name: of these parameters, to keep with the result.
        normalisation: as in :func:`noise_directions`.
        batch_norm: ``"running"`` as in plain evaluation, or ``"batch"``.
        batch_size: samples in memory at a time, for a pair of tensors.
        seed: of the directions.
        progress: called with 1 after each of ``directions * len(ratios)`` points.

    Raises:
        InputError: ratios that are negative or not ascending, and what :func:`evaluate` refuses.

    Reference: Zhou, Li, Zhao, Heng, Gong, *Class-conditional sharpness-aware minimization for deep long-tailed
    recognition*, CVPR 2023, section 2.2.1.
    """
    at = torch.as_tensor(ratios, dtype=torch.float64)
    if at.dim() != 1 or not len(at) or bool((at < 0).any()) or bool((at.diff() <= 0).any()):
        raise InputError(f"the noise ratios must be zero or more and ascending, got {at.tolist()}")
    space = parameters or ParameterSpace(model)
    origin = space.vector()
    moved = at > 0
    losses = torch.empty(len(subsets), directions, len(at), dtype=torch.float64)
    accuracies = torch.empty_like(losses)
    counts: tuple[int, ...] = ()
    for k, direction in enumerate(noise_directions(space, directions, seed=seed, normalisation=normalisation)):
        # Without noise all directions are one point.
        chosen = torch.ones_like(moved) if k == 0 or not bool(moved.any()) else moved
        found = evaluate(
            model, loss, batches, Line(origin, direction), x=at[chosen], subsets=subsets, num_classes=num_classes,
            parameters=space, batch_norm=batch_norm, batch_size=batch_size, progress=progress,
        )  # fmt: skip
        losses[:, k, chosen], accuracies[:, k, chosen] = found.losses[:, 0], found.accuracies[:, 0]
        losses[:, k, ~chosen], accuracies[:, k, ~chosen] = losses[:, 0, ~chosen], accuracies[:, 0, ~chosen]
        if progress and not bool(chosen.all()):
            progress(int((~chosen).sum()))
        counts = found.counts
    norm = float(origin.double().norm())
    return NoiseCurve(at, losses, accuracies, tuple(subsets), counts, seed, batch_norm, normalisation, name, norm)
