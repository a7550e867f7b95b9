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
    """Return a tensor, or what a NumPy array or a list of numbers holds as one.

    Raises:
        InputError: if `values` is nothing of that; `what` says what it is for.
    """
    if isinstance(values, Tensor):
        return values.detach() if values.requires_grad else values
    try:
        if isinstance(values, (np.ndarray, list, tuple)):
            return torch.as_tensor(np.asarray(values))
        reason = type(values).__name__
    except (TypeError, ValueError) as error:  # strings, objects, rows of different length
        reason = f"{type(values).__name__} ({error})"
    raise InputError(f"{what} are {reason}; give a tensor or a NumPy array of numbers.")


def class_labels(labels: Any, n: int, what: str = "labels") -> Tensor:
    """Return `labels` as (n,) int64 class indices.

    Taken are integers of any width, booleans, whole floating numbers, and the shape (n, 1).

    Raises:
        InputError: if they are no class indices, or not as many as there are images.
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
    if given.is_complex() or given.is_quantized:
        raise InputError(f"{what} are {given.dtype}; give class indices.")
    indices = given.to(torch.int64)
    if given.is_floating_point() and not torch.equal(indices.to(given.dtype), given):
        raise InputError(
            f"{what} are {given.dtype} and not whole (the first is {given[0].item():g}); give "
            "class indices from 0."
        )
    if n and (lowest := int(indices.min())) < 0:
        count = int((indices < 0).sum())
        raise InputError(
            f"{what} hold {lowest} ({count} of {n} are negative); classes are numbered from 0, and "
            "images without a label must be left out."
        )
    return indices


def as_examples(images: Any, labels: Any, split: str) -> tuple[Tensor, Tensor]:
    """Return the images and the class indices of one split.

    Raises:
        InputError: as `as_tensor` and `class_labels`, and if there are none.
    """
    images = as_tensor(images, f"images of split {split!r}")
    if images.ndim == 0 or len(images) == 0:
        raise InputError(f"split {split!r} has 0 images; it needs at least one.")
    return images, class_labels(labels, len(images), f"labels of split {split!r}")


def as_splits(splits: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the splits of an evaluation, checked.

    Raises:
        InputError: if they are no mapping of pairs, or as `as_examples`.
    """
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
        checked[name] = as_examples(pair[0], pair[1], name)
    return checked


def logits_of(output: Any, n: int, largest: int = 0) -> Tensor:
    """Return the (n, classes) logits in what a classifier returned for `n` images.

    That is a tensor, or the field `logits` of an object or a mapping.

    Args:
        output: of the model.
        n: images in the batch.
        largest: label, which must have its column.

    Raises:
        InputError: if there are none, or they fit neither the batch nor the labels.
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
        if not self._is_own:
            return (logits_of(output, len(labels)).argmax(dim=1) == labels).sum()
        if isinstance(output, (tuple, list)):
            output = output[0]
        is_index = not labels.is_floating_point() and labels.numel() == len(labels)
        try:
            logits = logits_of(output, len(labels))
        except InputError:
            is_index = False
        if not is_index:
            return torch.full((), float("nan"), device=labels.device)
        return (logits.argmax(dim=1) == labels.flatten()).sum()
