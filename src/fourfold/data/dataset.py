"""Prepared data sets: three splits of uint8 images in safetensors files."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fourfold.data.batches import Normalize
from fourfold.errors import InputError
from fourfold.files.reading import check_fields
from fourfold.files.tensors import load_tensors, save_tensors

SPLITS = ("train", "val", "test")
_HEADER = {
    **dict.fromkeys(("dataset", "split", "sha256"), str),
    "classes": list[str],
    **dict.fromkeys(("mean", "std"), list[float]),
}
_KINDS = {"images": (torch.uint8, 4), "labels": (torch.int64, 1), "index": (torch.int64, 1)}
_SAME = ("dataset", "classes", "mean", "std")  # in the three headers


@dataclass(frozen=True)
class Split:
    """Images and labels of one split.

    Attributes:
        images: (n, channels, height, width) uint8.
        labels: (n,) int64 class indices.
        index: (n,) int64 row of each image in its source; recorded so that the split is fixed.
    """

    images: Tensor
    labels: Tensor
    index: Tensor

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def first(self, n: int | None) -> "Split":
        """Return the first `n` images (all if None); the rows of a split are in random order."""
        return Split(self.images[:n], self.labels[:n], self.index[:n])

    @cached_property  # a job hashes its data once
    def sha256(self) -> str:
        """Hash of shapes and bytes of images and labels."""
        digest = hashlib.sha256(json.dumps(list(self.images.shape)).encode())
        for tensor in (self.images, self.labels):
            digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Dataset:
    """Train, val and test split of one data set.

    Attributes:
        name: name in params.yaml.
        classes: class names; their positions are the labels.
        splits: `train`, `val` and `test`.
        mean: per-channel mean of the train images, in [0, 1].
        std: per-channel standard deviation of the train images.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_splits(cls, name: str, classes: list[str], splits: dict[str, Split]) -> "Dataset":
        """Measure the train images; refuse splits whose images differ in shape."""
        shapes = {key: tuple(split.images.shape[1:]) for key, split in splits.items()}
        if len(set(shapes.values())) > 1:
            raise InputError(
                f"data set {name!r}: the images of its splits have different shapes, {shapes}; "
                "make all equal, or let the source resize them (setting `size`)."
            )
        mean, std = _measure(splits["train"].images)
        return cls(name, tuple(classes), splits, mean, std)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        _, channels, height, width = self.splits["train"].images.shape
        return channels, height, width

    @property
    def normalize(self) -> Normalize:
        """The map from uint8 images to the input of the networks."""
        return Normalize(self.mean, self.std)

    def sha256(self) -> str:
        """Return one hash over the three splits."""
        hashes = [self.splits[name].sha256 for name in SPLITS]
        return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()

    def of_classes(self, split: str, classes: Sequence[int] | float) -> Split:
        """Return the images of some classes of a split, with the labels that they have.

        Args:
            split: `train`, `val` or `test`.
            classes: their numbers, or the fraction in (0, 1) of all classes that the first ones
                are, rounded.
        """
        count = len(self.classes)
        if isinstance(classes, float):
            chosen = list(range(round(classes * count)))
        else:
            chosen = list(classes)
        if not chosen or not set(chosen) <= set(range(count)):
            raise InputError(
                f"classes is {classes}, but {self.name!r} has {count}; give some of the numbers "
                f"from 0 to {count - 1}, or a fraction that makes at least one class."
            )
        whole = self.splits[split]
        kept = torch.isin(whole.labels, torch.tensor(chosen, device=whole.labels.device))
        index = whole.index[kept.to(whole.index.device)]
        return Split(whole.images[kept], whole.labels[kept], index)

    def to(self, device: torch.device | str) -> "Dataset":
        """Return the data set with images and labels on `device`."""
        moved = {
            name: Split(split.images.to(device), split.labels.to(device), split.index)
            for name, split in self.splits.items()
        }
        return Dataset(self.name, self.classes, moved, self.mean, self.std)

    def save(self, folder: str | Path, settings: Mapping[str, Any] | None = None) -> None:
        """Write `train.safetensors`, `val.safetensors` and `test.safetensors` into `folder`.

        Their headers say what they were prepared with, `settings`.
        """
        same: dict[str, Any] = {"classes": self.classes, "mean": self.mean, "std": self.std}
        same |= {"settings": settings} if settings else {}
        for name, split in self.splits.items():
            header = {"dataset": self.name, "split": name, **same, "sha256": split.sha256}
            tensors = {"images": split.images, "labels": split.labels, "index": split.index}
            save_tensors(tensors, Path(folder) / f"{name}.safetensors", header)

    @classmethod
    def load(cls, folder: str | Path) -> "Dataset":
        """Read what `save` wrote; refuse files that were changed, or are not of one data set."""
        splits, headers = {}, []
        for name in SPLITS:
            path = Path(folder) / f"{name}.safetensors"
            tensors, header = load_tensors(path)
            kinds = {key: (tensor.dtype, tensor.ndim) for key, tensor in tensors.items()}
            if header.get("split") != name or kinds != _KINDS:
                raise InputError(f"{path} is no prepared {name} split; run prepare-data again.")
            check_fields(header, _HEADER, f"{path}: the header")
            splits[name] = Split(**tensors)
            if splits[name].sha256 != header["sha256"]:
                raise InputError(
                    f"{path}: images and labels don't have the hash in the header; the file was "
                    "changed after it was written. Delete it and run prepare-data again."
                )
            headers.append({key: header[key] for key in _SAME})
            if headers[-1] != headers[0]:
                raise InputError(
                    f"{path} and {SPLITS[0]}.safetensors differ in {', '.join(_SAME)}; run "
                    "prepare-data again."
                )
        mean, std = tuple(header["mean"]), tuple(header["std"])
        return cls(header["dataset"], tuple(header["classes"]), splits, mean, std)


def _measure(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel of uint8 images, in [0, 1].

    They are taken from histograms, in whole numbers: exact, and with no copy of all images.
    """
    means, deviations = [], []
    for channel in images.unbind(1):
        histogram = torch.zeros(256, dtype=torch.int64)
        for chunk in channel.split(1024):
            histogram += torch.bincount(chunk.flatten(), minlength=256)
        counts = histogram.tolist()
        n = sum(counts)
        total = sum(value * count for value, count in enumerate(counts))
        squares = sum(value**2 * count for value, count in enumerate(counts))
        means.append(total / (255 * n))
        variance = (n * squares - total**2) / (n * max(n - 1, 1))
        deviations.append(max(math.sqrt(variance) / 255, 1e-3))
    return tuple(means), tuple(deviations)
