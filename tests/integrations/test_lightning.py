"""The callback in a real ``fit`` of Lightning, under both of its names."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from analyses import Theirs, analyse
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from landscape_lab.errors import InputError
from landscape_lab.files import read_tensors
from landscape_lab.run import Run
from landscape_lab.target import Target

COUNTS = [20, 10, 2]


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(32, 4, generator=generator), torch.tensor([0] * 20 + [1] * 10 + [2] * 2))


@pytest.fixture(params=["lightning", "pytorch_lightning"])
def parts(request: Any) -> Any:
    """Lightning, a module's class and our callback."""
    name = request.param
    pytest.importorskip(name)
    lightning = importlib.import_module("lightning.pytorch" if name == "lightning" else name)
    callback = importlib.import_module(f"landscape_lab.integrations.{name}").LandscapeCallback

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))
            self.states: list[dict[str, Tensor]] = []

        def training_step(self, batch: Any, number: int) -> Tensor:
            loss = nn.functional.cross_entropy(self.model(batch[0]), batch[1])
            self.log("train_loss", loss, on_epoch=True, on_step=False)
            return loss

        def validation_step(self, batch: Any, number: int) -> None:
            self.log("val_accuracy", (self.model(batch[0]).argmax(1) == batch[1]).float().mean())

        def on_train_epoch_start(self) -> None:
            if not self.states:
                self.states.append({n: t.clone() for n, t in self.model.state_dict().items()})

        def on_train_epoch_end(self) -> None:
            self.states.append({n: t.clone() for n, t in self.model.state_dict().items()})
            self.log("epoch_plus_ten", float(self.current_epoch + 10))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def trainer(folder: Path, *callbacks: Any, **settings: Any) -> Any:
        warnings.simplefilter("ignore")
        return lightning.Trainer(
            default_root_dir=folder,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=list(callbacks),
            **settings,
        )

    return Module, callback, trainer


def loaders() -> tuple[Any, Any]:
    return DataLoader(data(), 8), DataLoader(data(), 32)


def checkpoint(place: Path, epoch: int) -> dict[str, Tensor]:
    return read_tensors(place / "checkpoints" / f"epoch-{epoch:04d}.safetensors")[0]


def test_fit_records_every_epoch(tmp_path: Path, parts: Any) -> None:
    Module, callback, trainer = parts
    place, module = tmp_path / "run", Module()
    recorded = callback(place, class_counts=COUNTS, module="model", target="mine.py:make")
    trainer(tmp_path, recorded, max_epochs=4, check_val_every_n_epoch=2).fit(module, *loaders())
    run = Run.open(place)
    assert (run.finished, run.checkpoints(), run.info["target"]) == (True, (0, 1, 2, 3, 4), "mine.py:make")
    assert run.info["parameters"] == [name for name, _ in module.model.named_parameters()]
    for epoch, state in enumerate(module.states):
        found = checkpoint(place, epoch)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in state.items()), epoch
    lines = run.metrics()
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert all(line["train_loss"] > 0 for line in lines)
    assert [line["epoch_plus_ten"] for line in lines] == [10, 11, 12, 13]
    # Validated every other epoch: no value of before is told again.
    assert ["val_accuracy" in line for line in lines] == [False, True, False, True]
    with torch.no_grad():
        module.model.eval()
        right = (module.model(data().tensors[0]).argmax(1) == data().tensors[1]).float().mean()
    assert lines[3]["val_accuracy"] == pytest.approx(float(right))


def test_metrics_can_be_laid_out_and_the_module_recorded_whole(tmp_path: Path, parts: Any) -> None:
    Module, callback, trainer = parts

    def laid_out(found: dict[str, Any]) -> dict[str, Any]:
        return {"train": {"loss": found["train_loss"]}, "test": {"accuracy": found["val_accuracy"]}}

    recorded = callback(tmp_path / "run", class_counts=COUNTS, metrics=laid_out, checkpoint_every=2)
    trainer(tmp_path, recorded, max_epochs=3).fit(Module(), *loaders())
    run = Run.open(tmp_path / "run")
    assert run.checkpoints() == (0, 2, 3)
    assert run.info["parameters"][0] == "model.0.weight"
    assert set(run.metrics()[0]["test"]["accuracy"]) == {"all"}


def test_an_exception_leaves_a_run_and_fit_goes_on_with_it(tmp_path: Path, parts: Any) -> None:
    Module, callback, trainer = parts

    class Breaks(Module):  # type: ignore[misc, valid-type]
        def on_train_epoch_start(self) -> None:
            if self.current_epoch == 2:
                raise KeyError("broken")

    place = tmp_path / "run"
    with pytest.raises(KeyError):
        trainer(tmp_path, callback(place, class_counts=COUNTS), max_epochs=4).fit(Breaks(), *loaders())
    run = Run.open(place)
    assert (run.finished, run.checkpoints(), len(run.metrics())) == (False, (0, 1, 2), 2)
    (saved,) = (tmp_path / "checkpoints").glob("*.ckpt")
    with pytest.raises(InputError, match="the trainer begins anew"):
        trainer(tmp_path, callback(place, class_counts=COUNTS, resume=True), max_epochs=4).fit(Module(), *loaders())
    again = trainer(tmp_path, callback(place, class_counts=COUNTS), max_epochs=4)
    with pytest.raises(InputError, match="give the run that it recorded so far, and resume=True"):
        again.fit(Module(), *loaders(), ckpt_path=saved, weights_only=False)
    module = Module()
    again = trainer(tmp_path, callback(place, class_counts=COUNTS, resume=True), max_epochs=4)
    again.fit(module, *loaders(), ckpt_path=saved, weights_only=False)
    run = Run.open(place)
    assert (run.finished, run.checkpoints()) == (True, (0, 1, 2, 3, 4))
    assert [line["epoch"] for line in run.metrics()] == [1, 2, 3, 4]
    assert torch.equal(checkpoint(place, 4)["model.0.weight"], module.model[0].weight)


def test_a_part_that_is_not_there(tmp_path: Path, parts: Any) -> None:
    Module, callback, trainer = parts
    with pytest.raises(InputError, match="Module has no part 'net' to record"):
        trainer(tmp_path, callback(tmp_path / "run", class_counts=COUNTS, module="net"), max_epochs=1).fit(
            Module(), *loaders()
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("part", ["model", None], ids=["the model", "the whole module"])
def test_every_analysis_of_what_was_trained(tmp_path: Path, parts: Any, part: str | None) -> None:
    Module, callback, trainer = parts
    module, place = Module(), tmp_path / "run"
    trainer(tmp_path, callback(place, class_counts=COUNTS, module=part), max_epochs=3).fit(module, *loaders())
    inputs, labels = data().tensors
    # The target gives the model alone, also where the run's names begin with the LightningModule's "model.".
    target = Target(Module().model, nn.CrossEntropyLoss(), DataLoader(data(), 16))
    theirs = Theirs(module.model, lambda own: own(inputs.double()), "3", labels)
    analyse(Run.open(place), target, theirs, tmp_path)
