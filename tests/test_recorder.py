"""A run recorded from anybody's loop: what it holds, whatever wraps the model, and however it ends."""

from __future__ import annotations

import errno
import gc
import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recorder_cases as cases
import torch
from recorder_cases import COUNTS, NAMES, copied, net, same, stored, train_epoch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from landscape_lab import Recorder, files
from landscape_lab.errors import InputError
from landscape_lab.parameters import ParameterSpace
from landscape_lab.recording import BackgroundWriter, SnapshotPool, metrics_line
from landscape_lab.run import Run


def recorder(place: Path, model: nn.Module, **settings: Any) -> Recorder:
    return Recorder(place, model, **{"class_counts": COUNTS, **settings})


def refused(place: Path, model: Any, match: str, **settings: Any) -> None:
    with pytest.raises(InputError, match=match) as caught:
        recorder(place, model, **settings)
    assert "\n" not in str(caught.value)


# -- what it writes ------------------------------------------------------------------------------------------


def test_three_lines_write_a_run(tmp_path: Path) -> None:
    place, model = tmp_path / "runs" / "mine", net()
    states = [copied(model)]
    recording = Recorder(place, model, class_counts=COUNTS, class_names=["a", "b", "c"], target="mine.py:make")
    for epoch in range(3):
        train_epoch(model, epoch)
        states.append(copied(model))
        recording.epoch({"loss": torch.tensor(0.5), "test": {"accuracy": 0.25 * epoch}})
    recording.finish()
    run = Run.open(place)
    assert (run.finished, run.origin, run.has_recipe, run.checkpoints()) == (True, "recorder", False, (0, 1, 2, 3))
    assert all(same(stored(place, epoch), state) for epoch, state in enumerate(states))
    assert [line["epoch"] for line in run.metrics()] == [1, 2, 3]
    assert run.metrics()[2] == {"epoch": 3, "loss": 0.5, "test": {"accuracy": {"all": 0.5}}}
    info = run.info
    assert (info["class_counts"], info["class_names"], info["target"]) == (COUNTS, ["a", "b", "c"], "mine.py:make")
    assert info["subsets"] == {"many": [], "med": [0, 1], "few": [2], "head": [0], "tail": [2]}
    assert (info["groups"], info["device"], len(info["epoch_seconds"])) == ({}, "cpu", 3)
    assert info["parameters"] == NAMES == list(ParameterSpace(model).names)
    with pytest.raises(InputError, match="was recorded by a Recorder, not trained from a recipe"):
        _ = run.recipe
    assert not list(place.rglob("*.tmp"))


def test_what_is_recorded_is_read_back_by_the_run(tmp_path: Path) -> None:
    model = net()
    with recorder(tmp_path / "run", model) as recording:
        train_epoch(model)
        recording.epoch()
    run, other = Run.open(tmp_path / "run"), net(1)
    assert run.load_checkpoint(None, other) == 1
    assert same(copied(other), copied(model))
    points, epochs = run.trajectory()
    assert epochs == (0, 1)
    assert torch.equal(points[1], ParameterSpace(model).vector())


def test_the_recorder_changes_nothing(tmp_path: Path) -> None:
    def loop(record: bool) -> tuple[dict[str, Any], bool, torch.Tensor]:
        model = net().train()
        optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
        recording = recorder(tmp_path / "run", model) if record else None
        for epoch in range(3):
            train_epoch(model, epoch, optimiser)
            if recording:
                recording.epoch({"loss": 1.0})
        if recording:
            recording.finish()
        return copied(model), model.training, torch.rand(3)

    plain, recorded = loop(False), loop(True)
    assert same(plain[0], recorded[0])
    assert plain[1] == recorded[1]
    assert torch.equal(plain[2], recorded[2])


