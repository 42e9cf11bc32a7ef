"""Checkpoints of others become a run: read without unpickling, all of them or none."""

from __future__ import annotations

import argparse
import os
import pickle
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from recorder_cases import NAMES, Net, copied, data, net, same, stored, train_epoch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from landscape_lab.checkpoint_files import checkpoint_files, epochs_of, read_state
from landscape_lab.errors import InputError
from landscape_lab.importing import import_run
from landscape_lab.run import Run
from landscape_lab.state_names import clean_names, fitted
from landscape_lab.target import Target

# Before 2.6 weights_only protects in zip files alone (CVE-2025-32434).
UNSAFE = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6)


def target(model: nn.Module | None = None) -> Target:
    return Target(model or net(9), nn.CrossEntropyLoss(), data(), ("a", "b", "c", "never seen"))


def checkpoints(folder: Path, count: int = 3) -> tuple[list[Path], list[dict[str, Tensor]]]:
    """Files and what they hold."""
    folder.mkdir(parents=True, exist_ok=True)
    model, files, states = net(), [], []
    for epoch in range(count):
        files.append(folder / f"epoch-{epoch}.pt")
        states.append(copied(model))
        torch.save(model.state_dict(), files[-1])
        train_epoch(model, epoch)
    return files, states


def bring(files: list[Path], out: Path, **settings: Any) -> Run:
    return import_run(files, settings.pop("target", None) or target(), out, spec="mine.py:make", **settings)


def refused(files: list[Path], out: Path, match: str, **settings: Any) -> str:
    parent = out.parent.exists()
    before = sorted(out.parent.iterdir()) if parent else []
    with pytest.raises(InputError, match=match) as caught:
        bring(files, out, **settings)
    assert out.parent.exists() == parent
    assert not parent or sorted(out.parent.iterdir()) == before  # nothing is left behind
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- a run ---------------------------------------------------------------------------------------------------


def test_checkpoints_become_a_run(tmp_path: Path) -> None:
    files, states = checkpoints(tmp_path / "theirs")
    place = tmp_path / "deep" / "run"
    run = bring(checkpoint_files([tmp_path / "theirs"]), place)
    assert (run.path, run.origin, run.finished, run.checkpoints()) == (place, "import", True, (0, 1, 2))
    assert all(same(stored(place, epoch), state) for epoch, state in enumerate(states))
    assert run.info["parameters"] == NAMES
    assert run.info["class_counts"] == torch.bincount(data()[1], minlength=4).tolist()
    assert run.info["class_names"] == ["a", "b", "c", "never seen"]
    assert run.info["subsets"]["tail"] == [3]
    assert (run.info["target"], run.metrics()) == ("mine.py:make", [])
    assert run.info["files"] == {str(k): str(file) for k, file in enumerate(files)}
    assert run.trajectory()[0].shape[0] == 3
    with pytest.raises(InputError, match="was imported from checkpoints, not trained from a recipe"):
        _ = run.recipe
    assert [entry.name for entry in place.parent.iterdir()] == ["run"]


def test_the_targets_model_stays_as_it_is(tmp_path: Path) -> None:
    model = net(9)
    before = copied(model)
    bring(checkpoints(tmp_path)[0], tmp_path / "run", target=target(model))
    assert same(copied(model), before)
    assert model.training


def test_targets_without_classes_have_one(tmp_path: Path) -> None:
    files, _ = checkpoints(tmp_path, 1)
    run = bring(files, tmp_path / "run", target=Target(net(), nn.MSELoss(), (data()[0], torch.zeros(40, 3))))
    assert (run.info["class_counts"], run.info["class_names"]) == ([40], ["all"])


def test_half_precision_becomes_the_models_type(tmp_path: Path) -> None:
    torch.save({name: t.half() if t.is_floating_point() else t for name, t in copied(net()).items()}, tmp_path / "1.pt")
    bring([tmp_path / "1.pt"], tmp_path / "run")
    assert stored(tmp_path / "run", 1)["first.weight"].dtype == torch.float32


# -- files and names -----------------------------------------------------------------------------------------


