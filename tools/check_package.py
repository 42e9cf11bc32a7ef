"""Build the sdist and the wheel, install them where there is no checkout, and try what users do.

    python tools/check_package.py                          wheel and sdist, dependencies from here
    python tools/check_package.py --clean                  a new environment that installs its own dependencies
    python tools/check_package.py --clean --python python3.10 --lowest
                                                           likewise, each dependency at its lower bound

Without ``--clean`` the environment has its own folder for packages and sees those of the calling one, so that nothing
is downloaded. The checkout is not on any path: commands run in an empty folder, with folders ``training/`` and
``analysis/`` of its own, as users have them. The models of ``tools/users/`` are trained there by loops of their own,
and analysed by ``--target``.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("landscape_lab", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "CHANGELOG.md")
USERS = ROOT / "tools" / "users"
BUILD = "from setuptools import build_meta as b; import sys; print(b.build_{kind}(sys.argv[1]))"
USE = """
import landscape_lab, pathlib, sys
assert pathlib.Path(landscape_lab.__file__).is_relative_to(sys.prefix), landscape_lab.__file__
import torch
from torch import nn
from landscape_lab.analysis import Hessian, hessian_spectrum
torch.manual_seed(0)
x, y = torch.randn(40, 5), torch.randint(3, (40,))
spectrum = hessian_spectrum(Hessian(nn.Linear(5, 3), nn.functional.cross_entropy, [(x, y)]))
assert spectrum.lambda_max > 0 and spectrum._repr_html_()
recorder = landscape_lab.Recorder("mine", nn.Linear(5, 3), class_counts=[20, 12, 8])
recorder.epoch({"loss": 1.0})
recorder.finish()
"""

# A command's options and what it must leave in the run, for the models of USERS.
COMMANDS: dict[str, tuple[list[str], list[str]]] = {
    "hessian": (
        ["--samples", "40", "--probes", "4", "--steps", "12"],
        ["figures/hessian-*.png", "results/hessian/*-head-train.safetensors", "results/hessian/*-tail-train.json"],
    ),
    "surface": (
        ["--steps", "7", "--samples", "40"],
        ["figures/surface-*.png", "results/surface/*-train-head+tail.safetensors"],
    ),
    "features": ([], ["figures/feature-quality.png", "results/features/*-train.safetensors"]),
    "report": (["--samples", "40", "-o", "page.html"], ["results/trajectory.json", "results/noise/*.json"]),
}


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command without this checkout on any path; its output if it fails."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"failed in {cwd}: {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def build(place: Path) -> tuple[Path, Path]:
    """Build the sdist from a copy of the sources, and the wheel from the sdist: what the sdist lacks is missed."""
    copy = place / "copy"
    copy.mkdir(parents=True)
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        elif source.exists():
            shutil.copy(source, copy)
    sdist = place / run(sys.executable, "-c", BUILD.format(kind="sdist"), place, cwd=copy).splitlines()[-1]
    with tarfile.open(sdist) as archive:
        archive.extractall(place / "unpacked", filter="data")
    (unpacked,) = (place / "unpacked").iterdir()
    wheel = place / run(sys.executable, "-c", BUILD.format(kind="wheel"), place, cwd=unpacked).splitlines()[-1]
    return sdist, wheel


def missing_files(wheel: Path) -> list[str]:
    """What of the package's folder is not in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    ours = (p.relative_to(ROOT) for p in (ROOT / "landscape_lab").rglob("*") if p.is_file())
    return sorted(p.as_posix() for p in ours if "__pycache__" not in p.parts and p.as_posix() not in inside)


