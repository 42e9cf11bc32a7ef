"""What the results of analyses look like as columns: see :func:`~landscape_lab.tabular.columns_of`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from landscape_lab.analysis.features import FeatureQuality
from landscape_lab.analysis.gradients import ClassSimilarity, GradientSimilarity
from landscape_lab.analysis.lanczos import Eigenpairs
from landscape_lab.analysis.neural_collapse import NeuralCollapse
from landscape_lab.analysis.noise import NoiseCurve
from landscape_lab.analysis.paths import Barrier, Distances
from landscape_lab.analysis.spectra import SpectralDensity, Spectrum
from landscape_lab.analysis.surface import Surface
from landscape_lab.analysis.trace import TraceEstimate
from landscape_lab.analysis.trajectory import JointTrajectory, Trajectory
from landscape_lab.tabular import Columns, columns_of, labelled, stacked, summary_of

__all__: list[str] = []


def _grid(axes: Mapping[str, Sequence[Any]], **values: Tensor | None) -> Columns:
    """A row for every combination of the axes' values, the last axis running fastest."""
    sizes = [len(axis) for axis in axes.values()]
    places = torch.cartesian_prod(*(torch.arange(size) for size in sizes)).reshape(-1, len(sizes))
    columns: Columns = {
        name: [axis[place] for place in places[:, k].tolist()] for k, (name, axis) in enumerate(axes.items())
    }
    return {**columns, **{name: value.flatten().tolist() for name, value in values.items() if value is not None}}


@columns_of.register
def _surface(result: Surface) -> Columns:
    axes = {"subset": result.subsets, "y": result.y.tolist(), "x": result.x.tolist()}
    evaluated = None if result.evaluated is None else result.evaluated.expand(result.losses.shape)
    columns = _grid(
        axes,
        loss=result.losses,
        accuracy=result.accuracies,
        stderr=result.stderr,
        evaluated=evaluated,
        interpolation_error=result.errors,
    )
    return {name: column for name, column in columns.items() if name != "y" or len(result.y) > 1}


@summary_of.register
def _of_surface(result: Surface) -> Columns:
    losses = result.losses.flatten(1)
    row, column = int(result.y.abs().argmin()), int(result.x.abs().argmin())
    return {
        "subset": [*result.subsets],
        "samples": [*result.counts],
        "points": [losses.shape[1]] * len(losses),
        "loss nearest to the origin": result.losses[:, row, column].tolist(),
        "lowest": losses.amin(1).tolist(),
        "highest": losses.amax(1).tolist(),
    }


@columns_of.register
def _density(result: SpectralDensity) -> Columns:
    probes = torch.arange(len(result.nodes))[:, None].expand(result.nodes.shape)
    real = result.weights > 0  # the rest is padding
    return {
        "probe": probes[real].tolist(),
        "eigenvalue": result.nodes[real].tolist(),
        "weight": result.weights[real].tolist(),
    }


@columns_of.register
def _spectrum(result: Spectrum) -> Columns:
    return {
        "lambda_max": [result.lambda_max],
        "lambda_max_residual": [result.lambda_max_residual],
        "lambda_max_upper": [result.lambda_max_upper],
        "lambda_max_data_stderr": [result.data.lambda_max if result.data else None],
        "lambda_min": [result.lambda_min],
        "lambda_min_residual": [result.lambda_min_residual],
        "lambda_min_lower": [result.lambda_min_lower],
        "lambda_min_data_stderr": [result.data.lambda_min if result.data else None],
        "trace": [result.trace.value],
        "trace_stderr": [result.trace.stderr],
        "trace_low": [result.trace.low],
        "trace_high": [result.trace.high],
        "trace_data_stderr": [result.data.trace if result.data else None],
        "converged": [result.converged],
        "samples": [result.samples],
        "parameters": [result.parameters],
        "operator": [result.operator],
        "batch_norm": [result.batch_norm],
        "products": [result.products],
    }


@columns_of.register
def _trace(result: TraceEstimate) -> Columns:
    return {
        "value": [result.value],
        "stderr": [result.stderr],
        "low": [result.low],
        "high": [result.high],
        "method": [result.method],
        "products": [result.products],
        "seed": [result.seed],
    }


