"""The command line: a verb a command. torch is imported inside the commands, so that ``--help`` is quick."""

from __future__ import annotations

from landscape_lab.cli import (
    barrier,
    check,
    curvature,
    diagnose,
    export,
    features,
    gradients,
    groups,
    importing,
    paper,
    report,
    sharpness,
    surface,
    training,
    trajectory,
)
from landscape_lab.cli.group import cli, main

__all__ = [
    "barrier",
    "check",
    "cli",
    "curvature",
    "diagnose",
    "export",
    "features",
    "gradients",
    "groups",
    "importing",
    "main",
    "paper",
    "report",
    "sharpness",
    "surface",
    "training",
    "trajectory",
]
