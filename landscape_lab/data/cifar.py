"""CIFAR-10 and CIFAR-100 from the official files, long-tailed by the published protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from landscape_lab.data.array_pickle import as_array, read_pickle
from landscape_lab.data.dataset import Dataset, Split
from landscape_lab.data.profile import ImbalanceRatio, training_indices
from landscape_lab.errors import InputError

__all__ = ["MEAN", "STD", "read_cifar"]

HOME = "https://www.cs.toronto.edu/~kriz/cifar.html"
# Those of CIFAR-10, for both sets: what most long-tailed work uses, so that results compare.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2023, 0.1994, 0.2010)
PIXELS = 3 * 32 * 32

Images = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]  # (n, 3072), (n,)


@dataclass(frozen=True)
class _Version:
    """One form in which the authors distribute a set: its folder, its files and how to read them."""

    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    read: Callable[[Path, int, str], Images]
    read_names: Callable[[Path, str], list[Any]]


def read_cifar(name: str, root: Path | None, imbalance_ratio: ImbalanceRatio, subset_seed: int = 0) -> Dataset:
    """``cifar10-lt`` or ``cifar100-lt`` (fine labels), from the python or the binary version of the files.

    Class 0 keeps ``N // C`` images, for N in the training files. The test split is the whole test file.

    Args:
        name: which of the two.
        root: the folder that holds ``cifar-10-batches-py``, ``cifar-10-batches-bin``, ``cifar-100-python`` or
            ``cifar-100-binary``, or that folder itself.
        imbalance_ratio: largest class over smallest, or ``"natural"`` for all images.
        subset_seed: draws the long-tailed subset.

    Raises:
        InputError: a file is missing, cut off or not what it should be, or a class has too few images.

    References:
        Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    title, num_classes = ("CIFAR-10", 10) if name == "cifar10-lt" else ("CIFAR-100", 100)
    advice = f"get the {title} python version from {HOME} and unpack it under the data root"
    if root is None:
        raise InputError(f"{name} needs the {title} files: pass --data-root with their folder; {advice}")
    folder, version = _find(Path(root).expanduser(), _VERSIONS[name], title, advice)
    names = _class_names(folder / version.meta, version, num_classes, advice)

    parts = [version.read(folder / file, num_classes, advice) for file in version.train]
    images, targets = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    kept = training_indices(targets, names, imbalance_ratio, len(targets) // num_classes, subset_seed)
    return Dataset(
        name=name,
        train=_split(images[kept], targets[kept]),
        test=_split(*version.read(folder / version.test, num_classes, advice)),
        class_names=names,
        mean=MEAN,
        std=STD,
    )


def _find(root: Path, versions: tuple[_Version, ...], title: str, advice: str) -> tuple[Path, _Version]:
    for version in versions:
        if (root / version.folder).is_dir():
            return root / version.folder, version
        if any((root / file).is_file() for file in (*version.train, version.test)):
            return root, version
    folders = " nor ".join(version.folder for version in versions)
    raise InputError(f"no {title} under {root}: neither {folders} is there; {advice}")


def _class_names(path: Path, version: _Version, num_classes: int, advice: str) -> tuple[str, ...]:
    if not path.exists():
        return tuple(map(str, range(num_classes)))
    names = version.read_names(path, advice)
    if len(names) != num_classes or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path} does not name {num_classes} classes; {advice}, or delete the file")
    return tuple(names)


def _split(images: npt.NDArray[np.uint8], targets: npt.NDArray[np.int64]) -> Split:
    return Split(torch.from_numpy(images.reshape(-1, 3, 32, 32).copy()), torch.from_numpy(targets.copy()))


def _read_python(label_key: str, path: Path, num_classes: int, advice: str) -> Images:
    content = read_pickle(path, advice)
    for key in ("data", label_key):
        if key not in content:
            raise InputError(f"{path} has no {key!r}; {advice}")
    try:
        images = as_array(content["data"])
        stored = content[label_key]
        labels = stored if isinstance(stored, list) else as_array(stored).reshape(-1).tolist()
    except ValueError as error:
        raise InputError(f"{path} is not a {path.name} of CIFAR: {error}; {advice}") from None
    if images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != PIXELS:
        raise InputError(f"{path} holds {images.dtype} {images.shape}, expected uint8 (n, {PIXELS}); {advice}")
    if not all(type(label) is int for label in labels):
        raise InputError(f"{path} has labels that are not whole numbers; {advice}")
    return _checked(path, images, labels, num_classes, advice)


def _read_binary(label_bytes: int, path: Path, num_classes: int, advice: str) -> Images:
    try:
        content = np.fromfile(path, np.uint8)
    except FileNotFoundError:
        raise InputError(f"{path} is missing; {advice}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); {advice}") from None
    record = label_bytes + PIXELS
    if len(content) % record:
        raise InputError(f"{path} is cut off: {len(content)} bytes are no multiple of a record's {record}; {advice}")
    records = content.reshape(-1, record)
    # CIFAR-100 has the coarse label first, the fine one second.
    return _checked(path, records[:, label_bytes:], records[:, label_bytes - 1].tolist(), num_classes, advice)


def _checked(path: Path, images: npt.NDArray[np.uint8], labels: list[int], num_classes: int, advice: str) -> Images:
    if len(images) != len(labels):
        raise InputError(f"{path} has {len(images)} images but {len(labels)} labels; {advice}")
    if not labels:
        raise InputError(f"{path} holds no image; {advice}")
    wrong = next((label for label in labels if not 0 <= label < num_classes), None)
    if wrong is not None:
        raise InputError(f"{path} has label {wrong}, expected 0 to {num_classes - 1}; {advice}")
    return images, np.asarray(labels, dtype=np.int64)


def _python_names(key: str, path: Path, advice: str) -> list[Any]:
    names = read_pickle(path, advice).get(key)
    return names if isinstance(names, list) else []


def _binary_names(path: Path, advice: str) -> list[Any]:
    try:
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path} cannot be read; {advice}, or delete the file") from None


_VERSIONS = {
    "cifar10-lt": (
        _Version(
            folder="cifar-10-batches-py",
            train=tuple(f"data_batch_{i}" for i in range(1, 6)),
            test="test_batch",
            meta="batches.meta",
            read=partial(_read_python, "labels"),
            read_names=partial(_python_names, "label_names"),
        ),
        _Version(
            folder="cifar-10-batches-bin",
            train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
            test="test_batch.bin",
            meta="batches.meta.txt",
            read=partial(_read_binary, 1),
            read_names=_binary_names,
        ),
    ),
    "cifar100-lt": (
        _Version(
            folder="cifar-100-python",
            train=("train",),
            test="test",
            meta="meta",
            read=partial(_read_python, "fine_labels"),
            read_names=partial(_python_names, "fine_label_names"),
        ),
        _Version(
            folder="cifar-100-binary",
            train=("train.bin",),
            test="test.bin",
            meta="fine_label_names.txt",
            read=partial(_read_binary, 2),
            read_names=_binary_names,
        ),
    ),
}
