"""Measures of a loss landscape, for any PyTorch model: curvature, surfaces, paths, features, gradients."""

from landscape_lab.analysis.batches import Batches, Loss, batches_of, per_sample
from landscape_lab.analysis.directions import (
    filter_normalised,
    layer_normalised,
    orthogonalised,
    random_direction,
)
from landscape_lab.analysis.features import FeatureQuality, encode, feature_quality
from landscape_lab.analysis.gradients import GradientSimilarity, gradient_similarity
from landscape_lab.analysis.lanczos import Eigenpairs, top_eigenpairs
from landscape_lab.analysis.operators import Hessian, Operator
from landscape_lab.analysis.spectra import SpectralDensity, Spectrum, hessian_spectrum, spectral_density
from landscape_lab.analysis.surface import Line, Plane, Surface, evaluate
from landscape_lab.analysis.trace import TraceEstimate, trace
from landscape_lab.analysis.trajectory import Trajectory, pca_plane, plane_through, project

__all__ = [
    "Batches",
    "Eigenpairs",
    "FeatureQuality",
    "GradientSimilarity",
    "Hessian",
    "Line",
    "Loss",
    "Operator",
    "Plane",
    "SpectralDensity",
    "Spectrum",
    "Surface",
    "TraceEstimate",
    "Trajectory",
    "batches_of",
    "encode",
    "evaluate",
    "feature_quality",
    "filter_normalised",
    "gradient_similarity",
    "hessian_spectrum",
    "layer_normalised",
    "orthogonalised",
    "pca_plane",
    "per_sample",
    "plane_through",
    "project",
    "random_direction",
    "spectral_density",
    "top_eigenpairs",
    "trace",
]