def lowest() -> list[str]:
    """Each dependency at its lower bound: ``numpy==1.26``."""
    block = re.search(r"^dependencies = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE)
    assert block is not None
    return [line.replace(">=", "==") for line in re.findall(r'"([^"]+)"', block[1])]


def installed(place: Path, python: str, wheel: Path, clean: bool, bounds: list[str]) -> Path:
    """A new environment with the wheel in it; returns its interpreter."""
    run(python, "-m", "venv", *([] if clean else ["--without-pip"]), place, cwd=place.parent)
    inner = place / "bin" / "python"
    if clean:
        run(inner, "-m", "pip", "install", "--quiet", wheel, *bounds, cwd=place)
        return inner
    offline = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    run(sys.executable, "-m", "pip", "--python", inner, "install", *offline, wheel, cwd=place)
    # The calling environment's packages last, and without what its .pth files add: an editable install of the checkout.
    outer = [path for path in sys.path if path.endswith("site-packages")]
    library = next((place / "lib").iterdir()) / "site-packages"
    (library / "outer.py").write_text(f"import sys; sys.path += {outer!r}\n")
    (library / "outer.pth").write_text("import outer\n")
    return inner


def use(python: Path, place: Path) -> None:
    """What users do, in a folder that holds nothing but two folders whose names are also ours."""
    for name in ("training", "analysis"):
        (place / name).mkdir(parents=True)
        (place / name / "__init__.py").write_text("raise RuntimeError('the user’s own folder was imported')\n")
    command = python.parent / "landscape-lab"
    run(command, "--help", cwd=place)
    run(python, "-c", USE, cwd=place)
    small = ["--set", "model.width=4", "--epochs", "1", "--out", "run"]
    run(command, "train", "digits-lt-erm", *small, cwd=place)
    run(command, "hessian", "run", "--classes", "tail", "--density-products", "0", cwd=place)
    run(command, "report", "run", "--stored", "--pictures", "pictures", cwd=place)
    run(command, "export", "run", "mine", "--csv", "tables", cwd=place)


def own_models(python: Path, place: Path) -> None:
    """Train each model of ``tools/users/`` in the same folder, with its own loop; run COMMANDS on what it recorded."""
    for source in sorted(USERS.glob("*.py")):
        shutil.copy(source, place)
        record, page, start = place / "runs" / source.stem, place / "page.html", time.perf_counter()
        run(python, source.name, record.relative_to(place), cwd=place)
        for name, (options, left) in COMMANDS.items():
            before = {path for path in record.rglob("*") if path.is_file()}
            arguments: list[str | Path] = [record.relative_to(place), *options, "--target", f"{source.name}:make"]
            run(python.parent / "landscape-lab", name, *arguments, cwd=place)
            new = {path for path in record.rglob("*") if path.is_file()} - before
            lacking = [pattern for pattern in left if not new & {p for p in record.glob(pattern) if p.stat().st_size}]
            if lacking:
                sys.exit(f"{name} of {source.name} left no {', '.join(lacking)}")
        text = page.read_text(encoding="utf-8") if page.exists() else ""
        if source.stem not in text or not text.rstrip().endswith("</html>"):
            sys.exit(f"report of {source.name} left no whole page")
        told = f"{', '.join(COMMANDS)} with --target, in {time.perf_counter() - start:.0f} s"
        print(f"{source.name}: recorded {len(list(record.glob('checkpoints/*')))} checkpoints; {told}")
        page.unlink()


def main() -> None:
    """Build, install, use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clean", action="store_true", help="install the dependencies too, instead of those from here")
    parser.add_argument("--lowest", action="store_true", help="with --clean: each dependency at its lower bound")
    parser.add_argument("--python", default=sys.executable, help="with --clean: the interpreter")
    parser.add_argument("--with", dest="others", action="append", default=[], metavar="REQUIREMENT",
                        help="with --clean: what else to install, such as torch==2.4.1; may be repeated")  # fmt: skip
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        sdist, wheel = build(place / "dist")
        lacking = missing_files(wheel)
        if lacking:
            sys.exit(f"not in the wheel: {', '.join(lacking)}")
        print(f"built {sdist.name} ({sdist.stat().st_size:,} bytes), {wheel.name} ({wheel.stat().st_size:,} bytes)")
        bounds = [*(lowest() if options.lowest else []), *options.others]
        interpreter = options.python if options.clean else sys.executable
        python = installed(place / "environment", interpreter, wheel, options.clean, bounds)
        use(python, place / "empty")
        own_models(python, place / "empty")
        version = run(python, "--version", cwd=place).strip()
        print(f"works: {version}, with {'its own' if options.clean else 'our'} packages")


if __name__ == "__main__":
    main()
