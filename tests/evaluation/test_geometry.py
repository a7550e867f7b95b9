"""Laws of barriers and distances."""

import itertools

import pandas as pd
import pytest
import torch
from conftest import (
    CORNERS,
    make_corners,
    make_images,
    make_network,
    make_surface,
    move_free_points,
)

from fourfold.errors import InputError
from fourfold.evaluation.geometry import measure_barriers, measure_distances
from fourfold.evaluation.grid import evaluate_grid, evaluate_points
from fourfold.surfaces.points import grid_points
from fourfold.surfaces.shapes import SQUARE
from fourfold.surfaces.surface import Surface

NAMES = SQUARE.corner_names


def rows_of(
    points, loss, surface="bezier", split="test", sample="grid", statistics="reestimated", n=100
):
    """Return rows of a grid table with nll = loss(u, v) and error = loss(u, v) / 10."""
    rows = [
        {"surface": surface, "sample": sample, "u": u, "v": v, "split": split, "n": n}
        | {"nll": loss(u, v), "accuracy": 1 - loss(u, v) / 10, "statistics": statistics}
        for u, v in points
    ]
    return pd.DataFrame(rows)


def grid_of(loss, points=5, own=None, **columns):
    """Return the rows of a whole grid, and those of the corners as trained."""
    trained = rows_of(CORNERS, own or loss, **columns, statistics="own")
    return pd.concat([rows_of(grid_points(points), loss, **columns), trained], ignore_index=True)


def barrier_of(loss, **settings):
    return measure_barriers(grid_of(loss, **settings)).set_index("metric")


@pytest.mark.filterwarnings("ignore:.*are the same network")
def test_the_barrier_between_equal_networks_is_zero():
    network, splits = make_network("batchnorm"), {"train": make_images()}
    surface = Surface.from_corners([network.state_dict()] * 4, degree=(1, 1), model=network)
    barriers = measure_barriers(evaluate_grid(surface, network, splits, points=3))
    assert barriers["barrier"].tolist() == pytest.approx([0, 0], abs=1e-6)
    assert (barriers["max"] - barriers["min"]).tolist() == pytest.approx([0, 0], abs=1e-6)


@pytest.mark.parametrize(
    "mixture", [lambda u, v: 1.0, lambda u, v: u, lambda u, v: 1 + u - 2 * v + 3 * u * v]
)
def test_a_bilinear_loss_has_no_barrier(mixture):
    assert barrier_of(mixture)["barrier"].tolist() == pytest.approx([0, 0], abs=1e-12)


@pytest.mark.parametrize(
    ("at", "area"), [((0.25, 0.75), 1 / 16), ((1.0, 0.5), 1 / 32), ((0.5, 0.0), 1 / 32)]
)
def test_the_barrier_is_the_height_above_the_mixture_and_uv_are_not_swapped(at, area):
    def loss(u, v):
        return 1 + u - 0.5 * v + (2.0 if (u, v) == at else 0.0)

    measured = barrier_of(loss)
    for metric, unit in (("nll", 1), ("error", 0.1)):
        row = measured.loc[metric]
        assert row["barrier"] == pytest.approx(2 * unit)
        assert row["max"] == pytest.approx(loss(*at) * unit)
        assert (row["u_at_max"], row["v_at_max"]) == at
        assert row["corner_mean"] == pytest.approx(1.25 * unit)
        assert row["min"] == pytest.approx(0.5 * unit)
        assert row["mean"] == pytest.approx(unit * (1.25 + 2 * area))
        assert row["sample_at_max"] == "grid"
        assert (row["u_at_barrier"], row["v_at_barrier"]) == at


@pytest.mark.parametrize("corner", CORNERS)
def test_the_mixture_takes_each_corner_at_its_own_place(corner):
    """One high corner: at the opposite quarter, where a bump stands, the mixture is 4/16."""
    bump = (0.75 - 0.5 * corner[0], 0.75 - 0.5 * corner[1])
    measured = barrier_of(lambda u, v: 4.0 * ((u, v) == corner) + 1.0 * ((u, v) == bump))
    assert measured.loc["nll", "barrier"] == pytest.approx(0.75)


