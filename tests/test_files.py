"""Files: whole or absent, whatever fails; damage is noticed."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import safetensors.torch
import torch

from landscape_lab.errors import InputError, nearest
from landscape_lab.files import read_json, read_tensors, write_bytes, write_json, write_tensors, write_text

TENSORS = {
    "matrix": torch.arange(6.0).reshape(2, 3),
    "scalar": torch.tensor(2.5, dtype=torch.float64),
    "empty": torch.zeros(0, 4),
    "labels": torch.tensor([3, 1, 2]),
    "mask": torch.tensor([True, False]),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "odd": torch.tensor([math.nan, math.inf, -0.0]),
}


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


# -- whole or absent -----------------------------------------------------------------------------------------


def test_write_creates_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.txt"
    write_text(path, "first")
    write_text(path, "zweite Fassung: θ")
    assert path.read_bytes() == "zweite Fassung: θ".encode()
    assert names(path.parent) == ["file.txt"]


@pytest.mark.parametrize("call", ["replace", "fsync"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: BaseException
) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(type(error)) as caught:
        write_bytes(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]
    if isinstance(caught.value, OSError):
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    assert resource.RLIMIT_FSIZE is not None
    path = tmp_path / "file.safetensors"
    write_tensors(path, {"a": torch.ones(3)})
    before = path.read_bytes()
    program = """
        import resource, sys
        from pathlib import Path
        import torch
        from landscape_lab.files import write_tensors

        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            write_tensors(Path(sys.argv[1]), {"a": torch.zeros(100_000)})
        except OSError as error:
            print(error.errno, error.filename)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(errno.EFBIG), str(path)]
    assert path.read_bytes() == before
    assert names(tmp_path) == ["file.safetensors"]


def test_the_folder_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        write_text(tmp_path / "file" / "below", "x")


# -- JSON ----------------------------------------------------------------------------------------------------


def test_json_round_trip_and_non_finite_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"x": [1, 2.5, math.nan, (math.inf, -math.inf)], 3: {"θ": None, "yes": True}})
    assert read_json(path) == {"x": [1, 2.5, None, [None, None]], "3": {"θ": None, "yes": True}}
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe\x00"])
def test_damaged_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        read_json(tmp_path / "a.json")


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_json(tmp_path / "a.json")
    with pytest.raises(InputError, match="does not exist"):
        read_tensors(tmp_path / "a.safetensors")


# -- tensors -------------------------------------------------------------------------------------------------


def test_tensors_round_trip(tmp_path: Path) -> None:
    checksum = write_tensors(tmp_path / "a.safetensors", TENSORS, {"epoch": "3"})
    tensors, notes = read_tensors(tmp_path / "a.safetensors")
    assert notes == {"epoch": "3", "crc32": checksum}
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert tensors[name].shape == tensor.shape
        assert torch.equal(tensors[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))


def test_views_into_one_buffer_and_gradients(tmp_path: Path) -> None:
    flat = torch.arange(6.0)
    weight = torch.nn.Parameter(flat[:4].view(2, 2))
    write_tensors(tmp_path / "a.safetensors", {"w": weight, "t": weight.t(), "rest": flat[3:]})
    tensors, _ = read_tensors(tmp_path / "a.safetensors")
    assert torch.equal(tensors["w"], weight.detach())
    assert torch.equal(tensors["t"], weight.detach().t())
    assert tensors["rest"].tolist() == [3.0, 4.0, 5.0]


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    contents = set()
    for _ in range(5):
        write_tensors(tmp_path / "a", TENSORS, {"note": "x", "θ": '"', "more": "\n", "epoch": "3"})
        contents.add((tmp_path / "a").read_bytes())
    assert len(contents) == 1
    with safetensors.safe_open(tmp_path / "a", framework="pt") as file:
        assert torch.equal(file.get_tensor("matrix"), TENSORS["matrix"])
        assert file.metadata().items() >= {"note": "x", "θ": '"', "more": "\n", "epoch": "3"}.items()


def test_a_flipped_bit_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"a": torch.arange(6.0).reshape(2, 3)}, {"progress": '{"epoch": 3, "groups": [[0, 1]]}'})
    whole = path.read_bytes()
    tensors, notes = read_tensors(path)
    survived, refusals = 0, set()
    for place in range(len(whole)):
        for bits in (0b1, 0b100):
            damaged = bytearray(whole)
            damaged[place] ^= bits
            path.write_bytes(damaged)
            try:
                found, said = read_tensors(path)
            except InputError as error:
                refusals.add("is damaged" in str(error))
                continue
            # Only a change that loses the checksum, and nothing else, may pass.
            survived += 1
            assert said["progress"] == notes["progress"]
            assert torch.equal(found["a"], tensors["a"])
            assert "crc32" not in said
    assert survived <= 2 * len("crc32")
    assert refusals == {True}


def test_each_truncation_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"a": torch.arange(6.0)})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="is damaged"):
            read_tensors(path)


def test_files_of_others_need_no_checksum(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(safetensors.torch.save({"a": torch.ones(2)}))
    tensors, notes = read_tensors(tmp_path / "a.safetensors")
    assert tensors["a"].tolist() == [1.0, 1.0]
    assert notes == {}


def test_not_safetensors(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_text("this is a text, and a rather long one at that")
    with pytest.raises(InputError, match="is damaged"):
        read_tensors(tmp_path / "a.safetensors")


def test_nearest_name() -> None:
    assert nearest("epohcs", ["epochs", "batch_size"]) == " (did you mean 'epochs'?)"
    assert nearest("xyz", ["epochs", "batch_size"]) == ""
