"""Polygonal chains."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from fourfold.errors import InputError, check_count
from fourfold.surfaces.shapes.box import Box
from fourfold.surfaces.shapes.shape import (
    Array,
    Coordinates,
    Edge,
    Point,
    Shape,
    Weights,
    equidistant,
)


@dataclass(frozen=True)
class Chain(Shape):
    """A polygonal chain: straight pieces of equal length in t, from corner to corner by its bends.

    Reference: Garipov et al., "Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs",
    NeurIPS 2018.
    """

    bends: int
    kind: ClassVar[str] = "chain"
    corner_coordinates: ClassVar[tuple[Point, ...]] = ((0.0,), (1.0,))
    edges: ClassVar[tuple[Edge, ...]] = (((0.0,), (1.0,)),)
    center: ClassVar[Point] = (0.5,)

    def __post_init__(self) -> None:
        """Check the number of bends."""
        check_count("bends", self.bends)
        if self.bends > 100:
            raise InputError(f"bends is {self.bends}; a chain has 0 to 100.")

    @property
    def control_point_names(self) -> tuple[str, ...]:
        """From corner to corner."""
        bends = (f"bend_{k + 1}" for k in range(self.bends))
        return ("corner_0", *bends, "corner_1")

    @property
    def corner_rows(self) -> tuple[int, ...]:
        """The first and the last."""
        return (0, self.bends + 1)

    def weights(self, points: Coordinates) -> Weights:
        """Return the two weights of the piece that a point lies on."""
        position = points[:, :1] * (self.bends + 1)
        return np.clip(1 - np.abs(position - np.arange(self.bends + 2)), 0, 1)

    def mixture(self, points: Coordinates) -> Float[np.ndarray, "points corners"]:
        """Return 1 - t and t."""
        return np.concatenate([1 - points, points], axis=1)

    @property
    def nodes(self) -> Coordinates:
        """Bends are equally spaced."""
        return np.arange(self.bends + 2)[:, None] / (self.bends + 1)

    def contains(self, points: Coordinates) -> Array:
        """Return whether t lies in [0, 1]."""
        return np.all((points >= 0) & (points <= 1), axis=1)

    def from_cube(self, points: Coordinates) -> Coordinates:
        """Return the points."""
        return points

    def lattice(self, points: int) -> list[Point]:
        """Return equidistant points."""
        return [(t,) for t in equidistant(points)]

    def lattice_weights(self, points: int) -> Array:
        """Return trapezoid weights."""
        return Box((1,)).lattice_weights(points)

    def raised(self) -> tuple["Chain", Array]:
        """Put a bend into the middle of each piece."""
        finer = Chain(2 * self.bends + 1)
        return finer, self.weights(finer.nodes)

    def settings(self) -> dict[str, Any]:
        """Return the number of bends."""
        return {"bends": self.bends}
