"""The door of the public functions: images, labels and outputs as people have them.

What has one meaning is converted, everything else is one message.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fourfold.errors import InputError

Loss = Callable[[Any, Tensor], Tensor]


def as_tensor(values: Any, what: str) -> Tensor:
    """Return a tensor, or what a NumPy array or a list of numbers holds as one."""
    if isinstance(values, Tensor):
        return values.detach()
    reason = type(values).__name__
    if isinstance(values, (np.ndarray, list, tuple)):
        try:
            return torch.as_tensor(np.asarray(values))
        except (TypeError, ValueError) as error:  # strings, objects, rows of different length
            reason += f" ({error})"
    raise InputError(f"{what} are {reason}; give a tensor or a NumPy array of numbers.")


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
    if given.is_floating_point() and not torch.equal(indices.to(given.dtype), given):
        raise InputError(
            f"{what} are {given.dtype} and not whole (the first is {given[0].item():g}); give "
            "class indices from 0."
        )
    if count := int((indices < 0).sum()):
        raise InputError(
            f"{what} hold {int(indices.min())} ({count} of {n} are negative); classes are numbered "
            "from 0, and images without a label must be left out."
        )
    return indices


def as_splits(splits: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """Return name -> (images, class indices) of the splits of an evaluation, none of them empty."""
    if not isinstance(splits, Mapping) or not splits:
        raise InputError(
            f"splits is {'empty' if isinstance(splits, Mapping) else type(splits).__name__}; give "
            "at least one name -> (images, labels), such as {'test': (images, labels)}."
        )
    checked = {}
    for name, pair in splits.items():
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise InputError(
                f"split {name!r} is {type(pair).__name__}; give a pair (images, labels) of tensors."
            )
        images = as_tensor(pair[0], f"images of split {name!r}")
        if images.ndim == 0 or len(images) == 0:
            raise InputError(f"split {name!r} has 0 images; it needs at least one.")
        checked[name] = images, class_labels(pair[1], len(images), f"labels of split {name!r}")
    return checked


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
            "or an object that has them as `logits`. Wrap it, or for `fit` pass a loss_function "
            "that takes what it returns."
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


class Objective:
    """The loss of a batch, and how many of its predictions are right.

    Without a loss function of the caller's own it is the cross-entropy, and labels and outputs are
    checked. A function of their own gets labels and outputs as they are; predictions are then
    counted where the labels are class indices and the output (of a tuple the first) is logits.

    Attributes:
        labels: what a batch's labels are picked from.
    """

    def __init__(self, labels: Any, n: int, loss_function: Loss = F.cross_entropy) -> None:
        """Take the labels of `n` images."""
        self._is_own = loss_function is not F.cross_entropy
        self._loss_function = loss_function
        self.labels = as_tensor(labels, "labels") if self._is_own else class_labels(labels, n)
        if len(self.labels) != n:
            raise InputError(f"there are {n} images but {len(self.labels)} labels.")
        self._largest = 0 if self._is_own or not n else int(self.labels.max())

    def loss(self, output: Any, labels: Tensor) -> Tensor:
        """Return the mean loss of a batch."""
        if not self._is_own:
            return F.cross_entropy(logits_of(output, len(labels), self._largest), labels)
        loss = self._loss_function(output, labels)
        if not isinstance(loss, Tensor) or loss.ndim:
            given = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise InputError(f"loss_function returned {given}; it must return a mean, one number.")
        return loss

    def correct(self, output: Any, labels: Tensor) -> Tensor:
        """Return the number of right predictions, NaN if there are no classes to predict."""
        if self._is_own and isinstance(output, (tuple, list)):
            output = output[0]
        is_index = not labels.is_floating_point() and labels.numel() == len(labels)
        try:
            logits = logits_of(output, len(labels))
        except InputError:
            if not self._is_own:
                raise
            is_index = False
        if not is_index:
            return torch.full((), float("nan"), device=labels.device)
        return (logits.argmax(dim=1) == labels.flatten()).sum()
