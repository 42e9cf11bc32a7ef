"""The command line as a user meets it: help, results, and one clear line for whatever is wrong."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import TINY, call, refused, trained  # noqa: F401
from PIL import Image

from landscape_lab.run import Run

# -- what works ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", ["train", "hessian", "features", "gradients", "surface", "trajectory", "figures", "reproduce", "runs"]
)
def test_help_has_an_example(call: Any, command: str) -> None:
    got = call(command, "--help")
    assert got.code == 0
    assert f"landscape-lab {command}" in got.out.split("Example:")[1]


def test_help_does_not_load_torch() -> None:
    code = "import sys; from landscape_lab import cli; assert not {'torch', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_train_prints_counts_and_time(call: Any, tmp_path: Path) -> None:
    got = call("train", "digits-lt-sam", *TINY, "--out", str(tmp_path / "run"))
    assert got.code == 0
    assert "417 images, class counts 124, 88, 63, 45, 32, 23, 16, 12, 8, 6 (many/med/few: 1/5/4)" in got.err
    assert "2 epochs, 13 steps each; about" in got.err
    assert Run.open(tmp_path / "run").finished


def test_train_on_a_finished_run_says_so(call: Any, trained: Path) -> None:
    before = (trained / "run.json").read_bytes()
    for arguments in (["digits-lt-erm", *TINY, "--out", str(trained)], [str(trained)]):
        got = call("train", *arguments)
        assert got.code == 0
        assert "is finished: 2 epochs" in got.err
    assert (trained / "run.json").read_bytes() == before


def test_analyses(call: Any, trained: Path) -> None:
    few = ["--trace-products", "6", "--density-products", "12"]
    got = call("hessian", str(trained), *few, "--classes", "tail", "--classes", "0,3", "--json")
    assert got.code == 0, got.err
    found = json.loads(got.out)
    assert set(found) == {"tail", "0,3"}
    assert found["tail"]["samples"] == 8 + 6
    assert found["0,3"]["samples"] == 124 + 45
    assert found["tail"]["lambda_max"] > found["tail"]["lambda_min"]
    assert found["tail"]["trace_stderr"] > 0
    got = call("features", str(trained), "--json")
    assert [row["samples"] for row in json.loads(got.out)["classes"]] == [124, 88, 63, 45, 32, 23, 16, 12, 8, 6]
    got = call("gradients", str(trained), "--epochs", "0,2", "--json")
    assert set(json.loads(got.out)) == {"0", "2"}
    assert set(json.loads(got.out)["2"]) == {"0", "1", "8", "9"}
    got = call("surface", str(trained), "--steps", "3", "--extent", "0.1", "--json")
    subsets = json.loads(got.out)["subsets"]
    assert subsets["head"]["samples"] == 124 + 88
    line = Run.open(trained).metrics()[-1]
    counts = torch.tensor([124.0, 88.0])
    expected = (torch.tensor(line["train"]["class_loss"][:2]) * counts).sum() / counts.sum()
    assert subsets["head"]["centre"] == pytest.approx(float(expected), rel=1e-4)
    got = call("trajectory", str(trained), "--json")
    assert json.loads(got.out)["epochs"] == [0, 1, 2]
    for name in ("hessian-epoch-0002", "feature-quality", "gradient-similarity", "surface-epoch-0002", "trajectory"):
        for kind in ("png", "pdf", "svg"):
            assert (trained / "figures" / f"{name}.{kind}").stat().st_size > 1000


def test_results_are_kept_for_the_same_settings(call: Any, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [
        "hessian",
        str(trained),
        "--trace-products",
        "4",
        "--density-products",
        "8",
        "--classes",
        "9",
        "--json",
    ]
    first = call(*arguments)
    monkeypatch.setattr("landscape_lab.studies.curvature.measure", None)  # a second computation would fail
    assert call(*arguments).out == first.out


def test_figures_from_any_runs(call: Any, refused: Any, trained: Path, tmp_path: Path) -> None:
    both = ["--standard", str(trained), "--ours", str(trained), "--out", str(tmp_path / "pictures")]
    got = call("figures", "6", *both)
    assert got.code == 0, got.err
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [
        "figure-6.pdf",
        "figure-6.png",
        "figure-6.svg",
    ]
    assert "figure 1 needs a tail-only run: give it with --tail-only" in refused("figures", "1", *both)


def test_a_folder_of_images(call: Any, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for split, counts in (("train", (9, 4)), ("test", (2, 2))):
        for name, count in zip(("cat", "owl"), counts, strict=True):
            (tmp_path / split / name).mkdir(parents=True)
            for k in range(count):
                pixels = generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{k}.png")
    out = str(tmp_path / "run")
    small = ["--set", "model.depth=8", "--set", "training.batch_size=4", "--set", "data.image_size=16"]
    got = call("train", "folder-sam", "--data-root", str(tmp_path), *small, *TINY, "--out", out)
    assert got.code == 0, got.err
    assert "13 images, class counts 9, 4" in got.err
    got = call("hessian", out, "--classes", "1", "--density-products", "6", "--trace-products", "4", "--json")
    assert json.loads(got.out)["1"]["samples"] == 4


def test_runs(call: Any, trained: Path) -> None:
    (row,) = json.loads(call("runs", str(trained.parent), "--json").out)
    assert (row["method"], row["epoch"], row["status"]) == ("erm", 2, "finished")


def test_reproduce(call: Any, tmp_path: Path) -> None:
    out = tmp_path / "page"
    got = call(
        "reproduce",
        "--out",
        str(out),
        *TINY,
        "--figures",
        "2,6",
        "--samples",
        "12",
        "--set",
        "evaluation.head_tail_fraction=0.1",
    )
    assert got.code == 0, got.err
    page = (out / "index.html").read_text()
    assert "CE+GKP+GSA" in page
    assert "tail λ_max" in page
    for number in (2, 6):
        assert all((out / "figures" / f"figure-{number}.{kind}").exists() for kind in ("png", "pdf", "svg"))
    rows = json.loads((out / "table.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["CE", "CE+SAM", "CE+GKP+GSA"]
    assert all("±" in row[column] for row in rows for column in ("All", "head λ_max", "tail trace"))


# -- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["digits-lt-emr"], "there is no recipe 'digits-lt-emr' (did you mean 'digits-lt-erm'?)"),
        (["digits-lt-erm", "--set", "training.epoch=3"], "did you mean 'training.epochs'?"),
        (["digits-lt-erm", "--set", "data.imbalance_ratio=0.5"], "data.imbalance_ratio"),
        (["digits-lt-erm", "--set", "training.epochs"], "--set needs field=value"),
        (["digits-lt-erm", "--set", "model.depth=9"], "depth must be 6 n + 2"),
        (["digits-lt-erm", "--set", "training.schedule=linear"], "must be one of 'step', 'cosine', 'constant'"),
        (["digits-lt-erm", "--epochs", "0"], "at least 1"),
        (["digits-lt-erm", "--epochs", "ten"], "not a valid integer"),
        (["digits-lt-gkp", "--set", "data.classes=tail"], "groups all classes"),
        (["digits-lt-gsa-proj", "--set", "gsa.global_gradient=subtract-ema"], "does not have"),
        (["digits-lt-erm", "--set", "data.imbalance_ratio=1000"], "no training samples"),
        (["cifar10-lt-erm"], "--data-root"),
        (["cifar10-lt-erm", "--data-root", "nowhere"], "nowhere"),
        (["digits-lt-erm", "--device", "tpu"], "unknown device 'tpu'"),
        (["recipe.toml"], "cannot read the recipe"),
        ([], "Missing argument 'RECIPE'"),
    ],
)
def test_train_refuses(
    refused: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused("train", *arguments)
    assert not list(tmp_path.iterdir())  # nothing was written


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_cuda_without_cuda(refused: Any, tmp_path: Path) -> None:
    assert "no CUDA device" in refused("train", "digits-lt-erm", "--device", "cuda", "--out", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


class Evil:
    """Unpickling it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_a_pickle_that_would_run_code(refused: Any, tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    mark = tmp_path / "ran"
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(pickle.dumps({"data": Evil(mark), "labels": [0]}))
    assert str(folder) in refused(
        "train", "cifar10-lt-erm", "--data-root", str(tmp_path), "--out", str(tmp_path / "run")
    )
    assert not mark.exists()
    assert not (tmp_path / "run").exists()


def test_a_truncated_file(refused: Any, tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    content = pickle.dumps({"data": np.zeros((10, 3072), np.uint8), "labels": list(range(10))}, protocol=2)
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(content)
    (folder / "data_batch_3").write_bytes(content[:1000])
    assert "data_batch_3" in refused(
        "train", "cifar10-lt-erm", "--data-root", str(tmp_path), "--out", str(tmp_path / "run")
    )
    assert not (tmp_path / "run").exists()


def test_another_recipe_in_the_same_place(refused: Any, trained: Path) -> None:
    assert "training.epochs" in refused("train", "digits-lt-erm", "--out", str(trained))


def test_a_folder_that_is_not_a_run(refused: Any, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear")
    assert "is not a run" in refused("train", "digits-lt-erm", "--out", str(tmp_path))
    assert "is not a run" in refused("hessian", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: content[: len(content) // 2], "is damaged"),
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "checksum"),
        (lambda content: b"", "is damaged"),
    ],
)
def test_a_corrupt_checkpoint(refused: Any, trained: Path, tmp_path: Path, damage: Any, said: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    path = run / "checkpoints" / "epoch-0002.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    line = refused("hessian", str(run), "--density-products", "9")
    assert "epoch-0002.safetensors" in line
    assert said in line


def test_a_run_of_another_format(refused: Any, trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**info, "format_version": 99}))
    for command in (["hessian", str(run)], ["train", str(run)]):
        assert "run format 99" in refused(*command)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["hessian", "--epoch", "7"], "no checkpoint of epoch 7; it has 0, 1, 2"),
        (["hessian", "--classes", "rare"], "unknown classes 'rare'"),
        (["hessian", "--classes", "0,12"], "there is no class 12"),
        (["surface", "--steps", "1"], "--steps must be at least 2"),
        (["gradients", "--epochs", "a"], "--epochs needs numbers"),
        (["trajectory", "--through", "0,1"], "three different epochs"),
        (["hessian", "--split", "all"], "'all' is not one of"),
    ],
)
def test_analyses_refuse(refused: Any, trained: Path, arguments: list[str], said: str) -> None:
    command, *options = arguments
    assert said in refused(command, str(trained), *options)


