"""What every shape has: control points, corners, edges, a center, a lattice and its mean."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import cached_property
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import ArrayLike

from fourfold.errors import InputError, check_count

AXES = ("u", "v", "w")  # names of coordinates, and of their columns in tables

Point = tuple[float, ...]
Array = np.ndarray[Any, np.dtype[Any]]
Coordinates = Float[np.ndarray, "points axes"]
Weights = Float[np.ndarray, "points control_points"]
Edge = tuple[Point, Point]


class Shape(ABC):
    """What a surface of this shape is made of.

    Attributes:
        kind: its name in `params.yaml`.
    """

    kind: ClassVar[str]

    # --- what a shape must say ---

    @property
    @abstractmethod
    def corner_coordinates(self) -> tuple[Point, ...]:
        """The coordinates of the given networks."""

    @property
    @abstractmethod
    def control_point_names(self) -> tuple[str, ...]:
        """One name for each control point, `corner_...` for those that are corners."""

    @property
    @abstractmethod
    def corner_rows(self) -> tuple[int, ...]:
        """Which control points are the corners, in their order."""

    @property
    @abstractmethod
    def edges(self) -> tuple[Edge, ...]:
        """Both ends of each edge; coordinates are linear along it."""

    @property
    @abstractmethod
    def center(self) -> Point:
        """The point in the middle, whose `mixture` has equal shares of all corners."""

    @abstractmethod
    def weights(self, points: Coordinates) -> Weights:
        """Return the weights of the control points at points, which sum to one."""

    @abstractmethod
    def mixture(self, points: Coordinates) -> Float[np.ndarray, "points corners"]:
        """Return the weights of the corners alone in the simplest surface through them.

        Where control points start, and what a surface is compared with.
        """

    @property
    @abstractmethod
    def nodes(self) -> Coordinates:
        """The point that each control point is nearest to, where its start is a mixture."""

    @abstractmethod
    def contains(self, points: Coordinates) -> Array:
        """Return for each point whether it lies on the shape."""

    @abstractmethod
    def from_cube(self, points: Coordinates) -> Coordinates:
        """Map independent uniform points of the unit cube to uniform points of the shape."""

    @abstractmethod
    def lattice(self, points: int) -> list[Point]:
        """Return a regular grid with `points` along each axis, the last coordinate fastest."""

    @abstractmethod
    def lattice_weights(self, points: int) -> Array:
        """Return the share of each lattice point in the mean over the shape."""

    @abstractmethod
    def raised(self) -> "tuple[Shape, np.ndarray]":
        """Return the shape of the next degree, and A with which A @ P is the same surface."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return what `make_shape` makes this shape from, beside its kind."""

    def described(self) -> dict[str, Any]:
        """Return what `shape_of` makes this shape from, as JSON values."""
        return {"shape": self.kind, "count": len(self.corner_rows), **self.settings()}

    # --- what follows ---

    @property
    def dims(self) -> int:
        """How many coordinates a point has."""
        return len(self.center)

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the coordinates."""
        return AXES[: self.dims]

    @property
    def is_discrete(self) -> bool:
        """Whether nothing lies between its networks: no edge, nothing to fit or to choose from."""
        return not self.edges

    @property
    def corner_names(self) -> tuple[str, ...]:
        """The names of the corners, in their order."""
        return tuple(self.control_point_names[row] for row in self.corner_rows)

    @cached_property
    def free_rows(self) -> tuple[int, ...]:
        """Control points that are no corners."""
        return tuple(k for k in range(len(self.control_point_names)) if k not in self.corner_rows)

    def edge_points(self, points: int) -> list[Point]:
        """Return `points` equidistant points along each edge, its ends left out."""
        if points != 0 and points < 3:
            raise InputError(
                f"edge points is {points}; give 0 for none, or at least 3 (both ends count)."
            )
        shares = [Fraction(i, points - 1) for i in range(1, points - 1)]
        return [point for edge in self.edges for point in along(edge, shares)]

    def mean(self, points: pd.DataFrame, values: Sequence[float] | pd.Series) -> float:
        """Return the mean over the shape of values on a lattice, by the trapezoid rule.

        (The plain mean over the points gives the rim, which has no area, a third of the weight of
        an 11 x 11 grid.)

        Args:
            points: coordinate columns, each point of the lattice once, in any order.
            values: one for each row.
        """
        along_axis = self._points_along(points)
        lattice = self.lattice(along_axis) if along_axis > 1 else []
        found = pd.Series(
            np.asarray(values, float),
            index=pd.MultiIndex.from_frame(points[list(self.axes)]),
        )
        index = pd.MultiIndex.from_tuples(lattice, names=self.axes) if lattice else found.index[:0]
        if (
            len(found) != len(lattice)
            or not found.index.is_unique
            or not index.isin(found.index).all()
        ):
            raise InputError(
                f"{len(points)} points with {points[self.axes[0]].nunique()} values of "
                f"{self.axes[0]} are no lattice over the {self.kind}; a mean over it needs each of "
                "its points once."
            )
        return float(self.lattice_weights(along_axis) @ found.loc[index].to_numpy())

    def _points_along(self, points: pd.DataFrame) -> int:
        """Return for which number of points along each axis some points may be the lattice."""
        return points[self.axes[0]].nunique()

    def straightened(self, points: Coordinates) -> Float[np.ndarray, "points _"]:
        """Return points in a space where edges are straight and each network is one point."""
        return points

    def is_corner(self, points: pd.DataFrame) -> pd.Series:
        """Return for each row of a table whether it is at a corner."""
        coordinates = points[list(self.axes)].to_numpy(float)
        corners = np.asarray(self.corner_coordinates)
        hits = (coordinates[:, None, :] == corners[None]).all(axis=2).any(axis=1)
        return pd.Series(hits, index=points.index)

    @cached_property
    def inner_points(self) -> tuple[Point, ...]:
        """As many points as there are corners, none of them one: an ensemble fixed in advance.

        The middles of the edges, if there are as many; else halfway from the corners to the center.
        A shape that is discrete has none.
        """
        ends: Sequence[Edge] = self.edges
        if self.is_discrete:
            return ()
        if len(ends) != len(self.corner_rows):
            ends = [(corner, self.center) for corner in self.corner_coordinates]
        return tuple(sorted(along(edge, [0.5])[0] for edge in ends))

    def check(self, point: Sequence[float] | float) -> Point:
        """Return the coordinates of one point, of a shape with one axis a number, as floats.

        Raises:
            InputError: if they are too many or too few, or the point is not on the shape.
        """
        is_number = isinstance(point, Real) or getattr(point, "ndim", None) == 0
        try:
            at = tuple(map(float, [point] if is_number else point))  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise InputError(
                f"a point is {point!r:.80}; give a number for each of {', '.join(self.axes)}."
            ) from None
        if len(at) != self.dims:
            raise InputError(
                f"{at} has {len(at)} coordinates; a point of a {self.kind} has "
                f"{self.dims}: {', '.join(self.axes)}."
            )
        if not self.contains(np.asarray([at]))[0]:
            raise InputError(f"({', '.join(self.axes)}) is {at}; {self._bounds()}.")
        return at

    def check_all(self, points: Iterable[Sequence[float] | float]) -> list[Point]:
        """Return points, of an array or a tensor its rows, as tuples of floats."""
        if not isinstance(points, Iterable) or getattr(points, "ndim", None) == 0:
            raise InputError(f"points is {points!r}; give a list of points.")
        return [self.check(point) for point in points]

    def _bounds(self) -> str:
        return "each must lie in [0, 1]" if self.dims > 1 else "it must lie in [0, 1]"


def along(edge: Edge, shares: Sequence[float | Fraction]) -> list[Point]:
    """Return the points of an edge at shares of its length from its first end."""
    start, end = edge
    # In fractions, so that an edge from 1 to 0 has the numbers of a lattice too.
    ends = [(Fraction(a), Fraction(b)) for a, b in zip(start, end, strict=True)]
    return [tuple(float(a + Fraction(t) * (b - a)) for a, b in ends) for t in shares]


def written(point: Sequence[float]) -> str:
    """Return the coordinates of a point, as messages and cards have them."""
    return ", ".join(f"{x:g}" for x in point)


def equidistant(points: int) -> list[float]:
    """Return `points` coordinates from 0 to 1, both of them counted."""
    check_count("grid points", points, 2)
    return [i / (points - 1) for i in range(points)]


def full_coordinates(points: ArrayLike) -> dict[str, list[float]]:
    """Return the columns u, v and w of points, NaN where the shape has fewer."""
    array = np.asarray(points, float).reshape(len(np.asarray(points)), -1)
    columns = {axis: array[:, k].tolist() for k, axis in enumerate(AXES[: array.shape[1]])}
    return columns | {axis: [math.nan] * len(array) for axis in AXES[array.shape[1] :]}
