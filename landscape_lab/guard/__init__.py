"""A guard against sharper models: numbers of a model beside those of a baseline, each with its error."""

from landscape_lab.guard.compare import Comparison, Verdict, compare
from landscape_lab.guard.measure import measure, mixed_batches
from landscape_lab.guard.measured import Measured, Measurement
from landscape_lab.guard.samples import Drawn, draw
from landscape_lab.guard.settings import METRICS, GuardSettings, Tolerance, tolerances_of

__all__ = [
    "METRICS",
    "Comparison",
    "Drawn",
    "GuardSettings",
    "Measured",
    "Measurement",
    "Tolerance",
    "Verdict",
    "compare",
    "draw",
    "measure",
    "mixed_batches",
    "tolerances_of",
]
