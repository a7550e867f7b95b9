"""Stars, and sets of points."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd
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
class Star(Shape):
    """Any number of corners, each joined to one center by a straight segment.

    The coordinate u in [0, 1] is a tour that runs along each segment from the center to a corner
    and back, so that a uniform u is a uniform point of the star. With t = n u - k in [0, 1] on the
    segment of corner k of n, theta = (1 - |2 t - 1|) P_k + |2 t - 1| C: corner k lies at
    u = (k + 1/2) / n, and the center C at every k / n, of which u = 0 stands for all.

    Attributes:
        corners: how many.
        added: 1 if the center is a control point of its own, which starts as the mean of the
            corners and is trained; 0 if it is that mean.

    Reference: Sonthalia, Rubinstein, Abbasnejad, Oh, "Do Deep Neural Network Solutions Form a Star
    Domain?", ICLR 2025.
    """

    corners: int
    added: int = 0
    kind: ClassVar[str] = "star"
    center: ClassVar[Point] = (0.0,)

    def __post_init__(self) -> None:
        """Check the counts."""
        check_count("corners", self.corners, 1)
        check_count("added", self.added)
        if self.added > 1:
            raise InputError(f"added is {self.added}; of a {self.kind} it is 0 or 1: one center.")

    @cached_property
    def corner_coordinates(self) -> tuple[Point, ...]:
        """Where the tour turns round."""
        return tuple(self._at(k, 1) for k in range(self.corners))

    @property
    def control_point_names(self) -> tuple[str, ...]:
        """The corners, and `center` if it is none of their mixtures."""
        return (*(f"corner_{k}" for k in range(self.corners)), *["center"] * self.added)

    @property
    def corner_rows(self) -> tuple[int, ...]:
        """The first ones."""
        return tuple(range(self.corners))

    @property
    def edges(self) -> tuple[Edge, ...]:
        """The way out along each segment, from the center."""
        return tuple((self._at(k, 0), corner) for k, corner in enumerate(self.corner_coordinates))

    def _at(self, corner: int, share: float) -> Point:
        """Return the point at a share of the segment, on the way out to the corner."""
        return ((corner + share / 2) / self.corners,)

    def straightened(self, points: Coordinates) -> Float[np.ndarray, "points corners"]:
        """Return the shares of the corners: the center is the origin, the segments are the axes."""
        # Rounded, so that u = (k + 1/2) / n is the corner k itself, whatever n is.
        tour = np.round(points[:, :1] * self.corners, 12)
        return np.clip(1 - np.abs(2 * (tour - np.arange(self.corners)) - 1), 0, 1)

    def weights(self, points: Coordinates) -> Weights:
        """Return the corners' shares, and the rest for the center."""
        if not self.added:
            return self.mixture(points)
        shares = self.straightened(points)
        return np.concatenate([shares, 1 - shares.sum(axis=1, keepdims=True)], axis=1)

    def mixture(self, points: Coordinates) -> Float[np.ndarray, "points corners"]:
        """Return the weights of the star around the mean of the corners."""
        shares = self.straightened(points)
        return shares + (1 - shares.sum(axis=1, keepdims=True)) / self.corners

    @property
    def nodes(self) -> Coordinates:
        """The corners, and the center."""
        return np.asarray([*self.corner_coordinates, *[self.center] * self.added])

    def contains(self, points: Coordinates) -> Array:
        """Return whether u lies in [0, 1]."""
        return np.all((points >= 0) & (points <= 1), axis=1)

    def from_cube(self, points: Coordinates) -> Coordinates:
        """Return the points."""
        return points

    def lattice(self, points: int) -> list[Point]:
        """Return the center, and `points` equidistant ones along each segment, this one counted."""
        shares = equidistant(points)[1:]
        return [self.center, *(self._at(k, x) for k in range(self.corners) for x in shares)]

    def lattice_weights(self, points: int) -> Array:
        """Return the trapezoid weights of the segments; the center has that of all its ends."""
        segment = Box((1,)).lattice_weights(points)
        return np.concatenate([segment[:1], np.tile(segment[1:] / self.corners, self.corners)])

    def _points_along(self, points: pd.DataFrame) -> int:
        return (super()._points_along(points) - 1) // self.corners + 1

    def raised(self) -> tuple["Star", Array]:
        """Make the center a control point of its own.

        Raises:
            InputError: if it is one: a star has no higher degree.
        """
        if self.added or self.is_discrete:
            raise InputError(f"{self} has no next degree; raise another shape.")
        higher = Star(self.corners, added=1)
        return higher, self.weights(higher.nodes)

    def settings(self) -> dict[str, Any]:
        """Return whether the center is added."""
        return {"added": self.added}


@dataclass(frozen=True)
class PointSet(Star):
    """A star without its segments: nothing but the corners, and their mean at u = 0.

    For networks that are only held against others: ensembles, and means of what a run kept. The
    mean over it is that of the corners alone.
    """

    added: int = field(default=0, init=False, repr=False)
    kind: ClassVar[str] = "set"
    edges: ClassVar[tuple[Edge, ...]] = ()

    def contains(self, points: Coordinates) -> Array:
        """Return whether a point is a corner or the mean."""
        return np.isin(points[:, 0], self.lattice(2))

    def from_cube(self, points: Coordinates) -> Coordinates:
        """Return the corner of the segment that a point lies on."""
        corner = np.minimum(points * self.corners, self.corners - 1).astype(int)
        return np.asarray(self.corner_coordinates)[corner[:, 0]]

    def lattice(self, points: int) -> list[Point]:
        """Return the mean and the corners, however many points are asked for."""
        return super().lattice(2)

    def lattice_weights(self, points: int) -> Array:
        """Return equal weights of the corners, and none for the mean."""
        return np.array([0, *[1 / self.corners] * self.corners])

    def settings(self) -> dict[str, Any]:
        """Return nothing: its corners are all there is."""
        return {}

    def _bounds(self) -> str:
        return "a set has points at its corners and, at 0, their mean, and none between"
