"""Curves, squares and cubes: tensor products of Bernstein polynomials."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from fourfold.errors import InputError
from fourfold.surfaces.shapes.shape import (
    Array,
    Coordinates,
    Edge,
    Point,
    Shape,
    Weights,
    equidistant,
)

MAX_DEGREE = 20  # beyond, float32 weights lose their last digits


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
        if not 1 <= len(degree) <= count or any(not 1 <= d <= MAX_DEGREE for d in degree):
            raise InputError(
                f"degree is {list(degree)}; give one to {count} integers from 1 to {MAX_DEGREE}, "
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
        axis = equidistant(points)
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


SQUARE = Box((1, 1))
