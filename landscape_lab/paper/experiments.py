"""Which recipes each table and figure of the paper needs; a recipe that several need is the same one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from landscape_lab.errors import InputError
from landscape_lab.recipe import DataRecipe, Method, Recipe, differences, load_recipe, rescaled

__all__ = [
    "CURVES",
    "FIGURES",
    "RATIOS",
    "ROLES",
    "TABLES",
    "TABLE_ROWS",
    "Choices",
    "Row",
    "Setting",
    "recipe_key",
    "recipe_name",
    "recipes_needed",
]

RATIOS = (100, 50, 10)
"""Imbalance ratios of Table 1."""


@dataclass(frozen=True)
class Setting:
    """What one number is measured on: a recipe up to data, seed and the user's choices.

    Args:
        method: the recipe's.
        bcl: on BCL, else on cross-entropy.
        changes: fields that make this setting; they outweigh what the user sets.
    """

    method: Method
    bcl: bool = True
    changes: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Row:
    """A row of a table: its name, the row of the paper to set beside it, and its settings, one a group of columns."""

    settings: tuple[Setting, ...]
    name: str = ""
    """Empty: the recipe's label."""
    paper: str = ""
    """Empty: the same."""


@dataclass(frozen=True)
class Choices:
    """What the user chooses for all recipes."""

    data: str
    epochs: int | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    presets: tuple[str, ...] = ()

    def recipe(self, setting: Setting, seed: int) -> Recipe:
        """The complete recipe of a setting.

        Raises:
            InputError: a preset or field is unknown, or the fields do not go together.
        """
        name = f"{self.data}{'-bcl' if setting.bcl else ''}-{setting.method}"
        recipe = load_recipe(name, {**self.changes, **dict(setting.changes), "seed": seed}, self.presets)
        return recipe if self.epochs is None else rescaled(recipe, self.epochs)


def _rows(*settings: Setting) -> tuple[Row, ...]:
    return tuple(Row((setting,)) for setting in settings)


def _ratios(method: Method, bcl: bool) -> tuple[Setting, ...]:
    return tuple(Setting(method, bcl, (("data.imbalance_ratio", float(ratio)),)) for ratio in RATIOS)


TABLE_ROWS: dict[int, tuple[Row, ...]] = {
    1: (
        Row(_ratios("erm", False)),
        # The paper's row is LDAM-DRW+SAM, which is another base loss: set beside ours, and named.
        Row(_ratios("sam", False), "CE+SAM (paper: LDAM-DRW+SAM)", "LDAM-DRW+SAM"),
        Row(_ratios("erm", True)),
        Row(_ratios("gkp-gsa", True)),
    ),
    4: _rows(
        *(Setting(method, False) for method in ("erm", "sam", "gkp", "gsa", "gkp-gsa")),
        *(Setting(method, True) for method in ("erm", "gkp", "gsa", "gkp-gsa")),
    ),
    5: _rows(Setting("gkp-sam"), Setting("gkp-gsa-proj"), Setting("gkp-gsa")),
    6: tuple(
        Row((Setting("gkp-gsa", True, (("gkp.strength", float(strength)),)),), str(strength))
        for strength in (10, 50, 100, 500, 1000)
    ),
    7: _rows(Setting("erm", False), Setting("erm"), Setting("gkp-gsa")),
}

CURVES: dict[int, dict[float, Setting]] = {
    5: {count: Setting("gkp-gsa", True, (("groups.count", count),)) for count in range(1, 11)},
    8: {-k: Setting("gkp-gsa", True, (("gsa.radius_scale", float(f"1e-{k}")),)) for k in range(1, 6)},
}
"""Figure → place on the x axis (G, or log10 Z) → setting."""

ROLES: dict[int, dict[str, Setting]] = {
    1: {
        "standard": Setting("erm"),
        "ours": Setting("gkp-gsa"),
        # The tail may be smaller than a batch: keep its last one, whatever the recipe says.
        "tail-only": Setting("erm", True, (("data.classes", "tail"), ("training.drop_last", False))),
    },
    2: {"standard": Setting("erm"), "ours": Setting("gkp-gsa")},
    # The paper compares with cross-entropy here: like for like, ours is on cross-entropy, too.
    6: {"standard": Setting("erm", False), "ours": Setting("gkp-gsa", False)},
    9: {"standard": Setting("erm", False), "sam": Setting("sam", False), "ours": Setting("gkp-gsa", False)},
}
"""Figure → role → setting; these figures show the first seed."""

TABLES = tuple(TABLE_ROWS)
FIGURES = tuple(sorted({**CURVES, **ROLES}))


def recipes_needed(
    choices: Choices, tables: Sequence[int], figures: Sequence[int], seeds: Sequence[int]
) -> Iterator[Recipe]:
    """All recipes, one seed after another, so that each number is there once before any is there twice.

    A recipe comes as often as it is needed.

    Raises:
        InputError: there is no such table or figure, no seed, or a recipe cannot be made.
    """
    for kind, asked, known in (("table", tables, TABLES), ("figure", figures, FIGURES)):
        unknown = [number for number in asked if number not in known]
        if unknown:
            raise InputError(f"{kind} {unknown[0]} cannot be made; there are {', '.join(map(str, known))}")
    if not seeds:
        raise InputError("at least one seed is needed")
    for seed in seeds:
        for number in tables:
            for row in TABLE_ROWS[number]:
                yield from (choices.recipe(setting, seed) for setting in row.settings)
        for number in figures:
            settings = [*CURVES.get(number, {}).values()]
            if seed == seeds[0]:
                settings += ROLES.get(number, {}).values()
            yield from (choices.recipe(setting, seed) for setting in settings)


# What tells recipes of one method apart in a table or figure, for the names of their runs.
_VARIANTS = {
    "data.imbalance_ratio": "r{:g}",
    "data.classes": "{}-only",
    "groups.count": "groups{}",
    "gkp.strength": "lambda{:g}",
    "gsa.radius_scale": "scale{:g}",
}


def recipe_name(recipe: Recipe) -> str:
    """A name for people and files, without the seed: ``cifar100-lt-bcl-gkp-gsa-lambda50``."""
    name = f"{recipe.data.name}{'-bcl' if recipe.loss.name == 'bcl' else ''}-{recipe.method}"
    plain = load_recipe(name)
    for path, form in _VARIANTS.items():
        value = _field(recipe, path)
        if value != _field(plain, path):
            name += f"-{form.format(value)}"
    return name


def recipe_key(recipe: Recipe) -> str:
    """Eight hexadecimal digits that tell recipes apart, wherever their data lie.

    They come from the fields that differ from their defaults, so that a field added later changes no key.
    """
    defaults = Recipe(data=DataRecipe(name=recipe.data.name))
    content = {path: msgspec.to_builtins(_field(recipe, path)) for path in differences(recipe, defaults)}
    text = json.dumps({"data.name": recipe.data.name, **content}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _field(recipe: Recipe, path: str) -> Any:
    value: Any = recipe
    for part in path.split("."):
        value = getattr(value, part)
    return value
