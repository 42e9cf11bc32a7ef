"""Files that are either whole or absent: written to a temporary name, synced, then moved into place."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from landscape_lab.errors import InputError
from landscape_lab.numbers import finite

__all__ = ["read_json", "read_tensors", "write_bytes", "write_json", "write_tensors", "write_text"]

CHECKSUM = "crc32"


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that a reader sees the old file or the new one, never a part.

    Raises:
        OSError: the disk is full or the folder cannot be written; ``path`` is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):  # the system names the temporary file, or none at all
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text as :func:`write_bytes` does."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON; NaN and infinities become ``null``, which strict readers accept."""
    write_text(path, json.dumps(finite(content), indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is damaged: not valid JSON ({error})") from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """Write named tensors as safetensors, with a checksum of them and of the metadata in the metadata.

    Args:
        path: where to write; replaced in one step.
        tensors: any shapes and dtypes, on any device.
        metadata: text to keep beside them; the key ``crc32`` is taken.

    Returns:
        The checksum.

    Raises:
        OSError: as :func:`write_bytes`.
    """
    # Parameters are views into one buffer; safetensors refuses shared storage, hence the copies.
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    notes = dict(metadata or {})
    checksum = _checksum(copies, notes)
    content = safetensors.torch.save(copies, metadata={**notes, CHECKSUM: checksum})
    write_bytes(path, _in_order(content))
    return checksum


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file written by :func:`write_tensors`: tensors on the CPU, and the metadata.

    Raises:
        InputError: the file is missing, truncated, not safetensors, or its checksum does not hold.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            # Copied: the file's bytes lie anywhere in memory, and BLAS rounds sums over unaligned vectors otherwise,
            # so that a resumed run would drift from one that was never stopped.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a mapping
            metadata = dict(file.metadata() or {})
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is damaged: {' '.join(str(error).split())}") from None
    expected = metadata.get(CHECKSUM)
    notes = {key: text for key, text in metadata.items() if key != CHECKSUM}
    if expected is not None and expected != _checksum(tensors, notes):
        raise InputError(f"{path} is damaged: its checksum does not match its content")
    return tensors, metadata


def _in_order(content: bytes) -> bytes:
    # safetensors writes its metadata in random order; equal content shall give equal bytes.
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + content[end:]


def _checksum(tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> str:
    value = zlib.crc32(repr(sorted(notes.items())).encode())
    for name in sorted(tensors):
        head = f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}"
        value = zlib.crc32(head.encode(), value)
        flat = tensors[name].contiguous().reshape(-1)
        if flat.numel():
            value = zlib.crc32(flat.view(torch.uint8).numpy().data, value)
    return f"{value:08x}"
