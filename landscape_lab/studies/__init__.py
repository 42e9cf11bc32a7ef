"""Analyses applied to runs, one module a subject; each result is stored in the run with its settings."""

from landscape_lab.studies.study import Study, spread

__all__ = ["Study", "spread"]
