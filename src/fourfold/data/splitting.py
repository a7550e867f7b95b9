"""Fixed splits of a source: stratified by chance, or blocks of its own order."""

import numpy as np
import torch
from torch import Tensor

from fourfold.data.dataset import Dataset, Split
from fourfold.data.sources import Source
from fourfold.errors import InputError
from fourfold.seeds import derive_seed


def split_source(
    source: Source,
    name: str,
    *,
    by: str,
    seed: int,
    train_images: int | None,
    val_images: int,
    test_images: int | None,
) -> Dataset:
    """Split a source into train, val and test.

    val is taken from the published training set. test is the published test set if there is one,
    else it is taken from the training set too. Rows are in random order, so that the first k rows
    of a split are a random subset.

    Args:
        source: the decoded data set.
        name: name of the data set in params.yaml.
        by: `chance` draws every split with the class shares of the whole. `rows` cuts blocks of the
            source's own order, train first and test last: for images that come in groups (writers,
            patients, days), so that those of test are from other groups. A published test set is
            drawn from by chance all the same.
        seed: seed of the split, or of the order inside its blocks.
        train_images: size of train; None takes all that are left.
        val_images: size of val.
        test_images: size of test; None takes the whole published test set.

    Raises:
        InputError: if a size or `by` is impossible.
    """
    if by not in ("chance", "rows"):
        raise InputError(f"datasets.{name}.split.by is {by!r}; choose chance or rows.")
    remaining = np.arange(len(source.labels))
    splits = {}
    if source.test is None:
        remaining, chosen = _take(source.labels, remaining, test_images, seed, name, "test", by)
        splits["test"] = _pick(source.images, source.labels, chosen)
    else:
        images, labels = source.test
        if test_images is None:
            test_images = len(labels)
        every = np.arange(len(labels))
        _, chosen = _take(labels, every, test_images, seed, name, "test", "chance")
        splits["test"] = _pick(images, labels, chosen)
    remaining, chosen = _take(source.labels, remaining, val_images, seed, name, "val", by)
    splits["val"] = _pick(source.images, source.labels, chosen)
    if train_images is None:
        train_images = len(remaining)
    _, chosen = _take(source.labels, remaining, train_images, seed, name, "train", by)
    splits["train"] = _pick(source.images, source.labels, chosen)
    return Dataset.from_splits(name, source.classes, splits)


def _take(
    labels: Tensor, rows: np.ndarray, size: int | None, seed: int, name: str, split: str, by: str
) -> tuple[np.ndarray, np.ndarray]:
    """Divide `rows` into (the rest, a stratified choice or the last `size`, in random order)."""
    key = f"datasets.{name}.split.{split}_images"
    if size is None:
        raise InputError(f"{key} is null, but the source publishes no {split} set; give a number.")
    classes = len(torch.unique(labels))
    if not classes <= size <= len(rows):
        raise InputError(
            f"{key} is {size}; it must be from {classes} (one per class) to {len(rows)} "
            "(the images not yet given away)."
        )
    random_state = derive_seed(seed, split) % 2**32
    if by == "rows":
        rest, chosen = rows[: len(rows) - size], rows[len(rows) - size :]
        missing = classes - len(np.unique(labels.numpy()[chosen]))
        if missing:
            raise InputError(
                f"{key} is {size}, but the block of as many rows lacks {missing} of {classes} "
                f"classes; take more, or set datasets.{name}.split.by to chance."
            )
        return rest, np.random.default_rng(random_state).permutation(chosen)
    if len(rows) - size < classes:  # nothing, or too little to stratify, is left over
        order = np.random.default_rng(random_state).permutation(len(rows))
        return rows[order[size:]], rows[order[:size]]
    if 1 in (counts := np.bincount(labels.numpy()[rows])):
        raise InputError(
            f"{key} is {size}, which can't be drawn with equal class shares: label "
            f"{np.flatnonzero(counts == 1)[0]} has one image left; give each class at least two."
        )
    from sklearn.model_selection import train_test_split

    rest, chosen = train_test_split(
        rows, test_size=size, stratify=labels.numpy()[rows], random_state=random_state
    )
    return rest, chosen


def _pick(images: Tensor, labels: Tensor, rows: np.ndarray) -> Split:
    index = torch.from_numpy(np.ascontiguousarray(rows))
    return Split(images[index].contiguous(), labels[index], index)
