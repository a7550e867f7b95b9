"""Shapes that networks span: where their control points act, and what their points are.

The only place that knows one shape from another. Fitting, evaluation, combination and report use
the interface of `Shape` alone. No torch: the report reads tables with it.
"""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations, combinations_with_replacement, permutations, product
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import ArrayLike

from fourfold.errors import InputError

AXES = ("u", "v", "w")  # names of coordinates, and of their columns in tables
_MAX_DEGREE = 20  # beyond, float32 weights lose their last digits
_ROUNDING = 1e-9  # of coordinates that sum to 1

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
        """The point in the middle, at equal distances from all corners."""

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
        shares = [i / (points - 1) for i in range(1, points - 1)]
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

    def check(self, point: Sequence[float]) -> Point:
        """Return the coordinates of one point as floats.

        Raises:
            InputError: if they are too many or too few, or the point is not on the shape.
        """
        if len(point) != self.dims:
            raise InputError(
                f"{tuple(point)} has {len(point)} coordinates; a point of a {self.kind} has "
                f"{self.dims}: {', '.join(self.axes)}."
            )
        if not self.contains(np.asarray([point], float))[0]:
            raise InputError(f"({', '.join(self.axes)}) is {tuple(point)}; {self._bounds()}.")
        return tuple(map(float, point))

    def _bounds(self) -> str:
        return "each must lie in [0, 1]" if self.dims > 1 else "it must lie in [0, 1]"


def along(edge: Edge, shares: Sequence[float]) -> list[Point]:
    """Return the points of an edge at shares of its length from its first end."""
    start, end = edge
    return [tuple(a + t * (b - a) for a, b in zip(start, end, strict=True)) for t in shares]


# --- tensor products ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Box(Shape):
    """A Bezier curve, surface or volume: products of Bernstein polynomials over a unit cube.

    theta(u, v) = sum_ij B_i^n(u) B_j^m(v) P_ij, and likewise with one or three coordinates. The
    control point P_ij is in row i (m + 1) + j.

    Attributes:
        degree: the polynomial degree along each axis.

    Reference: Ren, Chen, Wang, "Revisiting Mode Connectivity in Neural Networks with Bezier
    Surface", ICLR 2025; for curves Garipov et al., "Loss Surfaces, Mode Connectivity, and Fast
    Ensembling of DNNs", NeurIPS 2018.
    """

    degree: tuple[int, ...]
    _kinds: ClassVar[tuple[str, ...]] = ("curve", "square", "cube")

    def __post_init__(self) -> None:
        """Check the degree."""
        degree, count = self.degree, len(self._kinds)
        if not 1 <= len(degree) <= count or any(not 1 <= d <= _MAX_DEGREE for d in degree):
            raise InputError(
                f"degree is {list(degree)}; give one to {count} integers from 1 to {_MAX_DEGREE}, "
                "one for each axis (1 everywhere is the linear surface)."
            )

    @property
    def kind(self) -> str:  # type: ignore[override]
        """Its name in `params.yaml`."""
        return self._kinds[len(self.degree) - 1]

    @cached_property
    def corner_coordinates(self) -> tuple[Point, ...]:
        """All combinations of 0 and 1, the last coordinate fastest."""
        return tuple(product((0.0, 1.0), repeat=len(self.degree)))

    @cached_property
    def _indices(self) -> tuple[tuple[int, ...], ...]:
        return tuple(product(*(range(d + 1) for d in self.degree)))

    @cached_property
    def control_point_names(self) -> tuple[str, ...]:
        """`corner_01` and `P_12`, by position along the axes."""
        between = "_" if max(self.degree) >= 10 else ""  # P_1_10 and P_11_0 must differ

        def name(index: tuple[int, ...]) -> str:
            if all(i in (0, d) for i, d in zip(index, self.degree, strict=True)):
                return "corner_" + "".join("1" if i else "0" for i in index)
            return "P_" + between.join(map(str, index))

        return tuple(name(index) for index in self._indices)

    @cached_property
    def corner_rows(self) -> tuple[int, ...]:
        """The rows whose indices are 0 or the degree."""
        corners = product(*((0, d) for d in self.degree))
        return tuple(self._indices.index(corner) for corner in corners)

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """Those along the first axis first."""
        found = []
        for axis in range(self.dims):
            for others in product((0.0, 1.0), repeat=self.dims - 1):
                start, end = ((*others[:axis], t, *others[axis:]) for t in (0.0, 1.0))
                found.append((start, end))
        return tuple(found)

    @property
    def center(self) -> Point:
        """One half along each axis."""
        return (0.5,) * len(self.degree)

    def weights(self, points: Coordinates) -> Weights:
        """Return the products of the Bernstein polynomials of the axes."""
        return _product(points, self.degree)

    def mixture(self, points: Coordinates) -> Float[np.ndarray, "points corners"]:
        """Return the multilinear weights."""
        return _product(points, (1,) * self.dims)

    @property
    def nodes(self) -> Coordinates:
        """Control points are equally spaced along each axis."""
        return np.asarray(self._indices) / np.asarray(self.degree)

    def contains(self, points: Coordinates) -> Array:
        """Return whether all coordinates lie in [0, 1]."""
        return np.all((points >= 0) & (points <= 1), axis=1)

    def from_cube(self, points: Coordinates) -> Coordinates:
        """Return the points: the shape is the cube."""
        return points

    def lattice(self, points: int) -> list[Point]:
        """Return all combinations of equidistant coordinates."""
        axis = _axis(points)
        return list(product(axis, repeat=self.dims))

    def lattice_weights(self, points: int) -> Array:
        """Return the products of the axes' trapezoid weights."""
        weight = np.full(points, 1 / (points - 1))
        weight[[0, -1]] /= 2
        whole: Array = weight
        for _ in range(self.dims - 1):
            whole = np.multiply.outer(whole, weight)
        return whole.ravel()

    def raised(self) -> tuple["Box", Array]:
        """Raise the degree by one along each axis."""
        matrix: Array = np.eye(1)
        for degree in self.degree:
            matrix = np.kron(matrix, _raise(degree))
        return Box(tuple(d + 1 for d in self.degree)), matrix

    def settings(self) -> dict[str, Any]:
        """Return the degree."""
        return {"degree": list(self.degree)}