def test_only_some_checkpoints_but_always_the_last(tmp_path: Path) -> None:
    model = net()
    with recorder(tmp_path / "run", model, checkpoint_every=3) as recording:
        for epoch in range(5):
            train_epoch(model, epoch)
            recording.epoch()
        state = copied(model)
        with torch.no_grad():
            model.head.bias.add_(1)  # as loading the best weights for a last test would
    assert Run.open(tmp_path / "run").checkpoints() == (0, 3, 5)
    assert same(stored(tmp_path / "run", 5), state)


def test_weights_taken_before_their_metrics(tmp_path: Path) -> None:
    model = net()
    with recorder(tmp_path / "run", model) as recording:
        recording.snapshot()
        train_epoch(model)
        state = copied(model)
        recording.snapshot()  # the last one counts
        train_epoch(model, 1)
        recording.epoch({"loss": 1})
    assert same(stored(tmp_path / "run", 1), state)


def test_unfreezing_adds_parameters(tmp_path: Path) -> None:
    model = net()
    with recorder(tmp_path / "run", model) as recording:
        recording.epoch()
        model.frozen.requires_grad_(True)
        model.first.requires_grad_(False)
        recording.epoch()
    run = Run.open(tmp_path / "run")
    assert run.info["parameters"] == [*NAMES[:4], "frozen.weight", "frozen.bias", *NAMES[4:]]
    assert run.trajectory()[0].shape == (3, sum(p.numel() for p in model.parameters()))


def test_buffers_left_out_are_the_models_own(tmp_path: Path) -> None:
    class Masked(nn.Linear):
        def __init__(self) -> None:
            super().__init__(2, 2)
            self.register_buffer("mask", torch.ones(2))

    model = Masked()
    with recorder(tmp_path / "run", model, buffers=False) as recording:
        recording.epoch()
    assert sorted(stored(tmp_path / "run", 1)) == ["bias", "weight"]
    other = Masked()
    other.mask.mul_(3)
    Run.open(tmp_path / "run").load_checkpoint(1, other)
    assert torch.equal(other.weight, model.weight)
    assert torch.equal(other.mask, torch.full((2,), 3.0))
    refused(tmp_path / "other", net(), "would lose BatchNorm's running statistics", buffers=False)


# -- whatever wraps the model --------------------------------------------------------------------------------


def test_a_compiled_model_has_its_own_names(tmp_path: Path) -> None:
    model = net()
    compiled = torch.compile(model, backend="eager")
    model.second = torch.compile(model.second, backend="eager")  # also a part of it
    with recorder(tmp_path / "run", compiled) as recording:
        train_epoch(compiled)
        recording.epoch()
    assert Run.open(tmp_path / "run").info["parameters"] == NAMES
    other = net(1)
    Run.open(tmp_path / "run").load_checkpoint(1, other)
    assert all(torch.equal(a, b) for a, b in zip(other.state_dict().values(), model.state_dict().values(), strict=True))


def test_a_submodule_called_module_keeps_its_name(tmp_path: Path) -> None:
    model = nn.ModuleDict({"module": nn.Linear(2, 2), "model": nn.Linear(2, 2)})
    recorder(tmp_path / "run", nn.DataParallel(model)).finish()
    assert sorted(stored(tmp_path / "run", 0)) == ["model.bias", "model.weight", "module.bias", "module.weight"]


def test_averaged_weights_beside_the_models(tmp_path: Path) -> None:
    model = net()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    expected = model.first.weight.detach().clone()
    own, ema = recorder(tmp_path / "own", model), recorder(tmp_path / "ema", model, weights=average)
    for epoch in range(2):
        train_epoch(model, epoch)
        average.update_parameters(model)
        # AveragedModel copies the model at its first update.
        expected = model.first.weight.detach().clone() if epoch == 0 else (expected + model.first.weight.detach()) / 2
        own.epoch()
        ema.epoch()
    own.finish()
    ema.finish()
    assert torch.equal(stored(tmp_path / "own", 2)["first.weight"], model.first.weight)
    assert torch.allclose(stored(tmp_path / "ema", 2)["first.weight"], expected)
    assert stored(tmp_path / "ema", 2).keys() == stored(tmp_path / "own", 2).keys()
    assert Run.open(tmp_path / "ema").info["weights"] == "module"


