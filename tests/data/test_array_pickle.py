"""Pickles of arrays are read; pickles that would do anything else are refused and do not do it."""

from __future__ import annotations

import builtins
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from landscape_lab.data.array_pickle import as_array, read_pickle
from landscape_lab.errors import InputError

ARRAY = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10


class Call:
    """Pickled, it asks for ``function(*arguments)`` when read."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def python2(value: Any) -> bytes:
    """A value in the opcodes of Python 2, whose strings are bytes (protocol 2)."""
    if isinstance(value, str | bytes):
        raw = value.encode("latin1") if isinstance(value, str) else value
        return b"T" + struct.pack("<i", len(raw)) + raw
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if value is None:
        return b"N"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, list):
        return b"](" + b"".join(map(python2, value)) + b"e"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(python2, value)) + b"t"
    if isinstance(value, dict):
        return b"}(" + b"".join(python2(key) + python2(item) for key, item in value.items()) + b"u"
    dtype = b"cnumpy\ndtype\n" + python2(("u1", 0, 1)) + b"R"
    dtype += python2((3, "|", None, None, None, -1, -1, 0)) + b"b"
    empty = b"cnumpy.core.multiarray\n_reconstruct\n" + b"(cnumpy\nndarray\n" + python2((0,)) + python2("b") + b"tR"
    state = b"(" + python2(1) + python2(value.shape) + dtype + python2(False) + python2(value.tobytes()) + b"tb"
    return empty + state


def read(tmp_path: Path, content: bytes) -> dict[str, Any]:
    path = tmp_path / "batch"
    path.write_bytes(content)
    return read_pickle(path, "get another")


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("array", [ARRAY, np.asfortranarray(ARRAY), ARRAY.astype(">i4"), np.arange(3)])
def test_what_python_3_wrote(tmp_path: Path, protocol: int, array: np.ndarray) -> None:
    content = read(tmp_path, pickle.dumps({"data": array, "labels": [1, 2], "name": "x"}, protocol))
    assert (content["labels"], content["name"]) == ([1, 2], "x")
    loaded = as_array(content["data"])
    assert loaded.dtype == array.dtype
    assert np.array_equal(loaded, array)


def test_what_python_2_wrote(tmp_path: Path) -> None:
    every_byte = np.arange(256, dtype=np.uint8).reshape(4, 64)
    raw = b"\x80\x02" + python2({"data": every_byte, "labels": [3, 4]}) + b"."
    # The oracle first: numpy itself takes these opcodes for the same array.
    assert np.array_equal(pickle.loads(raw, encoding="latin1")["data"], every_byte)
    content = read(tmp_path, raw)
    assert content["labels"] == [3, 4]
    assert np.array_equal(as_array(content["data"]), every_byte)


def test_keys_of_bytes_become_text(tmp_path: Path) -> None:
    assert read(tmp_path, pickle.dumps({b"labels": [1], 5: 6})) == {"labels": [1]}


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_is_refused_and_does_not_run(tmp_path: Path, protocol: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(builtins, "victim", [], raising=False)
    witness = tmp_path / "witness"
    attacks = [
        Call(os.system, f"touch {witness}"),
        Call(eval, "victim.append(1)"),
        Call(exec, f"open({str(witness)!r}, 'w')"),
        Call(getattr, "x", "join"),
        Call(np.load, str(witness), None, True),
    ]
    for attack in attacks:
        for content in (attack, {"data": attack}, {"data": [ARRAY, (attack,)]}):
            with pytest.raises(InputError, match=r"batch was refused: it asks for .*; get another") as refusal:
                read(tmp_path, pickle.dumps(content, protocol))
            assert "\n" not in str(refusal.value)
    assert not witness.exists()
    assert builtins.victim == []  # type: ignore[attr-defined]


def test_code_inside_an_array_of_objects_does_not_run(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    objects = np.array([Call(os.system, f"touch {witness}"), 1], dtype=object)
    with pytest.raises(InputError, match="asks for"):
        read(tmp_path, pickle.dumps({"data": objects}, 2))
    assert not witness.exists()


def test_arrays_that_are_no_integers_are_not_built(tmp_path: Path) -> None:
    pairs = np.array([(1, 2)], dtype=[("a", "i4"), ("b", "i4")])
    for array in (np.array([1, "x"], dtype=object), np.zeros(3), pairs, np.array(["x"])):
        content = read(tmp_path, pickle.dumps({"data": array}, 2))
        with pytest.raises(ValueError, match=r"expected an array of integers|not bytes"):
            as_array(content["data"])
    for value in ([1, 2], "x", None):
        with pytest.raises(ValueError, match="expected an array, got"):
            as_array(value)


def test_forged_arrays_are_not_built(tmp_path: Path) -> None:
    """Bytes that do not fill the shape, a shape that is none, an encoding that runs code, names misused."""
    whole = pickle.dumps({"data": ARRAY}, 3)
    assert whole.count(b"K\x04K\x06\x86") == 1
    with pytest.raises(ValueError, match="bytes"):
        as_array(read(tmp_path, whole.replace(b"K\x04K\x06\x86", b"K\x05K\x06\x86"))["data"])
    with pytest.raises(ValueError, match="shape"):
        as_array(read(tmp_path, whole.replace(b"K\x04K\x06\x86", b"K\x04\x88\x86"))["data"])

    rotated = pickle.dumps({"data": ARRAY}, 2).replace(b"latin1", b"rot_13")
    with pytest.raises(ValueError, match="not bytes"):
        as_array(read(tmp_path, rotated)["data"])

    for forged in (
        b"\x80\x02}X\x04\x00\x00\x00datacnumpy\nndarray\n)\x81s.",  # made without __init__
        b"\x80\x02}X\x04\x00\x00\x00datacnumpy\ndtype\n]Rs.",
        b"\x80\x02}X\x04\x00\x00\x00datacnumpy\nndarray\n}X\x05\x00\x00\x00stateNsbs.",  # state for the class
    ):
        with pytest.raises((InputError, ValueError)):
            as_array(read(tmp_path, forged)["data"])
    assert np.array_equal(as_array(read(tmp_path, whole)["data"]), ARRAY)


def test_damage_is_one_line(tmp_path: Path) -> None:
    whole = pickle.dumps({"data": ARRAY, "labels": [1] * 50}, 2)
    for cut in range(0, len(whole), 7):
        with pytest.raises(InputError, match=r"batch is damaged or cut off \(.*\); get another$"):
            read(tmp_path, whole[:cut])
    for junk in (b"\x89PNG\r\n\x1a\n", b"hello\nworld", b"<html>\n"):
        with pytest.raises(InputError) as damage:
            read(tmp_path, junk)
        assert "\n" not in str(damage.value)
    with pytest.raises(InputError, match="holds no dictionary"):
        read(tmp_path, pickle.dumps([1]))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent is missing; get it"):
        read_pickle(tmp_path / "absent", "get it")
    with pytest.raises(InputError, match="cannot be read"):
        read_pickle(tmp_path, "get it")
