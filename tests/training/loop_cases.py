"""Training runs that take a third of a second."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from landscape_lab.data import Dataset, Split, load_dataset
from landscape_lab.recipe import Recipe, load_recipe
from landscape_lab.run import Run
from landscape_lab.training import Trainer, run_info

CPU = torch.device("cpu")
EPOCHS = 3


class Stopped(BaseException):
    """As an interrupt or a kill would, it passes every handler of errors."""


@cache
def digits() -> Dataset:
    """Long-tailed digits, cut down to 130 training and 100 test images."""
    whole = load_dataset("digits-lt", imbalance_ratio=10.0)
    counts = (30, 25, 20, 15, 12, 9, 7, 5, 4, 3)

    def cut(split: Split, per_class: tuple[int, ...]) -> Split:
        kept = [(split.targets == c).nonzero().squeeze(1)[:n] for c, n in enumerate(per_class)]
        order = torch.cat(kept).sort().values
        return Split(split.images[order], split.targets[order])

    train, test = cut(whole.train, counts), cut(whole.test, (10,) * 10)
    return Dataset("digits-lt", train, test, whole.class_names, whole.mean, whole.std)


SMALL: dict[str, Any] = {
    "model.width": 2,
    "training.epochs": EPOCHS,
    "training.batch_size": 48,
    "training.drop_last": False,
    "training.warmup_epochs": 1,
    "training.milestones": [2],
    "training.checkpoint_every": 2,
    "groups.count": 3,
    "groups.start_epoch": 1,
    "groups.period": 1,
    "gkp.fisher_samples": 6,
}
# With three epochs the memory bank holds few encoders, so NCut finds few groups: hence the ablations too.
CASES: dict[str, dict[str, Any]] = {
    "erm": {"method": "erm"},
    "erm without momentum": {"method": "erm", "training.momentum": 0.0, "training.schedule": "cosine"},
    "sam": {"method": "sam"},
    "gkp": {"method": "gkp", "groups.source": "frequency"},
    "gkp ncut": {"method": "gkp"},
    "gsa": {"method": "gsa", "groups.source": "random", "gsa.global_gradient": "project-ema"},
    "gsa-proj": {"method": "gsa-proj", "groups.source": "frequency", "gsa.passes": "merged"},
    "gkp-gsa": {"method": "gkp-gsa"},
    "gkp-gsa true": {"method": "gkp-gsa", "groups.source": "frequency", "gkp.fisher": "true", "groups.period": 5},
    "gkp-sam": {"method": "gkp-sam", "groups.source": "frequency"},
    "stochastic": {
        "method": "gkp-gsa",
        "groups.source": "frequency",
        "gsa.passes": "stochastic",
        "gsa.every": 2,
        "gsa.between": "reuse",
        "groups.bank_mebibytes": 0,
    },
    "bcl gkp-gsa": {
        "method": "gkp-gsa",
        "groups.source": "random",
        "gsa.ascent_views": "first",
        "data.autoaugment": True,
        "data.cutout": 4,
        "loss.name": "bcl",
        "loss.logit_adjustment": 1.0,
        "model.projection": True,
        "model.projection_hidden": 6,
        "model.projection_dim": 4,
        "model.classifier": "cosine",
    },
}
# These leave other files behind.
OTHERS: dict[str, dict[str, Any]] = {
    "validation": {
        "method": "erm",
        "evaluation.validation_share": 0.3,
        "training.batch_size": 32,
        "training.checkpoint_every": 10,
    },
    "released": {
        "method": "gkp-gsa",
        "groups.source": "random",
        "groups.start_epoch": 0,
        "groups.period": 200,
        "gsa.global_gradient": "accumulated-ema",
        "gsa.passes": "merged",
    },
}


def recipe(case: str = "erm", **changes: Any) -> Recipe:
    extra = {key.replace("__", "."): value for key, value in changes.items()}
    return load_recipe("digits-lt-erm", {**SMALL, **{**CASES, **OTHERS}[case], **extra})


def trainer_at(path: Path, settings: Recipe) -> Trainer:
    run = Run.create_or_open(path, settings, run_info(settings, digits(), CPU))
    trainer = Trainer(run, digits(), CPU)
    trainer.restore()
    return trainer


def contents(path: Path) -> dict[str, bytes]:
    """Every file of a run; of run.json all but the seconds."""
    files = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    info = json.loads(files["run.json"])
    assert len(info.pop("epoch_seconds")) == EPOCHS
    assert info.pop("grouping_seconds").keys() == info["groups"].keys()
    files["run.json"] = json.dumps(info).encode()
    return files


def stop_after(count: int) -> Callable[[Any], None]:
    calls = []

    def callback(_: Any) -> None:
        calls.append(1)
        if len(calls) == count:
            raise Stopped

    return callback
