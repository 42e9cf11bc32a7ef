"""Arrays out of a pickle that is not trusted: nothing that it names is ever called."""

from __future__ import annotations

import io
import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from landscape_lab.errors import InputError

__all__ = ["as_array", "read_pickle"]


class _Inert:
    """Takes the place of what the pickle names: it keeps arguments and state, and acts on neither.

    numpy's own functions would trust the pickle: a forged dtype makes them follow pointers from the file.
    """

    arguments: tuple[Any, ...] = ()  # a pickle can leave __init__ out
    state: Any = None

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array(_Inert):
    pass


class _Dtype(_Inert):
    pass


class _Encoded(_Inert):
    """Bytes as Python 3 writes them for Python 2: text and the name of its encoding."""


# numpy 2 renamed its core; a pickle carries the name of the numpy that wrote it.
_STAND_INS: dict[tuple[str, str], type[_Inert]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Encoded,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[_Inert]:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise InputError(f"it asks for {module}.{name}, which no array needs") from None


def read_pickle(path: Path, advice: str) -> dict[str, Any]:
    """Read a pickled dictionary of plain values and arrays, as Python 2 or 3 wrote it.

    Args:
        path: the file.
        advice: ends the message of an error: what to do.

    Returns:
        The dictionary, its keys as text; hand its arrays to :func:`as_array`.

    Raises:
        InputError: the file is missing, cut off, no such pickle, or asks for anything but arrays.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} is missing; {advice}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); {advice}") from None
    try:
        # Python 2's strings are bytes: latin1 maps each to the character of the same number.
        loaded = _Unpickler(io.BytesIO(content), encoding="latin1").load()
    except InputError as error:
        raise InputError(f"{path} was refused: {error}; {advice}") from None
    except Exception as error:  # a damaged pickle can raise almost anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is damaged or cut off ({reason}); {advice}") from None
    if not isinstance(loaded, dict):
        raise InputError(f"{path} holds no dictionary; {advice}")
    text = {key.decode("latin1"): item for key, item in loaded.items() if isinstance(key, bytes)}
    return {**text, **{key: item for key, item in loaded.items() if isinstance(key, str)}}


def as_array(value: Any) -> npt.NDArray[Any]:
    """An array of integers out of what :func:`read_pickle` left in its place.

    Raises:
        ValueError: it is no array, not of integers, or its bytes do not fill its shape.
    """
    if not isinstance(value, _Array) or not isinstance(value.state, tuple) or len(value.state) != 5:
        raise ValueError(f"expected an array, got {type(value).__name__.strip('_').lower()}")
    _, shape, dtype, fortran, data = value.state
    kind = _dtype(dtype)
    if not isinstance(shape, tuple) or not all(type(side) is int and 0 <= side < 2**31 for side in shape):
        raise ValueError("the array's shape is not one")
    content = _bytes(data)
    if len(content) != math.prod(shape) * kind.itemsize:
        raise ValueError(f"an array of shape {shape} and dtype {kind} has {len(content)} bytes")
    return np.frombuffer(content, kind).reshape(shape, order="F" if fortran is True else "C")


def _dtype(dtype: Any) -> np.dtype[Any]:
    name = dtype.arguments[0] if isinstance(dtype, _Dtype) and dtype.arguments else None
    if not isinstance(name, str) or not re.fullmatch("[iu][1248]", name):
        raise ValueError(f"expected an array of integers, got dtype {name!r}")
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "|"
    return np.dtype(name).newbyteorder(">" if order == ">" else "<")


def _bytes(data: Any) -> bytes:
    if isinstance(data, _Encoded) and len(data.arguments) == 2 and data.arguments[1] in ("latin1", "latin-1"):
        data = data.arguments[0]
    if isinstance(data, str):
        return data.encode("latin1")
    if isinstance(data, bytes):
        return data
    raise ValueError("the array's content is not bytes")
