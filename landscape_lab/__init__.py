"""Landscape Lab: loss landscapes and training dynamics of long-tailed classifiers, per class, with errors."""

from __future__ import annotations

from landscape_lab.recipe import Recipe, load_recipe
from landscape_lab.run import Run
from landscape_lab.version import __version__

__all__ = ["Recipe", "Run", "__version__", "load_recipe"]
