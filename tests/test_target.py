import os
import re
import sys
from textwrap import dedent

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from landscape_lab.errors import InputError
from landscape_lab.target import Target, load_target

GOOD = """
    import torch
    from torch import nn
    from landscape_lab.target import Target

    def parts():
        data = torch.arange(12.0).reshape(6, 2), torch.tensor([0, 0, 0, 1, 1, 2])
        return nn.Linear(2, 3), nn.CrossEntropyLoss(), data

    def named():
        return (*parts(), ["a", "b", "c"])

    def mapped():
        return dict(zip(("model", "loss", "batches"), parts()), class_names=("a", "b", "c"))

    def target():
        return Target(*named())
"""


def data(n=6):
    return torch.arange(2.0 * n).reshape(n, 2), torch.arange(n) % 3


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before, known = list(sys.path), set(sys.modules)
    yield tmp_path
    assert sys.path == before
    for name in set(sys.modules) - known:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text))
    return path


def refused(spec):
    with pytest.raises(InputError) as caught:
        load_target(spec)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


@pytest.mark.parametrize("function", ["parts", "named", "mapped", "target"])
@pytest.mark.parametrize("place", ["zoo", "zoo.py", "./zoo.py"])
def test_every_form_gives_the_same_target(folder, place, function):
    write(folder, "zoo.py", GOOD)
    found = load_target(f"{place}:{function}")
    assert isinstance(found.model, nn.Linear)
    assert found.class_names == (None if function == "parts" else ("a", "b", "c"))
    inputs, targets = found.tensors()
    assert torch.equal(inputs, torch.arange(12.0).reshape(6, 2))
    assert torch.equal(targets, found.class_labels())


def test_a_file_imports_what_lies_beside_it_and_a_module_what_lies_here(folder):
    write(folder, "here_only.py", "WIDTH = 3\n")
    write(folder, "deep/beside_it.py", GOOD)
    write(folder, "deep/one.py", "import here_only\nfrom beside_it import parts\n")
    assert load_target("deep/one.py:parts").class_labels().tolist() == [0, 0, 0, 1, 1, 2]
    absolute = (folder / "deep" / "one.py").resolve()
    assert load_target(f"{absolute}:parts").class_names is None


def test_a_package_and_its_submodule(folder):
    write(folder, "shop/__init__.py", "")
    write(folder, "shop/model.py", GOOD)
    load_target("shop.model:named")
    assert "did you mean 'shop.model'?" in refused("shop.modell:named")


def test_imports_inside_the_function_work(folder):
    write(folder, "later_part.py", GOOD)
    write(folder, "lazy_one.py", "def make():\n    from later_part import parts\n    return parts()\n")
    load_target("lazy_one:make")


def test_a_file_named_like_a_known_module_is_the_file(folder):
    import random

    write(folder, "random.py", GOOD)
    load_target("random.py:parts")
    assert sys.modules["random"] is random


def test_a_module_that_changes_the_path_leaves_no_trace(folder):
    write(folder, "rude.py", "import sys\nsys.path.append('..')\n" + dedent(GOOD))
    load_target("rude:parts")  # the fixture compares sys.path


@pytest.mark.parametrize("spec", ["zoo", "", ":f", "zoo:", "zoo.py", "zoo:f()", "C:\\zoo.py"])
def test_no_function_is_named(folder, spec):
    assert "names no function: write module:function or path/to/file.py:function" in refused(spec)


def test_what_does_not_exist(folder):
    write(folder, "zoological.py", GOOD)
    assert "no module 'zoologica' here or installed (did you mean 'zoological'?)" in refused("zoologica:parts")
    assert "no Python file 'zoologica.py' (did you mean 'zoological.py'?)" in refused("zoologica.py:parts")
    assert "no Python file 'nowhere/zoo.py'" in refused("nowhere/zoo.py:parts")
    assert "has no function 'part' (did you mean 'parts'?)" in refused("zoological:part")
    assert re.search(r"there is no module 'no_such_thing' here", refused("no_such_thing.inner:f"))


def test_a_module_that_fails(folder):
    write(folder, "bad_import.py", "import torch\nimport no_such_module_at_all\n")
    write(folder, "bad_line.py", "import torch\n\nx = torch.zeros(2) @ torch.zeros(3)\n")
    write(folder, "bad_syntax.py", "def f(:\n")
    write(folder, "bad_exit.py", "import sys\nsys.exit('usage: me')\n")
    told = refused("bad_import:f")
    assert "importing bad_import raised ModuleNotFoundError: No module named 'no_such_module_at_all'" in told
    assert "(bad_import.py, line 2)" in told
    assert "(bad_line.py, line 3)" in refused("bad_line.py:f")
    assert "SyntaxError" in refused("bad_syntax:f")
    assert "line 1" in refused("bad_syntax.py:f")
    assert "raised SystemExit: usage: me (bad_exit.py, line 2)" in refused("bad_exit:f")
    assert not [name for name in sys.modules if "bad_" in name and "landscape_lab_target" in name]


def test_a_function_that_fails(folder):
    write(
        folder,
        "failing.py",
        """
        import torch

        def needs(width):
            return None

        def breaks():
            return torch.zeros(2) @ torch.zeros(3)

        def long():
            raise RuntimeError("a\\nb " * 500)

        thing = 3
        model = torch.nn.Linear(1, 1)
        """,
    )
    told = refused("failing:needs")
    assert "TypeError: needs() missing 1 required positional argument: 'width'" in told
    assert "it is called without arguments" in told
    assert "(failing.py, line 8)" in refused("failing:breaks")
    assert "RuntimeError: a b a b" in refused("failing:long")
    assert "'thing' in" in refused("failing:thing")
    assert "is an int, not a function" in refused("failing:thing")
    assert "is a Linear, not a function" in refused("failing:model")


