"""A model that is not ours: loaded from a user's module by the name of a function."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import os
import pkgutil
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.data import Dataset, IterableDataset

from landscape_lab.analysis.batches import Loss, batches_of
from landscape_lab.errors import InputError, nearest
from landscape_lab.packing import Packing, packing_of

__all__ = ["Target", "joined", "load_target", "module_named"]

FIELDS = (
    *("model", "loss", "batches", "class_names", "test_batches"),
    *("labels", "test_labels", "groups", "encoder", "batch_size"),
)
RETURNS = "it must return a Target, (model, loss, batches), or a mapping with these keys"


@dataclass(frozen=True, eq=False)
class Target:
    """A model, its loss and the samples that it is analysed on.

    Attributes:
        model: any module with trainable parameters; never changed.
        loss: ``loss(output, target)``, ``(B,)`` values or their mean.
        batches: a pair of tensors, a list of batches, or a loader. The inputs of a model that takes several are tuples,
            or mappings of names to tensors.
        class_names: the name of each class, by its number.
        test_batches: other samples, like ``batches``.
        labels: ``(n,)`` integers, the class of each sample, where the targets are something else (sequences, numbers).
        test_labels: the same of ``test_batches``.
        groups: sets of classes by name, such as ``{"rare animals": (3, 7)}``, to be named like ``head`` and ``tail``.
        encoder: the part of the model that gives features ``(B, D)``: a module's name such as ``"backbone.pool"``;
            ``None``: what enters the model's last linear layer.
        batch_size: of training, for what depends on it.

    Raises:
        InputError: one of these is something else; the batches are empty or can be read only once.

    Example:
        >>> data = torch.zeros(4, 2), torch.tensor([0, 1, 1, 0])
        >>> Target(nn.Linear(2, 2), nn.CrossEntropyLoss(), data, ("cat", "dog")).class_labels()
        tensor([0, 1, 1, 0])
    """

    model: nn.Module
    loss: Loss
    batches: Any
    class_names: tuple[str, ...] | None = None
    test_batches: Any = None
    labels: Tensor | None = None
    test_labels: Tensor | None = None
    groups: Mapping[str, Sequence[int]] | None = None
    encoder: str | None = None
    batch_size: int = 128
    # The batches in one order, also those of a loader that shuffles: so tensors and labels belong together.
    _readable: Iterable[tuple[Tensor, Tensor]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _check_model(self.model)
        if isinstance(self.loss, type):
            raise InputError(f"the loss is the class {self.loss.__name__}: make one of it, {self.loss.__name__}()")
        if not callable(self.loss):
            raise InputError(f"the loss must be a function of (output, target), got {_kind(self.loss)}")
        if not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise InputError(f"batch_size must be a number of samples, got {self.batch_size!r}")
        self._pack()
        object.__setattr__(self, "_readable", _checked_batches(self.batches))
        object.__setattr__(self, "class_names", _checked_names(self.class_names))
        _check_groups(self.groups)
        if self.test_batches is not None:
            _checked_batches(self.test_batches)
        if self.encoder is not None:
            module_named(self.model, self.encoder)

    def _pack(self) -> None:
        """Make one tensor of the inputs of a model that takes several."""
        packing = _packing(self.batches)
        if packing is None:
            return
        model = copy.deepcopy(self.model)
        packing.attach(model)
        object.__setattr__(self, "model", model)
        for name in ("batches", "test_batches"):
            batches = getattr(self, name)
            if batches is not None:
                with torch.random.fork_rng(devices=[]):
                    packed = [(packing.pack(inputs), targets) for inputs, targets in _one_by_one(batches)]
                object.__setattr__(self, name, packed)

    def tensors(self) -> tuple[Tensor, Tensor]:
        """All batches as one pair on the CPU, in their order: inputs ``(n, …)`` and targets ``(n, …)``.

        Raises:
            InputError: as :func:`joined`.
        """
        return joined(self._readable)

    def class_labels(self) -> Tensor:
        """The class of each sample, ``(n,)``, int64, on the CPU, in the batches' order.

        Raises:
            InputError: the targets are no class numbers, or there are more classes than names.
        """
        return self.labels_of(_joined([targets.detach().cpu() for _, targets in self._readable], "targets"))

    def labels_of(self, targets: Tensor, test: bool = False) -> Tensor:
        """The class of each sample with these ``targets``, all of ``batches`` or of ``test_batches``.

        Raises:
            InputError: the targets are no class numbers, or there are more classes than names.
        """
        given = self.test_labels if test else self.labels
        labels = targets if given is None else given.detach().cpu()
        if labels.dim() != 1 or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise InputError(
                f"classes need one integer target a sample, but the targets have shape {tuple(labels.shape)} and type "
                f"{str(labels.dtype).removeprefix('torch.')}: give labels, or analyse all samples together"
            )
        if len(labels) != len(targets):
            raise InputError(f"there are {len(labels)} labels for {len(targets)} samples: give one for each, in order")
        labels = labels.long()
        if self.class_names is not None and len(labels) and int(labels.max()) >= len(self.class_names):
            raise InputError(
                f"there is a target {int(labels.max())}, but only {len(self.class_names)} class names, from 0: name all"
            )
        return labels


def joined(batches: Any) -> tuple[Tensor, Tensor]:
    """All batches of a :class:`Target` as one pair of tensors on the CPU, in their order.

    Raises:
        InputError: inputs or targets of different batches have different shapes, or a batch has not one target
            for each input.
    """
    parts = [(inputs.detach().cpu(), targets.detach().cpu()) for inputs, targets in batches_of(batches)]
    for inputs, targets in parts:
        _check_lengths(inputs, targets)
    return _joined([inputs for inputs, _ in parts], "inputs"), _joined([targets for _, targets in parts], "targets")


def module_named(model: nn.Module, name: str) -> nn.Module:
    """The submodule of this name.

    Raises:
        InputError: there is none.
    """
    known: dict[str, nn.Module] = dict(model.named_modules())
    if name not in known:
        raise InputError(f"the model has no module {name!r}{nearest(name, [each for each in known if each])}")
    return known[name]


def load_target(spec: str) -> Target:
    """Call a user's function and take what it returns as the model to analyse.

    The current folder, and that of the file, can be imported from meanwhile; ``sys.path`` is put back afterwards.

    Args:
        spec: ``"module:function"`` or ``"path/to/file.py:function"``. The function is called without arguments and
            returns a :class:`Target`, a tuple ``(model, loss, batches)`` or ``(model, loss, batches, class_names)``,
            or a mapping with these keys.

    Raises:
        InputError: the module or the function does not exist or fails, or returns something else; in one line.
    """
    place, _, name = spec.rpartition(":")
    if not place or not name.isidentifier():
        raise InputError(f"target {spec!r} names no function: write module:function or path/to/file.py:function")
    is_file = place.endswith(".py") or "/" in place or os.sep in place
    with _importable(*([Path(place).resolve().parent] if is_file else []), Path.cwd()):
        module = _load_file(Path(place)) if is_file else _load_module(place)
        function = _function(module, name)
        try:
            returned = function()
        except InputError as error:
            raise InputError(f"target {spec}: {error}") from error
        except (Exception, SystemExit) as error:
            raise InputError(
                f"target {spec} raised {_told(error, module.__file__)}; it is called without arguments"
            ) from error
        try:
            # Reading the first batch may run the user's code too.
            return _target(returned)
        except InputError as error:
            raise InputError(f"target {spec}: {error}") from error
        except (Exception, SystemExit) as error:
            raise InputError(f"reading the batches of target {spec} raised {_told(error, module.__file__)}") from error


# -- importing -----------------------------------------------------------------------------------------------


@contextmanager
def _importable(*folders: Path) -> Iterator[None]:
    before = list(sys.path)
    sys.path[:0] = dict.fromkeys(map(str, folders))
    importlib.invalidate_caches()  # the folders may have changed since they were last looked at
    try:
        yield
    finally:
        sys.path[:] = before


def _load_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing != name and not name.startswith(f"{missing}."):
            raise InputError(f"importing {name} raised {_told(error)}") from error
        raise InputError(
            f"there is no module {missing!r} here or installed{nearest(missing, _siblings(missing))}: "
            "run from its folder, or write path/to/file.py:function"
        ) from error
    except (Exception, SystemExit) as error:
        raise InputError(f"importing {name} raised {_told(error)}") from error


def _siblings(name: str) -> list[str]:
    """The modules that exist in the place where ``name`` was looked for."""
    parent = name.rpartition(".")[0]
    if not parent:
        return [module.name for module in pkgutil.iter_modules()]
    return [
        f"{parent}.{module.name}" for module in pkgutil.iter_modules(getattr(sys.modules.get(parent), "__path__", []))
    ]


def _load_file(path: Path) -> ModuleType:
    if path.suffix != ".py" or not path.is_file():
        near = nearest(path.name, [file.name for file in path.parent.glob("*.py")])
        raise InputError(f"there is no Python file {str(path)!r}{near}")
    # A name of its own: a file called test.py or random.py must not stand in for the module of that name.
    name = f"landscape_lab_target_{path.stem}"
    found = importlib.util.spec_from_file_location(name, path.resolve())
    if found is None or found.loader is None:
        raise InputError(f"{str(path)!r} cannot be imported: is it a Python file?")
    module = importlib.util.module_from_spec(found)
    before = sys.modules.get(name)
    sys.modules[name] = module  # dataclasses and pickle look their module up
    try:
        found.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
        raise InputError(f"importing {path} raised {_told(error, module.__file__)}") from error
    return module


def _function(module: ModuleType, name: str) -> Any:
    where = module.__file__ or module.__name__
    try:
        function = getattr(module, name)
    except AttributeError:
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise InputError(f"{where} has no function {name!r}{nearest(name, known)}") from None
    if not callable(function) or isinstance(function, nn.Module):
        raise InputError(f"{name!r} in {where} is {_kind(function)}, not a function: write one that returns it")
    return function


def _told(error: BaseException, file: str | None = None) -> str:
    """The type, message and place of an exception, in one line."""
    words = " ".join(str(error).split())
    told = f"{type(error).__name__}: {words[:300]}{'…' * (len(words) > 300)}" if words else type(error).__name__
    if isinstance(error, SyntaxError):  # its message names the line
        return told
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    own = [frame for frame in frames if frame.filename == file]
    # The last line of the user's file says more than where a library stopped.
    place = (own or [frame for frame in frames if frame.filename != __file__])[-1:]
    return f"{told} ({Path(place[0].filename).name}, line {place[0].lineno})" if place else told


# -- what came back ------------------------------------------------------------------------------------------


def _target(returned: object) -> Target:
    if isinstance(returned, Target):
        return returned
    if isinstance(returned, Mapping):
        for key in returned:
            if key not in FIELDS:
                raise InputError(
                    f"the mapping has an unknown key {key!r}{nearest(str(key), FIELDS)}; known are {', '.join(FIELDS)}"
                )
        missing = [name for name in FIELDS[:3] if name not in returned]
        if missing:
            raise InputError(f"the mapping has no {' and no '.join(missing)}: {RETURNS}")
        return Target(**returned)
    if isinstance(returned, tuple):
        if len(returned) not in (3, 4):
            raise InputError(f"the function returned {len(returned)} things: {RETURNS}")
        return Target(*returned)
    raise InputError(f"the function returned {_kind(returned)}: {RETURNS}")


def _check_model(model: object) -> None:
    if isinstance(model, type):
        raise InputError(f"the model is the class {model.__name__}: make one of it, {model.__name__}(…)")
    if not isinstance(model, nn.Module):
        raise InputError(f"the model must be a torch.nn.Module, got {_kind(model)}")
    parameters = list(model.parameters())
    if any(is_lazy(parameter) for parameter in parameters):
        raise InputError("the model has lazy parameters without a shape: run one batch through it first")
    if not any(parameter.requires_grad and parameter.numel() for parameter in parameters):
        why = "all are frozen: set requires_grad" if parameters else "it has none at all"
        raise InputError(f"the model has no trainable parameters, {why}")


def _packing(batches: Any) -> Packing | None:
    """How the inputs of these batches are packed; ``None`` where they are single tensors, or not to be read here."""
    if isinstance(batches, Dataset) or not isinstance(batches, Iterable):
        return None
    with torch.random.fork_rng(devices=[]):  # a loader draws a seed when its reading begins
        if iter(batches) is iter(batches):
            return None  # what can be read once only shall not be read here
        first = next(iter(_one_by_one(batches)), None)
    if not isinstance(first, tuple | list) or len(first) != 2 or not isinstance(first[0], tuple | list | Mapping):
        return None  # what else it may be is checked later
    return packing_of(first[0])


def _one_by_one(batches: Any) -> Iterable[Any]:
    """The batches; a pair of inputs and a tensor of targets is a single one."""
    is_pair = isinstance(batches, tuple) and len(batches) == 2 and isinstance(batches[1], Tensor)
    return [batches] if is_pair else batches


def _checked_batches(batches: Any) -> Iterable[tuple[Tensor, Tensor]]:
    if isinstance(batches, Dataset) and not isinstance(batches, IterableDataset):
        raise InputError(
            f"the batches are a data set, {type(batches).__name__}, which gives single samples: "
            "wrap it, torch.utils.data.DataLoader(dataset, batch_size=256)"
        )
    if not isinstance(batches, Iterable) and not hasattr(batches, "__getitem__"):
        raise InputError(f"the batches must be a pair of tensors, a list of pairs or a loader, got {_kind(batches)}")
    readable = batches_of(batches)
    first = next(iter(readable), None)
    if first is None:
        raise InputError("the batches are empty: give at least one sample")
    _check_lengths(*first)
    if next(iter(readable), None) is None:
        raise InputError("the batches can be read only once: give a list, a DataLoader or a pair of tensors")
    return readable


def _checked_names(names: Any) -> tuple[str, ...] | None:
    if names is None:
        return None
    if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise InputError(f"class_names must be a list of texts, one for each class, got {_kind(names)}")
    return tuple(names)


def _check_groups(groups: Any) -> None:
    if groups is None:
        return
    if not isinstance(groups, Mapping) or not all(
        isinstance(name, str)
        and isinstance(classes, list | tuple | range)
        and len(classes)
        and all(isinstance(c, int) and c >= 0 for c in classes)
        for name, classes in groups.items()
    ):
        raise InputError(f"groups must be a mapping of names to lists of class numbers, got {groups!r:.80}")
    wrong = next((name for name in groups if "," in name or name.isdigit() or name in ("each", "groups", "all")), None)
    if wrong is not None:
        raise InputError(f"a group cannot be called {wrong!r}: that means other classes, or several")


def _check_lengths(inputs: Tensor, targets: Tensor) -> None:
    if not inputs.dim() or not targets.dim() or len(inputs) != len(targets):
        raise InputError(
            f"a batch has inputs of shape {tuple(inputs.shape)} and targets of shape {tuple(targets.shape)}: "
            "give one target for each input"
        )


def _joined(parts: Sequence[Tensor], noun: str) -> Tensor:
    shapes = list(dict.fromkeys(tuple(part.shape[1:]) for part in parts))
    if len(shapes) > 1:
        raise InputError(
            f"the {noun} of different batches have different shapes, {shapes[0]} and {shapes[1]}: "
            "pad or crop them to one shape"
        )
    return torch.cat(list(parts))


def _kind(thing: object) -> str:
    """What a thing is: ``a list``, ``an int``, ``None``."""
    if thing is None:
        return "None"
    name = type(thing).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