def bernstein(degree: int, t: Float[np.ndarray, " points"]) -> Weights:
    """Evaluate B_i(t) = C(n, i) t^i (1 - t)^(n - i) for i = 0..n, n = `degree`, t in [0, 1]."""
    i = np.arange(degree + 1)
    binomial = np.array([math.comb(degree, k) for k in i], float)
    return binomial * t[:, None] ** i * (1 - t[:, None]) ** (degree - i)


def gram_matrix(degree: Sequence[int]) -> Float[np.ndarray, "control_points control_points"]:
    """Return the integrals over a `Box` of the products of two control points' weights.

    On one axis G_ij = C(n,i) C(n,j) / (C(2n, i+j) (2n+1)); else the Kronecker product. The trace
    over the free control points is the mean factor by which a point of the surface moves less than
    a single network under the same learning rate: about 1/8 for 3 x 3 control points.
    """
    matrix: Array = np.eye(1)
    for n in degree:
        rows = [
            [math.comb(n, i) * math.comb(n, j) / math.comb(2 * n, i + j) for j in range(n + 1)]
            for i in range(n + 1)
        ]
        matrix = np.kron(matrix, np.array(rows) / (2 * n + 1))
    return matrix


def _product(points: Coordinates, degree: Sequence[int]) -> Weights:
    weights = np.ones((len(points), 1))
    for axis, n in enumerate(degree):
        weights = (weights[:, :, None] * bernstein(n, points[:, axis])[:, None, :]).reshape(
            len(points), -1
        )
    return weights


def _raise(degree: int) -> Array:
    """Return A with A @ P the control points of the same curve, one degree higher."""
    matrix = np.zeros((degree + 2, degree + 1))
    for i in range(degree + 2):
        if i > 0:
            matrix[i, i - 1] = i / (degree + 1)
        if i <= degree:
            matrix[i, i] = 1 - i / (degree + 1)
    return matrix


