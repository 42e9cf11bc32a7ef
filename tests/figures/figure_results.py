"""Small made-up results for the figures: wide ranges, holes, paths of different lengths."""

from __future__ import annotations

from dataclasses import replace

import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

from landscape_lab.analysis import (
    GradientSimilarity,
    SpectralDensity,
    Spectrum,
    Surface,
    TraceEstimate,
    Trajectory,
)
from landscape_lab.analysis.estimates import DataError
from landscape_lab.figures import GeometryPaths, QualityPanel, SimilarityPanel

HARSH = "<b>cat & $1 'dog'</b>"  # a class name that HTML and mathematical text would both swallow


def bowl(curvatures: dict[str, float], n: int = 11, radius: float = 1.0, hole: bool = False) -> Surface:
    """For each subset the loss 0.01 + c (x² + 2 y²); with ``hole``, nan and inf in the corners."""
    x = torch.linspace(-radius, radius, n, dtype=torch.float64)
    b, a = torch.meshgrid(x, x, indexing="ij")
    losses = torch.stack([0.01 + c * (a**2 + 2 * b**2) for c in curvatures.values()])
    if hole:
        losses[:, 0, :2] = torch.nan
        losses[:, -1, -2:] = torch.inf
    counts = tuple(1000 // (k + 1) for k in range(len(curvatures)))
    return Surface(x, x.clone(), losses, torch.exp(-losses), tuple(curvatures), counts, "running")


def path(end: tuple[float, float], length: int, residual: float = 0.0) -> Trajectory:
    """A path from (-0.8, 0.8) to ``end``, whose last point lies ``residual`` off the plane."""
    start, stop = torch.tensor((-0.8, 0.8)).double(), torch.tensor(end).double()
    at = torch.linspace(0, 1, length, dtype=torch.float64)[:, None]
    coordinates = start + at * (stop - start)
    return Trajectory(
        coordinates, at[:, 0] * residual, coordinates.norm(dim=1), tuple(range(length)), (0.6, 0.25), "made up"
    )


def geometry_paths(**names: str) -> GeometryPaths:
    return GeometryPaths(
        tail_only=path((0.7, -0.6), 3),
        standard=path((0.6, 0.5), 5),
        ours=path((0.5, 0.1), 7, residual=1.25),
        distances={"ours": 3.14159, "standard": 27.1828},
        names=names,
    )


def quality_panel(title: str, epochs: tuple[int, ...], surface: Surface | None, level: float = 0.0) -> QualityPanel:
    def curve(drop: float) -> tuple[float, ...]:
        return tuple(level - 2 - drop * (k % 3) for k in range(len(epochs)))

    return QualityPanel(
        title=title,
        epochs=epochs,
        curves={form: {"head": curve(0.1), "tail": curve(0.4)} for form in ("difference", "reciprocal")},
        surface=surface,
        notes={"head": "λ_max 1.5", "tail": "λ_max 75"},
        classes={"head": 1, "tail": 2},
        samples={"head": 7997, "tail": 133},
    )


def similarity(mean: list[float], present: list[int], batches: int = 40) -> GradientSimilarity:
    """Standard deviation 0.2 for every class."""
    counts, means = torch.tensor(present), torch.tensor(mean, dtype=torch.float64)
    std = torch.where(counts > 1, torch.full_like(means, 0.2), torch.nan)
    return GradientSimilarity((0, 1, 8, 9), means, std, std / counts.double().sqrt(), counts, batches)


def similarity_panels() -> list[SimilarityPanel]:
    full = similarity([0.3, 0.4, 0.2, 0.25], [40, 40, 30, 16])
    absent = similarity([0.3, 0.4, 0.2, torch.nan], [40, 40, 30, 0])
    return [SimilarityPanel("Standard", (0, 4), (full, full)), SimilarityPanel(HARSH, (0, 4), (full, absent))]


def spectrum_of(
    largest: float, smallest: float = -0.1, size: int = 10_000, probes: int = 3, converged: bool = True
) -> Spectrum:
    """A bulk near zero, and both ends as lone eigenvalues of weight 1 / size."""
    bulk = torch.linspace(-1e-3, 1e-3, 20, dtype=torch.float64) * (largest if largest == largest else 1.0)
    nodes = torch.cat([torch.tensor([largest, smallest]).double(), bulk]).repeat(probes, 1)
    weights = torch.full_like(nodes, 1 / size)
    shares = torch.arange(1, probes + 1, dtype=torch.float64)[:, None] + torch.arange(20)
    weights[:, 2:] = shares / shares.sum(1, keepdim=True) * (1 - 2 / size)
    estimate = TraceEstimate(2.5 * largest, 0.01 * largest, torch.tensor([1.0, 2.0]), 30, "xtrace", 0)
    density = SpectralDensity(nodes, weights, size, 100, "deflated", 0)
    return Spectrum(largest, 1e-3 * largest, smallest, 1e-5, converged, estimate, density, 133, size, "running")


def with_data(result: Spectrum, error: float) -> Spectrum:
    """The same, with errors from the draw of the samples."""
    return replace(result, data=DataError(2 * error, error, error / 2, 50))


def texts(figure: Figure) -> str:
    """Everything that is written on a figure."""
    return " ".join(text.get_text() for text in figure.findobj(Text)).replace("\n", " ")