def test_files_are_ordered_by_their_numbers(tmp_path: Path) -> None:
    for name in ("e10.pt", "e9.pth", "e2.bin", "e1.safetensors", "e3.ckpt", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.pt").mkdir()
    names = [path.name for path in checkpoint_files([tmp_path, tmp_path / "e9.pth"])]
    assert names == ["e1.safetensors", "e2.bin", "e3.ckpt", "e9.pth", "e10.pt"]
    with pytest.raises(InputError, match=r"there is no checkpoint in .*folder\.pt"):
        checkpoint_files([tmp_path / "folder.pt"])
    with pytest.raises(InputError, match="does not exist"):
        checkpoint_files([tmp_path / "absent.pt"])


@pytest.mark.parametrize(
    ("names", "epochs"),
    [
        (["epoch-0.pt", "epoch-5.pt", "epoch-10.pt"], [0, 5, 10]),
        (["resnet18_ep003.pth", "resnet18_ep004.pth"], [3, 4]),
        (["checkpoint-500/model.safetensors", "checkpoint-1000/model.safetensors"], [500, 1000]),
        (["run3/epoch=0-step=90.ckpt", "run3/epoch=1-step=180.ckpt"], [1, 2]),  # Lightning counts from 0
        (["epoch_1_acc_0.52.pt", "epoch_2_acc_0.61.pt"], [1, 2]),
        (["a_1_7.pt", "a_2_9.pt"], [1, 2]),  # two numbers differ, none is called an epoch: counted
        (["a_3_7.pt", "a_4_9.pt"], [1, 2]),
        (["before.pt", "after.pt"], [1, 2]),
        (["model_v2.pt"], [1]),
        (["epoch_7.pt"], [7]),
        (["epoch_7.pt", "epoch_7.ckpt"], [1, 2]),
    ],
)
def test_epochs_from_names(names: list[str], epochs: list[int]) -> None:
    assert epochs_of([Path(name) for name in names])[0] == epochs


def wrapped(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "content",
    [
        lambda state: state,
        lambda state: OrderedDict(state),
        lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"state": {}, "lr": [0.1]}},
        lambda state: {"model_state_dict": state, "ema": {"x": torch.zeros(1)}},
        lambda state: {"model": wrapped(state, "module."), "args": {"lr": 0.1}},
        lambda state: {"epoch": 1, "something": state},
        lambda state: wrapped(state, "_orig_mod."),
        lambda state: wrapped(state, "module._orig_mod."),
        lambda state: {"state_dict": wrapped(state, "model._orig_mod."), "pytorch-lightning_version": "2"},
        lambda state: {"n_averaged": torch.tensor(3), **wrapped(state, "module.")},
        lambda state: {name: tensor for name, tensor in state.items() if name != "again.weight"},  # tied
        lambda state: {name: tensor for name, tensor in state.items() if "num_batches" not in name},
    ],
)
def test_usual_containers_and_prefixes(tmp_path: Path, content: Any) -> None:
    state = copied(net())
    torch.save(content(state), tmp_path / "1.pt")
    bring([tmp_path / "1.pt"], tmp_path / "run")
    assert same(stored(tmp_path / "run", 1), state)


def test_a_key_and_a_prefix_choose(tmp_path: Path) -> None:
    one, two = copied(net(1)), copied(net(2))
    ema = {"params": {**wrapped(two, "net."), "loss.weight": torch.ones(3)}}
    torch.save({"model": one, "ema": ema}, tmp_path / "1.pt")
    bring([tmp_path / "1.pt"], tmp_path / "run", key="ema.params", prefix="net.")
    assert same(stored(tmp_path / "run", 1), two)
    refused(
        [tmp_path / "1.pt"], tmp_path / "a", r"has no key 'ema\.parms' \(did you mean 'params'\?\)", key="ema.parms"
    )
    refused([tmp_path / "1.pt"], tmp_path / "b", "holds no state dict under 'ema'", key="ema")
    refused([tmp_path / "1.pt"], tmp_path / "c", "no name starts with 'x'", key="ema.params", prefix="x")
    refused([tmp_path / "1.pt"], tmp_path / "d", "is missing", key="ema.params")


def test_safetensors_and_old_files(tmp_path: Path) -> None:
    model = net()
    safetensors.torch.save_model(model, str(tmp_path / "1.safetensors"))  # leaves out the second name of a tied pair
    torch.save(model.state_dict(), tmp_path / "2.pt", _use_new_zipfile_serialization=False)
    if UNSAFE:
        refused([tmp_path / "2.pt"], tmp_path / "run", "update torch")
        return
    bring([tmp_path / "1.safetensors", tmp_path / "2.pt"], tmp_path / "run")
    assert all(same(stored(tmp_path / "run", epoch), copied(model)) for epoch in (1, 2))


def test_names_as_torch_writes_them_for_every_wrapper() -> None:
    model = net()
    state = copied(model)
    for wrapper in (nn.DataParallel(model), torch.compile(model, backend="eager"), AveragedModel(model)):
        assert same(fitted(wrapper.state_dict(), net(1)), state)
    assert list(clean_names(torch.compile(nn.DataParallel(model), backend="eager")).values()) == list(state)


# -- refused -------------------------------------------------------------------------------------------------