def _axis(points: int) -> list[float]:
    if points < 2:
        raise InputError(f"grid points is {points}; a grid needs at least 2 along each axis.")
    return [i / (points - 1) for i in range(points)]


# --- chains ---------------------------------------------------------------------------------------


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
        if not 0 <= self.bends <= 100:
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
        return [(t,) for t in _axis(points)]

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


# --- simplices ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Simplex(Shape):
    """A line, triangle or tetrahedron of any degree, with corners and added vertices.

    theta = sum_a n! / (a_0! ... a_k!) l_0^a_0 ... l_k^a_k P_a over all a that sum to n, with the
    barycentric coordinates l_0 = 1 - u - v - w, l_1 = u, l_2 = v, l_3 = w. With degree 1 that is
    the simplex of the vertices. Added vertices are no given networks: they start in the middle of
    the corners and are trained.

    Attributes:
        corners: how many vertices are given networks.
        added: how many are not.
        degree: one degree for all edges.

    Reference: Benton et al., "Loss Surface Simplexes for Mode Connecting Volumes and Fast
    Ensembling", ICML 2021.
    """

    corners: int
    added: int = 0
    degree: int = 1

    def __post_init__(self) -> None:
        """Check the counts."""
        if self.corners < 1 or self.added < 0 or not 2 <= self._vertices <= len(AXES) + 1:
            raise InputError(
                f"a simplex of {self.corners} corners and {self.added} added vertices; it has 2 to "
                f"{len(AXES) + 1} vertices, at least one of them a corner."
            )
        if not 1 <= self.degree <= _MAX_DEGREE:
            raise InputError(
                f"degree is [{self.degree}]; give one integer from 1 to {_MAX_DEGREE}."
            )

    @property
    def kind(self) -> str:  # type: ignore[override]
        """`triangle` if it has three corners and nothing else, or `simplex`."""
        return "triangle" if (self.corners, self.added) == (3, 0) else "simplex"

    @property
    def _vertices(self) -> int:
        return self.corners + self.added

    @cached_property
    def _vertex_coordinates(self) -> tuple[Point, ...]:
        dims = self._vertices - 1
        return tuple(tuple(float(i == k) for i in range(1, dims + 1)) for k in range(dims + 1))

    @property
    def corner_coordinates(self) -> tuple[Point, ...]:
        """The origin and the ends of the axes."""
        return self._vertex_coordinates[: self.corners]

    @cached_property
    def _indices(self) -> tuple[tuple[int, ...], ...]:
        chosen = combinations_with_replacement(range(self._vertices), self.degree)
        return tuple(tuple(one.count(k) for k in range(self._vertices)) for one in chosen)

    @cached_property
    def _vertex_rows(self) -> tuple[int, ...]:
        return tuple(
            self._indices.index(tuple(self.degree * (i == k) for i in range(self._vertices)))
            for k in range(self._vertices)
        )

    @cached_property
    def control_point_names(self) -> tuple[str, ...]:
        """`corner_0`, `vertex_0` for added ones, and `P_110` by the share of the vertices."""
        between = "_" if self.degree >= 10 else ""
        names = ["P_" + between.join(map(str, index)) for index in self._indices]
        for k, row in enumerate(self._vertex_rows):
            added = k - self.corners
            names[row] = f"corner_{k}" if added < 0 else f"vertex_{added}"
        return tuple(names)

    @property
    def corner_rows(self) -> tuple[int, ...]:
        """The rows of the vertices that are given networks."""
        return self._vertex_rows[: self.corners]

    @property
    def edges(self) -> tuple[Edge, ...]:
        """All pairs of vertices."""
        return tuple(combinations(self._vertex_coordinates, 2))

    @property
    def center(self) -> Point:
        """Equal shares of all vertices."""
        return (1 / self._vertices,) * (self._vertices - 1)

    def _barycentric(self, points: Coordinates) -> Float[np.ndarray, "points vertices"]:
        first = np.clip(1 - points.sum(axis=1, keepdims=True), 0, 1)
        return np.concatenate([first, points], axis=1)

    def weights(self, points: Coordinates) -> Weights:
        """Return the Bernstein polynomials of the barycentric coordinates."""
        indices = np.asarray(self._indices)
        shares = self._barycentric(points)[:, None, :] ** indices[None]
        multinomial = [
            math.factorial(self.degree) // math.prod(map(math.factorial, index))
            for index in self._indices
        ]
        return np.array(multinomial, float) * shares.prod(axis=2)

    def mixture(self, points: Coordinates) -> Float[np.ndarray, "points corners"]:
        """Return the barycentric coordinates, those of added vertices divided among the corners."""
        shares = self._barycentric(points)
        added = shares[:, self.corners :].sum(axis=1, keepdims=True)
        return shares[:, : self.corners] + added / self.corners

    @property
    def nodes(self) -> Coordinates:
        """Control points are equally spaced."""
        return np.asarray(self._indices)[:, 1:] / self.degree

    def contains(self, points: Coordinates) -> Array:
        """Return whether no coordinate is negative and they sum to at most 1."""
        return np.all(points >= 0, axis=1) & np.asarray(points.sum(axis=1) <= 1 + _ROUNDING)

    def from_cube(self, points: Coordinates) -> Coordinates:
        """Return the distances between the sorted coordinates, which are uniform."""
        ordered = np.sort(points, axis=1)
        return np.diff(ordered, axis=1, prepend=0)

    def lattice(self, points: int) -> list[Point]:
        """Return the points of the cube's lattice that lie on the simplex."""
        steps = len(_axis(points)) - 1
        whole = product(range(steps + 1), repeat=self._vertices - 1)
        return [tuple(i / steps for i in index) for index in whole if sum(index) <= steps]

    def lattice_weights(self, points: int) -> Array:
        """Return the shares of the small simplices that a point is a vertex of."""
        steps, dims = points - 1, self._vertices - 1
        position = {
            index: k
            for k, index in enumerate(
                index for index in product(range(points), repeat=dims) if sum(index) <= steps
            )
        }
        counts = np.zeros(len(position))
        # In the sums of the first coordinates, s_1 <= s_2 <= ..., the simplex is cut along the
        # diagonals of the cubes: each permutation of the axes is one path along a cube's edges.
        for origin in product(range(steps), repeat=dims):
            for order in permutations(range(dims)):
                corner, path = list(origin), [tuple(origin)]
                for axis in order:
                    corner[axis] += 1
                    path.append(tuple(corner))
                indices = [tuple(np.diff(sums, prepend=0).tolist()) for sums in path]
                if all(index in position for index in indices):
                    counts[[position[index] for index in indices]] += 1
        return counts / counts.sum()

    def raised(self) -> tuple["Simplex", Array]:
        """Raise the degree by one."""
        higher = Simplex(self.corners, self.added, self.degree + 1)
        matrix = np.zeros((len(higher._indices), len(self._indices)))
        for row, index in enumerate(higher._indices):
            for k, share in enumerate(index):
                if share:
                    lower = tuple(a - (i == k) for i, a in enumerate(index))
                    matrix[row, self._indices.index(lower)] = share / higher.degree
        return higher, matrix

    def settings(self) -> dict[str, Any]:
        """Return the degree of a triangle, else what is beside the corners."""
        if self.kind == "triangle":
            return {"degree": [self.degree]}
        return {"added": self.added} | ({"degree": [self.degree]} if self.degree > 1 else {})

    def _bounds(self) -> str:
        return "none may be negative, and their sum must be at most 1"


