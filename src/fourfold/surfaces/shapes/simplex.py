"""Lines, triangles and tetrahedra."""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, combinations_with_replacement, permutations, product
from typing import Any

import numpy as np
from jaxtyping import Float

from fourfold.errors import InputError, check_count
from fourfold.surfaces.shapes.box import MAX_DEGREE
from fourfold.surfaces.shapes.shape import (
    AXES,
    Array,
    Coordinates,
    Edge,
    Point,
    Shape,
    Weights,
    equidistant,
)

_ROUNDING = 1e-9  # of coordinates that sum to 1


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
        check_count("corners", self.corners, 1)
        check_count("added", self.added)
        check_count("degree", self.degree, 1)
        if not 2 <= self._vertices <= len(AXES) + 1:
            raise InputError(
                f"a simplex of {self.corners} corners and {self.added} added vertices; it has 2 to "
                f"{len(AXES) + 1} vertices, at least one of them a corner."
            )
        if self.degree > MAX_DEGREE:
            raise InputError(f"degree is [{self.degree}]; give one integer from 1 to {MAX_DEGREE}.")

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
        steps = len(equidistant(points)) - 1
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
