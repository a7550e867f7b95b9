"""Prepared data sets: three splits of uint8 images in safetensors files."""

import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from fourfold.data.batches import Normalize
from fourfold.errors import InputError
from fourfold.files.reading import check_fields, reading
from fourfold.files.tensors import load_tensors, save_tensors

SPLITS = ("train", "val", "test")
_HEADER = {
    "dataset": str,
    "split": str,
    "classes": list[str],
    "mean": list[float],
    "std": list[float],
    "sha256": str,
}
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
    # The hash that `Dataset.load` has just checked, so that a job hashes its data once. A split
    # made in any other way, by dataclasses.replace too, has none.
    _verified_sha256: str | None = field(default=None, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def first(self, n: int | None) -> "Split":
        """Return the first `n` images (all if None); the rows of a split are in random order."""
        return Split(self.images[:n], self.labels[:n], self.index[:n])

    def sha256(self) -> str:
        """Return the hash of shapes and bytes of images and labels."""
        if self._verified_sha256 is not None:
            return self._verified_sha256
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
        """Check the splits and measure the train images.

        Raises:
            InputError: if a split is empty, a label is out of range, or the images differ in shape.
        """
        _check_splits(name, len(classes), splits)
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
        return Normalize(list(self.mean), list(self.std))

    def sha256(self) -> str:
        """Return one hash over the three splits."""
        hashes = [self.splits[name].sha256() for name in SPLITS]
        return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()

    def to(self, device: torch.device | str) -> "Dataset":
        """Return the data set with images and labels on `device`."""
        moved = {
            name: Split(split.images.to(device), split.labels.to(device), split.index)
            for name, split in self.splits.items()
        }
        return Dataset(self.name, self.classes, moved, self.mean, self.std)

    def save(self, folder: str | Path) -> None:
        """Write `train.safetensors`, `val.safetensors` and `test.safetensors` into `folder`."""
        for name, split in self.splits.items():
            header = {
                "dataset": self.name,
                "split": name,
                "classes": self.classes,
                "mean": self.mean,
                "std": self.std,
                "sha256": split.sha256(),
            }
            tensors = {"images": split.images, "labels": split.labels, "index": split.index}
            save_tensors(tensors, Path(folder) / f"{name}.safetensors", header)

    @classmethod
    def load(cls, folder: str | Path) -> "Dataset":
        """Read what `save` wrote.

        Raises:
            InputError: if a file is missing, damaged, or not what its hash says.
        """
        splits, headers = {}, {}
        for name in SPLITS:
            path = Path(folder) / f"{name}.safetensors"
            tensors, header = load_tensors(path)
            if header.get("split") != name or set(tensors) != {"images", "labels", "index"}:
                raise InputError(f"{path} is no prepared {name} split; run prepare-data again.")
            check_fields(header, _HEADER, f"{path}: the header")
            splits[name], headers[name] = Split(**tensors), header
            with reading(path, "prepared split", cure="run prepare-data again"):
                _check_tensors(splits[name])
                if splits[name].sha256() != header["sha256"]:
                    raise InputError(
                        f"{path}: images and labels don't have the hash in the header; the file "
                        "was changed after it was written. Delete it and run prepare-data again."
                    )
            object.__setattr__(splits[name], "_verified_sha256", header["sha256"])
        for key in _SAME:
            for name in SPLITS[1:]:
                if headers[name][key] != header[key]:
                    raise InputError(
                        f"{Path(folder) / f'{name}.safetensors'} and {path} have different "
                        f"{key!r} in their headers; run prepare-data again."
                    )
        with reading(folder, "prepared data set", cure="run prepare-data again"):
            _check_splits(header["dataset"], len(header["classes"]), splits)
            channels = splits["train"].images.shape[1]
            for key, lowest in (("mean", 0), ("std", 1e-6)):
                is_fine = len(header[key]) == channels and all(
                    lowest <= value <= 1 for value in header[key]
                )
                if not is_fine:
                    raise InputError(
                        f"the header's {key} is {header[key][:5]}; expected a number from {lowest} "
                        f"to 1 for each of {channels} channels."
                    )
        mean, std = tuple(header["mean"]), tuple(header["std"])
        return cls(header["dataset"], tuple(header["classes"]), splits, mean, std)


def _check_tensors(split: Split) -> None:
    for name, dtype, axes in (
        ("images", torch.uint8, 4),
        ("labels", torch.int64, 1),
        ("index", torch.int64, 1),
    ):
        tensor = getattr(split, name)
        if tensor.dtype != dtype or tensor.ndim != axes or len(tensor) != len(split.labels):
            raise InputError(
                f"{name} are {tensor.dtype} of shape {tuple(tensor.shape)}; expected {dtype} with "
                f"{axes} axes, as many rows as labels."
            )


def _check_splits(name: str, classes: int, splits: dict[str, Split]) -> None:
    """Refuse splits that are empty, have labels out of range, or images of different shapes."""
    for split_name in SPLITS:
        split = splits[split_name]
        if len(split) == 0:
            raise InputError(
                f"data set {name!r}: split {split_name!r} is empty; give it at least one image "
                f"per class (datasets.{name}.split.{split_name}_images in params.yaml)."
            )
        if split.images.dtype != torch.uint8 or split.images.ndim != 4:
            raise InputError(
                f"data set {name!r}: images of {split_name!r} are {split.images.dtype} with "
                f"{split.images.ndim} axes; expected uint8 (n, channels, height, width)."
            )
        shape, train_shape = split.images.shape[1:], splits["train"].images.shape[1:]
        if shape != train_shape:
            raise InputError(
                f"data set {name!r}: images of {split_name!r} have the shape {tuple(shape)}, "
                f"those of 'train' {tuple(train_shape)}; they must be equal."
            )
        if len(split.images) != len(split.labels):
            raise InputError(
                f"data set {name!r}: {split_name!r} has {len(split.images)} images, but "
                f"{len(split.labels)} labels; give one label per image."
            )
        low, high = int(split.labels.min()), int(split.labels.max())
        if low < 0 or high >= classes:
            raise InputError(
                f"data set {name!r}: labels of {split_name!r} run from {low} to {high}, but "
                f"there are {classes} classes; labels must be 0 to {classes - 1}."
            )


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
