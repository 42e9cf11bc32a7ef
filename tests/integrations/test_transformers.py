"""The callback in a real ``Trainer.train`` of Hugging Face's transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from analyses import CPU, Theirs, analyse
from torch import Tensor, nn

from landscape_lab.errors import InputError
from landscape_lab.files import read_tensors
from landscape_lab.run import Run
from landscape_lab.studies import Study
from landscape_lab.target import Target

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

COUNTS = [16, 6, 2]


class Texts(torch.utils.data.Dataset[Any]):
    """Token sequences whose class is their first token."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.labels = torch.tensor([0] * 16 + [1] * 6 + [2] * 2)
        self.tokens = torch.randint(3, 20, (24, 6), generator=generator)
        self.tokens[:, 0] = self.labels

    def __len__(self) -> int:
        return 24

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        return {"input_ids": self.tokens[place], "labels": self.labels[place]}


def model() -> Any:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=8,
        num_labels=3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return transformers.BertForSequenceClassification(config)


class Watch(transformers.TrainerCallback):  # type: ignore[misc]
    """Keeps the weights at the end of each epoch; can break training off."""

    def __init__(self, stop: int = 99) -> None:
        self.states: list[dict[str, Tensor]] = []
        self.stop = stop

    def on_epoch_end(self, *_: Any, model: Any, **others: Any) -> None:
        self.states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})

    def on_epoch_begin(self, *_: Any, **others: Any) -> None:
        if len(self.states) == self.stop:
            raise KeyError("broken")


def trainer(folder: Path, *callbacks: Any, epochs: float = 3, **settings: Any) -> Any:
    arguments = transformers.TrainingArguments(
        output_dir=str(folder / "theirs"),
        num_train_epochs=epochs,
        per_device_train_batch_size=8,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        seed=0,
        **{
            "eval_strategy": "epoch",
            "logging_strategy": "epoch",
            "save_strategy": "epoch",
            "learning_rate": 0.01,
            **settings,
        },
    )
    return transformers.Trainer(
        model(),
        arguments,
        train_dataset=Texts(),
        eval_dataset=Texts(),
        compute_metrics=lambda found: {"accuracy": float((found.predictions.argmax(1) == found.label_ids).mean())},
        callbacks=list(callbacks),
    )


def callback(place: Path, **settings: Any) -> Any:
    from landscape_lab.integrations.transformers import LandscapeCallback

    return LandscapeCallback(place, class_counts=COUNTS, **settings)


def checkpoint(place: Path, epoch: int) -> dict[str, Tensor]:
    return read_tensors(place / "checkpoints" / f"epoch-{epoch:04d}.safetensors")[0]


def test_train_records_every_epoch(tmp_path: Path) -> None:
    place, watch, fresh = tmp_path / "run", Watch(), model()
    # The best model is loaded in the end: here the worst, so that it is another than the last.
    at_work = trainer(
        tmp_path,
        callback(place, class_names=["a", "b", "c"]),
        watch,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=True,
    )
    at_work.train()
    run = Run.open(place)
    assert (run.finished, run.checkpoints(), run.info["class_names"]) == (True, (0, 1, 2, 3), ["a", "b", "c"])
    assert run.info["parameters"] == [name for name, _ in fresh.named_parameters()]
    for epoch, state in enumerate([fresh.state_dict(), *watch.states]):
        found = checkpoint(place, epoch)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in state.items()), epoch
    lines = run.metrics()
    evaluated = [entry for entry in at_work.state.log_history if "eval_loss" in entry]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert [line["eval_loss"] for line in lines] == [entry["eval_loss"] for entry in evaluated]
    assert [line["eval_accuracy"] for line in lines] == [entry["eval_accuracy"] for entry in evaluated]
    assert all(line["loss"] > 0 for line in lines)
    other = model()
    run.load_checkpoint(2, other)
    assert torch.equal(other.classifier.weight, watch.states[1]["classifier.weight"])


def test_metrics_can_be_laid_out(tmp_path: Path) -> None:
    def laid_out(found: dict[str, Any]) -> dict[str, Any]:
        return {"train": {"loss": found["loss"]}, "test": {"accuracy": found["eval_accuracy"]}}

    trainer(tmp_path, callback(tmp_path / "run", metrics=laid_out, checkpoint_every=2), save_strategy="no").train()
    run = Run.open(tmp_path / "run")
    assert run.checkpoints() == (0, 2, 3)
    assert set(run.metrics()[0]) == {"epoch", "train", "test"}


def test_training_that_breaks_off_goes_on(tmp_path: Path) -> None:
    place = tmp_path / "run"

    def broken() -> None:
        trainer(tmp_path, callback(place), Watch(stop=2)).train()

    with pytest.raises(KeyError):
        broken()
    run = Run.open(place)
    assert (run.finished, run.checkpoints()) == (False, (0, 1, 2))
    with pytest.raises(InputError, match="the trainer begins anew"):
        trainer(tmp_path, callback(place, resume=True)).train()
    watch = Watch()
    trainer(tmp_path, callback(place, resume=True), watch).train(resume_from_checkpoint=True)
    run = Run.open(place)
    assert (run.finished, run.checkpoints()) == (True, (0, 1, 2, 3))
    assert [line["epoch"] for line in run.metrics()] == [1, 2, 3]
    assert torch.equal(checkpoint(place, 3)["classifier.weight"], watch.states[-1]["classifier.weight"])


def test_without_evaluation_and_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    quiet = {"eval_strategy": "no", "logging_strategy": "no", "save_strategy": "no"}
    trainer(tmp_path, callback(tmp_path / "run"), max_steps=4, **quiet).train()  # an epoch has 3 steps
    run = Run.open(tmp_path / "run")
    assert (run.finished, run.checkpoints()) == (True, (0, 1, 2))


def test_every_analysis_of_what_was_trained(tmp_path: Path) -> None:
    at_work = trainer(tmp_path, callback(tmp_path / "run"), save_strategy="no", learning_rate=0.003)
    at_work.train()
    run, data, fresh = Run.open(tmp_path / "run"), Texts(), model()
    inputs = {"input_ids": data.tokens, "attention_mask": (data.tokens != 5).long()}
    with pytest.raises(InputError, match=r"got SequenceClassifierOutput: model\.register_forward_hook\(lambda"):
        Study(run, CPU, target=Target(fresh, nn.CrossEntropyLoss(), (inputs, data.labels)))
    fresh.register_forward_hook(lambda module, args, output: output.logits)
    target = Target(fresh, nn.CrossEntropyLoss(), (inputs, data.labels))
    theirs = Theirs(at_work.model, lambda own: own(**inputs).logits, "classifier", data.labels)
    analyse(run, target, theirs, tmp_path)
    # Their Trainer's own number, without a mask.
    unmasked = Target(fresh, nn.CrossEntropyLoss(), ({"input_ids": data.tokens}, data.labels))
    study = Study(run, CPU, target=unmasked)
    study.epoch()
    with torch.no_grad():
        loss = study.loss(study.model(study.samples("all")[0]), study.samples("all")[1]).mean()
    assert float(loss) == pytest.approx(run.metrics()[-1]["eval_loss"], rel=1e-4)
