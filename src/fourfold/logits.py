"""Cached logits of the networks at many points of a surface: what ensembles are made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fourfold.checkpoint import load_tensors, save_tensors
from fourfold.errors import InputError
from fourfold.surface import CORNER_COORDINATES

_FORMAT = "fourfold-logits-1"


@dataclass(frozen=True)
class SurfaceLogits:
    """Logits at the points of one surface.

    Attributes:
        surface: name of the surface.
        points: (u, v) of each network.
        logits: split -> (points, n, classes) float16.
        labels: split -> (n,) int64.
    """

    surface: str
    points: list[tuple[float, float]]
    logits: dict[str, Tensor]
    labels: dict[str, Tensor]

    @property
    def corners(self) -> list[int]:
        """Positions of the four corners among the points, in corner order."""
        return [self.position(*corner) for corner in CORNER_COORDINATES]

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
        tensors |= {f"labels/{split}": values for split, values in self.labels.items()}
        save_tensors(tensors, path, {**metadata, "format": _FORMAT, "surface": self.surface})

    @classmethod
    def load(cls, path: str | Path) -> "SurfaceLogits":
        """Read what `save` wrote.

        Raises:
            InputError: if the file is missing, damaged, or holds no logits.
        """
        tensors, header = load_tensors(path)
        if header.get("format") != _FORMAT:
            raise InputError(
                f"{path} holds no logits: its format is {header.get('format')!r}, "
                f"expected {_FORMAT!r}."
            )
        parts: dict[str, dict[str, Tensor]] = {"logits": {}, "labels": {}}
        for name, values in tensors.items():
            if "/" in name:
                part, split = name.split("/", 1)
                parts[part][split] = values
        points = [tuple(point) for point in tensors["points"].tolist()]
        return cls(header["surface"], points, **parts)
