"""Studies of models that we did not train: what they compute against the user's own model, called directly."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from command_line import call, refused, trained  # noqa: F401
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from landscape_lab.analysis import Hessian, top_eigenpairs
from landscape_lab.errors import InputError
from landscape_lab.importing import run_of
from landscape_lab.studies import Study
from landscape_lab.studies.features import collapse, features
from landscape_lab.studies.gradients import gradients
from landscape_lab.studies.noise import noise_curve
from landscape_lab.studies.surfaces import surface
from landscape_lab.target import Target

CPU = torch.device("cpu")


def study_of(target: Target, path: Any) -> Study:
    return Study(run_of(target, path / "run", "mine:make"), CPU, target=target)


def centre(study: Study, **options: Any) -> Tensor:
    """The losses of all and of class 1 at the solution."""
    found = surface(study, ("all", "1"), steps=3, extent=0.1, **options)
    return found.losses[:, 1, 1]


class Masked(nn.Module):
    """Takes two inputs, of different types, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(11, 6), nn.Linear(6, 3)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        kept = self.embed(tokens) * (~mask)[..., None]
        return self.out(kept.sum(1) / (~mask).sum(1, keepdim=True))


@pytest.mark.parametrize("named", [True, False], ids=["mapping", "tuple"])
@pytest.mark.parametrize("loader", [True, False], ids=["shuffling loader", "one batch"])
def test_a_model_of_several_inputs(tmp_path: Any, named: bool, loader: bool) -> None:
    torch.manual_seed(0)
    model, tokens, mask = Masked(), torch.randint(0, 11, (40, 5)), torch.rand(40, 5) < 0.3
    mask[:, 0] = False
    labels = torch.tensor([0] * 25 + [1] * 10 + [2] * 5)
    inputs = {"tokens": tokens, "mask": mask} if named else (tokens, mask)
    batches: Any = (inputs, labels)
    if loader:
        rows = [
            ({"tokens": t, "mask": m} if named else (t, m), y) for t, m, y in zip(tokens, mask, labels, strict=True)
        ]
        batches = torch.utils.data.DataLoader(rows, batch_size=16, shuffle=True)  # type: ignore[arg-type]
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    target = Target(model, nn.CrossEntropyLoss(), batches)
    found = centre(study_of(target, tmp_path))
    with torch.no_grad():
        losses = cross_entropy(model(tokens, mask), labels, reduction="none").double()
    torch.testing.assert_close(found, torch.stack([losses.mean(), losses[labels == 1].mean()]), rtol=1e-5, atol=0)
    assert torch.equal(torch.get_rng_state(), random)
    assert not model._forward_pre_hooks
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def sequences() -> tuple[nn.Module, Any, Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Embedding(9, 5), nn.Linear(5, 9))
    inputs = torch.randint(0, 9, (30, 4))
    targets = (inputs + 1) % 9

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(output.transpose(1, 2), target, reduction="none").mean(1)

    return model, loss, inputs, targets, torch.tensor([0] * 22 + [1] * 8)


def test_targets_that_are_no_classes(tmp_path: Any) -> None:
    model, loss, inputs, targets, labels = sequences()
    study = study_of(Target(model, loss, (inputs, targets), labels=labels), tmp_path)
    with torch.no_grad():
        losses = loss(model(inputs), targets).double()
    torch.testing.assert_close(centre(study), torch.stack([losses.mean(), losses[22:].mean()]), rtol=1e-5, atol=0)
    assert surface(study, ("all",), steps=3).accuracies.isnan().all()
    assert noise_curve(study, ("all",), ratios=(0.0, 0.1), directions=2).accuracies.isnan().all()

    ours = top_eigenpairs(Hessian(study.model, study.loss, study.samples("1")), k=2, seed=0)
    direct = top_eigenpairs(Hessian(model, loss, (inputs[22:], targets[22:])), k=2, seed=0)
    torch.testing.assert_close(ours.values, direct.values, rtol=1e-4, atol=1e-6)

    found = gradients(study, classes=(0, 1)).mean[1]
    grads = []
    for part in (slice(22, 30), slice(0, 30)):
        model.zero_grad()
        loss(model(inputs[part]), targets[part]).mean().backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).double())
    assert float(found) == pytest.approx(float(torch.cosine_similarity(grads[0], grads[1], dim=0)), rel=1e-4)


