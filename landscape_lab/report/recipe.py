"""The last tab: what was asked for, and what it was made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from landscape_lab.console import duration
from landscape_lab.figures import Table
from landscape_lab.report.parts import Section
from landscape_lab.report.results import Results

__all__ = ["recipe"]


def recipe(found: Sequence[Results]) -> Section:
    """The fields in which the recipes differ, versions and data, and the recipes themselves."""
    with_recipe = [results for results in found if results.run.has_recipe]
    recipes = [_flat(msgspec.to_builtins(results.run.recipe)) for results in with_recipe]
    tables: list[tuple[Table, Mapping[str, str]]] = []
    labels = tuple(results.label for results in found)
    fields = list(dict.fromkeys(name for one in recipes for name in one))
    differing = [name for name in fields if len({one.get(name, "–") for one in recipes}) > 1]
    if differing:
        rows = tuple((name, *(one.get(name, "–") for one in recipes)) for name in differing)
        header = ("field", *(results.label for results in with_recipe))
        tables.append((Table("Where the recipes differ", header, rows), {}))
    environments = [_environment(results) for results in found]
    names = list(dict.fromkeys(name for one in environments for name in one))
    rows = tuple((name, *(one.get(name, "–") for one in environments)) for name in names)
    tables.append((Table("Environment", ("", *labels), rows), {}))
    unreadable = [f"{results.label}: {name}" for results in found for name in results.unreadable]
    missing = [(f"Stored by another version and not read: {name}", "") for name in unreadable]
    texts = [
        (f"recipe.toml of {results.label}", (results.run.path / "recipe.toml").read_text(encoding="utf-8"))
        for results in with_recipe
    ]
    return Section("recipe", "Recipe", tables=tables, texts=texts, missing=missing)


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    if not isinstance(value, Mapping):
        return {prefix: ", ".join(map(str, value)) if isinstance(value, list) else str(value)}
    return {
        name: text
        for key, item in value.items()
        for name, text in _flat(item, f"{prefix}.{key}" if prefix else str(key)).items()
    }


def _environment(results: Results) -> dict[str, str]:
    info = results.run.info
    found = {str(name): str(value) for name, value in info.get("versions", {}).items()}
    found["device"] = str(info.get("device", "–"))
    found["threads"] = str(info.get("threads", "–"))
    found["code"] = str(info.get("commit", "–"))[:12]
    data = info.get("data", {})
    found["data"] = f"{data.get('name', '–')}, {sum(info['class_counts']):,} training samples"
    found["data fingerprint"] = str(data.get("fingerprint", "–"))[:16]
    found["status"] = str(info["status"])
    seconds = info.get("epoch_seconds")
    if seconds:
        found["training took"] = duration(sum(seconds))
    return found
