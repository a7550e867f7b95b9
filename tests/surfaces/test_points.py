"""Laws of the points of a square, and of what is read off their rows."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from conftest import CORNERS

from fourfold.errors import InputError
from fourfold.surfaces.points import grid_points, lattice_rows, own_corner_rows, surface_rows
from fourfold.surfaces.shapes import SQUARE


@pytest.mark.parametrize("points", [2, 3, 11])
def test_grid_points_are_a_lattice_with_v_running_fastest_and_exact_corners(points):
    lattice = grid_points(points)
    assert len(lattice) == len(set(lattice)) == points**2
    assert lattice == sorted(lattice)
    assert lattice[1] == (0.0, 1 / (points - 1))
    assert points % 2 == 0 or SQUARE.center in lattice
    table = pd.DataFrame([*lattice, (1e-12, 0.0)], columns=["u", "v"])
    assert {*table[SQUARE.is_corner(table)].itertuples(index=False)} == set(CORNERS)


@pytest.mark.parametrize("points", [0, 3, 5, 41])
def test_edge_points_are_equidistant_on_the_four_edges_between_the_corners(points):
    found = SQUARE.edge_points(points)
    assert len(found) == len(set(found)) == 4 * max(points - 2, 0)
    assert set(found).isdisjoint(CORNERS)
    for axis, end in itertools.product((0, 1), (0.0, 1.0)) if points else ():
        along = sorted(point[1 - axis] for point in found if point[axis] == end)
        assert np.diff([0.0, *along, 1.0]) == pytest.approx(1 / (points - 1))
        assert len(along) == points - 2


@pytest.mark.parametrize(
    ("function", "points", "said"),
    [
        (grid_points, 1, "grid points is 1; .* at least 2"),
        (grid_points, -3, "grid points is -3"),
        (SQUARE.edge_points, 1, "edge points is 1; give 0 for none, or at least 3"),
        (SQUARE.edge_points, 2, "edge points is 2"),
    ],
)
def test_too_few_points_are_refused(function, points, said):
    with pytest.raises(InputError, match=said):
        function(points)


def mean_of(points, function):
    lattice = pd.DataFrame(grid_points(points), columns=["u", "v"])
    return SQUARE.mean(lattice, function(lattice["u"], lattice["v"]))


def test_the_mean_does_not_count_the_rim_as_the_mean_over_the_points_does():
    """High at the rim, low inside: the rim has no area, but a third of an 11 x 11 grid."""

    def rim(u, v):
        return (u * (1 - u) * v * (1 - v) == 0).astype(float)

    # Between the rim and the next points inside it falls off: an outer ring of cells, in part.
    assert mean_of(11, rim) == pytest.approx(1 - 0.9**2)


def test_a_finer_lattice_comes_nearer_to_the_integral():
    exact = (math.e - 1) * 2 / math.pi  # of exp(u) sin(pi v)
    errors = [
        abs(mean_of(points, lambda u, v: np.exp(u) * np.sin(math.pi * v)) - exact)
        for points in (5, 9, 17)
    ]
    assert errors[1] < errors[0] / 3.9  # the trapezoid rule is of second order
    assert errors[2] < errors[1] / 3.9


@pytest.mark.parametrize(
    "points",
    [
        grid_points(3)[:-1],
        [*grid_points(3), (0.5, 0.5)],
        [*grid_points(3)[:-1], (0.0, 0.0)],
        [(u, v) for u, v in grid_points(3) if u > 0],
        [(u / 2, v) for u, v in grid_points(3)],
    ],
)
def test_points_that_are_no_lattice_over_the_square_have_no_mean(points):
    with pytest.raises(InputError, match=f"^{len(points)} points.*no lattice"):
        SQUARE.mean(pd.DataFrame(points, columns=["u", "v"]), [1.0] * len(points))


# --- rows of a table ------------------------------------------------------------------------------


def rows(points, statistics="reestimated", sample="grid", n=100, split="test"):
    table = pd.DataFrame(points, columns=["u", "v"])
    return table.assign(statistics=statistics, sample=sample, n=n, split=split)


def points_of(table):
    return list(zip(table["u"], table["v"], strict=True))


def test_rows_are_told_apart_by_procedure_sample_and_split():
    table = pd.concat(
        [
            rows(grid_points(3)),
            rows(grid_points(3), split="val", n=50),
            rows(CORNERS, "own"),
            rows(CORNERS, "own", split="val", n=50),
            rows([(0.0, 0.25), (1.0, 0.75)], sample="edge", n=30),  # searched on few images
            rows([(0.0, 0.3)], sample="edge"),
            rows([(0.2, 0.7)], sample="random", n=30, split="val"),
        ],
        ignore_index=True,
    )
    for split, beside in (("test", [(0.0, 0.3)]), ("val", [])):
        of_split = table[table["split"] == split]
        assert points_of(surface_rows(of_split)) == [*grid_points(3), *beside]
        assert points_of(lattice_rows(of_split)) == grid_points(3)
        assert set(surface_rows(of_split)["statistics"]) == {"reestimated"}
        assert points_of(own_corner_rows(of_split)) == list(CORNERS)
        assert set(own_corner_rows(of_split)["statistics"]) == {"own"}
    assert len(surface_rows(table)) == 9 + 9 + 1


def test_without_batchnorm_the_corners_of_the_grid_are_the_networks_as_trained():
    assert points_of(own_corner_rows(rows(grid_points(3), "none"))) == list(CORNERS)
