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
        name: name of the data set in params.yaml.
        by: `chance` draws every split with the class shares of the whole, and at least one image of
            each class. `rows` cuts blocks of the source's own order, train first and test last: for
            images that come in groups (writers, patients, days), so that those of test are from
            other groups. A published test set is drawn from by chance all the same.
        seed: seed of the split, or of the order inside its blocks.
        train_images: size of train; None takes all that are left.
        val_images: size of val.
        test_images: size of test; None takes the whole published test set.

    Raises:
        InputError: if a size or `by` is impossible, or if a split lacks a class.
    """
    if by not in ("chance", "rows"):
        raise InputError(f"datasets.{name}.split.by is {by!r}; choose chance or rows.")
    _check_classes(source, name)
    draw = partial(_take, classes=source.classes, seed=seed, name=name)
    labels, rows = source.labels.numpy(), np.arange(len(source.labels))
    splits = {}
    if source.test is None:
        rows, chosen = draw(labels, rows, test_images, "test", by, later=2)
        splits["test"] = _pick(source.images, source.labels, chosen)
    else:
        images, published = source.test
        if test_images is None:
            test_images = len(published)
        every = np.arange(len(published))
        _, chosen = draw(published.numpy(), every, test_images, "test", "chance", later=0)
        splits["test"] = _pick(images, published, chosen)
    rows, chosen = draw(labels, rows, val_images, "val", by, later=1)
    splits["val"] = _pick(source.images, source.labels, chosen)
    if train_images is None:
        train_images = len(rows)
    _, chosen = draw(labels, rows, train_images, "train", by, later=0)
    splits["train"] = _pick(source.images, source.labels, chosen)
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
    needed = 3 if source.test is None else 2
    published = [] if source.test is None else [("the published test set", source.test[1], 1)]
    for what, labels, least in [("the data", source.labels, needed), *published]:
        counts = labels.bincount(minlength=len(source.classes)).tolist()
        rare = [
            f"{one!r} ({count})"
            for one, count in zip(source.classes, counts, strict=True)
            if count < least
        ]
        if rare:
            raise InputError(
                f"data set {name!r}: {len(rare)} of {len(counts)} classes have fewer than {least} "
                f"images in {what}: {', '.join(rare[:5])}. Each split needs an image of each "
                "class; add images, or leave those classes out."
            )


def _take(
    labels: np.ndarray,
    rows: np.ndarray,
    size: int | None,
    split: str,
    by: str,
    *,
    later: int,
    classes: list[str],
    seed: int,
    name: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Divide `rows` into (the rest, a stratified choice or the last `size`, in random order).

    `later` is the number of splits still to be taken from the rest, each of which needs an image of
    each class, as the choice does.
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
        rest, chosen = rows[: len(rows) - size], rows[len(rows) - size :]
        counts = np.bincount(labels[chosen], minlength=len(classes))
        if missing := [classes[k] for k in np.flatnonzero(counts == 0)]:
            raise InputError(
                f"{key} is {size}, but the block of as many rows lacks {len(missing)} of "
                f"{len(classes)} classes ({', '.join(missing[:5])}); take more, or set "
                f"datasets.{name}.split.by to chance."
            )
        return rest, np.random.default_rng(random_state).permutation(chosen)
    generator = np.random.default_rng(random_state)
    if len(rows) - size < len(classes):  # nothing, or too little to stratify, is left over
        order = generator.permutation(len(rows))
        rest, chosen = rows[order[size:]], rows[order[:size]]
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
    for k in range(len(classes)):
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


def _pick(images: Tensor, labels: Tensor, rows: np.ndarray) -> Split:
    index = torch.from_numpy(np.ascontiguousarray(rows))
    return Split(images[index].contiguous(), labels[index], index)
