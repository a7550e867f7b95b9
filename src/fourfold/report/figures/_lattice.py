"""The values of one surface on its lattice, and the lines through it that are drawn."""

import numpy as np
import pandas as pd

from fourfold.errors import InputError
from fourfold.report.figures._measure import Floats, Measure


def lattice(rows: pd.DataFrame, surface: str, measure: Measure) -> tuple[Floats, Floats]:
    """Return the points of one axis, and the measure at them as an array [v, u].

    Rows of the array are v and columns u: matplotlib then draws u to the right and v upwards. A
    network that gives no numbers is NaN, and a gap in the figure.

    Raises:
        InputError: if no point has a number.
    """
    rows = rows[rows["surface"] == surface].sort_values(["v", "u"])
    points = np.unique(rows["u"])
    values = measure.values(rows).reshape(len(points), len(points))
    if np.isnan(values).all():
        raise InputError(f"{measure.column} of surface {surface!r} is NaN at all of its points.")
    return points, values


def diagonals(values: Floats) -> tuple[Floats, Floats]:
    """Return the values [v, u] from corner 00 to 11 and from 01 to 10, with u rising."""
    return values.diagonal(), values[::-1].diagonal()


def perimeter(rows: pd.DataFrame, surface: str, measure: Measure) -> tuple[Floats, Floats]:
    """Return position (0 to 4) and value along the edges 00, 10, 11, 01 and back to 00.

    All points on an edge are taken, whether or not they belong to the lattice.
    """
    rows = rows[rows["surface"] == surface]
    u, v, values = rows["u"].to_numpy(), rows["v"].to_numpy(), measure.values(rows)
    sides = [(v == 0, u), (u == 1, 1 + v), (v == 1, 3 - u), (u == 0, 4 - v)]
    along, first = np.unique(
        np.concatenate([place[is_on] for is_on, place in sides]), return_index=True
    )
    return along, np.concatenate([values[is_on] for is_on, _ in sides])[first]
