"""State dicts in files of others, read without running anything that lies in them."""

from __future__ import annotations

import pickle
import re
import shlex
import warnings
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from landscape_lab.errors import InputError, nearest

__all__ = ["SUFFIXES", "checkpoint_files", "epochs_of", "read_state"]

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
CONTAINERS = ("state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights", "params")
"""Keys under which a checkpoint usually holds the state dict; the first that is there counts."""


def checkpoint_files(paths: Sequence[Path]) -> list[Path]:
    """The files, and those in the folders, ordered by the numbers in their names.

    Raises:
        InputError: a path does not exist, or holds no checkpoint.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = [file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file()]
            if not inside:
                raise InputError(f"there is no checkpoint in {path}: no file ends with {', '.join(SUFFIXES)}")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise InputError(f"{path} does not exist")
    return sorted(dict.fromkeys(found), key=lambda path: _natural(str(path)))


def epochs_of(paths: Sequence[Path]) -> tuple[list[int], str]:
    """The epochs that the names say, and where they are from, for people.

    They are the numbers behind ``epoch``, or the only numbers that differ. Where there are none, or several, the files
    are counted from 1. ``epoch=2-step=300.ckpt`` is Lightning's name for what three epochs made.

    Example:
        >>> epochs_of([Path("run/epoch=0-step=9.ckpt"), Path("run/epoch=1-step=18.ckpt")])
        ([1, 2], "Lightning's file names, which count from 0")
    """
    lightning = [re.search(r"epoch=(\d+)-step=\d+", path.name) for path in paths]
    if all(lightning):
        numbers = [int(match[1]) + 1 for match in lightning if match]
        if len(set(numbers)) == len(numbers):
            return numbers, "Lightning's file names, which count from 0"
    parts = [re.split(r"(\d+)", str(path)) for path in paths]
    if len({tuple(part[::2]) for part in parts}) == 1:  # the same words around the numbers
        columns = list(zip(*(map(int, part[1::2]) for part in parts), strict=True))
        words = parts[0][::2]
        epoch = re.compile(r"epoch[^a-z]*$|(?<![a-z])ep?[-_=]?$")
        named = [k for k in range(len(columns)) if epoch.search(words[k].lower())]
        differ = [k for k, column in enumerate(columns) if len(set(column)) > 1]
        chosen = ([k for k in named if k in differ] or differ) if len(paths) > 1 else named
        if len(chosen) == 1 and len(set(columns[chosen[0]])) == len(paths):
            return list(columns[chosen[0]]), "the numbers in the file names"
    return list(range(1, len(paths) + 1)), "the files' order, for their names do not tell"


def read_state(path: Path, key: str | None = None) -> dict[str, Tensor]:
    """The state dict in a checkpoint.

    Args:
        path: ``.safetensors``, or what ``torch.save`` wrote.
        key: where in it, such as ``state_dict`` or ``ema.params``; ``None``: itself, or under a usual key.

    Raises:
        InputError: the file is damaged, needs arbitrary unpickling, or holds no state dict there.
    """
    content: Any = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds a {type(content).__name__}, not a state dict: {_way_out(path)}")
    if key is not None:
        for part in key.split("."):
            if not isinstance(content, Mapping) or part not in content:
                known = list(content) if isinstance(content, Mapping) else []
                raise InputError(f"{path} has no key {key!r}{nearest(part, map(str, known))}; it has {_listed(known)}")
            content = content[part]
        if not _is_state(content):
            raise InputError(f"{path} holds no state dict under {key!r}")
        return _tensors(content)
    if _is_state(content):
        return _tensors(content)
    for name in CONTAINERS:
        if _is_state(content.get(name)):
            return _tensors(content[name])
    inside = [name for name, value in content.items() if _is_state(value)]
    if len(inside) == 1:
        return _tensors(content[inside[0]])
    raise InputError(f"{path} holds no state dict by a usual name: it has {_listed(content)}; name one with --key")


def _is_state(value: Any) -> bool:
    """A mapping whose values are tensors, a module's extra state aside."""
    if not isinstance(value, Mapping):
        return False
    others = [name for name, item in value.items() if not isinstance(item, Tensor)]
    return len(others) < len(value) and all(str(name).endswith("_extra_state") for name in others)


def _tensors(state: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is damaged: {' '.join(str(error).split())}") from None


def _pickled(path: Path) -> Any:
    """What ``torch.save`` wrote, if it is made of tensors and plain containers."""
    _check_before_loading(path)
    for mmap in (True, False):  # files of before PyTorch 1.6 cannot be mapped
        try:
            with warnings.catch_warnings():  # about formats, that the errors below tell
                warnings.simplefilter("ignore")
                return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        except pickle.UnpicklingError as error:
            needs = re.search(r"(?:GLOBAL|global:?|class|type)\s+`?([A-Za-z_][\w]*\.[\w.]+)", str(error))
            told = f"needs arbitrary unpickling ({needs[1]})" if needs else "is damaged or needs arbitrary unpickling"
            raise InputError(f"{path} {told}, which could run code, and is refused: {_way_out(path)}") from None
        except (RuntimeError, ValueError, EOFError, OSError, KeyError, AttributeError, TypeError, IndexError) as error:
            text = " ".join(str(error).split())
            if not mmap or "mmap" not in text:
                raise InputError(f"{path} is damaged or was not written by torch.save: {text[:200]}") from None
    raise AssertionError("the second attempt returns or raises")


def _check_before_loading(path: Path) -> None:
    """Refuse what ``torch.load`` before 2.6 runs code from, whatever ``weights_only`` says (CVE-2025-32434)."""
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                scripted = any(name.endswith("/constants.pkl") for name in archive.namelist())
        except zipfile.BadZipFile as error:
            raise InputError(f"{path} is damaged: {error}") from None
        if scripted:
            raise InputError(f"{path} is a TorchScript archive, not a state dict: {_way_out(path)}")
    elif tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6) and path.is_file():
        raise InputError(
            f"{path} is damaged or in the format of before PyTorch 1.6, which only PyTorch 2.6 and newer read safely "
            f"(here: {torch.__version__}): update torch, or write it anew with torch.save where you trust it"
        )


def _way_out(path: Path) -> str:
    """The line that makes a state dict of the file, to be run by who trusts it."""
    out = path.with_name(f"{path.stem}-weights.pt")
    code = (
        f"import torch; c = torch.load({str(path)!r}, weights_only=False, map_location='cpu'); "
        f"torch.save(c.state_dict() if hasattr(c, 'state_dict') else c['state_dict'], {str(out)!r})"
    )
    return f"if you trust who made it, save its state dict where its code is at hand: python -c {shlex.quote(code)}"


def _listed(names: Iterable[Any]) -> str:
    listed = [str(name) for name in names]
    return ", ".join(listed[:8]) + ("…" if len(listed) > 8 else "") if listed else "none"


def _natural(text: str) -> list[tuple[bool, int, str]]:
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", text) if part]