def test_a_surface_below_the_mixture_everywhere_has_a_negative_barrier():
    """Corners, where the surface is the mixture, are no candidates."""

    def loss(u, v):
        return 1 + u if (u, v) in CORNERS else 0.75 + u

    measured = barrier_of(loss)
    assert measured["barrier"].tolist() == pytest.approx([-0.25, -0.025])
    assert measured.loc["nll", "max"] == 2  # but the worst point may be a corner
    assert (measured.loc["nll", "u_at_max"], measured.loc["nll", "v_at_max"]) in CORNERS


@pytest.mark.parametrize("sample", ["edge", "random"])
def test_the_worst_point_and_the_barrier_are_found_beside_the_grid(sample):
    at = (0.0, 0.175)
    beside = rows_of([at, (0.0, 0.6)], lambda u, v: 3.0 if (u, v) == at else 1.0, sample=sample)
    flat = grid_of(lambda u, v: 1.0)
    alone, found = measure_barriers(flat), measure_barriers(pd.concat([flat, beside]))
    assert found["max"].tolist() == pytest.approx([3.0, 0.3])
    assert found["barrier"].tolist() == pytest.approx([2.0, 0.2])
    for place in ("max", "barrier"):
        assert set(zip(found[f"u_at_{place}"], found[f"v_at_{place}"], strict=True)) == {at}
    assert set(found["sample_at_max"]) == {sample}
    # The mean is over the area of the grid, whatever is found elsewhere.
    assert found["mean"].tolist() == alone["mean"].tolist() == pytest.approx([1.0, 0.1])
    best = rows_of([at], lambda u, v: 0.5, sample=sample)
    assert measure_barriers(pd.concat([flat, best]))["min"].tolist() == pytest.approx([0.5, 0.05])


def test_a_point_over_a_part_of_the_split_never_counts():
    whole = grid_of(lambda u, v: 1 + u * (1 - u))
    expected = measure_barriers(whole)
    for sample in ("edge", "random"):
        part = rows_of([(0.0, 0.2), (0.7, 1.0)], lambda u, v: 9.0, sample=sample, n=99)
        pd.testing.assert_frame_equal(measure_barriers(pd.concat([whole, part])), expected)
    # What is few images for one split is all of another.
    other = grid_of(lambda u, v: 1.0, split="val", n=99)
    both = measure_barriers(pd.concat([whole, other]))
    assert len(both) == 4
    pd.testing.assert_frame_equal(both[both["split"] == "test"], expected)


def test_corners_as_trained_stand_beside_the_barrier_and_do_not_enter_it():
    loss, own = (lambda u, v: 1 + u), (lambda u, v: 5 + v)
    measured = measure_barriers(grid_of(loss, own=own))
    assert measured["corner_mean_own"].tolist() == pytest.approx([5.5, 0.55])
    assert measured["corner_mean"].tolist() == pytest.approx([1.5, 0.15])
    expected = measure_barriers(grid_of(loss)).drop(columns="corner_mean_own")
    pd.testing.assert_frame_equal(measured.drop(columns="corner_mean_own"), expected)


def test_a_corner_without_a_number_leaves_the_corners_without_a_mean():
    def own(u, v):
        return float("nan") if (u, v) == (0, 1) else 1.0

    measured = measure_barriers(grid_of(lambda u, v: 1.0, own=own))
    assert measured["corner_mean_own"].isna().all()


def test_corners_without_batchnorm_have_one_row_that_is_both():
    def loss(u, v):
        return 1 + u + (u == 0.5)

    plain = rows_of(grid_points(5), loss, statistics="none")
    pd.testing.assert_frame_equal(measure_barriers(plain), measure_barriers(grid_of(loss)))


def test_surfaces_and_splits_are_measured_apart():
    names = list(itertools.product(("linear", "bezier"), ("train", "test")))
    grids = [
        grid_of(lambda u, v, h=height: h * u * (1 - u), surface=surface, split=split)
        for height, (surface, split) in enumerate(names)
    ]
    nll = measure_barriers(pd.concat(grids)).query("metric == 'nll'")
    assert list(zip(nll["surface"], nll["split"], strict=True)) == names
    assert nll["barrier"].tolist() == [0, 0.25, 0.5, 0.75]


