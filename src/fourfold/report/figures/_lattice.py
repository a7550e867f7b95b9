"""The values of a surface at its points, and the planes and lines through it that are drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from fourfold.errors import InputError
from fourfold.report.figures._measure import Floats, Measure
from fourfold.surfaces.shapes import Edge, Point, Shape

_ROUNDING = 1e-9  # of points on a line


@dataclass(frozen=True)
class Plane:
    """Two axes of a surface that are drawn, x to the right and y upwards; a third one is held.

    Attributes:
        shape: of the surface.
        axes: the names of x and y.
        held: the name of the third axis -> where; empty if there is none.
    """

    shape: Shape
    axes: tuple[str, str]
    held: Mapping[str, float]

    @property
    def suffix(self) -> str:
        """What says which slice it is, after the name of the surface."""
        return "".join(f", {axis} = {at:.3g}" for axis, at in self.held.items())

    def rows(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the rows in the plane."""
        for axis, at in self.held.items():
            table = table[table[axis] == at]
        return table

    def project(self, point: Sequence[float]) -> tuple[float, float] | None:
        """Return x and y of a point, None if it isn't in the plane."""
        at = dict(zip(self.shape.axes, point, strict=True))
        if any(at[axis] != value for axis, value in self.held.items()):
            return None
        x, y = self.axes
        return at[x], at[y]

    def contains(self, x: Floats, y: Floats) -> np.ndarray:
        """Return whether points of the plane lie on the surface."""
        at: dict[str, Any] = {**self.held, **dict(zip(self.axes, (x, y), strict=True))}
        columns = np.broadcast_arrays(*(at[axis] for axis in self.shape.axes))
        flat = np.stack([column.ravel() for column in columns], axis=1)
        return self.shape.contains(flat).reshape(columns[0].shape)

    def corners(self) -> dict[str, tuple[float, float]]:
        """Return name -> place of the corners in the plane."""
        places = map(self.project, self.shape.corner_coordinates)
        names = corner_labels(self.shape)
        return {name: at for name, at in zip(names, places, strict=True) if at is not None}


def planes(shape: Shape, rows: pd.DataFrame) -> list[Plane]:
    """Return the planes that show a surface: its own, or slices of it; none of a curve.

    Slices go through those points of its lattice, `rows`, that are nearest to the center; the
    first one is across the last axis.
    """
    found = []
    for x, y in combinations(shape.axes, 2):
        held = {}
        for axis, center in zip(shape.axes, shape.center, strict=True):
            if axis not in (x, y):
                places = np.unique(rows[axis])
                held[axis] = float(places[np.abs(places - center).argmin()])
        found.append(Plane(shape, (x, y), held))
    return found


def corner_labels(shape: Shape) -> list[str]:
    """Return what figures call the corners: 00, 01, 10, 11 of a square."""
    return [name.removeprefix("corner_") for name in shape.corner_names]


def coordinate_names(shape: Shape) -> str:
    """Return what the digits of a corner's label are, `uv` of a square; empty if they are none."""
    return "".join(shape.axes) if len(corner_labels(shape)[0]) == shape.dims > 1 else ""


class Heights(NamedTuple):
    """A measure on a plane: coordinates, and the values as an array [y, x]."""

    x: Floats
    y: Floats
    z: Floats


def values_on(plane: Plane, rows: pd.DataFrame, surface: str, measure: Measure) -> Heights:
    """Return the measure on a plane through the lattice of a surface.

    Rows of the array are y and columns x: matplotlib then draws x to the right and y upwards. NaN,
    a gap in the figure, is a network that gives no numbers, and what is not on the surface.

    Raises:
        InputError: if no point has a number.
    """
    rows = plane.rows(rows[rows["surface"] == surface])
    check_numbers(rows, surface, measure)
    x, y = (np.unique(rows[axis]) for axis in plane.axes)
    values = np.full((len(y), len(x)), np.nan)
    columns, lines = (
        np.searchsorted(at, rows[axis]) for at, axis in zip((x, y), plane.axes, strict=True)
    )
    values[lines, columns] = measure.values(rows)
    return Heights(x, y, values)


def check_numbers(rows: pd.DataFrame, surface: str, measure: Measure) -> None:
    """Refuse rows of a surface that have no number."""
    if np.isnan(measure.values(rows)).all():
        raise InputError(f"{measure.column} of surface {surface!r} is NaN at all of its points.")


def is_curve(shape: Shape) -> bool:
    """Return whether a shape is one line from corner to corner."""
    return len(shape.edges) == 1 and set(shape.edges[0]) <= set(shape.corner_coordinates)


def diagonals(shape: Shape) -> dict[str, Edge]:
    """Return the lines between corners of a plane shape that no edge joins, by the corners' names.

    u rises along them.
    """
    pairs = combinations(zip(corner_labels(shape), shape.corner_coordinates, strict=True), 2)
    edges = {frozenset(edge) for edge in shape.edges}
    return {
        f"{a} to {b}": (start, end)
        for (a, start), (b, end) in pairs
        if shape.dims == 2 and frozenset((start, end)) not in edges
    }


def along(rows: pd.DataFrame, shape: Shape, line: Edge, measure: Measure) -> tuple[Floats, Floats]:
    """Return share of the length and value of all points on a line, in order."""
    straight = shape.straightened(np.array([*line, *rows[list(shape.axes)].to_numpy(float)]))
    start, end = straight[:2]
    points, step = straight[2:] - start, end - start
    shares = points @ step / (step @ step)
    beside = np.abs(points - shares[:, None] * step).max(axis=1)
    is_on = (beside < _ROUNDING) & (np.abs(shares - 0.5) < 0.5 + _ROUNDING)
    shares, first = np.unique(shares[is_on], return_index=True)
    return shares, measure.values(rows[is_on])[first]


class Walk(NamedTuple):
    """Edges one after another: where values and vertices stand on an axis, each edge 1 long."""

    places: Floats
    values: Floats  # NaN between two walks
    vertices: dict[float, str]


def around(rows: pd.DataFrame, shape: Shape, measure: Measure) -> Walk:
    """Return the values along all edges, of a square 00, 10, 11, 01 and back to 00.

    All points on an edge are taken, whether or not they belong to the lattice.
    """
    names = {
        tuple(node): name.removeprefix("corner_")
        for node, name in zip(shape.nodes.tolist(), shape.control_point_names, strict=True)
    }
    places: list[Floats] = []
    values: list[Floats] = []
    vertices: dict[float, str] = {}
    begin = 0.0
    for walk in _walks(shape.edges):
        vertices |= {begin + k: names.get(vertex, "center") for k, vertex in enumerate(walk)}
        parts = [along(rows, shape, line, measure) for line in pairwise(walk)]
        at, first = np.unique(
            np.concatenate([begin + k + shares for k, (shares, _) in enumerate(parts)]),
            return_index=True,
        )
        places += [at, np.array([np.nan])]
        values += [np.concatenate([part for _, part in parts])[first], np.array([np.nan])]
        begin += len(walk)
    return Walk(np.concatenate(places[:-1]), np.concatenate(values[:-1]), vertices)


def _walks(edges: Sequence[Edge]) -> list[list[Point]]:
    """Return vertices from edge to edge, until no further edge begins there."""
    left, found = list(edges), []
    while left:
        walk = list(left.pop(0))
        while following := next((edge for edge in left if walk[-1] in edge), None):
            left.remove(following)
            walk.append(following[following[0] == walk[-1]])
        found.append(walk)
    return found
