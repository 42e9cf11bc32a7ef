"""The same surfaces by another program, loss-landscapes, to check ours against."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from landscape_lab.analysis.backends import rebound
from landscape_lab.analysis.batches import Batches, Loss
from landscape_lab.analysis.directions import Normalisation, random_direction
from landscape_lab.analysis.surface import Surface, surface_of
from landscape_lab.analysis.sweep import Sweep
from landscape_lab.errors import InputError
from landscape_lab.parameters import BatchNormPolicy, ParameterSpace

__all__ = ["loss_landscapes_surface"]


def loss_landscapes_surface(
    model: nn.Module,
    loss: Loss,
    batches: Batches,
    *,
    extent: float,
    steps: int,
    subsets: Mapping[str, Sequence[int]],
    num_classes: int,
    seed: int = 0,
    normalisation: Normalisation = "filter",
    batch_norm: BatchNormPolicy = "running",
    class_counts: Mapping[int, float] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Surface:
    """Let loss-landscapes go over the plane of :func:`~landscape_lab.analysis.planes.random_plane`.

    Its ``random_plane`` normalises the directions, scales them, and moves the model from point to point by its own
    arithmetic on lists of tensors; at each point it calls a metric. It is used as it is published, but for what would
    make its result another one or change the caller's things:

    - its directions are uniform in [0, 1], so that all weights grow together. A copy of the function, made for this
      call, sees ours (standard normal, by ``seed``) instead; its module is not changed.
    - it moves the model and switches its gradients off: it is given the tensors of a copy.
    - its grid begins half a step off the centre, and every second row is shifted by one step. It is asked for a grid
      that is larger by one row and column, and of each point that it visits the true place is kept.
    - its ``distance`` *divides* the step; it is given the reciprocal of what is wanted.
    - it knows one batch and one number; the metric goes over all batches and scores all subsets.
    - it normalises each entry of a bias by itself, and its ``"model"`` normalisation changes the layers' proportions.
      Biases stay out of its sight (``biases="out"``), and ``"norm"`` is what it does without any normalisation.

    The parameters drift by rounding, as each point is reached from the one before.

    Args:
        model: as for :func:`~landscape_lab.analysis.evaluate`, like all that is not listed here.
        loss: as there.
        batches: as there.
        extent: coordinates run from ``-extent`` to ``extent``.
        steps: points on each axis, at least 2.
        seed: of the directions.
        normalisation: ``"filter"``, ``"layer"`` or ``"norm"``; it has none without any scale.

    Raises:
        InputError: loss-landscapes is not installed, or is asked for what it cannot do.

    Reference: M. De Bernardi, *loss-landscapes* 3.0.6, 2019, https://github.com/marcellodebernardi/loss-landscapes.
    """
    library = _Library()
    if normalisation == "none":
        raise InputError("loss-landscapes always scales its directions: choose filter, layer or norm")
    if steps < 2 or not extent > 0:
        raise InputError(f"the grid needs two steps and a positive extent, got {steps} and {extent:g}")
    twin = copy.deepcopy(model)
    space = ParameterSpace(twin)
    if space.device.type != "cpu":
        raise InputError("loss-landscapes makes its directions on the CPU: use --device cpu")
    sweep = Sweep(
        twin,
        loss,
        batches,
        space,
        subsets=subsets,
        num_classes=num_classes,
        batch_norm=batch_norm,
        class_counts=class_counts,
    )
    names = [name for name, parameter in zip(space.names, space.parameters, strict=True) if parameter.dim() > 1]
    drawn = [space.views(random_direction(space, seed=2 * seed + axis)) for axis in range(2)]
    first, second = (library.ModelParameters([part[name].clone() for name in names]) for part in drawn)
    values = torch.full((steps, steps, 3, len(subsets)), torch.nan, dtype=torch.float64)
    visits = iter(_places(steps + 1))

    def metric(_: Any) -> float:
        i, j = next(visits)  # steps from the corner along the first and second direction, 0 to steps + 1
        if 0 < i <= steps and 0 < j <= steps:
            values[j - 1, i - 1] = sweep.measure()
            if progress:
                progress(1)
        return 0.0

    with sweep.moving() as point:
        point.copy_(ParameterSpace(model).vector())
        weights = [parameter for parameter in space.parameters if parameter.dim() > 1]
        random_plane = rebound(library.random_plane, rand_u_like=lambda _: first, orthogonal_to=lambda _: second)
        random_plane(
            library.wrapper(weights),
            metric,
            distance=(steps - 1) / (2 * extent * (steps + 1)),
            steps=steps + 1,
            normalization=None if normalisation == "norm" else normalisation,
        )
    axis = torch.linspace(-extent, extent, steps, dtype=torch.float64)
    return surface_of(sweep, axis, axis, values)


def _places(steps: int) -> list[tuple[int, int]]:
    """In which order the library visits its grid: forth along the second direction from 1, and back to 0."""
    return [(i, j + 1 if i % 2 == 0 else steps - 1 - j) for i in range(steps) for j in range(steps)]


class _Library:
    """What is used of loss-landscapes."""

    def __init__(self) -> None:
        try:
            from loss_landscapes import main
            from loss_landscapes.model_interface.model_parameters import ModelParameters
            from loss_landscapes.model_interface.model_wrapper import ModelWrapper
        except ImportError:
            raise InputError("this back end needs loss-landscapes: pip install loss-landscapes==3.0.6") from None
        self.random_plane, self.ModelParameters = main.random_plane, ModelParameters

        class Weights(ModelWrapper):  # type: ignore[misc]
            """Tensors to move; whatever else the model holds is none of the library's business."""

            def __init__(self, weights: Sequence[Tensor]) -> None:
                super().__init__([])
                self._weights = list(weights)

            def get_module_parameters(self) -> Any:
                return ModelParameters(self._weights)

            def forward(self, x: Any) -> Any:
                raise NotImplementedError

        self.wrapper = Weights
