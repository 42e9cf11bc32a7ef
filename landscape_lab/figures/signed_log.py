"""The axis that shows negative part, bulk and outliers of a spectrum at once, and the smoothing that fits it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.scale import SymmetricalLogTransform

from landscape_lab.figures.arrays import Array

__all__ = ["GRID", "SMOOTH", "SignedLog"]

# Points on a curve; the kernel's standard deviation in axis widths. At 1/400 a lone eigenvalue is a spike a few
# pixels wide, and one grid step is a sixth of a standard deviation, so that its height is right.
GRID, WIDTH = 2400, 1 / 400
# The width of the linear part, in decades times 0.9 as matplotlib counts it, with which linear and logarithmic part
# meet at the same slope. With another, curves would be drawn out on one side of the threshold.
SMOOTH = 0.9 / math.log(10)


@dataclass(frozen=True)
class SignedLog:
    """The x axis of all panels: linear within ±threshold, logarithmic beyond, and the smoothing that goes with it."""

    threshold: float
    low: float
    high: float

    @property
    def transform(self) -> SymmetricalLogTransform:
        """Eigenvalues to positions on the axis."""
        return SymmetricalLogTransform(10, self.threshold, SMOOTH)

    def to(self, *eigenvalues: float) -> Array:
        """Positions on the axis."""
        return np.asarray(self.transform.transform_non_affine(np.array(eigenvalues)), dtype=np.float64)

    def back(self, positions: Array) -> Array:
        """Eigenvalues at positions on the axis."""
        return np.asarray(self.transform.inverted().transform_non_affine(positions), dtype=np.float64)

    def grid(self) -> tuple[Array, Array]:
        """Eigenvalues evenly spaced on the axis, and the kernel's width at each, in eigenvalue units.

        The width is a fixed fraction of the axis: constant within ±threshold, proportional to |λ| beyond. A width
        constant in λ, as is usual, is far too wide near zero or leaves spikes thinner than a pixel at the outliers.
        """
        left, right = self.to(self.low, self.high)
        points = self.back(np.linspace(left, right, GRID))
        # dλ/ds of the axis; s is in units of the threshold times decades.
        slope = math.log(10) * np.maximum(np.abs(points) / self.threshold, 1.0)
        return points, WIDTH * (right - left) * slope
