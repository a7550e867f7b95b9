"""What the networks of a surface say of each image: cached once, so that the rest takes seconds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fourfold.errors import InputError
from fourfold.files.reading import check_fields, reading, shortened
from fourfold.files.tensors import load_tensors, save_tensors
from fourfold.surfaces.points import CORNER_COORDINATES

_FORMAT = "fourfold-logits-2"
_EXAMPLES_FORMAT = "fourfold-examples-1"
CORNERS = len(CORNER_COORDINATES)
SAMPLES = ("grid", "edge", "random", "own")
_LARGEST_HALF = torch.finfo(torch.float16).max  # beyond it logits would become infinite


def to_half(logits: Tensor) -> Tensor:
    """Return logits as they are cached, in float16; every table is made of these numbers."""
    return logits.clamp(-_LARGEST_HALF, _LARGEST_HALF).half()


@dataclass(frozen=True)
class SurfaceLogits:
    """Logits at the points of one surface.

    Attributes:
        surface: name of the surface.
        statistics: BatchNorm statistics of the points: `reestimated`, `interpolated` or `none`.
        points: (u, v) of each network.
        logits: split -> (points, n, classes) float16.
        own: split -> (4, n, classes) float16: the corners as trained, in corner order, with their
            own BatchNorm statistics. Baselines are made of these.
        labels: split -> (n,) int64.
    """

    surface: str
    statistics: str
    points: list[tuple[float, float]]
    logits: dict[str, Tensor]
    own: dict[str, Tensor]
    labels: dict[str, Tensor]

    @property
    def corners(self) -> list[int]:
        """Positions of the four corners among the points, in corner order."""
        return [self.position(*corner) for corner in CORNER_COORDINATES]

    @property
    def candidates(self) -> list[int]:
        """Positions of all points but the corners: what a merge or an ensemble is chosen from."""
        return [i for i, point in enumerate(self.points) if point not in CORNER_COORDINATES]

    def position(self, u: float, v: float) -> int:
        """Return the position of the point (u, v).

        Raises:
            InputError: if it is not among the points.
        """
        if (u, v) not in self.points:
            raise InputError(
                f"surface {self.surface!r} was not evaluated at ({u}, {v}); choose grid.points so "
                "that the point lies on the grid (an odd number puts one on the center)."
            )
        return self.points.index((u, v))

    def save(self, path: str | Path, metadata: Mapping[str, Any]) -> None:
        """Write a safetensors file, completely or not at all."""
        tensors = {"points": torch.tensor(self.points, dtype=torch.float64)}
        tensors |= {f"logits/{split}": values for split, values in self.logits.items()}
        tensors |= {f"own/{split}": values for split, values in self.own.items()}
        tensors |= {f"labels/{split}": values for split, values in self.labels.items()}
        header = {**metadata, "format": _FORMAT, "surface": self.surface}
        save_tensors(tensors, path, header | {"statistics": self.statistics})

    @classmethod
    def load(cls, path: str | Path) -> "SurfaceLogits":
        """Read what `save` wrote.

        Raises:
            InputError: if the file is missing, damaged, or holds no logits.
        """
        tensors, header, parts = _read(path, _FORMAT, "logits", ("logits", "own", "labels"))
        with reading(path, "logits"):
            check_fields(header, {"surface": str, "statistics": str}, "the header")
            _check_parts(tensors["points"], **parts)
            points = [tuple(point) for point in tensors["points"].tolist()]
        return cls(header["surface"], header["statistics"], points, **parts)


@dataclass(frozen=True)
class Examples:
    """What some networks of one surface do on each image of each split: enough for a bootstrap.

    Attributes:
        surface: name of the surface.
        points: (u, v) of each network.
        samples: of each network, why it was evaluated: `grid`, `edge`, `random`, or `own` for a
            corner with its own BatchNorm statistics.
        nll: split -> (networks, n) float32, nats.
        correct: split -> (networks, n) bool.
        labels: split -> (n,) int64.
    """

    surface: str
    points: list[tuple[float, float]]
    samples: list[str]
    nll: dict[str, Tensor]
    correct: dict[str, Tensor]
    labels: dict[str, Tensor]

    def save(self, path: str | Path, metadata: Mapping[str, Any]) -> None:
        """Write a safetensors file, completely or not at all."""
        codes = [SAMPLES.index(sample) for sample in self.samples]
        tensors = {
            "points": torch.tensor(self.points, dtype=torch.float64),
            "samples": torch.tensor(codes, dtype=torch.uint8),
        }
        for part in ("nll", "correct", "labels"):
            tensors |= {f"{part}/{split}": values for split, values in getattr(self, part).items()}
        header = {**metadata, "format": _EXAMPLES_FORMAT, "surface": self.surface}
        save_tensors(tensors, path, header)

    @classmethod
    def load(cls, path: str | Path) -> "Examples":
        """Read what `save` wrote.

        Raises:
            InputError: if the file is missing, damaged, or of another kind.
        """
        tensors, header, parts = _read(
            path, _EXAMPLES_FORMAT, "examples", ("nll", "correct", "labels")
        )
        with reading(path, "examples"):
            check_fields(header, {"surface": str}, "the header")
            _check_points(tensors["points"])
            points = [tuple(point) for point in tensors["points"].tolist()]
            codes = tensors["samples"]
            if codes.dtype != torch.uint8:
                raise InputError(f"samples are {codes.dtype}; they must be uint8.")
            check_labels(codes.long(), len(SAMPLES), "samples")
            samples = [SAMPLES[code] for code in codes.tolist()]
            for split, labels in parts["labels"].items():
                expected = (len(samples), labels.numel())
                shapes = {tuple(parts[part][split].shape) for part in ("nll", "correct")}
                if shapes != {expected} or len(points) != len(samples):
                    raise InputError(
                        f"nll and correct of {split!r:.40} have the shapes {sorted(shapes)}; "
                        f"there are {len(points)} points, {expected[0]} samples and "
                        f"{expected[1]} labels."
                    )
        return cls(header["surface"], points, samples, **parts)


def _read(
    path: str | Path, file_format: str, what: str, parts: Sequence[str]
) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, dict[str, Tensor]]]:
    """Return tensors, header, and part -> split -> tensor of those named `<part>/<split>`."""
    tensors, header = load_tensors(path)
    if header.get("format") != file_format:
        raise InputError(
            f"{path} holds no {what}: its format is {shortened(header.get('format'))}, expected "
            f"{file_format!r}."
        )
    found: dict[str, dict[str, Tensor]] = {part: {} for part in parts}
    with reading(path, what):
        for name, values in tensors.items():
            if "/" in name:
                part, split = name.split("/", 1)
                found[part][split] = values
    return tensors, header, found


def _check_points(points: Tensor) -> None:
    """Refuse points that are no coordinates."""
    if points.ndim != 2 or points.shape[1] != 2 or points.dtype != torch.float64:
        raise InputError(
            f"points are {points.dtype} of shape {tuple(points.shape)}; they must be float64 with "
            "a column for u and one for v."
        )
    if not bool(((points >= 0) & (points <= 1)).all()):
        raise InputError("a point has a coordinate outside of [0, 1].")


def _check_parts(
    points: Tensor, logits: dict[str, Tensor], own: dict[str, Tensor], labels: dict[str, Tensor]
) -> None:
    """Refuse logits that don't fit to the points and labels, or are no numbers in part."""
    _check_points(points)
    if not logits or logits.keys() != labels.keys() or logits.keys() != own.keys():
        raise InputError(
            f"there are logits of {shortened(sorted(logits))}, of the corners themselves of "
            f"{shortened(sorted(own))} and labels of {shortened(sorted(labels))}; each split must "
            "have all three."
        )
    for split, labels_of_split in labels.items():
        images = labels_of_split.numel()
        for values, networks in ((logits[split], len(points)), (own[split], CORNERS)):
            classes = values.shape[-1] if values.ndim == 3 else 0
            if values.shape != (networks, images, classes) or classes == 0:
                raise InputError(
                    f"the logits of {split!r:.40} have the shape {tuple(values.shape)}, but there "
                    f"are {networks} networks and {images} labels; the shape must be "
                    "(networks, images, classes)."
                )
            if values.dtype != torch.float16:
                raise InputError(f"the logits of {split!r:.40} are {values.dtype}, not float16.")
            # A network that gave no numbers on some image is NaN throughout.
            is_broken = values.isnan().flatten(1).all(dim=1)
            if not bool((values.isfinite().flatten(1).all(dim=1) | is_broken).all()):
                raise InputError(f"a network's logits of {split!r:.40} are not all finite numbers.")
            check_labels(labels_of_split, classes, f"the labels of {split!r:.40}")


def check_labels(labels: Tensor, classes: int, what: str) -> None:
    """Refuse labels that are no vector of class indices.

    Raises:
        InputError: naming what they are and must be.
    """
    if labels.ndim != 1 or labels.dtype != torch.int64:
        raise InputError(
            f"{what} are {labels.dtype} of shape {tuple(labels.shape)}; expected a vector of int64."
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise InputError(
            f"{what} run from {int(labels.min())} to {int(labels.max())}, but there are {classes} "
            f"classes; labels must be 0 to {classes - 1}."
        )
