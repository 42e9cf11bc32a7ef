"""The command line: a verb a command. torch is imported inside the commands, so that ``--help`` is quick."""

from __future__ import annotations

from landscape_lab.cli import curvature, features, gradients, paper, surface, training, trajectory
from landscape_lab.cli.group import cli, main

__all__ = ["cli", "curvature", "features", "gradients", "main", "paper", "surface", "training", "trajectory"]
