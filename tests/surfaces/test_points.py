"""Laws of the points of a surface, and of what is read off their rows."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from conftest import CORNERS

from fourfold.errors import InputError
from fourfold.surfaces.points import (
    area_mean,
    edge_points,
    grid_points,
    is_corner,
    lattice_rows,
    own_corner_rows,
    surface_rows,
)


@pytest.mark.parametrize("points", [2, 3, 11])
def test_grid_points_are_a_lattice_with_v_running_fastest_and_exact_corners(points):
    lattice = grid_points(points)
    assert len(lattice) == len(set(lattice)) == points**2
    assert lattice == sorted(lattice)
    assert set(CORNERS) <= set(lattice)
    assert lattice[1] == (0.0, 1 / (points - 1))
    assert points % 2 == 0 or (0.5, 0.5) in lattice


@pytest.mark.parametrize("points", [1, 0, -3])
def test_a_grid_of_fewer_than_two_points_per_axis_is_refused(points):
    with pytest.raises(InputError, match=f"{points}.*at least 2"):
        grid_points(points)


@pytest.mark.parametrize("points", [3, 5, 41])
def test_edge_points_lie_on_the_four_edges_between_the_corners_and_are_equidistant(points):
    found = edge_points(points)
    assert len(found) == len(set(found)) == 4 * (points - 2)
    assert set(found).isdisjoint(CORNERS)
    for axis, end in itertools.product((0, 1), (0.0, 1.0)):
        along = sorted(point[1 - axis] for point in found if point[axis] == end)
        steps = np.diff([0.0, *along, 1.0])
        assert len(along) == points - 2
        assert steps == pytest.approx(1 / (points - 1))


def test_edge_points_of_an_edge_are_points_of_the_grid_where_both_have_as_many():
    rim = [point for point in grid_points(5) if set(point) & {0.0, 1.0}]
    assert {*edge_points(5), *CORNERS} == set(rim)


def test_no_edge_points_are_none_and_one_or_two_would_be_corners():
    assert edge_points(0) == []
    for points in (1, 2, -1):
        with pytest.raises(InputError, match=f"edge points is {points}.*0 for none.*at least 3"):
            edge_points(points)


def test_corners_are_the_points_with_both_coordinates_at_an_end():
    points = pd.DataFrame([*grid_points(5), (1e-12, 0.0), (1.0, 0.3)], columns=["u", "v"])
    found = points[is_corner(points["u"], points["v"])]
    assert {tuple(point) for point in found.to_numpy()} == set(CORNERS)
    assert len(found) == 4


# --- the mean over the area -----------------------------------------------------------------------


def lattice(us, vs, function):
    u, v = (np.array(axis) for axis in zip(*itertools.product(us, vs), strict=True))
    return u, v, function(u, v)


LATTICES = [
    ([0, 1], [0, 1]),
    ([0, 0.5, 1], [0, 0.25, 0.5, 0.75, 1]),
    ([0, 0.1, 0.7, 1], [0, 0.9, 1]),
    (np.linspace(0, 1, 11), np.linspace(0, 1, 7)),
]


@pytest.mark.parametrize(("us", "vs"), LATTICES)
def test_the_mean_over_the_area_is_exact_for_bilinear_functions_on_any_lattice(us, vs):
    draw = np.random.default_rng(0)
    for a, b, c, d in draw.normal(size=(5, 4)):
        u, v, _ = lattice(us, vs, lambda u, v: u)
        found = area_mean(u, v, a + b * u + c * v + d * u * v)
        assert found == pytest.approx(a + b / 2 + c / 2 + d / 4)


@pytest.mark.parametrize(("us", "vs"), LATTICES)
def test_the_mean_of_a_constant_is_the_constant(us, vs):
    assert area_mean(*lattice(us, vs, lambda u, v: 0 * u + 7)) == pytest.approx(7)


def test_the_mean_over_the_area_does_not_count_the_rim_as_the_mean_over_the_points_does():
    """High at the rim, low inside: the rim has no area, but a third of an 11 x 11 grid."""
    axis = np.linspace(0, 1, 11)
    u, v, values = lattice(axis, axis, lambda u, v: (u * (1 - u) * v * (1 - v) == 0).astype(float))
    assert values.mean() == pytest.approx(40 / 121)
    # Between the rim and the next points inside it falls off: an outer ring of cells, in part.
    assert area_mean(u, v, values) == pytest.approx(1 - 0.9**2)


def test_a_finer_lattice_comes_nearer_to_the_integral():
    exact = (math.e - 1) * 2 / math.pi  # of exp(u) sin(pi v)
    errors = []
    for points in (5, 9, 17):
        axis = np.linspace(0, 1, points)
        found = area_mean(*lattice(axis, axis, lambda u, v: np.exp(u) * np.sin(math.pi * v)))
        errors.append(abs(found - exact))
    assert errors[1] < errors[0] / 3.9  # the trapezoid rule is of second order
    assert errors[2] < errors[1] / 3.9


def test_the_order_of_the_points_does_not_matter_and_u_and_v_are_not_swapped():
    us, vs = [0, 0.1, 1], [0, 0.5, 0.6, 1]
    u, v, values = lattice(us, vs, lambda u, v: np.exp(3 * u) + v)
    shuffled = np.random.default_rng(0).permutation(len(u))
    expected = area_mean(u, v, values)
    assert area_mean(u[shuffled], v[shuffled], values[shuffled]) == pytest.approx(expected)
    assert area_mean(v, u, values) == pytest.approx(expected)  # mirrored with its values
    assert area_mean(*lattice(vs, us, lambda u, v: np.exp(3 * u) + v)) != pytest.approx(expected)


@pytest.mark.parametrize(
    "points",
    [
        grid_points(3)[:-1],
        [point for point in grid_points(3) if point != (0.5, 0.5)],
        [*grid_points(3), (0.5, 0.5)],
        [*grid_points(3)[:-1], (0.0, 0.0)],
        [(u, v) for u, v in grid_points(3) if u > 0],
        [(u / 2, v) for u, v in grid_points(3)],
        [(0.0, v) for v in (0.0, 0.5, 1.0)],
        [(0.5, 0.5)],
    ],
)
def test_points_that_are_no_lattice_over_the_square_have_no_mean(points):
    u, v = zip(*points, strict=True)
    with pytest.raises(InputError, match=f"^{len(points)} points.*no lattice"):
        area_mean(u, v, [1.0] * len(points))


# --- rows of a table ------------------------------------------------------------------------------


def rows(points, statistics="reestimated", sample="grid", n=100, split="test"):
    table = pd.DataFrame(points, columns=["u", "v"])
    return table.assign(statistics=statistics, sample=sample, n=n, split=split)


TABLE = pd.concat(
    [
        rows(grid_points(3)),
        rows(grid_points(3), split="val", n=50),
        rows(CORNERS, "own"),
        rows(CORNERS, "own", split="val", n=50),
        rows([(0.0, 0.25), (1.0, 0.75)], sample="edge", n=30),
        rows([(0.0, 0.3)], sample="edge"),
        rows([(0.2, 0.7)], sample="random", n=30, split="val"),
    ],
    ignore_index=True,
)


def test_rows_of_the_surface_are_those_of_one_procedure_over_the_whole_split():
    found = surface_rows(TABLE)
    assert set(found["statistics"]) == {"reestimated"}
    assert found.groupby("split")["n"].unique().explode().to_dict() == {"test": 100, "val": 50}
    assert len(found) == 9 + 9 + 1


def test_rows_of_the_lattice_are_those_of_the_grid():
    for split in ("test", "val"):
        of_split = TABLE[TABLE["split"] == split]
        found = lattice_rows(of_split)
        assert list(zip(found["u"], found["v"], strict=True)) == grid_points(3)
        assert set(found["statistics"]) == {"reestimated"}


@pytest.mark.parametrize("kind", ["own", "none"])
def test_rows_of_the_corners_as_trained_are_four_a_split(kind):
    """Where there is no BatchNorm, the corners of the grid are the networks as trained."""
    table = TABLE if kind == "own" else rows(grid_points(3), "none")
    for _, of_split in table.groupby("split"):
        found = own_corner_rows(of_split)
        assert list(zip(found["u"], found["v"], strict=True)) == list(CORNERS)
        assert set(found["statistics"]) == {kind}
