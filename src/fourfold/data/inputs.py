"""The door of the public functions: images, labels and outputs as people have them.

What has one meaning is converted, everything else is one message.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fourfold.errors import InputError

Loss = Callable[[Any, Any], Tensor]
# A tensor, a tuple of tensors, or a dictionary of them, all with one entry per example along axis
# 0: what a module takes as model(x), model(*x) or model(**x). Targets may be any of these, too.
Input = Any


def as_tensor(values: Any, what: str) -> Tensor:
    """Return a tensor, or what a NumPy array or a list of numbers holds as one."""
    if isinstance(values, Tensor):
        return values.detach()
    reason = type(values).__name__
    if isinstance(values, (np.ndarray, list, tuple)):
        try:
            return torch.as_tensor(np.asarray(values))
        # Strings, objects, rows of different length; tensors that need a gradient.
        except (TypeError, ValueError, RuntimeError) as error:
            reason += f" ({error})"
    raise InputError(f"{what} are {reason}; give a tensor or a NumPy array of numbers.")


def map_input(function: Callable[[Tensor], Any], inputs: Input) -> Any:
    """Apply a function to each tensor of an input."""
    if isinstance(inputs, Mapping):
        return {name: function(part) for name, part in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return tuple(function(part) for part in inputs)
    return function(inputs)


def copied(inputs: Input) -> Input:
    """Return a copy for code of the caller's, which may write to its input."""
    return map_input(Tensor.clone, inputs)


def parts_of(inputs: Input) -> list[Tensor]:
    """Return the tensors of an input."""
    parts: list[Tensor] = []
    map_input(parts.append, inputs)
    return parts


def pick(inputs: Input, index: Tensor | slice) -> Input:
    """Return some examples."""
    return map_input(lambda part: part[index], inputs)


def join_inputs(batches: Sequence[Input]) -> Input:
    """Return what the batches hold, one after the other."""
    first = batches[0]
    if isinstance(first, Mapping):
        return {name: torch.cat([batch[name] for batch in batches]) for name in first}
    if isinstance(first, (tuple, list)):
        return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))
    return torch.cat(list(batches))


def split_input(inputs: Input, count: int) -> list[Input]:
    """Return `count` equal shares of a batch, one after the other, as views."""
    size = len(parts_of(inputs)[0]) // count
    return [pick(inputs, slice(k * size, (k + 1) * size)) for k in range(count)]


def as_input_tensors(values: Any, what: str) -> Input:
    """Return an input whose parts are tensors or arrays, of equal length along axis 0."""
    if isinstance(values, Mapping):
        inputs: Input = {k: as_tensor(v, f"entry {k!r} of {what}") for k, v in values.items()}
    elif isinstance(values, tuple):
        inputs = tuple(as_tensor(v, f"part {k} of {what}") for k, v in enumerate(values))
    else:
        inputs = as_tensor(values, what)
    parts = parts_of(inputs)
    lengths = {part.shape[:1] for part in parts}
    if len(lengths) != 1 or torch.Size() in lengths:
        raise InputError(
            f"{what} are tensors of the shapes {[tuple(part.shape) for part in parts]}; give "
            "tensors with one entry per example along axis 0."
        )
    return inputs


def class_labels(labels: Any, n: int, what: str = "labels") -> Tensor:
    """Return the labels of `n` images as (n,) int64 class indices.

    Taken are integers of any width, booleans, whole floating numbers, and the shape (n, 1).
    """
    given = as_tensor(labels, what)
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if given.ndim != 1:
        hint = " (of one-hot labels take labels.argmax(1))" if given.ndim == 2 else ""
        raise InputError(
            f"{what} have the shape {tuple(given.shape)}; give one class index per image, of shape "
            f"({n},){hint}."
        )
    if len(given) != n:
        raise InputError(f"there are {n} images but {len(given)} {what}; give one per image.")
    indices = given.to(torch.int64)
    if given.is_floating_point() and bool((odd := indices.to(given.dtype) != given).any()):
        first = int(odd.int().argmax())
        raise InputError(
            f"{what} are {given.dtype} and not whole (number {first} is {given[first].item():g}); "
            "give class indices from 0."
        )
    if count := int((indices < 0).sum()):
        raise InputError(
            f"{what} hold {int(indices.min())} ({count} of {n} are negative); classes are numbered "
            "from 0, and images without a label must be left out."
        )
    return indices