class Malicious:
    """What it does when it is unpickled, a checkpoint can do."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_a_malicious_checkpoint_is_refused_and_does_nothing(tmp_path: Path, form: str) -> None:
    mark = tmp_path / "executed"
    content = {"state_dict": copied(net()), "args": Malicious(mark)}
    files, _ = checkpoints(tmp_path / "theirs", 2)
    with open(files[1], "wb") as file:
        if form == "pickle":
            pickle.dump(content["args"], file)
        else:
            torch.save(content, file, _use_new_zipfile_serialization=form == "zip")
    if UNSAFE and form != "zip":
        refused(files, tmp_path / "runs" / "mine", "update torch")
        assert not mark.exists()
        return
    message = refused(files, tmp_path / "runs" / "mine", "needs arbitrary unpickling")
    assert not mark.exists()
    assert str(files[1]) in message
    assert form == "pickle" or "posix.system" in message or "nt.system" in message
    assert "python -c " in message
    _ = torch.load(files[1], weights_only=False) if form != "pickle" else pickle.loads(files[1].read_bytes())
    assert mark.exists()  # it would have


def test_the_way_out_works(tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    file = tmp_path / "it's 1.pt"
    torch.save({"state_dict": copied(net()), "args": argparse.Namespace(lr=0.1)}, file)
    message = refused([file], tmp_path / "run", r"needs arbitrary unpickling \(argparse\.Namespace\)")
    command = message[message.index("python -c ") :]
    assert os.system(command) == 0
    bring([tmp_path / "it's 1-weights.pt"], tmp_path / "run")
    torch.save(net(), file)  # the module itself
    refused([file], tmp_path / "other", r"needs arbitrary unpickling \(recorder_cases\.Net\)")


def test_damaged_and_other_files(tmp_path: Path) -> None:
    files, _ = checkpoints(tmp_path / "theirs", 1)
    whole = files[0].read_bytes()
    out = tmp_path / "run"
    for content in (whole[: len(whole) // 2], b"", b"not a checkpoint", whole[:-30]):
        files[0].write_bytes(content)
        refused(files, out, "epoch-0.pt (is damaged|needs arbitrary)")
    (tmp_path / "theirs" / "x.safetensors").write_bytes(whole[:100])
    refused([tmp_path / "theirs" / "x.safetensors"], out, "is damaged")
    with zipfile.ZipFile(files[0], "w") as archive:
        archive.writestr("a.txt", "text")
    refused(files, out, "is damaged")
    torch.save([1, 2], files[0])
    refused(files, out, "holds a list, not a state dict")
    torch.save({"epoch": 3, "loss": 0.5}, files[0])
    refused(files, out, "holds no state dict by a usual name: it has epoch, loss; name one with --key")
    torch.jit.script(nn.Linear(1, 1)).save(str(files[0]))
    refused(files, out, "TorchScript archive")


def test_names_and_shapes_that_do_not_fit(tmp_path: Path) -> None:
    files, states = checkpoints(tmp_path / "theirs")
    out = tmp_path / "run"

    def last(state: dict[str, Tensor]) -> str:
        torch.save(state, files[2])
        message = refused(files, out, "does not fit the model")
        assert str(files[2]) in message
        return message

    state = states[2]
    assert "'head.bias' is missing: expected shape (3,)" in last({n: t for n, t in state.items() if n != "head.bias"})
    assert "'more' is unknown to the model: found shape (2,)" in last({**state, "more": torch.zeros(2)})
    wrong = last({**state, "first.weight": torch.zeros(6, 5)})
    assert "'first.weight' has another shape: expected shape (6, 4), found shape (6, 5)" in wrong
    typo = {name.replace("first.weight", "first.wieght"): tensor for name, tensor in state.items()}
    assert "did you mean 'first.wieght'?" in last(typo)
    # Not a tie: the second weight is a parameter of its own, and may not be taken from another.
    free = Net()
    free.again.weight = nn.Parameter(torch.zeros(6, 6))
    torch.save({n: t for n, t in state.items() if n != "again.weight"}, files[2])
    refused(files, out, "'again.weight' is missing", target=target(free))


def test_epochs_and_places_that_cannot_be(tmp_path: Path) -> None:
    files, _ = checkpoints(tmp_path / "theirs")
    out = tmp_path / "runs" / "mine"
    refused(files, out, "--epochs has 2 numbers for 3 checkpoints", epochs=[0, 1])
    refused(files, out, "must be increasing numbers from 0, got 0, 2, 1", epochs=[0, 2, 1])
    refused(files, out, "must be increasing", epochs=[-1, 2, 3])
    refused(files, tmp_path / "theirs", "exists and is not empty")
    refused(files, files[0], "exists and is not empty")
    run = bring(files, out, epochs=[0, 10, 200])
    assert run.checkpoints() == (0, 10, 200)
    refused(files, out, "exists and is not empty")


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    files, _ = checkpoints(tmp_path / "theirs")
    original, calls = os.replace, 0

    def full(source: Any, place: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise OSError(28, "No space left on device")
        original(source, place)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        bring(files, tmp_path / "a" / "b" / "run")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["theirs"]


def test_nothing_but_tensors_is_kept_of_a_state_dict(tmp_path: Path) -> None:
    torch.save({**copied(net()), "head._extra_state": None}, tmp_path / "1.pt")
    assert "head._extra_state" not in read_state(tmp_path / "1.pt")
