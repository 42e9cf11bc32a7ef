"""What an analysis runs on: batches of inputs and targets, and a loss for each sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeGuard

import torch
from torch import Tensor

from landscape_lab.errors import InputError

__all__ = ["Batches", "Loss", "batches_of", "count_samples", "per_sample", "tensor_output"]

Loss = Callable[[Tensor, Tensor], Tensor]
Batches = Iterable[tuple[Tensor, Tensor]] | tuple[Tensor, Tensor]


def batches_of(batches: Batches, batch_size: int = 256) -> Iterable[tuple[Tensor, Tensor]]:
    """Return batches that can be read again and again, whatever the caller gave.

    Args:
        batches: a pair of tensors of equal length, which is split without copying; a list of batches; or a
            loader such as ``torch.utils.data.DataLoader``. A loader keeps its own batches. It sees the same
            random numbers at every reading, and takes none from the global generator.
        batch_size: samples in each part of a pair of tensors.

    Raises:
        InputError: the lengths of a pair differ, or the batches can be read only once.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be positive, got {batch_size}")
    if _is_pair(batches):
        inputs, targets = batches
        if len(inputs) != len(targets):
            raise InputError(f"{len(inputs)} inputs but {len(targets)} targets: give one target for each input")
        parts = zip(inputs.split(batch_size), targets.split(batch_size), strict=True)
        return [(some, wanted) for some, wanted in parts if len(some)]
    if isinstance(batches, list | tuple):
        return [_pair(batch) for batch in batches]
    if isinstance(batches, Iterator):
        raise InputError("the batches can be read only once: give a list, a DataLoader or a pair of tensors")
    return _Replayed(batches)


class _Replayed:
    """A loader whose every reading starts from the same state of the global random generator."""

    # Even an unshuffled DataLoader draws a seed from the global generator; and a shuffled one shall give one order.

    def __init__(self, loader: Iterable[tuple[Tensor, Tensor]], state: Tensor | None = None) -> None:
        self._loader = loader
        self._state = torch.get_rng_state() if state is None else state

    def drawn_anew(self) -> _Replayed:
        """The same loader from another state of the generator."""
        return _Replayed(self._loader, torch.Generator().manual_seed(1).get_state())

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        state, source, batch = self._state, None, None
        while True:
            outside = torch.get_rng_state()
            torch.set_rng_state(state)
            try:
                source = iter(self._loader) if source is None else source
                batch = next(source, None)
                state = torch.get_rng_state()
            finally:
                torch.set_rng_state(outside)
            if batch is None:
                return
            yield _pair(batch)


def _is_pair(batch: object) -> TypeGuard[tuple[Tensor, Tensor]]:
    parts = batch if isinstance(batch, tuple | list) else ()
    return len(parts) == 2 and all(isinstance(part, Tensor) for part in parts)


def _pair(batch: object) -> tuple[Tensor, Tensor]:
    if _is_pair(batch):
        inputs, targets = batch
        return inputs, targets
    raise InputError(f"each batch must be a pair of tensors (inputs, targets), got {type(batch).__name__}")


def count_samples(batches: Iterable[tuple[Tensor, Tensor]]) -> int:
    """Count the samples, and make sure that a loader gives the same ones at every reading.

    Raises:
        InputError: there are no samples, or two readings differ.
    """
    if isinstance(batches, list):
        count = sum(len(inputs) for inputs, _ in batches)
    else:
        count, sketch = _sketch(batches)
        # From another random state: with the same one, an augmentation would go unnoticed.
        again, other = _sketch(batches.drawn_anew() if isinstance(batches, _Replayed) else batches)
        # A shuffled order changes the sum's rounding only, of relative size 1e-13 for 1e6 samples.
        if count != again or not torch.allclose(sketch, other, rtol=1e-9, atol=1e-9, equal_nan=True):
            raise InputError("the batches change between readings: turn random augmentation and drop_last off")
    if not count:
        raise InputError("the subset holds no samples: choose classes that the data contain")
    return count


def _sketch(batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[int, Tensor]:
    """The number of samples, and a sum over samples that does not depend on their order."""
    count, sketch = 0, torch.zeros(2, dtype=torch.float64)
    for inputs, targets in batches:
        count += len(inputs)
        flat = inputs.detach().reshape(len(inputs), -1).double()
        # Weights that vary with the position notice a flip or a shift, which keep the plain sum.
        weights = torch.arange(flat.shape[1], dtype=torch.float64, device=flat.device).cos()
        sketch += torch.stack([(flat @ weights).sum().cpu(), targets.detach().double().sum().cpu()])
    return count, sketch


def per_sample(loss: Loss, output: Tensor, target: Tensor) -> Tensor:
    """Evaluate ``loss`` and insist on one value for each sample, of shape ``(B,)``.

    Raises:
        InputError: the loss gives anything else, such as a mean over the batch.
    """
    losses = loss(output, target)
    if losses.shape != target.shape[:1]:
        raise InputError(
            f"the loss must give ({len(target)},) values, one a sample, but gave shape {tuple(losses.shape)}: "
            "use reduction='none'"
        )
    return losses


def tensor_output(output: object) -> Tensor:
    """Insist on a model whose output is a tensor.

    Raises:
        InputError: it is something else, such as the outputs of Hugging Face's models; says what helps.
    """
    if isinstance(output, Tensor):
        return output
    part = ".logits" if hasattr(output, "logits") else "[0]"
    raise InputError(
        f"the model must return a tensor, got {type(output).__name__}: "
        f"model.register_forward_hook(lambda module, inputs, output: output{part}) makes it one"
    )
