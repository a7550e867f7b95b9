"""Rows of a `grid` table by what their points are."""

import pandas as pd

from fourfold.surfaces.shapes import SQUARE, Point, Shape


def grid_points(points: int) -> list[Point]:
    """Return a points x points lattice over the unit square, v running fastest; at least 2 x 2."""
    return SQUARE.lattice(points)


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


def own_corner_rows(grid: pd.DataFrame, shape: Shape = SQUARE) -> pd.DataFrame:
    """Return the rows of the corners as they were trained, with their own BatchNorm statistics.

    Corners that nobody trained alone have none: then those of the points at the corners.
    """
    corners = grid[shape.is_corner(grid)]
    own = corners[corners["statistics"].isin(("own", "none"))]
    return own if len(own) else surface_rows(corners)


def rows_at(rows: pd.DataFrame, shape: Shape, point: Point) -> pd.DataFrame:
    """Return the rows at one point."""
    return rows[(rows[list(shape.axes)] == list(point)).all(axis=1)]
