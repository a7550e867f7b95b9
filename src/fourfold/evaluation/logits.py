"""What the networks of a surface say of each image: cached once, so that the rest takes seconds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Int64
from torch import Tensor

from fourfold.errors import InputError
from fourfold.files.reading import check_fields, reading, shortened
from fourfold.files.tensors import load_tensors, save_tensors
from fourfold.surfaces.shapes import Point, Shape, shape_of

_FORMAT = "fourfold-logits-3"
_EXAMPLES_FORMAT = "fourfold-examples-2"
SAMPLES = ("grid", "center", "edge", "random", "own")
_FAR = 64.0  # steps of float16 are 0.06 from there on; what cross-entropy trained stays below
_LARGEST_HALF = torch.finfo(torch.float16).max  # beyond it logits would become infinite


def to_half(logits: Float[Tensor, "*shape classes"]) -> Float16[Tensor, "*shape classes"]:
    """Return logits as they are cached, in float16; every table is made of these numbers.

    Of an image whose largest logit is far from 0 it becomes 0. Softmax sees differences alone, and
    those of such numbers float16 rounds away: its steps are 0.25 at 500.
    """
    largest = logits.amax(dim=-1, keepdim=True)
    is_far = (largest.abs() > _FAR) & largest.isfinite()
    near = torch.where(is_far, logits - largest, logits)
    return near.clamp(-_LARGEST_HALF, _LARGEST_HALF).half()


@dataclass(frozen=True)
class SurfaceLogits:
    """Logits at the points of one surface.

    Attributes:
        surface: name of the surface.
        shape: its shape.
        statistics: BatchNorm statistics of the points: `reestimated`, `interpolated` or `none`; or
            `repaired`, see `fourfold.evaluation.repair`.
        points: coordinates of each network.
        logits: of each split.
        own: of each split: the corners as trained, in corner order, with their own BatchNorm
            statistics; those of the points at the corners if nobody trained these alone. Baselines
            are made of these.
        labels: of each split.
    """

    surface: str
    shape: Shape
    statistics: str
    points: list[Point]
    logits: dict[str, Float16[Tensor, "points _images _classes"]]
    own: dict[str, Float16[Tensor, "corners _images _classes"]]
    labels: dict[str, Int64[Tensor, " _images"]]

    @property
    def corners(self) -> list[int]:
        """Positions of the corners among the points, in corner order."""
        return [self.position(corner) for corner in self.shape.corner_coordinates]

    @property
    def candidates(self) -> list[int]:
        """Positions of all points but the corners: what a merge or an ensemble is chosen from.

        A set, whose other point is the mean of its corners, has none.
        """
        if self.shape.is_discrete:
            return []
        corners = set(self.shape.corner_coordinates)
        return [i for i, point in enumerate(self.points) if point not in corners]

    @property
    def inner(self) -> list[int]:
        """Positions of the candidates nearest to the shape's inner points, each taken once."""
        points, free = np.asarray(self.points), list(self.candidates)
        chosen: list[int] = []
        for point in self.shape.inner_points[: len(free)]:
            distances = ((points[free] - np.asarray(point)) ** 2).sum(axis=1)
            chosen.append(free.pop(int(distances.argmin())))
        return chosen

    def position(self, point: Point) -> int:
        """Return the position of a point."""
        if point not in self.points:
            raise InputError(
                f"surface {self.surface!r} was not evaluated at {point}; choose points that have "
                "it among them."
            )
        return self.points.index(point)

    def save(self, path: str | Path, metadata: Mapping[str, Any]) -> None:
        """Write a safetensors file, completely or not at all."""
        header = {**metadata, "format": _FORMAT, "surface": self.surface}
        header |= {"statistics": self.statistics, "shape": self.shape.described()}
        _save(self, ("logits", "own", "labels"), {}, path, header)

    @classmethod
    def load(cls, path: str | Path) -> "SurfaceLogits":
        """Read what `save` wrote."""
        tensors, header, parts = _load(path, _FORMAT, "logits", ("logits", "own", "labels"))
        with reading(path, "logits"):
            fields = {"surface": str, "statistics": str, "shape": dict}
            check_fields(header, fields, "the header")
            shape, points = shape_of(header["shape"]), _points(tensors)
            counts = {"logits": len(points), "own": len(shape.corner_rows)}
            for split, labels in parts["labels"].items():
                classes = parts["own"][split].shape[-1]
                for part, networks in counts.items():
                    size = (networks, len(labels), classes)
                    _check_shape(parts[part][split], size, torch.float16, f"{part}/{split}")
                _check_indices(labels, classes, f"the labels of {split!r:.40}")
        return cls(header["surface"], shape, header["statistics"], points, **parts)


