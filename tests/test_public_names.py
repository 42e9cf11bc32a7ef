"""The public surface changes only on purpose.

``tests/public_names.txt`` holds every name of the modules that users import, with its signature, and every command
with its options. After a wanted change write it anew, and tell of it in the changelog::

    python tests/test_public_names.py --write
"""

from __future__ import annotations

import ast
import difflib
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WRITTEN = Path(__file__).with_name("public_names.txt")
PUBLIC = (
    "landscape_lab",
    *(f"landscape_lab.{name}" for name in ("analysis", "data", "diagnosis", "errors", "export", "figures", "frames")),
    *(f"landscape_lab.{name}" for name in ("guard", "importing", "models", "parameters", "pytest_plugin", "recipe")),
    *(f"landscape_lab.{name}" for name in ("recorder", "report", "run", "studies", "tabular", "target", "train")),
)
FAMILIES = ("landscape_lab.integrations.", "landscape_lab.studies.")  # each module of them is imported by its name
CALLED = ("__init__", "__call__", "__matmul__", "__len__", "__iter__", "__getitem__")


def modules() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name. Read, not imported: some need optional libraries."""
    found = {}
    for path in sorted((ROOT / "landscape_lab").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if path.name != "__main__.py":
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text())
    return found


def declared(module: ast.Module) -> list[str] | None:
    """What ``__all__`` lists; ``None`` without one."""
    for node in module.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            names: list[str] = ast.literal_eval(node.value)  # type: ignore[attr-defined]
            return names
    return None


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(node.args)}){returns}"


def is_public(name: str) -> bool:
    return not name.startswith("_") or name in CALLED


def described(name: str, module: ast.Module) -> Iterator[str]:
    """A name of ``__all__`` as it is defined, with a class's public members; nothing for one from elsewhere."""
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            yield f"def {name}{signature(node)}"
        elif isinstance(node, ast.ClassDef) and node.name == name:
            bases = ", ".join(map(ast.unparse, [*node.bases, *node.keywords]))
            yield f"class {name}({bases})" if bases else f"class {name}"
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and is_public(inner.name):
                    marks = "".join(f"@{ast.unparse(mark)} " for mark in inner.decorator_list)
                    yield f"class {name}: {marks}{inner.name}{signature(inner)}"
                elif isinstance(inner, ast.AnnAssign) and is_public(ast.unparse(inner.target)):
                    yield f"class {name}: {ast.unparse(inner)}"
        elif isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            yield f"{name} = …"
        elif isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name:
            yield f"{name}: {ast.unparse(node.annotation)}"


def home(name: str, place: str, known: dict[str, ast.Module]) -> str:
    """The module that defines what another one offers; that one itself if it is none of ours."""
    for node in ast.walk(known[place]):
        if isinstance(node, ast.ImportFrom) and node.module in known and any(a.name == name for a in node.names):
            return home(name, node.module, known)
    return place


def commands() -> Iterator[str]:
    """Every command with its arguments and options, and what these take."""
    from landscape_lab.cli import cli

    for name, command in sorted(cli.commands.items()):
        for parameter in command.params:
            many = "…" if parameter.multiple or parameter.nargs == -1 else ""
            yield f"landscape-lab {name}: {' '.join([*parameter.opts, *parameter.secondary_opts])}{many}"


def surface() -> str:
    """All public names and how they are called."""
    known = modules()
    lines = []
    for place in known:
        if place in PUBLIC or place.startswith(FAMILIES):
            for name in sorted(declared(known[place]) or []):
                lines += [f"{place}: {line}" for line in described(name, known[home(name, place, known)])] or [
                    f"{place}: {name}"
                ]
    return "\n".join([*lines, *commands()]) + "\n"


def test_the_public_surface_is_the_one_that_is_written_down() -> None:
    written, now = WRITTEN.read_text().splitlines(), surface().splitlines()
    told = [line for line in difflib.unified_diff(written, now, n=0, lineterm="") if not line.startswith("@@")][2:]
    assert not told, "\n".join(["if you mean it: python tests/test_public_names.py --write", *told])


def test_every_module_says_what_is_public() -> None:
    assert [name for name, module in modules().items() if declared(module) is None] == []


def test_what_is_declared_is_there_and_all_public_definitions_are_declared() -> None:
    for place, module in modules().items():
        names = declared(module) or []
        assert len(set(names)) == len(names), place
        top = {
            alias.asname or alias.name
            for n in ast.walk(module)
            if isinstance(n, ast.ImportFrom | ast.Import)
            for alias in n.names
        }
        defined = {node.name for node in module.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        known = top | defined | {node.id for node in ast.walk(module) if isinstance(node, ast.Name)}
        assert set(names) <= known, f"{place} declares {sorted(set(names) - known)}"
        assert {name for name in defined if not name.startswith("_")} <= set(names), (
            f"{place} does not declare {sorted(name for name in defined - set(names) if not name.startswith('_'))}"
        )


if __name__ == "__main__":
    WRITTEN.write_text(surface()) if "--write" in sys.argv else sys.stdout.write(surface())
