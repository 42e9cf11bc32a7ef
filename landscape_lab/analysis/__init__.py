"""Measures of a loss landscape, for any PyTorch model: curvature, surfaces, paths, features, gradients."""

from landscape_lab.analysis.backends import Comparison, Reference, compare, pyhessian_reference, scipy_reference
from landscape_lab.analysis.batches import Batches, Loss, batches_of, per_sample
from landscape_lab.analysis.directions import (
    filter_normalised,
    layer_normalised,
    orthogonalised,
    random_direction,
)
from landscape_lab.analysis.estimates import DataError, Estimate
from landscape_lab.analysis.features import FeatureQuality, encode, feature_quality
from landscape_lab.analysis.gradients import GradientSimilarity, gradient_similarity
from landscape_lab.analysis.lanczos import Eigenpairs, top_eigenpairs
from landscape_lab.analysis.losses import Objective
from landscape_lab.analysis.operators import MATRICES, Combination, Fisher, GaussNewton, Hessian, Matrix, Operator
from landscape_lab.analysis.sample_operator import SampleOperator
from landscape_lab.analysis.spectra import SpectralDensity, Spectrum, hessian_spectrum, spectral_density
from landscape_lab.analysis.subsets import SubsetOperators, subset_spectra, subset_traces
from landscape_lab.analysis.surface import Line, Plane, Surface, evaluate
from landscape_lab.analysis.trace import TraceEstimate, trace
from landscape_lab.analysis.trajectory import Trajectory, pca_plane, plane_through, project

__all__ = [
    "MATRICES",
    "Batches",
    "Combination",
    "Comparison",
    "DataError",
    "Eigenpairs",
    "Estimate",
    "FeatureQuality",
    "Fisher",
    "GaussNewton",
    "GradientSimilarity",
    "Hessian",
    "Line",
    "Loss",
    "Matrix",
    "Objective",
    "Operator",
    "Plane",
    "Reference",
    "SampleOperator",
    "SpectralDensity",
    "Spectrum",
    "SubsetOperators",
    "Surface",
    "TraceEstimate",
    "Trajectory",
    "batches_of",
    "compare",
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
    "pyhessian_reference",
    "random_direction",
    "scipy_reference",
    "spectral_density",
    "subset_spectra",
    "subset_traces",
    "top_eigenpairs",
    "trace",
]
