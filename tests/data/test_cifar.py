"""The official files of CIFAR in both versions, written small."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from landscape_lab.data import Dataset, load_dataset, long_tail_counts, long_tail_subset
from landscape_lab.errors import InputError

TRAIN = [f"data_batch_{i}" for i in range(1, 6)]


def sample(count: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(count) % classes)
    return random.integers(0, 256, (count, 3072), dtype=np.uint8), labels


def write_cifar10(root: Path, per_file: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Both versions under ``root``; returns the training images and labels in file order."""
    py, binary = root / "cifar-10-batches-py", root / "cifar-10-batches-bin"
    py.mkdir()
    binary.mkdir()
    parts = []
    for seed, file in enumerate([*TRAIN, "test_batch"]):
        images, labels = sample(per_file, 10, seed)
        batch = {
            "batch_label": file,
            "labels": labels.tolist(),
            "data": images,
            "filenames": ["x"] * per_file,
        }
        (py / file).write_bytes(pickle.dumps(batch, 2))
        records = np.concatenate([labels[:, None].astype(np.uint8), images], 1)
        (binary / f"{file}.bin").write_bytes(records.tobytes())
        parts.append((images, labels))
    names = [f"name {i}" for i in range(10)]
    (py / "batches.meta").write_bytes(pickle.dumps({"label_names": names, "num_vis": 3072}, 2))
    (binary / "batches.meta.txt").write_text("\n".join(names) + "\n\n")
    return np.concatenate([p[0] for p in parts[:5]]), np.concatenate([p[1] for p in parts[:5]])