# --- stars ----------------------------------------------------------------------------------------


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
        if self.corners < 1 or self.added not in (0, 1):
            raise InputError(
                f"a {self.kind} of {self.corners} corners with added: {self.added}; it has at "
                "least one corner, and added is 0 or 1: one center."
            )

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
        shares = _axis(points)[1:]
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


# --- by name --------------------------------------------------------------------------------------


def _degree(kind: str, degree: Any, axes: int = 1) -> tuple[int, ...]:
    is_list = isinstance(degree, (list, tuple)) and len(degree) == axes
    if not is_list or any(not isinstance(d, int) or isinstance(d, bool) for d in degree):
        raise InputError(
            f"degree is {degree}; a {kind} takes {axes} integer{'s' * (axes > 1)} from 1 to "
            f"{_MAX_DEGREE} (1 is the linear one)."
        )
    return tuple(degree)


# Kind -> what makes it from the number of networks, if that is known, and its settings.
_MAKERS: dict[str, Callable[..., Shape]] = {
    "curve": lambda corners, degree: Box(_degree("curve", degree)),
    "square": lambda corners, degree: Box(_degree("square", degree, 2)),
    "cube": lambda corners, degree: Box(_degree("cube", degree, 3)),
    "chain": lambda corners, bends: Chain(bends),
    "triangle": lambda corners, degree: Simplex(3, 0, _degree("triangle", degree)[0]),
    "simplex": lambda corners, added=0, degree=(1,): Simplex(
        4 - added if corners is None else corners, added, _degree("simplex", degree)[0]
    ),
    "star": lambda corners, added=0: Star(4 if corners is None else corners, added),
    "set": lambda corners: PointSet(4 if corners is None else corners),
}
KINDS = tuple(_MAKERS)
ANY_COUNT = ("simplex", "star", "set")  # kinds that take as many corners as there are networks
# What a caller of the library means who says nothing.
USUAL: dict[str, dict[str, Any]] = {
    "curve": {"degree": [2]},
    "square": {"degree": [2, 2]},
    "cube": {"degree": [2, 2, 2]},
    "chain": {"bends": 1},
    "triangle": {"degree": [2]},
    "simplex": {},
    "star": {},
    "set": {},
}
SQUARE = Box((1, 1))