@dataclass(frozen=True)
class Examples:
    """What some networks of one surface do on each image of each split: enough for a bootstrap.

    Attributes:
        surface: name of the surface.
        points: coordinates of each network.
        samples: of each network, why it was evaluated: `grid`, `center`, `edge`, `random`, or `own`
            for a corner with its own BatchNorm statistics.
        nll: of each split, nats.
        correct: of each split.
        labels: of each split.
    """

    surface: str
    points: list[Point]
    samples: list[str]
    nll: dict[str, Float[Tensor, "networks _images"]]
    correct: dict[str, Bool[Tensor, "networks _images"]]
    labels: dict[str, Int64[Tensor, " _images"]]

    def save(self, path: str | Path, metadata: Mapping[str, Any]) -> None:
        """Write a safetensors file, completely or not at all."""
        codes = torch.tensor([SAMPLES.index(one) for one in self.samples], dtype=torch.uint8)
        header = {**metadata, "format": _EXAMPLES_FORMAT, "surface": self.surface}
        _save(self, ("nll", "correct", "labels"), {"samples": codes}, path, header)

    @classmethod
    def load(cls, path: str | Path) -> "Examples":
        """Read what `save` wrote."""
        what = ("nll", "correct", "labels")
        tensors, header, parts = _load(path, _EXAMPLES_FORMAT, "examples", what)
        with reading(path, "examples"):
            check_fields(header, {"surface": str}, "the header")
            points, codes = _points(tensors), tensors["samples"]
            _check_shape(codes, (len(points),), torch.uint8, "samples")
            _check_indices(codes.long(), len(SAMPLES), "samples")
            for split, labels in parts["labels"].items():
                shape = (len(points), len(labels))
                _check_shape(parts["nll"][split], shape, torch.float32, f"nll/{split}")
                _check_shape(parts["correct"][split], shape, torch.bool, f"correct/{split}")
            samples = [SAMPLES[code] for code in codes.tolist()]
        return cls(header["surface"], points, samples, **parts)


def _save(
    stored: SurfaceLogits | Examples,
    parts: Sequence[str],
    more: Mapping[str, Tensor],
    path: str | Path,
    header: Mapping[str, Any],
) -> None:
    tensors = {"points": torch.tensor(stored.points, dtype=torch.float64), **more}
    for part in parts:
        tensors |= {f"{part}/{split}": values for split, values in getattr(stored, part).items()}
    save_tensors(tensors, path, header)


def _load(
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
        if len({frozenset(splits) for splits in found.values()}) != 1:
            raise InputError(f"each split must have all of {', '.join(parts)}.")
    return tensors, header, found


def _points(tensors: Mapping[str, Tensor]) -> list[Point]:
    points = tensors["points"]
    _check_shape(points, (len(points), *points.shape[1:2]), torch.float64, "points")
    return [tuple(point) for point in points.tolist()]


def _check_shape(values: Tensor, shape: tuple[int, ...], dtype: torch.dtype, what: str) -> None:
    if values.shape != shape or values.dtype != dtype:
        raise InputError(
            f"{what:.40} is {values.dtype} of shape {tuple(values.shape)}, expected {dtype} of "
            f"shape {shape}."
        )


def _check_indices(indices: Tensor, count: int, what: str) -> None:
    _check_shape(indices, (indices.numel(),), torch.int64, what)
    if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < count:
        raise InputError(
            f"{what} run from {int(indices.min())} to {int(indices.max())}; allowed are 0 to "
            f"{count - 1}."
        )
