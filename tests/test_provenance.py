"""The commit of the code: of this package alone, and none where git knows nothing of it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from landscape_lab import provenance


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A work tree with a committed package in it, which the module takes for its own."""
    folder = tmp_path / "tree" / "package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    git(folder.parent, "init", "--quiet")
    git(folder.parent, "add", ".")
    git(folder.parent, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "--quiet", "-m", "x")
    monkeypatch.setattr(provenance, "__file__", str(folder / "provenance.py"))
    provenance.code_commit.cache_clear()
    yield folder
    provenance.code_commit.cache_clear()


def git(place: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=place, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_commit_and_what_was_changed_since(package: Path) -> None:
    commit = git(package, "rev-parse", "HEAD")
    (package.parent / "notes.txt").write_text("not the package")
    assert provenance.code_commit() == commit
    provenance.code_commit.cache_clear()
    (package / "__init__.py").write_text("x = 1")
    assert provenance.code_commit() == f"{commit}-dirty"


def test_a_package_that_git_does_not_track(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = package.parent / "site-packages"
    installed.mkdir()
    (installed / "__init__.py").write_text("")
    monkeypatch.setattr(provenance, "__file__", str(installed / "provenance.py"))
    assert provenance.code_commit() is None


def test_no_work_tree_and_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.code_commit() is None