def make_shape(kind: str, corners: int | None = None, **settings: Any) -> Shape:
    """Make a shape from what `params.yaml` or a file says of it.

    Args:
        kind: one of `KINDS`.
        corners: how many networks there are; what a shape needs if None, for a simplex 4 less
            its added vertices, for a star or a set 4.
        settings: `degree` (a list), `bends` of a chain, `added` vertices of a simplex, or 1 for
            the center of a star.

    Raises:
        InputError: if settings don't belong to the shape, or the corners are too many or too few.
    """
    if not isinstance(kind, str) or kind not in _MAKERS:
        raise InputError(f"shape is {kind!r}; choose one of {', '.join(KINDS)}.")
    given = dict(inspect.signature(_MAKERS[kind]).parameters)
    del given["corners"]
    needed = {name for name, one in given.items() if one.default is inspect.Parameter.empty}
    if not needed <= settings.keys() <= given.keys():
        raise InputError(
            f"a {kind} has {' and '.join(given) or 'no settings'}, but "
            f"{sorted(settings) or 'nothing'} is given."
        )
    shape = _MAKERS[kind](corners, **settings)
    if corners is not None and corners != len(shape.corner_rows):
        raise InputError(
            f"a {kind} has {len(shape.corner_rows)} corners, but there are {corners} networks."
        )
    return shape


def shape_of(described: Mapping[str, Any]) -> Shape:
    """Return the shape of a surface as an experiment or a table describes it.

    Args:
        described: `shape`, its settings, and `count`, the number of its corners.
    """
    settings = {
        k: described[k] for k in ("degree", "bends", "added") if described.get(k) is not None
    }
    return make_shape(described["shape"], described.get("count"), **settings)


def full_coordinates(points: ArrayLike) -> dict[str, list[float]]:
    """Return the columns u, v and w of points, NaN where the shape has fewer."""
    array = np.asarray(points, float).reshape(len(np.asarray(points)), -1)
    columns = {axis: array[:, k].tolist() for k, axis in enumerate(AXES[: array.shape[1]])}
    return columns | {axis: [math.nan] * len(array) for axis in AXES[array.shape[1] :]}
