"""Least-squares fits of many curves at once: one that never falls, and one that rises and then falls."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["FALL", "Array", "BrokenFit", "broken_fit", "rising_fit"]

Array = NDArray[np.float64]

PACES = (0.0, 0.06, 0.15)
"""Rises and falls are lines (0), or level off: by e in these parts of the curve's length."""

FALL = 3
"""The fewest points that a fall is fitted to."""


@dataclass(frozen=True, eq=False)
class BrokenFit:
    """Fits of ``S`` curves of ``T`` points.

    Attributes:
        broken: ``(S, T - FALL)``, the sum of squares left by a rise up to and including point ``t``, a line or one that
            levels off, and a fall after it, likewise, which may begin at another height.
        last: ``(S,)``, int, the ``t`` with the least of these.
        values: ``(S, T)``, that fit.
    """

    broken: Array
    last: NDArray[np.int64]
    values: Array

    @property
    def least(self) -> Array:
        """``(S,)``, the sum of squares left by the best fit."""
        return _taken(self.broken, self.last)

    @property
    def decline(self) -> Array:
        """``(S,)``, from the value before the break to the last value; positive if it falls."""
        return np.asarray(_taken(self.values, self.last) - self.values[:, -1])


def broken_fit(curves: Array) -> BrokenFit:
    """Fit every curve of ``(S, T)``, ``T > FALL``, at every break."""
    count = curves.shape[1]
    centre = curves.mean(1, keepdims=True)
    y = curves - centre
    beginnings, ends = _shapes(count)
    x = np.arange(count)
    before = _left(y, np.maximum(y @ beginnings.swapaxes(1, 2), 0.0), x + 1, slice(None))[:, :, : count - FALL]
    after = _left(y, np.minimum(y @ ends.swapaxes(1, 2), 0.0), count - x, slice(None, None, -1))[
        :, :, 1 : count - FALL + 1
    ]
    broken = before.min(0) + after.min(0)
    last = broken.argmin(1)
    rows = np.arange(len(y))
    basis = beginnings[before[:, rows, last].argmin(0), last], ends[after[:, rows, last].argmin(0), last + 1]
    inside = x <= last[:, None]
    rise = _fitted(y, basis[0], inside, np.maximum)
    fall = _fitted(y, basis[1], ~inside, np.minimum)
    return BrokenFit(broken, last, np.where(inside, rise, fall) + centre)


def rising_fit(curves: Array) -> tuple[Array, Array]:
    """The best curve that never falls, whatever its shape: isotonic regression by pooling adjacent violators.

    Args:
        curves: ``(S, T)``.

    Returns:
        The sums of squares left ``(S,)``, and the fits ``(S, T)``.
    """
    rows, count = curves.shape
    means, sizes = np.zeros((rows, count)), np.zeros((rows, count))
    top = np.full(rows, -1)  # each row's last block
    for t in range(count):
        top += 1
        some = np.arange(rows)
        means[some, top], sizes[some, top] = curves[:, t], 1
        while len(some := some[top[some] > 0]):
            at = top[some]
            some = some[means[some, at - 1] >= means[some, at]]
            at = top[some]
            n, m = sizes[some, at - 1], sizes[some, at]
            means[some, at - 1] = (n * means[some, at - 1] + m * means[some, at]) / (n + m)
            sizes[some, at - 1] = n + m
            top[some] -= 1
    used = np.arange(count) <= top[:, None]
    values = np.repeat(means[used], sizes[used].astype(int)).reshape(rows, count)
    return ((curves - values) ** 2).sum(1), values


def _taken(table: Array, column: NDArray[np.int64]) -> Array:
    return np.asarray(np.take_along_axis(table, column[:, None], 1)[:, 0])


@functools.lru_cache(maxsize=64)
def _shapes(count: int) -> tuple[Array, Array]:
    """What a curve's beginning up to point ``t``, and its end from point ``t`` on, may follow: ``(shapes, T, T)`` each.

    Each has mean 0 and length 1, and rises.
    """
    at, t = np.arange(count)[None, :], np.arange(count)[:, None]
    found: tuple[list[Array], list[Array]] = [], []
    for pace in PACES:
        for shapes, since, inside in ((found[0], at + 0 * t, at <= t), (found[1], at - t, at >= t)):
            values = since.astype(float) if not pace else 1 - np.exp(-np.maximum(since, 0) / (pace * count))
            values = inside * (values - (values * inside).sum(1, keepdims=True) / inside.sum(1, keepdims=True))
            shapes.append(values / np.maximum(np.sqrt((values**2).sum(1, keepdims=True)), 1e-12))
    return np.stack(found[0]), np.stack(found[1])


def _left(y: Array, slopes: Array, sizes: NDArray[np.int64], order: slice) -> Array:
    """The sums of squares ``(shapes, S, T)`` that shapes with these slopes leave of each beginning or end."""
    total, squares = (np.cumsum(part[:, order], axis=1)[:, order] for part in (y, y**2))
    return np.asarray(np.maximum(squares - total**2 / sizes - slopes**2, 0))


def _fitted(y: Array, basis: Array, inside: NDArray[np.bool_], bound: np.ufunc) -> Array:
    """The best multiples of the shapes ``(S, T)`` and constants for the points of each row that are inside."""
    mean = (y * inside).sum(1) / inside.sum(1)
    slope = bound((y * basis).sum(1), 0.0)
    return np.asarray(mean[:, None] + slope[:, None] * basis)
