"""Callbacks for other people's trainers; each module needs its own extra and is imported by its name."""

from __future__ import annotations

__all__: list[str] = []
