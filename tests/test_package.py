"""The package as users get it: a wheel, built from the sdist, without this checkout.

What users do with it is tried by ``tools/check_package.py`` (see ``docs/development.md``), which takes minutes.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tarfile
import zipfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from landscape_lab.version import __version__

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text()


@pytest.fixture(scope="module")
def tool() -> Any:
    spec = spec_from_file_location("check_package", ROOT / "tools" / "check_package.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def built(tool: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    pytest.importorskip("setuptools", "70.1", reason="builds wheels by itself from 70.1 on")
    sdist, wheel = tool.build(tmp_path_factory.mktemp("built") / "dist")
    return sdist, wheel


def test_all_files_of_the_package_are_in_the_wheel_and_no_others(tool: Any, built: tuple[Path, Path]) -> None:
    _, wheel = built
    assert tool.missing_files(wheel) == []
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"landscape_lab", f"landscape_lab-{__version__}.dist-info"}
    assert "landscape_lab/py.typed" in names
    assert not [name for name in names if name.endswith((".pyc", ".tmp", ".orig"))]


def test_what_the_wheel_says_of_itself(built: tuple[Path, Path]) -> None:
    _, wheel = built
    with zipfile.ZipFile(wheel) as archive:
        (info,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        metadata = archive.read(f"{info}/METADATA").decode()
        points = archive.read(f"{info}/entry_points.txt").decode()
        assert any(name.startswith(info) and name.endswith("LICENSE") for name in archive.namelist())
    assert f"\nVersion: {__version__}\n" in metadata
    assert "\nRequires-Python: >=3.10\n" in metadata
    assert "landscape-lab = landscape_lab.cli:main" in points
    assert "[pytest11]" in points
    extras = set(re.findall(r"^Provides-Extra: (.+)$", metadata, re.MULTILINE))
    assert {"frames", "tensorboard", "lightning", "transformers"} <= extras
    # A pinned or a large library is nobody's to bring along unasked.
    for name in ("pandas", "tensorboard", "lightning", "transformers", "torchvision", "pytest"):
        assert not re.search(rf"^Requires-Dist: {name}\b[^;\n]*$", metadata, re.MULTILINE), name


def test_the_sdist_builds_alone(built: tuple[Path, Path]) -> None:
    sdist, _ = built  # the wheel was built from it
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"pyproject.toml", "README.md", "LICENSE", "landscape_lab/py.typed"} <= names


def test_help_from_the_wheel_in_a_folder_with_names_like_ours(built: tuple[Path, Path], tmp_path: Path) -> None:
    _, wheel = built
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    for name in ("training", "analysis", "figures"):
        (tmp_path / "user" / name).mkdir(parents=True)
        (tmp_path / "user" / name / "__init__.py").write_text("raise RuntimeError('not ours')\n")
    code = (
        f"import sys; sys.path[:] = [{str(tmp_path / 'user')!r}, {str(tmp_path / 'installed')!r}]"
        " + [p for p in sys.path if p and 'checkout' not in p]\n"
        "import landscape_lab; print(landscape_lab.__file__)\n"
        "from landscape_lab.recipe import load_recipe; load_recipe('digits-lt-erm', {}, [])\n"
        "from landscape_lab.cli import cli; cli(['--help'], standalone_mode=False)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "user", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith(str(tmp_path / "installed"))
    assert "export" in done.stdout


@pytest.mark.parametrize("version", [(3, 10), (3, 11), (3, 12), (3, 13)], ids=str)
def test_every_file_is_syntax_of_every_python_that_is_promised(version: tuple[int, int]) -> None:
    for path in [*(ROOT / "landscape_lab").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]:
        ast.parse(path.read_text(), str(path), feature_version=version)


def test_what_is_imported_is_declared() -> None:
    """A library that only happens to be there is missed by the first user without it."""
    names = {
        "sklearn": "scikit-learn",
        "PIL": "pillow",
        "mpl_toolkits": "matplotlib",
        "pytorch_lightning": "lightning",  # the other name of it, with its own users
    }
    declared = {re.split(r"[>=<\[;]", text)[0].lower() for text in re.findall(r'"([A-Za-z][\w.-]*[^"]*)"', PYPROJECT)}
    standard = sys.stdlib_module_names | {"landscape_lab", "tomllib"}  # from 3.11 on; tomli before
    for path in (ROOT / "landscape_lab").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for module in modules:
                top = module.split(".")[0]
                known = {names.get(top, top).lower(), top.replace("_", "-").lower()}
                assert top in standard or known & declared, f"{path} imports {top}, which pyproject.toml does not name"


def test_lower_bounds_are_the_first_versions_of_their_ranges(tool: Any) -> None:
    bounds = tool.lowest()
    assert "torch==2.4" in bounds
    assert len(bounds) == len(re.findall(r'^    "', PYPROJECT.split("dependencies = [")[1].split("]")[0], re.MULTILINE))
    assert all("==" in bound for bound in bounds)
