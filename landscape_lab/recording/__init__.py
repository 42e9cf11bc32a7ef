"""What a :class:`~landscape_lab.recorder.Recorder` is made of: snapshots, the thread that writes them, checks."""

from __future__ import annotations

from landscape_lab.recording.background import BackgroundWriter
from landscape_lab.recording.metrics import metrics_line
from landscape_lab.recording.snapshots import Snapshot, SnapshotPool, layout_of
from landscape_lab.recording.writer import EpochWriter

__all__ = ["BackgroundWriter", "EpochWriter", "Snapshot", "SnapshotPool", "layout_of", "metrics_line"]