def fill_disk(script: str, place: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["bash", "-c", script], cwd=place, env=environment, capture_output=True, text=True, timeout=120
    )


def test_a_full_disk(tmp_path: Path) -> None:
    """On a small file system of its own where this user may mount one, else under a limit on file sizes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    train = f"{sys.executable} -m landscape_lab train digits-lt-gkp --set training.checkpoint_every=1 --out disk/run"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True)
    try:
        if mounted.returncode == 0:
            full = fill_disk(train, tmp_path)
            reason = "No space left on device"
        else:
            full = fill_disk(f"ulimit -f 200; {train}", tmp_path)
            reason = "File too large"
        assert full.returncode == 2, full.stderr
        last = full.stderr.strip().splitlines()[-1]
        assert last.startswith("error: cannot write ")
        assert reason in last
        assert "Traceback" not in full.stderr
        assert not [path for path in disk.rglob("*") if path.name.endswith(".tmp")]
        run = Run.open(disk / "run")
        assert not run.finished
        for line in (disk / "run" / "metrics.jsonl").read_text().splitlines():
            json.loads(line)
        epochs = run.checkpoints()
        from landscape_lab.files import read_tensors

        for epoch in epochs:  # every file that is there is whole
            read_tensors(run.checkpoint_path(epoch))
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", str(disk)], check=True)


def test_a_limit_on_file_sizes_reads_like_a_full_disk(tmp_path: Path) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 0
    full = fill_disk(
        f"ulimit -f 4; {sys.executable} -m landscape_lab train digits-lt-erm --epochs 1 --out run", tmp_path
    )
    assert full.returncode == 2
    assert full.stderr.strip().splitlines()[-1].startswith("error: cannot write ")
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]