def test_weights_from_a_function(tmp_path: Path) -> None:
    model = net().to(torch.bfloat16)
    masters = {name: p.detach().float() + 0.1 for name, p in model.named_parameters()}
    with recorder(tmp_path / "run", model, weights=lambda: masters) as recording:
        recording.epoch()
    found = stored(tmp_path / "run", 1)
    assert all(torch.equal(found[name], value) for name, value in masters.items())
    assert found["first.weight"].dtype == torch.float32
    assert torch.equal(found["norm.running_mean"], model.norm.running_mean)  # not among them: the model's
    assert torch.equal(found["again.weight"], found["second.weight"])
    with pytest.warns(UserWarning, match="16 bits"):
        recorder(tmp_path / "rounded", model)
    refused(tmp_path / "a", model, "'first.weight' is missing", weights=lambda: {"x": torch.zeros(1)})
    refused(tmp_path / "b", model, "a function that gives a state dict", weights=masters)
    refused(tmp_path / "c", model, "must give a state dict", weights=lambda: [1])


def test_autocast_with_accumulated_gradients_records_float32(tmp_path: Path) -> None:
    model = net()
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    inputs, targets = cases.data()
    with recorder(tmp_path / "run", model) as recording:
        for part in range(4):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = nn.functional.cross_entropy(model(inputs[part::4]), targets[part::4]) / 2
            loss.backward()
            if part % 2:
                optimiser.step()
                optimiser.zero_grad()
        recording.epoch({"loss": loss})
    assert {tensor.dtype for tensor in stored(tmp_path / "run", 1).values()} == {torch.float32, torch.int64}
    assert same(stored(tmp_path / "run", 1), copied(model))


