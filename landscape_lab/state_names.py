"""Names of parameters and buffers without what wrappers put before them, and state dicts made to fit a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from landscape_lab.errors import InputError, nearest

__all__ = ["COMPILED", "PREFIXES", "clean_names", "fitted", "outer_prefixes", "under_own_names"]

COMPILED = "_orig_mod."
PREFIXES = ("module.", "model.")
"""What DistributedDataParallel and LightningModules put before the names; ``torch.compile`` puts :data:`COMPILED`."""


def clean_names(model: nn.Module) -> dict[str, str]:
    """Each name in the model's state dict, and the name that it has without DDP's and ``torch.compile``'s wrappers.

    Example:
        >>> clean_names(torch.compile(nn.Linear(1, 1)))
        {'_orig_mod.weight': 'weight', '_orig_mod.bias': 'bias'}
    """
    wrappers = {
        f"{path}.{child}".lstrip(".")
        for path, module in model.named_modules(remove_duplicate=False)
        for child in _inside(module)
    }
    names = {}
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor):
            parts = name.split(".")
            names[name] = ".".join(p for k, p in enumerate(parts) if ".".join(parts[: k + 1]) not in wrappers)
    return names


def _inside(module: nn.Module) -> tuple[str, ...]:
    if isinstance(module, DistributedDataParallel | DataParallel):
        return ("module",)
    # torch.compile's class is private; what it keeps the module under is not going to be used by anybody else.
    return ("_orig_mod",) if "_orig_mod" in module._modules else ()


def outer_prefixes(names: Sequence[str], others: Sequence[str]) -> tuple[str, str] | None:
    """What stands before all ``names``, and before all ``others``, where one is a part of what the other names.

    Returns:
        The two prefixes, one of them empty; ``None``: the names differ otherwise, or in their order.

    Example:
        >>> outer_prefixes(["model.0.weight", "model.0.bias"], ["0.weight", "0.bias"])
        ('model.', '')
    """
    if not names or not others or len(names) != len(others):
        return None
    longer, shorter = max(names[0], others[0], key=len), min(names[0], others[0], key=len)
    prefix = longer.removesuffix(shorter)
    if longer != prefix + shorter or (prefix and not prefix.endswith(".")):
        return None
    one, other = (prefix, "") if longer == names[0] else ("", prefix)
    same = all(other + name == one + alike for name, alike in zip(names, others, strict=True))
    return (one, other) if same else None


def under_own_names(tensors: Mapping[str, Tensor], trained: Sequence[str], model: nn.Module) -> dict[str, Tensor]:
    """Tensors by the names that ``model`` has for them: of a part of what was trained, or of a module around it.

    What was recorded beside that part is left out. Where the parameters' names differ otherwise, nothing changes.

    Args:
        tensors: parameters and buffers.
        trained: which of them were trained, in the order of the model's parameters.
        model: whose names are wanted.
    """
    names = clean_names(model)
    own = [names[name] for name, parameter in model.named_parameters() if parameter.requires_grad]
    prefixes = outer_prefixes(trained, own)
    if prefixes is None:
        return dict(tensors)
    theirs, ours = prefixes
    wanted = {full: theirs + name.removeprefix(ours) for full, name in names.items() if name.startswith(ours)}
    found = {full: tensors[name] for full, name in wanted.items() if name in tensors}
    known = set(wanted.values())
    unknown = {n: tensor for n, tensor in tensors.items() if n.startswith(theirs) and n not in known}
    return {**unknown, **found}


def fitted(
    tensors: Mapping[str, Tensor],
    model: nn.Module,
    prefix: str | None = None,
    defaults: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """A state dict with the names of ``model``, complete and in its order; values are not copied.

    Names lose ``module.``, ``_orig_mod.`` and ``model.`` where that makes them the model's. What old or thrifty files
    leave out is filled in: the second name of a tied parameter, and BatchNorm's counter of batches.

    Args:
        tensors: of any model.
        model: whose names and shapes are expected.
        prefix: keep only the names that start so, without it.
        defaults: taken for names that are missing.

    Raises:
        InputError: a name is missing or unknown, or a shape is another; says which, what is expected and what is found.
    """
    state = model.state_dict()
    wanted = {clean: state[name] for name, clean in clean_names(model).items()}
    given = {name.replace(COMPILED, ""): value for name, value in tensors.items()}
    if "n_averaged" not in wanted:  # torch.optim.swa_utils.AveragedModel counts there
        given.pop("n_averaged", None)
    if prefix is None:
        given = _stripped(given, wanted)
    else:
        given = {name.removeprefix(prefix): value for name, value in given.items() if name.startswith(prefix)}
        if not given:
            raise InputError(f"no name starts with {prefix!r}; names are such as {_some(tensors)}")
    found = {}
    for name, own in wanted.items():
        value = given[name] if name in given else _filled(name, own, wanted, given)
        value = (defaults or {}).get(name) if value is None else value
        if value is None:
            raise InputError(f"{name!r} is missing: expected {_told(own)}, found no such name{nearest(name, given)}")
        if value.shape != own.shape:
            raise InputError(f"{name!r} has another shape: expected {_told(own)}, found {_told(value)}")
        found[name] = value
    unknown = [name for name in given if name not in wanted]
    if unknown:
        raise InputError(
            f"{unknown[0]!r} is unknown to the model: found {_told(given[unknown[0]])}, expected no such "
            f"name{nearest(unknown[0], wanted)}"
        )
    return found


def _stripped(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes that stand before all names, if then more names are the model's than before."""
    best, names = dict(given), dict(given)
    for _ in range(4):  # a compiled, wrapped model inside a LightningModule
        prefix = next((each for each in PREFIXES if names and all(name.startswith(each) for name in names)), None)
        if prefix is None:
            break
        names = {name.removeprefix(prefix): value for name, value in names.items()}
        if len(names.keys() & wanted.keys()) > len(best.keys() & wanted.keys()):
            best = names
    return best


def _filled(name: str, own: Tensor, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Tensor | None:
    if name.endswith("num_batches_tracked"):  # state dicts of before PyTorch 0.4.1; torch itself sets zero
        return torch.zeros_like(own)
    same = (n for n, other in wanted.items() if n in given and other is not own and _shares(own, other))
    return next((given[n] for n in same), None)


def _shares(one: Tensor, other: Tensor) -> bool:
    return bool(one.numel()) and one.data_ptr() == other.data_ptr() and one.shape == other.shape


def _told(tensor: Tensor) -> str:
    return f"shape {tuple(tensor.shape)}"


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(map(repr, listed[:3])) + ("…" if len(listed) > 3 else "")
