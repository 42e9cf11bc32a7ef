"""The command line: a verb a command. torch is imported inside the commands, so that ``--help`` is quick."""

from __future__ import annotations

from landscape_lab.cli import analysis, curvature, paper, training
from landscape_lab.cli.group import cli, main

__all__ = ["analysis", "cli", "curvature", "main", "paper", "training"]
