"""Which state of the code made a result."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

__all__ = ["code_commit"]


@functools.cache
def code_commit() -> str | None:
    """The git commit of this package, with ``-dirty`` where its files differ from it.

    ``None`` where the package is not tracked by git: an installed copy may lie in somebody else's work tree.
    """
    package = Path(__file__).resolve().parent
    try:
        if not _git("ls-files", "__init__.py", at=package):
            return None
        commit = _git("rev-parse", "HEAD", at=package)
        return f"{commit}-dirty" if _git("status", "--porcelain", "--", ".", at=package) else commit
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str, at: Path) -> str:
    # git would otherwise refresh its index, that is write.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    done = subprocess.run(
        ["git", *arguments], cwd=at, env=environment, capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