def write_cifar100(root: Path, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    py, binary = root / "cifar-100-python", root / "cifar-100-binary"
    py.mkdir()
    binary.mkdir()
    kept = None
    for seed, file in enumerate(["train", "test"]):
        images, labels = sample(count, 100, seed)
        coarse = labels // 5
        batch = {"fine_labels": labels.tolist(), "coarse_labels": coarse.tolist(), "data": images}
        (py / file).write_bytes(pickle.dumps(batch, 2))
        records = np.concatenate([np.stack([coarse, labels], 1).astype(np.uint8), images], 1)
        (binary / f"{file}.bin").write_bytes(records.tobytes())
        kept = kept or (images, labels)
    names = [f"name {i}" for i in range(100)]
    meta = {"fine_label_names": names, "coarse_label_names": ["x"] * 20}
    (py / "meta").write_bytes(pickle.dumps(meta, 2))
    (binary / "fine_label_names.txt").write_text("\n".join(names) + "\n")
    assert kept is not None
    return kept


@pytest.fixture
def root10(tmp_path: Path) -> Path:
    write_cifar10(tmp_path)
    shutil.rmtree(tmp_path / "cifar-10-batches-bin")
    return tmp_path


def load10(root: Path, ratio: Any = 4) -> Dataset:
    return load_dataset("cifar10-lt", root=root, imbalance_ratio=ratio)


@pytest.mark.parametrize(("name", "write", "classes"), [
    ("cifar10-lt", write_cifar10, 10),
    ("cifar100-lt", write_cifar100, 100),
])  # fmt: skip
def test_both_versions_under_the_root_and_as_the_root(tmp_path: Path, name: str, write: Any, classes: int) -> None:
    images, labels = write(tmp_path)
    counts = long_tail_counts(len(labels) // classes, classes, 4)
    kept = long_tail_subset(labels, counts, 5)
    folders = sorted(tmp_path.iterdir())
    loaded = [load_dataset(name, root=root, imbalance_ratio=4, subset_seed=5) for root in (tmp_path, *folders)]
    # One version alone under the root, the binary one.
    shutil.rmtree(next(folder for folder in folders if folder.name.endswith(("-py", "-python"))))
    loaded.append(load_dataset(name, root=tmp_path, imbalance_ratio=4, subset_seed=5))
    for dataset in loaded:
        assert dataset.class_counts == counts
        assert np.array_equal(dataset.train.images.numpy(), images[kept].reshape(-1, 3, 32, 32))
        assert np.array_equal(dataset.train.targets.numpy(), labels[kept])
        assert dataset.class_names == tuple(f"name {i}" for i in range(classes))
        assert dataset.fingerprint == loaded[0].fingerprint
        assert dataset.mean == (0.4914, 0.4822, 0.4465)
        assert dataset.std == (0.2023, 0.1994, 0.2010)


def test_natural_is_the_files_as_they_are(tmp_path: Path) -> None:
    images, labels = write_cifar10(tmp_path)
    dataset = load10(tmp_path, "natural")
    assert np.array_equal(dataset.train.images.numpy(), images.reshape(-1, 3, 32, 32))
    assert np.array_equal(dataset.train.targets.numpy(), labels)
    assert len(dataset.test) == 40


def test_without_names_the_classes_are_numbers(root10: Path) -> None:
    (root10 / "cifar-10-batches-py" / "batches.meta").unlink()
    assert load10(root10).class_names == tuple("0123456789")


def test_wrong_names_are_refused(root10: Path) -> None:
    meta = root10 / "cifar-10-batches-py" / "batches.meta"
    for content in ({"label_names": ["a"]}, {"other": 1}, {"label_names": list(range(10))}):
        meta.write_bytes(pickle.dumps(content, 2))
        with pytest.raises(InputError, match=r"batches\.meta does not name 10 classes"):
            load10(root10)


def test_no_root_and_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pass --data-root"):
        load_dataset("cifar10-lt", root=None, imbalance_ratio=10)
    with pytest.raises(InputError, match=r"neither cifar-100-python nor cifar-100-binary .*kriz/cifar\.html"):
        load_dataset("cifar100-lt", root=tmp_path, imbalance_ratio=10)


def test_missing_and_cut_off_files_are_named(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    for folder, file in (
        ("cifar-10-batches-py", "data_batch_3"),
        ("cifar-10-batches-bin", "data_batch_3.bin"),
    ):
        path = tmp_path / folder / file
        whole = path.read_bytes()
        for cut in (len(whole) - 1, len(whole) // 2 + 1, 1):
            path.write_bytes(whole[:cut])
            with pytest.raises(InputError, match=rf"{file} is (damaged or )?cut off.*kriz") as damage:
                load10(tmp_path / folder)
            assert "\n" not in str(damage.value)
        path.unlink()
        with pytest.raises(InputError, match=f"{file} is missing; .*kriz"):
            load10(tmp_path / folder)
    (tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin").write_bytes(b"")
    with pytest.raises(InputError, match="holds no image"):
        load10(tmp_path / "cifar-10-batches-bin")


IMAGES, LABELS = sample(40, 10, 1)


@pytest.mark.parametrize(("content", "message"), [
    ({"labels": LABELS.tolist()}, "has no 'data'"),
    ({"data": IMAGES}, "has no 'labels'"),
    ({"data": IMAGES, "labels": LABELS.tolist()[:-1]}, "40 images but 39 labels"),
    ({"data": IMAGES, "labels": [*LABELS.tolist()[:-1], 10]}, "label 10, expected 0 to 9"),
    ({"data": IMAGES, "labels": [*LABELS.tolist()[:-1], -1]}, "label -1, expected 0 to 9"),
    ({"data": IMAGES, "labels": [*LABELS.tolist()[:-1], 1.5]}, "not whole numbers"),
    ({"data": IMAGES, "labels": "0" * 40}, "expected an array"),
    ({"data": IMAGES[:, :3000], "labels": LABELS.tolist()}, "expected uint8"),
    ({"data": IMAGES.reshape(40, 3, 32, 32), "labels": LABELS.tolist()}, "expected uint8"),
    ({"data": IMAGES.astype(np.int16), "labels": LABELS.tolist()}, "expected uint8"),
    ({"data": IMAGES.astype(np.float32), "labels": LABELS.tolist()}, "expected an array of integers"),
    ({"data": IMAGES.tolist(), "labels": LABELS.tolist()}, "expected an array, got list"),
    ({"data": IMAGES[:0], "labels": []}, "holds no image"),
    ([1, 2], "holds no dictionary"),
])  # fmt: skip
def test_garbage_is_refused(root10: Path, content: Any, message: str) -> None:
    (root10 / "cifar-10-batches-py" / "data_batch_2").write_bytes(pickle.dumps(content, 3))
    with pytest.raises(InputError, match=f"data_batch_2 .*{message}"):
        load10(root10)


def test_labels_may_be_an_array(root10: Path) -> None:
    before = load10(root10).fingerprint
    path = root10 / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(pickle.dumps({"data": IMAGES, "labels": LABELS}, 2))
    assert load10(root10).fingerprint == before


def test_binary_label_out_of_range(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    path.write_bytes(b"\xc8" + path.read_bytes()[1:])
    with pytest.raises(InputError, match=r"test_batch\.bin has label 200"):
        load10(tmp_path / "cifar-10-batches-bin")


class Attack:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("file", ["data_batch_1", "test_batch", "batches.meta"])
def test_a_file_that_would_run_code(root10: Path, file: str) -> None:
    witness = root10 / "witness"
    content = {"data": IMAGES, "labels": LABELS.tolist(), "label_names": Attack(f"touch {witness}")}
    (root10 / "cifar-10-batches-py" / file).write_bytes(pickle.dumps(content, 2))
    with pytest.raises(InputError, match=f"{file} was refused: it asks for posix.system|nt.system"):
        load10(root10)
    assert not witness.exists()


def test_too_few_images_for_the_ratio(root10: Path) -> None:
    with pytest.raises(InputError, match="class 6 would have no training samples"):
        load10(root10, 100)
    path = root10 / "cifar-10-batches-py" / "data_batch_1"
    path.write_bytes(pickle.dumps({"data": IMAGES, "labels": [1] * 40}, 2))
    with pytest.raises(InputError, match="class 'name 0' has 16 training images and needs 20"):
        load10(root10)