def logits_of(output: Any, n: int, largest: int = 0) -> Tensor:
    """Return the (n, classes) logits in what a classifier returned for `n` images.

    That is a tensor, or the field `logits` of an object or a mapping; the label `largest` must have
    its column.
    """
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if logits is None and isinstance(output, Mapping):
        logits = output.get("logits")
    if not isinstance(logits, Tensor):
        count = f" of {len(output)}" if isinstance(output, (tuple, list)) else ""
        raise InputError(
            f"the model returns {type(output).__name__}{count}; give a model that returns logits, "
            "or an object that has them as `logits`. Wrap it, or pass a loss_function that takes "
            "what it returns."
        )
    if logits.ndim != 2 or len(logits) != n or logits.shape[1] < 2:
        raise InputError(
            f"the model's output has the shape {tuple(logits.shape)} for {n} images; a classifier "
            f"returns ({n}, classes) logits, at least 2 classes."
        )
    if largest >= logits.shape[1]:
        raise InputError(
            f"the largest label is {largest}, but the model has {logits.shape[1]} outputs, for "
            f"classes 0 to {logits.shape[1] - 1}. Labels that count from 1 need labels - 1."
        )
    return logits


def output_tensors(output: Any) -> Input | None:
    """Return the tensors in what a module returned: its `logits` if it names any, else all.

    None if it returned anything else.
    """
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    output = output if named is None else named
    if not isinstance(output, (Tensor, tuple, list, Mapping)):
        return None
    return output if all(isinstance(part, Tensor) for part in parts_of(output)) else None


class Objective:
    """The loss of a batch, and how many of its predictions are right.

    Without a loss function of the caller's own it is the cross-entropy, and labels and outputs are
    checked. A function of their own gets targets and outputs as they are; predictions are then
    counted where the targets are class indices and the output (of a tuple the first) is logits.
    """

    def __init__(self, loss_function: Loss = F.cross_entropy, *, is_own: bool = False) -> None:
        """Take the loss function; `is_own`: whether it is the caller's, whichever it is."""
        self._is_own = is_own or loss_function is not F.cross_entropy
        self._loss_function = loss_function
        self._largest = 0

    def targets(self, labels: Any, n: int, what: str = "labels") -> Input:
        """Return the targets of `n` examples as tensors, checked."""
        if not self._is_own:
            indices = class_labels(labels, n, what)
            self._largest = max(self._largest, int(indices.max()) if n else 0)
            return indices
        targets = as_input_tensors(labels, what)
        if (count := len(parts_of(targets)[0])) != n:
            raise InputError(f"there are {n} images but {count} {what}.")
        return targets

    def loss(self, output: Any, targets: Input) -> Tensor:
        """Return the mean loss of a batch."""
        if not self._is_own:
            return F.cross_entropy(logits_of(output, len(targets), self._largest), targets)
        loss = self._loss_function(output, targets)
        if not isinstance(loss, Tensor) or loss.ndim:
            given = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise InputError(f"loss_function returned {given}; it must return a mean, one number.")
        return loss

    def correct(self, output: Any, targets: Input) -> Tensor:
        """Return the number of right predictions, NaN if there are no classes to predict."""
        found = classes_of(output, targets) if self._is_own else (output, targets)
        if found is None:
            return torch.full((), float("nan"), device=parts_of(targets)[0].device)
        logits, labels = found
        return (logits_of(logits, len(labels)).argmax(dim=1) == labels).sum()


def classes_of(output: Any, targets: Input) -> tuple[Tensor, Tensor] | None:
    """Return logits and class indices, None if it is no classification; reads no values.

    It is one if targets are one integer per example, and the output (of a tuple the first) logits.
    """
    if not isinstance(targets, Tensor) or targets.is_floating_point():
        return None
    if targets.numel() != len(targets):
        return None
    try:
        output = output[0] if isinstance(output, (tuple, list)) else output
        return logits_of(output, len(targets)), targets.flatten()
    except InputError:
        return None
