"""What the documents say is true: examples run, names exist, every field is explained."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_type_hints

import msgspec
import pytest

from landscape_lab import cli
from landscape_lab.recipe import GkpRecipe, GroupsRecipe, GsaRecipe, LossRecipe, QualityRecipe, recipe_names

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_examples_run(page: Path) -> None:
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    for command, rest in re.findall(r"landscape-lab ([a-z]+)\b(.*)", page.read_text()):
        assert command in cli.cli.commands, command
        known = {option for parameter in cli.cli.commands[command].params for option in parameter.opts}
        assert set(re.findall(r"(?<!\S)--[a-z-]+", rest)) <= known | {"--help"}
        for recipe in re.findall(r"(?:digits|cifar10|cifar100)-lt-[a-z-]+(?=\s|$)", rest):
            assert recipe in recipe_names()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize(
    ("table", "kind"),
    [
        ("groups", GroupsRecipe),
        ("gsa", GsaRecipe),
        ("gkp", GkpRecipe),
        ("quality", QualityRecipe),
        ("loss", LossRecipe),
    ],
)
def test_every_reading_is_documented_with_its_default(table: str, kind: type[msgspec.Struct]) -> None:
    rows = [line for line in (ROOT / "docs" / "readings.md").read_text().splitlines() if line.startswith("| `")]
    for field in get_type_hints(kind):
        (row,) = [row for row in rows if f"`{table}.{field}`" in row]
        default = getattr(kind(), field)
        if isinstance(default, str):
            first = row.split("|")[2].split(",")[0].split(";")[0]
            assert f"`{default}`" == first.strip()
        elif default is not None and not isinstance(default, bool):
            assert str(default).rstrip("0").rstrip(".") in row.replace("0.01", "0.01")