def test_two_processes_write_one_run(tmp_path: Path) -> None:
    ranks = [cases.CONTEXT.Process(target=cases.one_rank, args=(rank, str(tmp_path))) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
    assert [rank.exitcode for rank in ranks] == [0, 0]
    run = Run.open(tmp_path / "run")
    assert (run.finished, run.checkpoints()) == (True, (0, 2, 3))
    assert [line["rank"] for line in run.metrics()] == [0, 0, 0]
    assert run.info["parameters"] == NAMES
    first = torch.load(tmp_path / "rank0.pt", weights_only=True)
    second = torch.load(tmp_path / "rank1.pt", weights_only=True)
    assert torch.equal(first["first.weight"], second["first.weight"])
    assert same(stored(tmp_path / "run", 3), first)


def test_a_rank_said_by_torchrun_counts_before_the_group_exists(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with recorder(tmp_path / "run", net()) as recording:
        recording.epoch()
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("WORLD_SIZE", "1")  # a variable somebody left behind
    with recorder(tmp_path / "run", net()):
        pass
    assert Run.open(tmp_path / "run").finished


# -- metrics -------------------------------------------------------------------------------------------------


def test_metrics_of_all_kinds(tmp_path: Path) -> None:
    given = {
        "loss": torch.tensor(1.5, dtype=torch.bfloat16),
        "nan": math.nan,
        "inf": -math.inf,
        "none": None,
        "count": np.int64(3),
        "flag": True,
        "list": [1, torch.tensor(2.5), np.float32(0.5)],
        "by class": {0: 0.5, "1": np.arange(2)},
        "epoch": 1,
    }
    with recorder(tmp_path / "run", net()) as recording:
        recording.epoch(given)
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON")) == {
        "epoch": 1,
        "loss": 1.5,
        "nan": None,
        "inf": None,
        "none": None,
        "count": 3,
        "flag": True,
        "list": [1, 2.5, 0.5],
        "by class": {"0": 0.5, "1": [0, 1]},
    }


@pytest.mark.parametrize(
    ("metrics", "match"),
    [
        ([0.5], "must be a mapping"),
        ({"a": {"b": "text"}}, r"metrics\['a'\]\['b'\] is a str, 'text'"),
        ({"a": [1, object()]}, r"metrics\['a'\]\[1\] is a object"),
        ({(1, 2): 3}, "a name that is no text"),
        ({"epoch": 7}, "give the number of the epoch as number="),
        ({"test": 0.5}, r"metrics\['test'\] is reserved"),
        ({"test": {"accuracy": [0.5]}}, "as 'class_accuracy'"),
        ({"train": {"class_accuracy": [0.5]}}, "needs a list of 3 numbers, one for each class, got 1 values"),
        ({"train": {"class_loss": 0.5}}, "got a number"),
        ({"train": {"quality": [1, 2, 3]}}, "for each form, 3 numbers"),
    ],
)
def test_other_metrics_are_refused_and_the_epoch_can_be_given_again(tmp_path: Path, metrics: Any, match: str) -> None:
    with recorder(tmp_path / "run", net()) as recording:
        with pytest.raises(InputError, match=match) as caught:
            recording.epoch(metrics)
        assert "\n" not in str(caught.value)
        recording.epoch({"loss": 1})
    assert Run.open(tmp_path / "run").metrics() == [{"epoch": 1, "loss": 1}]


def test_accuracies_of_subsets_are_means_over_their_classes() -> None:
    subsets = {"many": [], "head": [0], "tail": [1, 2]}
    given = {"test": {"loss": 0.1, "class_accuracy": [0.9, 0.4, math.nan], "accuracy": 0.7}}
    line = metrics_line(given, 3, subsets)["test"]
    # The mean of the known classes, but what is given weighs more.
    assert line["accuracy"] == {"all": 0.7, "many": None, "head": 0.9, "tail": 0.4}
    assert metrics_line({"test": {"class_accuracy": torch.tensor([1.0, 0.5, 0.0])}}, 3, subsets)["test"][
        "accuracy"
    ] == {
        "all": 0.5,
        "many": None,
        "head": 1.0,
        "tail": 0.25,
    }


def test_epochs_with_numbers(tmp_path: Path) -> None:
    with recorder(tmp_path / "run", net()) as recording:
        recording.epoch(number=5)
        for number in (5, 0, -1, 6.0, True):
            with pytest.raises(InputError, match="cannot be recorded after epoch 5"):
                recording.epoch(number=number)  # type: ignore[arg-type]
        recording.epoch()
    assert Run.open(tmp_path / "run").checkpoints() == (0, 5, 6)


# -- refused -------------------------------------------------------------------------------------------------


def test_what_cannot_be_recorded(tmp_path: Path) -> None:
    place = tmp_path / "run"
    refused(place, "model", "must be a torch.nn.Module, got str")
    refused(place, nn.ReLU(), "no trainable parameters")
    refused(place, net().requires_grad_(False), "no trainable parameters")
    refused(place, nn.LazyLinear(3), "lazy parameters")
    refused(place, nn.Linear(2, 2, device="meta"), "has no values")
    for counts in ([], [0, 0], [1.5, 2], [3, -1], "abc", 5, [math.nan]):
        refused(place, net(), "class_counts must be", class_counts=counts)
    for names in ("abc", ["a"], [1, 2, 3]):
        refused(place, net(), "class_names must be 3 texts", class_names=names)
    for every in (0, 1.5, True):
        refused(place, net(), "checkpoint_every must be", checkpoint_every=every)
    refused(place, net(), "target must be text", target=print)
    refused(place, net(), "resume must be", resume=-1)
    refused(place, net(), "is not a run", resume=3)
    assert not place.exists()


def test_class_counts_as_a_tensor(tmp_path: Path) -> None:
    recorder(tmp_path / "run", net(), class_counts=torch.tensor(COUNTS)).finish()
    assert Run.open(tmp_path / "run").info["class_counts"] == COUNTS


def test_a_folder_in_use(tmp_path: Path) -> None:
    recording = recorder(tmp_path / "run", net())
    refused(tmp_path / "run", net(), "holds a run already")
    refused(tmp_path / "run", net(), "another process", resume=True)
    recording.finish()
    refused(tmp_path / "run", net(), "holds a run already")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    refused(tmp_path / "notes", net(), "exists and is not a run")


def test_a_model_that_changes_is_refused(tmp_path: Path) -> None:
    model = net()
    recording = recorder(tmp_path / "run", model)
    model.more = nn.Linear(1, 1)
    with pytest.raises(InputError, match=r"has changed since it is recorded: 'more\.bias'"):
        recording.epoch()
    del model.more
    recording.epoch()
    recording.finish()
    recording.finish()  # a second time does nothing
    with pytest.raises(InputError, match="is finished"):
        recording.epoch()


# -- going on ------------------------------------------------------------------------------------------------


def test_resume_goes_on_and_drops_what_is_later(tmp_path: Path) -> None:
    place, model = tmp_path / "run", net()
    with recorder(place, model, resume=True) as recording:  # new, for there is none
        for epoch in range(4):
            train_epoch(model, epoch)
            recording.epoch({"first": epoch + 1})
    with recorder(place, model, resume=True) as recording:
        assert recording.last_epoch == 4
        recording.epoch({"second": 5})
    assert not (place / "recipe.toml").exists()
    with pytest.raises(InputError, match="cannot go on after epoch 6: it ends with epoch 5"):
        recorder(place, model, resume=6)
    recording = recorder(place, model, resume=2)
    run = Run.open(place)
    assert (run.checkpoints(), run.finished, len(run.info["epoch_seconds"])) == ((0, 1, 2), False, 2)
    recording.epoch({"third": 3})
    recording.finish()
    run = Run.open(place)
    assert run.metrics() == [{"epoch": 1, "first": 1}, {"epoch": 2, "first": 2}, {"epoch": 3, "third": 3}]
    assert run.checkpoints() == (0, 1, 2, 3)


def test_resume_refuses_another_model_and_other_runs(tmp_path: Path, monkeypatch: Any) -> None:
    place = tmp_path / "run"
    recorder(place, net()).finish()
    refused(place, net(width=7), "of another model, 'again.bias' is missing", resume=True)
    refused(place, nn.Linear(2, 2), "of another model", resume=True)
    refused(place, net(), "other class_counts", resume=True, class_counts=[1, 2, 3])
    refused(place, net(), "other weights", resume=True, weights=net().state_dict)
    info = json.loads((place / "run.json").read_text())
    (place / "run.json").write_text(json.dumps({**info, "origin": "import"}))
    refused(place, net(), "not made by a Recorder", resume=True)


# -- however it ends -----------------------------------------------------------------------------------------


def test_an_exception_leaves_a_run_to_go_on_with(tmp_path: Path) -> None:
    model = net()

    def loop() -> None:
        with recorder(tmp_path / "run", model, checkpoint_every=10) as recording:
            recording.epoch({"loss": 1})
            raise KeyError

    with pytest.raises(KeyError):
        loop()
    run = Run.open(tmp_path / "run")
    assert (run.finished, run.checkpoints(), len(run.metrics())) == (False, (0, 1), 1)
    recorder(tmp_path / "run", model, resume=True).finish()


def test_a_recorder_that_is_dropped_writes_what_it_has(tmp_path: Path) -> None:
    recording = recorder(tmp_path / "run", net(), checkpoint_every=5)
    recording.epoch()
    del recording
    gc.collect()
    assert Run.open(tmp_path / "run").checkpoints() == (0, 1)
    with Run.open(tmp_path / "run").lock():
        pass
    assert not [thread for thread in threading.enumerate() if "landscape-lab" in thread.name]


def fail_to_write(monkeypatch: Any, part: str) -> list[str]:
    """The disk is full for files with ``part`` in their path, as long as the list that is returned is not empty."""
    original, full = os.fsync, [part]

    def fsync(descriptor: int) -> None:
        if full and full[0] in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(descriptor)

    monkeypatch.setattr(files.os, "fsync", fsync)
    return full


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_full_disk_is_told_at_the_next_call_and_the_run_stays_readable(tmp_path: Path, monkeypatch: Any) -> None:
    model, place = net(), tmp_path / "run"
    recording = recorder(place, model)
    recording.epoch({"loss": 1})
    recording.flush()
    full = fail_to_write(monkeypatch, "epoch-0002")
    recording.epoch({"loss": 2})
    with pytest.raises(OSError, match=r"No space left on device: '.*epoch-0002\.safetensors'") as caught:
        recording.flush()
    assert caught.value.errno == errno.ENOSPC
    assert Run.open(place).checkpoints() == (0, 1)
    assert Run.open(place).metrics() == [{"epoch": 1, "loss": 1}]
    full.clear()  # somebody made room
    recording.epoch({"loss": 3})
    recording.finish()
    assert Run.open(place).checkpoints() == (0, 1, 3)
    assert [line["loss"] for line in Run.open(place).metrics()] == [1, 2, 3]
    assert not list(place.rglob("*.tmp"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_full_disk_at_the_end_is_told_by_finish(tmp_path: Path, monkeypatch: Any) -> None:
    recording = recorder(tmp_path / "run", net())
    fail_to_write(monkeypatch, "epoch-0001")
    recording.epoch()
    with pytest.raises(OSError, match="epoch-0001"):
        recording.finish()
    assert not Run.open(tmp_path / "run").finished
    recording.finish()


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from recorder_cases import COUNTS, net
from landscape_lab import Recorder, files

whole, broken = (Recorder({place!r} + name, net(), class_counts=COUNTS, checkpoint_every=2) for name in ("a", "b"))
broken.flush()
replace = files.os.replace
def full(source, path):
    if "b/" in str(path):
        raise OSError(28, "No space left on device")
    replace(source, path)
files.os.replace = full
for epoch in range(3):
    whole.epoch({{"loss": 1}})
broken.epoch({{"loss": 1}})
"""


def test_leaving_without_a_word_writes_everything_and_says_what_failed(tmp_path: Path) -> None:
    script = SCRIPT.format(tests=str(Path(__file__).resolve().parent), place=f"{tmp_path}/")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    run = Run.open(tmp_path / "a")
    assert (run.checkpoints(), len(run.metrics()), run.finished) == ((0, 2, 3), 3, False)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: [Errno 28] No space left on device")
    assert line.endswith("b/metrics.jsonl'")


def test_a_child_of_multiprocessing_writes_everything_too(tmp_path: Path) -> None:
    child = cases.CONTEXT.Process(target=cases.leave_a_recorder, args=(str(tmp_path / "run"),))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert (Run.open(tmp_path / "run").checkpoints(), len(Run.open(tmp_path / "run").metrics())) == ((0, 2), 2)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_at_random_it_leaves_a_readable_run(tmp_path: Path, how: signal.Signals) -> None:
    moments, place, done = random.Random(int(how)), tmp_path / "run", 0
    for _ in range(6):
        started = cases.CONTEXT.Event()
        child = cases.CONTEXT.Process(target=cases.record_without_end, args=(str(place), started), daemon=True)
        child.start()
        assert started.wait(60)
        time.sleep(moments.uniform(0, 0.1))
        assert child.pid is not None
        os.kill(child.pid, how)
        child.join(60)
        assert child.exitcode == (7 if how == signal.SIGINT else -how)
        run = Run.open(place)
        lines = run.metrics()
        assert [line["loss"] for line in lines] == list(range(len(lines)))
        assert len(lines) >= done  # an epoch that was written is never lost
        done = len(lines)
        assert set(run.checkpoints()) >= {0, *range(1, done + 1)}
        for epoch in run.checkpoints()[-3:]:
            assert run.load_checkpoint(epoch, net()) == epoch
    assert done > 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_neither_writes_nor_ends_the_parents_recording(tmp_path: Path) -> None:
    recording = recorder(tmp_path / "run", net())
    child = os.fork()
    if child == 0:
        code = 1
        try:
            recording.epoch()
        except InputError as error:
            code = 0 if "belongs to process" in str(error) else 2
        recording.finish()
        os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert not Run.open(tmp_path / "run").finished
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*cases.data()), 8, num_workers=1)
    for _ in loader:
        pass
    recording.epoch()
    recording.finish()
    assert Run.open(tmp_path / "run").checkpoints() == (0, 1)


# -- bounded -------------------------------------------------------------------------------------------------


def test_a_slow_disk_is_waited_for_and_memory_does_not_grow(tmp_path: Path, monkeypatch: Any) -> None:
    from landscape_lab.recording import writer

    gate, original, most = threading.Semaphore(0), writer.write_tensors, 0

    def slow(*arguments: Any) -> str:
        gate.acquire()
        return original(*arguments)

    model = net()
    recording = recorder(tmp_path / "run", model)
    recording.flush()
    monkeypatch.setattr(writer, "write_tensors", slow)
    counted: list[int] = []

    def loop() -> None:
        for _ in range(8):
            with torch.no_grad():
                model.head.bias.add_(1)
            recording.epoch({"bias": model.head.bias[0]})
            counted.append(recording._writer.pool.count)  # type: ignore[union-attr]

    thread = threading.Thread(target=loop)
    thread.start()
    for released in range(8):
        deadline = time.monotonic() + 20
        while len(counted) < min(8, released + 2) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.01)
        assert len(counted) <= released + 2  # one is being written, one waits
        gate.release()
    thread.join()
    recording.finish()
    most = max(counted)
    assert most == 2
    biases = [float(stored(tmp_path / "run", epoch)["head.bias"][0]) for epoch in range(1, 9)]
    assert biases == pytest.approx([line["bias"] for line in Run.open(tmp_path / "run").metrics()])
    assert biases == pytest.approx([biases[0] + k for k in range(8)])


def test_buffers_are_used_again() -> None:
    pool, state = SnapshotPool(), net().state_dict()
    first = pool.take(state)
    pointers = [tensor.data_ptr() for tensor in first.tensors().values()]
    assert first.nbytes < sum(t.numel() * t.element_size() + 64 for t in state.values())
    pool.give_back(first)
    again = pool.take(net(1).state_dict())
    assert [tensor.data_ptr() for tensor in again.tensors().values()] == pointers
    assert same(again.tensors(), net(1).state_dict())
    assert pool.count == 1
    pool.give_back(again)
    assert pool.take({"x": torch.ones(3, 2).t(), "n": torch.tensor(2)}).tensors()["x"].shape == (2, 3)


def test_interrupted_copies_give_their_memory_back(monkeypatch: Any) -> None:
    pool, state = SnapshotPool(1), net().state_dict()
    for _ in range(3):
        with monkeypatch.context() as patch:
            patch.setattr("landscape_lab.recording.snapshots.Snapshot.fill", lambda *_: (_ for _ in ()).throw(KeyError))
            with pytest.raises(KeyError):
                pool.take(state)
    assert same(pool.take(state).tensors(), dict(state))


def test_jobs_are_done_in_order_and_after_a_failure() -> None:
    done: list[int] = []

    def fail() -> None:
        raise OSError(errno.ENOSPC, "full", "here")

    writer = BackgroundWriter()
    for job in (lambda: done.append(1), fail, lambda: done.append(3), fail, lambda: done.append(5)):
        writer.submit(job)
    with pytest.raises(OSError, match="full: 'here'"):
        writer.close()
    writer.close()
    assert done == [1, 3, 5]


def test_the_first_import_is_quick_and_the_name_is_public() -> None:
    import landscape_lab

    assert landscape_lab.Recorder is Recorder
    assert "Recorder" in landscape_lab.__all__