def test_wrong_returns(folder):
    write(
        folder,
        "wrong.py",
        """
        from torch import nn

        def nothing(): pass
        def alone(): return nn.Linear(1, 1)
        def two(): return nn.Linear(1, 1), nn.MSELoss()
        def typo(): return {"model": nn.Linear(1, 1), "lose": nn.MSELoss(), "batches": []}
        def partly(): return {"model": nn.Linear(1, 1)}
        def generator(): yield 1
        def empty(): return nn.Linear(1, 1), nn.MSELoss(), []
        class Loader:
            def __iter__(self): return iter([1 / 0])
        def late(): return nn.Linear(1, 1), nn.MSELoss(), Loader()
        """,
    )
    assert "returned None: it must return a Target" in refused("wrong:nothing")
    assert "returned a Linear" in refused("wrong:alone")
    assert "returned 2 things" in refused("wrong:two")
    assert "unknown key 'lose' (did you mean 'loss'?)" in refused("wrong:typo")
    assert "no loss and no batches" in refused("wrong:partly")
    assert "returned a generator" in refused("wrong:generator")
    assert refused("wrong:empty").startswith("target wrong:empty: the batches are empty")
    assert "reading the batches of target wrong:late raised ZeroDivisionError" in refused("wrong:late")


def frozen():
    return nn.Linear(2, 3).requires_grad_(False)


class Once:
    """Readable a single time, though no iterator."""

    def __init__(self):
        self.source = iter([data()])

    def __iter__(self):
        return self.source


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": nn.Linear}, r"the model is the class Linear: make one"),
        ({"model": "resnet"}, "the model must be a torch.nn.Module, got a str"),
        ({"model": frozen()}, "no trainable parameters, all are frozen"),
        ({"model": nn.ReLU()}, "no trainable parameters, it has none at all"),
        ({"model": nn.LazyLinear(3)}, "run one batch through it first"),
        (
            {"loss": nn.CrossEntropyLoss},
            r"the loss is the class CrossEntropyLoss: make one of it, CrossEntropyLoss\(\)",
        ),
        ({"loss": "mse"}, "the loss must be a function"),
        ({"batches": iter([data()])}, "can be read only once"),
        ({"batches": Once()}, "can be read only once"),
        ({"batches": []}, "the batches are empty"),
        ({"batches": data(0)}, "the batches are empty"),
        ({"batches": 3}, "must be a pair of tensors, a list of pairs or a loader, got an int"),
        ({"batches": TensorDataset(*data())}, "wrap it, torch.utils.data.DataLoader"),
        ({"batches": [{"image": 1}]}, r"must be a pair of tensors \(inputs, targets\), got dict"),
        ({"batches": [(torch.zeros(3, 2), torch.zeros(4))]}, "one target for each input"),
        ({"batches": [(torch.zeros(3, 2), torch.tensor(1.0))]}, "one target for each input"),
        ({"class_names": "abc"}, "class_names must be a list of texts"),
        ({"class_names": [0, 1, 2]}, "class_names must be a list of texts"),
    ],
)
def test_what_is_refused(change, message):
    good = {"model": nn.Linear(2, 3), "loss": nn.CrossEntropyLoss(), "batches": data()}
    Target(**good)
    with pytest.raises(InputError, match=message):
        Target(**{**good, **change})


def target_of(batches, names=None):
    return Target(nn.Linear(2, 3), nn.CrossEntropyLoss(), batches, names)


def test_lists_and_loaders_come_back_in_their_order():
    inputs, targets = data(7)
    batches = [(inputs[:3], targets[:3]), (inputs[3:], targets[3:])]
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=2)
    for given in (batches, loader, (inputs, targets)):
        found = target_of(given).tensors()
        assert torch.equal(found[0], inputs)
        assert torch.equal(found[1], targets)


def test_a_shuffling_loader_keeps_one_order_and_the_global_random_state():
    target = target_of(DataLoader(TensorDataset(*data(50)), batch_size=8, shuffle=True))
    state = torch.get_rng_state()
    inputs, targets = target.tensors()
    torch.rand(3)
    assert torch.equal(target.class_labels(), targets)
    assert torch.equal(target.tensors()[0], inputs)
    torch.set_rng_state(state)
    target.tensors()
    assert torch.equal(torch.get_rng_state(), state)


def test_shapes_that_do_not_fit_together():
    target = target_of([(torch.zeros(2, 5), torch.zeros(2).long()), (torch.zeros(2, 4), torch.zeros(2).long())])
    with pytest.raises(InputError, match=r"the inputs of different batches have different shapes, \(5,\) and \(4,\)"):
        target.tensors()
    assert target.class_labels().tolist() == [0] * 4
    later = target_of([data(), (torch.zeros(2, 2), torch.zeros(3).long())])
    with pytest.raises(InputError, match="one target for each input"):
        later.tensors()


def test_targets_that_are_no_classes():
    with pytest.raises(
        InputError, match=r"shape \(6,\) and type float32: give labels, or analyse all samples together"
    ):
        target_of((data()[0], torch.zeros(6))).class_labels()
    with pytest.raises(InputError, match="one integer target a sample"):
        target_of((data()[0], torch.zeros(6, 3).long())).class_labels()
    with pytest.raises(InputError, match="there is a target 2, but only 2 class names"):
        target_of(data(), ("a", "b")).class_labels()


def test_the_current_folder_is_that_of_the_call(folder):
    (folder / "inner").mkdir()
    os.chdir(folder / "inner")
    write(folder, "inner/only_inside.py", GOOD)
    load_target("only_inside:parts")