GRID = grid_of(lambda u, v: u)


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        (GRID.query("u != 1 or v != 0"), r"'bezier' has 0 rows at the corner \(1.0, 0.0\)"),
        (pd.concat([GRID, GRID]), "has 2 rows"),
        (GRID.query("u != 0.5 or v != 0.25"), "24 points.*no lattice"),
        (grid_of(lambda u, v: u, points=2), "'bezier' has no points beside its corners"),
    ],
)
def test_an_incomplete_grid_has_no_barrier(grid, said):
    with pytest.raises(InputError, match=said):
        measure_barriers(grid)


def test_another_shape_than_a_square_is_that_of_the_surface_that_is_given():
    network, corners = make_network("no-norm"), make_corners("no-norm")[:2]
    curve = Surface.from_corners(corners, shape="curve", degree=2, model=network)
    grid = evaluate_grid(curve, network, {"test": make_images()}, points=3)
    (name,) = grid["surface"].unique()
    with pytest.raises(InputError, match=r"barrier of a square needs .* pass shapes="):
        measure_barriers(grid)
    given = [measure_barriers(grid, shapes={name: one}) for one in (curve, curve.shape)]
    pd.testing.assert_frame_equal(*given)


# --- distances ------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [(1, 1), (2, 2), (1, 3)])
def test_distances_are_those_of_the_vectors_between_all_pairs(degree):
    surface = move_free_points(make_surface("no-norm", degree))
    distances = measure_distances(surface)
    names, points = surface.control_point_names, surface.control_points.double()
    assert len(distances) == len(names) * (len(names) - 1) // 2
    for row in distances.itertuples():
        a, b = points[names.index(row.a)], points[names.index(row.b)]
        assert row.l2 == pytest.approx((a - b).square().sum().sqrt().item())
        assert row.relative_l2 == pytest.approx(row.l2 / ((a.norm() + b.norm()).item() / 2))
        assert row.cosine == pytest.approx(torch.cosine_similarity(a, b, dim=0).item())
        assert row.surface == surface.name


@pytest.mark.filterwarnings("ignore:.*are the same network")
def test_the_distance_of_nearly_equal_large_networks_is_not_lost_to_rounding():
    corners = [{"w": torch.full((1000,), 1000.0)} for _ in range(4)]
    corners[3]["w"] = corners[3]["w"].clone()
    corners[3]["w"][0] += 2.0**-10
    distances = measure_distances(Surface.from_corners(corners, degree=(1, 1)))
    assert distances.query("b == 'corner_11'")["l2"].tolist() == pytest.approx([2.0**-10] * 3)


def test_running_statistics_are_no_distance():
    corners = make_corners("batchnorm")
    expected = measure_distances(Surface.from_corners(corners))
    for corner in corners:
        corner["1.running_var"] *= 7
    pd.testing.assert_frame_equal(measure_distances(Surface.from_corners(corners)), expected)


def test_disagreement_stands_beside_the_corners_alone():
    """And with re-estimated statistics, each corner beside itself."""
    surface, images = move_free_points(make_surface("batchnorm")), make_images(30)
    evaluation = evaluate_points(surface, make_network("batchnorm"), {"train": images}, CORNERS)
    own = dict(zip(NAMES, evaluation.own.logits["train"], strict=True))
    again = dict(zip(NAMES, evaluation.logits["train"], strict=True))
    table = measure_distances(surface, own, again).set_index(["a", "b"])
    pairs = {(a, b): (own[a], own[b]) for a, b in itertools.combinations(NAMES, 2)}
    pairs |= {(a, a): (own[a], again[a]) for a in NAMES}
    found = table["disagreement"].dropna()
    assert found.to_dict() == {
        pair: (a.argmax(1) != b.argmax(1)).double().mean().item() for pair, (a, b) in pairs.items()
    }
    assert found.min() < found.max()
    alone = table.loc[[(name, name) for name in NAMES]]
    assert alone[["l2", "relative_l2", "cosine"]].to_numpy().tolist() == [[0, 0, 1]] * 4
    assert measure_distances(surface)["disagreement"].isna().all()