def test_groups_are_named_like_head_and_tail(tmp_path: Any) -> None:
    torch.manual_seed(5)
    model, inputs, labels = nn.Linear(4, 3), torch.randn(30, 4), torch.tensor([0] * 20 + [1] * 6 + [2] * 4)
    parts = {"model": model, "loss": nn.CrossEntropyLoss(), "batches": (inputs, labels)}
    study = study_of(Target(**parts, groups={"rare": (1, 2)}), tmp_path / "a")
    found = surface(study, ("rare", "tail"), steps=3)
    with torch.no_grad():
        assert float(found.of("rare")[1, 1]) == pytest.approx(
            float(cross_entropy(model(inputs[20:]), labels[20:])), rel=1e-5
        )
    with pytest.raises(InputError, match="group 'rare' names class 7, but there are 3 classes"):
        study_of(Target(**parts, groups={"rare": (7,)}), tmp_path / "b")
    for wrong, message in (
        ({"a": 3}, "must be a mapping"),
        ([1], "must be a mapping"),
        ({"1": [1]}, "cannot be called"),
    ):
        with pytest.raises(InputError, match=message):
            Target(**parts, groups=wrong)


def test_regression_has_one_class(tmp_path: Any) -> None:
    torch.manual_seed(2)
    model, inputs = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), torch.randn(20, 3)
    targets = inputs.sum(1, keepdim=True)
    study = study_of(Target(model, nn.MSELoss(), (inputs, targets)), tmp_path)
    found = surface(study, ("all",), steps=3)
    with torch.no_grad():
        assert float(found.losses[0, 1, 1]) == pytest.approx(float(nn.MSELoss()(model(inputs), targets)), rel=1e-5)
    assert study.class_names == ("all",)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_loss_with_class_weights(tmp_path: Any, reduction: str) -> None:
    torch.manual_seed(3)
    model, inputs, labels = nn.Linear(4, 2), torch.randn(24, 4), torch.tensor([0] * 18 + [1] * 6)
    weight = torch.tensor([1.0, 5.0])
    target = Target(model, nn.CrossEntropyLoss(weight=weight, reduction=reduction), (inputs, labels))
    found = float(centre(study_of(target, tmp_path))[0])
    with torch.no_grad():
        whole = cross_entropy(model(inputs), labels, weight=weight, reduction="none" if reduction == "none" else "mean")
        each = cross_entropy(model(inputs), labels, weight=weight, reduction="none")
    # Of a sum, surfaces show the mean; a mean by class weights divides by their sum, as the user's does.
    expected = whole.mean() if reduction != "sum" else each.mean()
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_features_of_the_last_linear_layer_or_of_a_named_module(tmp_path: Any) -> None:
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
    inputs, labels = torch.randn(30, 3), torch.tensor([0] * 20 + [1] * 10)
    for name, part in ((None, model[:4]), ("1", model[:2])):
        study = study_of(Target(model, nn.CrossEntropyLoss(), (inputs, labels), encoder=name), tmp_path / str(name))
        with torch.no_grad():
            own = part(inputs).double()
        spread = [(own[labels == c] - own[labels == c].mean(0)).square().sum(1).mean() for c in (0, 1)]
        torch.testing.assert_close(features(study)["difference"].variance, torch.stack(spread), rtol=1e-5, atol=0)
    assert collapse(study).nc3 != collapse(study).nc3  # nan: nothing says which weights act on the named module
    with pytest.raises(InputError, match="no module '7'"):
        Target(model, nn.CrossEntropyLoss(), (inputs, labels), encoder="7")


def test_test_samples(tmp_path: Any) -> None:
    model, _, inputs, _, labels = sequences()
    classifier = nn.Sequential(model[0], nn.Flatten(), nn.Linear(20, 2))
    with_test = Target(classifier, nn.CrossEntropyLoss(), (inputs, labels), test_batches=[(inputs[:9], labels[:9])])
    study = study_of(with_test, tmp_path / "a")
    assert len(study.split("test")) == 9
    without = study_of(Target(classifier, nn.CrossEntropyLoss(), (inputs, labels)), tmp_path / "b")
    with pytest.raises(InputError, match="the target has no test samples"):
        features(without, split="test")


