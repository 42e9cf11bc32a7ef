"""Training: methods, the memory bank and its groups, and the loop that records a run."""

from __future__ import annotations

from landscape_lab.training.loop import Trainer, run_info

__all__ = ["Trainer", "run_info"]
