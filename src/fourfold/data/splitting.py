"""Fixed splits of a source: stratified by chance, or blocks of its own order."""

import hashlib
import itertools
from collections.abc import Mapping
from functools import partial

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
    by: str = "chance",
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
        name: of the data set in params.yaml.
        by: `chance` draws every split with the class shares of the whole, and at least one image of
            each class. `rows` cuts blocks of the source's own order, train first and test last: for
            images that come in groups (writers, patients, days), so that those of test are from
            other groups. A published test set is drawn from by chance all the same.
        seed: of the draw, or of the order inside the blocks.
        train_images: None takes all that are left.
        val_images: size of val.
        test_images: None takes the whole published test set.
    """
    _check_classes(source, name)
    take = partial(_take, classes=source.classes, seed=seed, name=name)
    whole = source.images, source.labels
    rows = np.arange(len(source.labels))
    if source.test is None:
        rows, test = take(*whole, rows, test_images, "test", by, later=2)
    else:
        every = np.arange(len(source.test[1]))
        size = len(every) if test_images is None else test_images
        _, test = take(*source.test, every, size, "test", "chance", later=0)
    rows, val = take(*whole, rows, val_images, "val", by, later=1)
    size = len(rows) if train_images is None else train_images
    _, train = take(*whole, rows, size, "train", by, later=0)
    splits = {"test": test, "val": val, "train": train}  # what is said of two is about the first
    return Dataset.from_splits(name, source.classes, splits)


def shared_images(splits: Mapping[str, Split]) -> list[str]:
    """Return a line for each two splits that have images in common, equal to the last bit."""
    hashes = {
        name: [hashlib.sha256(image.numpy().tobytes()).digest() for image in split.images]
        for name, split in splits.items()
    }
    lines = []
    for one, other in itertools.combinations(splits, 2):
        there = set(hashes[other])
        if count := sum(image in there for image in hashes[one]):
            lines.append(
                f"{count:,} of {len(hashes[one]):,} images of {one} are in {other} too, equal to "
                f"the last bit: results on {one} are better than on new images."
            )
    return lines


def _check_classes(source: Source, name: str) -> None:
    """Refuse a source that can't give every split an image of each of at least two classes."""
    if len(source.classes) < 2:
        raise InputError(
            f"data set {name!r} has the one class {source.classes[0]!r}; a classifier needs two."
        )
    needed = [("the data", source.labels, 3)]
    if source.test is not None:
        needed = [("the data", source.labels, 2), ("the published test set", source.test[1], 1)]
    for what, labels, least in needed:
        counts = labels.bincount(minlength=len(source.classes)).tolist()
        pairs = zip(source.classes, counts, strict=True)
        if rare := [f"{one!r} ({count})" for one, count in pairs if count < least]:
            raise InputError(
                f"data set {name!r}: {len(rare)} of {len(source.classes)} classes have fewer than "
                f"{least} images in {what}: {', '.join(rare[:5])}. Each split needs an image of "
                "each class; add images, or leave those classes out."
            )


def _take(
    images: Tensor,
    labels: Tensor,
    rows: np.ndarray,
    size: int | None,
    split: str,
    by: str,
    *,
    later: int,
    classes: list[str],
    seed: int,
    name: str,
) -> tuple[np.ndarray, Split]:
    """Divide `rows` into (the rest, a split of `size` of them in random order).

    `later` is the number of splits still to be taken from the rest, each of which needs an image of
    each class, as this one does.
    """
    key = f"datasets.{name}.split.{split}_images"
    if size is None:
        raise InputError(f"{key} is null, but the source publishes no {split} set; give a number.")
    most = len(rows) - later * len(classes)
    if not len(classes) <= size <= most:
        raise InputError(
            f"{key} is {size}; it must be from {len(classes)} (one per class) to {most} (the "
            "images not yet given away, less one per class for each split to come)."
        )
    random_state = derive_seed(seed, split) % 2**32
    if by == "rows":
        rest, chosen = np.split(rows, [len(rows) - size])
        counts = labels[chosen].bincount(minlength=len(classes))
        if missing := [one for one, count in zip(classes, counts, strict=True) if not count]:
            raise InputError(
                f"{key} is {size}, but the block of as many rows lacks {len(missing)} of "
                f"{len(classes)} classes ({', '.join(missing[:5])}); take more, or set "
                f"datasets.{name}.split.by to chance."
            )
        chosen = np.random.default_rng(random_state).permutation(chosen)
    else:
        rest, chosen = _draw(labels.numpy(), rows, size, later, len(classes), random_state)
    index = torch.from_numpy(chosen)
    return rest, Split(images[index].contiguous(), labels[index], index)


def _draw(
    labels: np.ndarray, rows: np.ndarray, size: int, later: int, classes: int, random_state: int
) -> tuple[np.ndarray, np.ndarray]:
    """Divide `rows` into (the rest, a stratified choice), with enough of every class in both."""
    generator = np.random.default_rng(random_state)
    if len(rows) - size < classes:  # nothing, or too little to stratify, is left over
        chosen, rest = np.split(generator.permutation(rows), [size])
    else:
        from sklearn.model_selection import train_test_split

        single = np.bincount(labels[rows])[labels[rows]] == 1  # can't be divided; is needed here
        rest, chosen = train_test_split(
            rows[~single],
            test_size=size - single.sum(),
            stratify=labels[rows[~single]],
            random_state=random_state,
        )
        if single.any():
            chosen = generator.permutation(np.concatenate([chosen, rows[single]]))
    for k in range(classes):
        while not (labels[chosen] == k).any():
            _swap(labels, chosen, rest, k, generator)
        while (labels[rest] == k).sum() < later:
            _swap(labels, rest, chosen, k, generator)
    return rest, chosen


def _swap(
    labels: np.ndarray, to: np.ndarray, source: np.ndarray, k: int, generator: np.random.Generator
) -> None:
    """Exchange one of class `k` in `source` for one of the class that `to` has most of."""
    largest = np.bincount(labels[to]).argmax()
    i = generator.choice(np.flatnonzero(labels[to] == largest))
    j = generator.choice(np.flatnonzero(labels[source] == k))
    to[i], source[j] = source[j], to[i]
