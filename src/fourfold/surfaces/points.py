"""Points of the unit square that a surface is evaluated at, and their rows in a `grid` table."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fourfold.errors import InputError

CORNER_COORDINATES = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))
CENTER = (0.5, 0.5)

Point = tuple[float, float]


def grid_points(points: int) -> list[Point]:
    """Return a points x points lattice over the unit square, v running fastest; at least 2 x 2."""
    if points < 2:
        raise InputError(f"grid points is {points}; a grid needs at least 2 along each axis.")
    axis = [i / (points - 1) for i in range(points)]
    return [(u, v) for u in axis for v in axis]


def edge_points(points: int) -> list[Point]:
    """Return `points` equidistant points along each of the four edges, corners left out."""
    if points != 0 and points < 3:
        raise InputError(
            f"edge points is {points}; give 0 for none, or at least 3 (both corners count)."
        )
    along = [i / (points - 1) for i in range(1, points - 1)]
    across_u = [(t, end) for end in (0.0, 1.0) for t in along]
    return across_u + [(end, t) for end in (0.0, 1.0) for t in along]


def is_corner(u: pd.Series, v: pd.Series) -> pd.Series:
    """Return for each point whether it is a corner."""
    return u.isin((0.0, 1.0)) & v.isin((0.0, 1.0))


def surface_rows(grid: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a surface's points, all evaluated by one procedure.

    Left out are corners with their own statistics, and rows over a part of their split only: points
    that were searched and found better than others.
    """
    rows = grid[grid["statistics"] != "own"]
    return rows[rows["n"] == rows.groupby("split")["n"].transform("max")]


def lattice_rows(grid: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a surface's regular grid."""
    return surface_rows(grid[grid["sample"] == "grid"])


def own_corner_rows(grid: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the corners as they were trained, with their own BatchNorm statistics."""
    corners = grid[is_corner(grid["u"], grid["v"])]
    return corners[corners["statistics"].isin(("own", "none"))]


def area_mean(u: Sequence[float], v: Sequence[float], values: Sequence[float]) -> float:
    """Return the mean over the unit square of values on a lattice, by the trapezoid rule.

    (The plain mean over the points gives the rim, which has no area, a third of the weight of an
    11 x 11 grid.) Each pair of one axis's coordinates must be there once, from 0 to 1.
    """
    table = pd.DataFrame({"u": u, "v": v, "value": values})
    axes = [np.unique(table[axis]) for axis in ("u", "v")]
    shape = (len(axes[0]), len(axes[1]))
    is_lattice = len(table) == shape[0] * shape[1] and not table.duplicated(["u", "v"]).any()
    if not is_lattice or any(axis[0] != 0 or axis[-1] != 1 for axis in axes):
        raise InputError(
            f"{len(table)} points with u in {axes[0].round(3).tolist()} and v in "
            f"{axes[1].round(3).tolist()} are no lattice over the unit square; a mean over the "
            "area needs each pair of them once, from 0 to 1."
        )
    weights = [np.gradient(axis) for axis in axes]
    for weight in weights:  # np.gradient takes whole steps at the ends
        weight[[0, -1]] /= 2
    square = table.sort_values(["u", "v"])["value"].to_numpy(float).reshape(shape)
    return float(weights[0] @ square @ weights[1])
