"""Measures of a loss landscape, for any PyTorch model: curvature, surfaces, paths, features, gradients."""

from landscape_lab.analysis import tables as tables  # how results look as columns
from landscape_lab.analysis.adaptive import evaluate_adaptively, nested_axis
from landscape_lab.analysis.backends import Comparison, Reference, compare, pyhessian_reference, scipy_reference
from landscape_lab.analysis.batches import Batches, Loss, batches_of, per_sample
from landscape_lab.analysis.change_point import Onset, onset_of_decline
from landscape_lab.analysis.directions import (
    filter_normalised,
    layer_normalised,
    norm_normalised,
    normalised,
    orthogonalised,
    random_direction,
)
from landscape_lab.analysis.estimates import DataError, Estimate
from landscape_lab.analysis.features import FeatureQuality, encode, feature_quality
from landscape_lab.analysis.gradients import ClassSimilarity, GradientSimilarity, gradient_similarity
from landscape_lab.analysis.lanczos import Eigenpairs, top_eigenpairs
from landscape_lab.analysis.loss_landscapes_backend import loss_landscapes_surface
from landscape_lab.analysis.losses import Objective
from landscape_lab.analysis.neural_collapse import NeuralCollapse, neural_collapse
from landscape_lab.analysis.noise import NoiseCurve, noise_curve
from landscape_lab.analysis.operators import MATRICES, Combination, Fisher, GaussNewton, Hessian, Matrix, Operator
from landscape_lab.analysis.paths import Barrier, Distances, barrier, distances
from landscape_lab.analysis.planes import eigenvector_plane, gradient_plane, mean_gradient, random_plane
from landscape_lab.analysis.sample_operator import SampleOperator
from landscape_lab.analysis.sharpness import Sharpness, sharpness
from landscape_lab.analysis.spectra import SpectralDensity, Spectrum, hessian_spectrum, spectral_density
from landscape_lab.analysis.subsets import SubsetOperators, subset_spectra, subset_traces
from landscape_lab.analysis.surface import Line, Plane, Surface, evaluate
from landscape_lab.analysis.trace import TraceEstimate, trace
from landscape_lab.analysis.trajectory import (
    JointTrajectory,
    Trajectory,
    joint_pca,
    pca_plane,
    plane_through,
    project,
)

__all__ = [
    "MATRICES",
    "Barrier",
    "Batches",
    "ClassSimilarity",
    "Combination",
    "Comparison",
    "DataError",
    "Distances",
    "Eigenpairs",
    "Estimate",
    "FeatureQuality",
    "Fisher",
    "GaussNewton",
    "GradientSimilarity",
    "Hessian",
    "JointTrajectory",
    "Line",
    "Loss",
    "Matrix",
    "NeuralCollapse",
    "NoiseCurve",
    "Objective",
    "Onset",
    "Operator",
    "Plane",
    "Reference",
    "SampleOperator",
    "Sharpness",
    "SpectralDensity",
    "Spectrum",
    "SubsetOperators",
    "Surface",
    "TraceEstimate",
    "Trajectory",
    "barrier",
    "batches_of",
    "compare",
    "distances",
    "eigenvector_plane",
    "encode",
    "evaluate",
    "evaluate_adaptively",
    "feature_quality",
    "filter_normalised",
    "gradient_plane",
    "gradient_similarity",
    "hessian_spectrum",
    "joint_pca",
    "layer_normalised",
    "loss_landscapes_surface",
    "mean_gradient",
    "nested_axis",
    "neural_collapse",
    "noise_curve",
    "norm_normalised",
    "normalised",
    "onset_of_decline",
    "orthogonalised",
    "pca_plane",
    "per_sample",
    "plane_through",
    "project",
    "pyhessian_reference",
    "random_direction",
    "random_plane",
    "scipy_reference",
    "sharpness",
    "spectral_density",
    "subset_spectra",
    "subset_traces",
    "top_eigenpairs",
    "trace",
]
