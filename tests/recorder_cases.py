"""A small model and loop for the tests of the recorder, its callbacks and the import."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from landscape_lab import Recorder
from landscape_lab.files import read_tensors

COUNTS = [60, 25, 15]
# Children of a process that has imported the package already: a start then takes milliseconds, not seconds.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["recorder_cases", "torch._dynamo", "torch.distributed"])
LEFT: list[Recorder] = []


class Net(nn.Module):
    """BatchNorm, a frozen layer and a tied pair: all that a state dict can make hard."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.first = nn.Linear(4, width)
        self.norm = nn.BatchNorm1d(width)
        self.frozen = nn.Linear(width, width).requires_grad_(False)
        self.second = nn.Linear(width, width)
        self.again = nn.Linear(width, width)
        self.again.weight = self.second.weight
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.frozen(torch.relu(self.norm(self.first(x))))
        return self.head(self.again(torch.relu(self.second(x))))


NAMES = [
    "first.weight", "first.bias", "norm.weight", "norm.bias", "second.weight", "second.bias", "again.bias",
    "head.weight", "head.bias",
]  # fmt: skip
"""What of :class:`Net` is trained, each once, in the order in which it is registered."""


def net(seed: int = 0, width: int = 6) -> Net:
    torch.manual_seed(seed)
    return Net(width)


def data(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(40, 4, generator=generator), torch.randint(3, (40,), generator=generator)


def train_epoch(model: nn.Module, seed: int = 0, optimiser: torch.optim.Optimizer | None = None) -> None:
    inputs, targets = data(seed)
    optimiser = optimiser or torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimiser.step()


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def stored(place: Path, epoch: int) -> dict[str, Tensor]:
    return read_tensors(place / "checkpoints" / f"epoch-{epoch:04d}.safetensors")[0]


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# -- what child processes do ---------------------------------------------------------------------------------


def record_without_end(place: str, started: Any) -> None:
    """Record epoch after epoch, going on with the run at ``place``, until somebody stops it."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born ignoring it
    model = net()
    try:
        with Recorder(place, model, class_counts=COUNTS, resume=True) as recording:
            while True:
                train_epoch(model)
                recording.epoch({"loss": recording.last_epoch})
                started.set()
    except KeyboardInterrupt:
        sys.exit(7)


def leave_a_recorder(place: str) -> None:
    """Record two epochs and end, the recorder still in a global."""
    LEFT.append(Recorder(place, net(), class_counts=COUNTS, checkpoint_every=3))
    for _ in range(2):
        LEFT[0].epoch({"loss": 1})


def one_rank(rank: int, folder: str) -> None:
    """A rank of two: train with DistributedDataParallel, each on other samples, and record."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        model = nn.parallel.DistributedDataParallel(net())
        recording = Recorder(f"{folder}/run", model, class_counts=COUNTS, checkpoint_every=2)
        for epoch in range(3):
            train_epoch(model, 2 * epoch + rank)
            recording.epoch({"rank": rank})
        recording.finish()
        assert recording.active == (rank == 0)
        assert recording.last_epoch == 3
        torch.save(model.module.state_dict(), f"{folder}/rank{rank}.pt")
        torch.distributed.barrier()
    finally:
        torch.distributed.destroy_process_group()