class Around(nn.Module):
    """A module of the user's around a model, with a buffer of its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.model(inputs)


@pytest.mark.parametrize("recorded", ["alone", "around", "twice around"])
@pytest.mark.parametrize("given", ["alone", "around", "compiled"])
def test_a_run_of_a_model_and_of_a_module_around_it(tmp_path: Any, recorded: str, given: str) -> None:
    inputs, labels = torch.randn(20, 4), torch.tensor([0] * 15 + [1] * 5)

    def network(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))

    def within(how: str, model: nn.Module) -> nn.Module:
        if how == "compiled":
            return torch.compile(model, backend="eager")  # type: ignore[return-value]
        return model if how == "alone" else Around(model) if how == "around" else Around(Around(model))

    trained, loss = network(1), nn.CrossEntropyLoss()
    trained[1].running_mean.fill_(0.5)  # type: ignore[index, union-attr, operator]
    run = run_of(Target(within(recorded, trained), loss, (inputs, labels)), tmp_path / "run", "mine:make")
    target = Target(within(given, network(2)), loss, (inputs, labels))
    if given == "around" and recorded == "alone":  # a buffer that was not recorded: there is no telling its value
        with pytest.raises(InputError, match="does not fit the model: 'seen' is missing"):
            centre(Study(run, CPU, target=target))
        return
    found = centre(Study(run, CPU, target=target))
    with torch.no_grad():
        losses = cross_entropy(trained.eval()(inputs), labels, reduction="none").double()
    torch.testing.assert_close(found, torch.stack([losses.mean(), losses[labels == 1].mean()]), rtol=1e-5, atol=0)


def test_models_that_are_not_those_of_the_run(tmp_path: Any) -> None:
    class Order(nn.Module):
        def __init__(self, *names: str) -> None:
            super().__init__()
            for name in names:
                self.add_module(name, nn.Linear(3, 3))

        def forward(self, inputs: Tensor) -> Tensor:
            return sum(part(inputs) for part in self.children())  # type: ignore[return-value]

    data = torch.randn(6, 3), torch.tensor([0, 0, 0, 1, 1, 2])
    run = run_of(Target(Order("one", "two"), nn.CrossEntropyLoss(), data), tmp_path / "run", "mine:make")
    for names, words in (
        (("two", "one"), "another order"),
        (("one", "three"), "'three.bias' is trainable in one of them only"),
        (("one",), "'two.bias' is trainable in one of them only"),
    ):
        with pytest.raises(InputError, match=words):
            Study(run, CPU, target=Target(Order(*names), nn.CrossEntropyLoss(), data))


def test_an_output_that_is_no_tensor(tmp_path: Any) -> None:
    class Pair(nn.Linear):
        def forward(self, inputs: Tensor) -> Any:
            return super().forward(inputs), inputs

    data = torch.randn(6, 3), torch.tensor([0, 0, 0, 1, 1, 2])
    with pytest.raises(InputError, match="the model must return a tensor, got tuple"):
        study_of(Target(Pair(3, 3), nn.CrossEntropyLoss(), data), tmp_path)


PROJECT = """
import torch
from torch import nn
def make(seed=0):
    torch.manual_seed(seed)
    inputs, labels = torch.randn(40, 4), torch.tensor([0] * 25 + [1] * 10 + [2] * 5)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), nn.CrossEntropyLoss(), (inputs, labels)
def other():
    return make(1)
def larger():
    model, *rest = make()
    return nn.Sequential(model, nn.Linear(3, 3)), *rest
"""


def test_the_command_line(tmp_path: Any, monkeypatch: Any, call: Any, refused: Any, trained: Any) -> None:
    (tmp_path / "mine.py").write_text(PROJECT)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # the same weights: the same run
        got = call("surface", "runs/mine", "--steps", "3", "--target", "mine.py:make")
        assert got.code == 0, got.err
        assert "tail" in got.out
    assert "other weights than mine.py:other" in refused("surface", "runs/mine", "--target", "mine.py:other")
    assert "say its model and data with --target mine.py:make" in refused("surface", "runs/mine")
    assert "leave --target out" in refused("surface", str(trained), "--target", "mine.py:make")
    line = refused("hessian", "runs/mine", "--target", "mine.py:larger")
    assert "other weights" in line