@columns_of.register
def _eigenpairs(result: Eigenpairs) -> Columns:
    return {
        "eigenvalue": result.values.tolist(),
        "residual": result.residuals.tolist(),
        "converged": [*result.converged],
    }


@columns_of.register
def _quality(result: FeatureQuality) -> Columns:
    return {
        "class": [*range(len(result.quality))],
        "quality": result.quality.tolist(),
        "separation": result.separation.tolist(),
        "variance": result.variance.tolist(),
        "samples": result.counts.tolist(),
    }


@columns_of.register
def _collapse(result: NeuralCollapse) -> Columns:
    return {
        "class": [*range(len(result.counts))],
        "within": result.within.tolist(),
        "length": result.lengths.tolist(),
        "angle": result.angles.tolist(),
        "alignment": result.alignment.tolist(),
        "samples": result.counts.tolist(),
    }


@columns_of.register
def _gradients(result: GradientSimilarity) -> Columns:
    return {
        "class": [*result.classes],
        "cosine": result.mean.tolist(),
        "std": result.std.tolist(),
        "stderr": result.stderr.tolist(),
        "batches": result.present.tolist(),
    }


@columns_of.register
def _pairs(result: ClassSimilarity) -> Columns:
    # It knows the classes' order, not their numbers: those are its GradientSimilarity's.
    places = range(len(result.mean))
    axes = {"row": places, "column": places}
    return _grid(axes, cosine=result.mean, std=result.std, batches=result.present)


@columns_of.register
def _noise(result: NoiseCurve) -> Columns:
    axes = {"subset": result.subsets, "direction": range(result.losses.shape[1]), "ratio": result.ratios.tolist()}
    return _grid(axes, loss=result.losses, accuracy=result.accuracies)


@summary_of.register
def _of_noise(result: NoiseCurve) -> Columns:
    bands = [result.band(subset) for subset in result.subsets]
    return {
        "subset": [name for name in result.subsets for _ in result.ratios],
        "ratio": result.ratios.tolist() * len(result.subsets),
        **{
            name: [v for band in bands for v in band[k].tolist()] for k, name in enumerate(("mean loss", "low", "high"))
        },
    }


@columns_of.register
def _trajectory(result: Trajectory) -> Columns:
    columns: Columns = {
        "step": [*result.steps],
        "x": result.coordinates[:, 0].tolist(),
        "y": result.coordinates[:, 1].tolist(),
        "residual": result.residuals.tolist(),
        "norm": result.norms.tolist(),
    }
    for name, losses in (("loss", result.losses), ("plane_loss", result.plane_losses)):
        if losses is not None:
            columns[name] = losses.tolist()
    return columns


@columns_of.register
def _joint(result: JointTrajectory) -> Columns:
    return stacked(labelled(columns_of(path), run=run) for run, path in result.paths.items())


@columns_of.register
def _distances(result: Distances) -> Columns:
    whole = {"distance": result.full[None], "relative": result.relative[None]}
    parts = {"distance": result.layers, "relative": result.relative_layers}
    axes = {"layer": ["all", *result.names], "step": result.steps}
    return _grid(axes, **{name: torch.cat([whole[name], parts[name]]) for name in whole})


@summary_of.register
def _of_distances(result: Distances) -> Columns:
    return {
        "step": [*result.steps],
        "distance": result.full.tolist(),
        "relative": result.relative.tolist(),
        "cosine": result.cosine.tolist(),
    }


@columns_of.register
def _barrier(result: Barrier) -> Columns:
    axes = {"subset": result.subsets, "t": result.coordinates.tolist()}
    return _grid(axes, loss=result.losses, accuracy=result.accuracies)


@summary_of.register
def _of_barrier(result: Barrier) -> Columns:
    return {
        "subset": [*result.subsets],
        "samples": [*result.counts],
        "barrier": result.barrier.tolist(),
        "stderr": result.stderr.tolist(),
        "at": result.at.tolist(),
    }
