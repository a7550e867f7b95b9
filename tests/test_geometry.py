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
from fourfold.geometry import measure_barriers, measure_distances
from fourfold.grid import evaluate_grid, evaluate_points, grid_points
from fourfold.surface import BezierSurface


def grid_of(loss, surface="bezier", split="test", points=5):
    """Return a grid table of nll = loss(u, v) and error = loss(u, v) / 10."""
    return pd.DataFrame(
        [
            {
                "surface": surface, "split": split, "u": u, "v": v, "nll": loss(u, v),
                "accuracy": 1 - loss(u, v) / 10,
            }
            for u, v in grid_points(points)
        ]
    )  # fmt: skip


def barrier_of(loss, **settings):
    return measure_barriers(grid_of(loss, **settings)).set_index("metric")


def test_the_barrier_between_equal_networks_is_zero():
    network, splits = make_network("batchnorm"), {"train": make_images()}
    surface = BezierSurface.from_corners([network.state_dict()] * 4, degree=(1, 1))
    barriers = measure_barriers(evaluate_grid(surface, network, splits, points=3))
    assert barriers["barrier"].tolist() == pytest.approx([0, 0], abs=1e-6)
    assert (barriers["max"] - barriers["min"]).tolist() == pytest.approx([0, 0], abs=1e-6)


@pytest.mark.parametrize(
    "mixture", [lambda u, v: 1.0, lambda u, v: u, lambda u, v: 1 + u - 2 * v + 3 * u * v]
)
def test_a_bilinear_loss_has_no_barrier(mixture):
    assert barrier_of(mixture)["barrier"].tolist() == pytest.approx([0, 0], abs=1e-12)


@pytest.mark.parametrize("at", [(0.25, 0.75), (1.0, 0.5), (0.5, 0.0)])
def test_the_barrier_is_the_height_above_the_mixture_of_the_corners_and_uv_are_not_swapped(at):
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
        assert row["mean"] == pytest.approx(unit * sum(loss(*p) for p in grid_points(5)) / 25)


def test_the_mixture_takes_each_corner_at_its_own_place():
    """One high corner: the mixture falls off from it, so that a flat inside is below it."""
    for corner in CORNERS:
        measured = barrier_of(lambda u, v, c=corner: 4.0 if (u, v) == c else 0.0)
        assert measured.loc["nll", "barrier"] == pytest.approx(0, abs=1e-12)
        u, v = corner
        measured = barrier_of(
            lambda x, y, c=corner: 4.0 * ((x, y) == c) + 1.0 * ((x, y) == (0.5, 0.5))
        )
        assert measured.loc["nll", "barrier"] == pytest.approx(0, abs=1e-12)
        opposite = (0.75 - 0.5 * u, 0.75 - 0.5 * v)  # where the mixture is 4/16
        measured = barrier_of(
            lambda x, y, c=corner, o=opposite: 4.0 * ((x, y) == c) + 1.0 * ((x, y) == o)
        )
        assert measured.loc["nll", "barrier"] == pytest.approx(0.75)


def test_a_loss_below_the_mixture_inside_gives_a_barrier_of_zero_at_the_corners():
    assert barrier_of(lambda u, v: 1 - u * (1 - u) * v * (1 - v)).loc["nll", "barrier"] == 0


def test_surfaces_and_splits_are_measured_apart():
    grids = [
        grid_of(lambda u, v, h=height: h * u * (1 - u), surface=surface, split=split)
        for height, (surface, split) in enumerate(
            itertools.product(("linear", "bezier"), ("train", "test"))
        )
    ]
    together = measure_barriers(pd.concat(grids, ignore_index=True))
    apart = pd.concat([measure_barriers(grid) for grid in grids], ignore_index=True)
    pd.testing.assert_frame_equal(together, apart)
    assert together.query("metric == 'nll'")["barrier"].tolist() == [0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("corner", CORNERS)
def test_a_grid_without_a_corner_has_no_barrier(corner):
    grid = grid_of(lambda u, v: u)
    u, v = corner
    with pytest.raises(InputError, match=rf"'bezier' has 0 rows at the corner \({u}, {v}\)"):
        measure_barriers(grid[(grid["u"] != u) | (grid["v"] != v)])


def test_a_grid_with_a_corner_twice_has_no_barrier():
    grid = grid_of(lambda u, v: u)
    with pytest.raises(InputError, match="has 2 rows"):
        measure_barriers(pd.concat([grid, grid]))


# --- distances ------------------------------------------------------------------------------------


def test_equal_corners_are_at_distance_zero_and_cosine_one():
    surface = BezierSurface.from_corners([make_network("layernorm").state_dict()] * 4)
    distances = measure_distances(surface)
    assert distances["l2"].max() == pytest.approx(0, abs=1e-5)
    assert distances["cosine"].tolist() == pytest.approx([1] * len(distances))


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


def test_distances_obey_the_triangle_inequality():
    distances = measure_distances(move_free_points(make_surface("no-norm")))
    length = {frozenset((row.a, row.b)): row.l2 for row in distances.itertuples()}
    names = {name for pair in length for name in pair}
    for a, b, c in itertools.permutations(names, 3):
        assert length[frozenset((a, b))] <= (
            length[frozenset((a, c))] + length[frozenset((c, b))] + 1e-9
        )


def test_the_distance_of_nearly_equal_large_networks_is_not_lost_to_rounding():
    corners = [{"w": torch.full((1000,), 1000.0)} for _ in range(4)]
    corners[3]["w"] = corners[3]["w"].clone()
    corners[3]["w"][0] += 2.0**-10
    distances = measure_distances(BezierSurface.from_corners(corners, degree=(1, 1)))
    assert distances.query("b == 'corner_11'")["l2"].tolist() == pytest.approx([2.0**-10] * 3)


def test_a_bilinear_surface_has_its_center_at_the_mean_of_the_corners():
    surface = make_surface("no-norm", (2, 2))
    corners = surface.control_points[list(surface.corner_rows)]
    torch.testing.assert_close(surface.control_points[4], corners.mean(dim=0))


def test_disagreement_stands_beside_the_corners_alone():
    surface = move_free_points(make_surface("batchnorm"))
    images = make_images(30)
    logits = evaluate_points(surface, make_network("batchnorm"), {"train": images}, CORNERS).logits[
        "train"
    ]
    names = ["corner_00", "corner_01", "corner_10", "corner_11"]
    distances = measure_distances(surface, dict(zip(names, logits, strict=True)))
    between = distances[distances["a"].isin(names) & distances["b"].isin(names)]
    assert len(between) == 6
    for row in between.itertuples():
        a, b = logits[names.index(row.a)], logits[names.index(row.b)]
        assert row.disagreement == (a.argmax(1) != b.argmax(1)).double().mean().item()
    assert between["disagreement"].max() > 0
    assert distances.drop(between.index)["disagreement"].isna().all()
    assert measure_distances(surface)["disagreement"].isna().all()


def test_running_statistics_are_no_distance():
    corners = make_corners("batchnorm")
    expected = measure_distances(BezierSurface.from_corners(corners))
    for corner in corners:
        corner["1.running_var"] *= 7
    pd.testing.assert_frame_equal(measure_distances(BezierSurface.from_corners(corners)), expected)
