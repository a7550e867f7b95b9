"""Laws that hold for every shape."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import differing, logits_of, make_images, make_network
from jaxtyping import TypeCheckError

from fourfold.combination.merge import average_states
from fourfold.errors import InputError
from fourfold.evaluation.grid import choose_points
from fourfold.surfaces.shapes import (
    Box,
    Chain,
    PointSet,
    Simplex,
    Star,
    gram_matrix,
    make_shape,
    shape_of,
)
from fourfold.surfaces.surface import Surface
from fourfold.training.fit import fit
from fourfold.training.sampling import SAMPLERS, draw_edges

SHAPES = {
    "line": Box((1,)),
    "curve": Box((3,)),
    "square": Box((2, 1)),
    "steep square": Box((19, 12)),
    "cube": Box((2, 1, 2)),
    "chain": Chain(3),
    "triangle": Simplex(3, degree=3),
    "simplex": Simplex(4),
    "added vertices": Simplex(2, added=2),
    "one corner": Simplex(1, added=1),
    "star": Star(7),
    "star with a center": Star(3, added=1),
    "set": PointSet(25),
    "one network": PointSet(1),
}
of_every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
STARS = [shape for shape in SHAPES.values() if isinstance(shape, Star)]


def points_of(shape, n=200, seed=0):
    return shape.from_cube(np.random.default_rng(seed).random((n, shape.dims)))


@of_every_shape
def test_weights_are_shares_and_one_hot_at_the_corners(shape):
    weights = shape.weights(points_of(shape))
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)
    at_corners = shape.weights(np.asarray(shape.corner_coordinates))
    rows = np.eye(len(shape.control_point_names))[list(shape.corner_rows)]
    assert (at_corners == rows).all()
    assert sorted({*shape.corner_rows, *shape.free_rows}) == list(range(len(weights[0])))
    assert len(set(shape.control_point_names)) == len(shape.control_point_names)


@of_every_shape
def test_control_points_that_start_as_mixtures_make_the_mixture_everywhere(shape):
    points = points_of(shape)
    started = shape.weights(points) @ shape.mixture(shape.nodes)
    np.testing.assert_allclose(started, shape.mixture(points), atol=1e-12)


@pytest.mark.parametrize(
    "shape", [shape for shape in SHAPES.values() if shape not in STARS or shape == SHAPES["star"]]
)
def test_raising_the_degree_leaves_the_surface_where_it_is(shape):
    higher, matrix = shape.raised()
    points = points_of(shape)
    np.testing.assert_allclose(higher.weights(points) @ matrix, shape.weights(points), atol=1e-12)
    assert higher.corner_coordinates == shape.corner_coordinates


@of_every_shape
def test_a_lattice_mean_is_exact_for_linear_functions(shape):
    # Along the segments of a star the corners' shares are linear, half of one in the mean.
    slope = np.arange(1, (shape.corners if shape in STARS else shape.dims) + 1)
    whole = {Star: slope.mean() / 2, PointSet: slope.mean()}
    for points in (2, 4, 5):
        lattice = pd.DataFrame(shape.lattice(points), columns=shape.axes).sample(frac=1)
        values = shape.straightened(lattice.to_numpy()) @ slope
        expected = whole.get(type(shape), np.asarray(shape.center) @ slope[: shape.dims])
        np.testing.assert_allclose(shape.mean(lattice, values), expected, atol=1e-12)
    with pytest.raises(InputError, match="no lattice"):
        shape.mean(lattice[1:], values[1:])


@of_every_shape
def test_edges_join_corners_or_vertices_and_their_points_lie_on_the_shape(shape):
    ends = {end for edge in shape.edges for end in edge}
    along = shape.edge_points(7)
    assert len(along) == 5 * len(shape.edges)
    inner = shape.inner_points
    if shape.is_discrete:
        assert (ends, inner) == (set(), ())
        return
    assert set(shape.corner_coordinates) <= ends
    assert shape.contains(np.asarray(along)).all()
    assert len(set(inner)) == len(shape.corner_rows)
    assert not set(inner) & set(shape.corner_coordinates)


@of_every_shape
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_points_are_drawn_uniformly(shape, sampler):
    """Mean and second moments are those of the shape: a Monte-Carlo test at five deviations."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([SAMPLERS[sampler](shape, 4, generator) for _ in range(5000)]).numpy()
    assert shape.contains(drawn).all()
    shares = shape._barycentric(drawn) if isinstance(shape, Simplex) else drawn
    # Of a uniform point: barycentric shares of k vertices are Dirichlet, coordinates of a box even.
    k = shares.shape[1]
    mean, square = (1 / k, 2 / (k * (k + 1))) if isinstance(shape, Simplex) else (1 / 2, 1 / 3)
    if shape.is_discrete:  # each corner as often as another
        square -= 1 / (12 * shape.corners**2)
    np.testing.assert_allclose(shares.mean(axis=0), mean, atol=0.011)
    np.testing.assert_allclose((shares**2).mean(axis=0), square, atol=0.011)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES.values() if not shape.is_discrete])
def test_points_on_edges_are_spread_over_all_of_them(shape):
    drawn = draw_edges(shape, 40 * len(shape.edges), torch.Generator().manual_seed(0))
    hits = []
    for start, end in np.asarray(shape.edges):
        t = (drawn.numpy() - start) @ (end - start) / ((end - start) @ (end - start))
        on_edge = np.abs(start + t[:, None] * (end - start) - drawn.numpy()).max(axis=1) < 1e-12
        hits.append((on_edge & (t >= 0) & (t <= 1)).sum())
    assert sum(hits) >= len(drawn)
    assert min(hits) >= 39


@pytest.mark.parametrize("axis", [0, 1])
def test_edges_of_a_square_are_curves_of_its_degree(axis):
    square, t = Box((3, 2)), np.linspace(0, 1, 9)
    curve = Box((square.degree[axis],))
    for end in (0.0, 1.0):
        points = np.full((9, 2), end)
        points[:, axis] = t
        weights = square.weights(points).reshape(9, 4, 3)
        other = -1 if end else 0
        on_edge = weights[:, :, other] if axis == 0 else weights[:, other, :]
        np.testing.assert_allclose(on_edge, curve.weights(t[:, None]), atol=1e-12)
        np.testing.assert_allclose(on_edge.sum(axis=1), 1, atol=1e-12)


def test_faces_of_a_tetrahedron_are_triangles_and_edges_of_a_triangle_are_curves():
    points = points_of(Simplex(3, degree=2))
    face = np.concatenate([points, np.zeros((len(points), 1))], axis=1)
    tetrahedron = Simplex(4, degree=2).weights(face)
    np.testing.assert_allclose(
        tetrahedron[:, tetrahedron.any(axis=0)], Simplex(3, degree=2).weights(points), atol=1e-12
    )
    t = np.linspace(0, 1, 9)[:, None]
    edge = Simplex(3, degree=3).weights(np.concatenate([t, 0 * t], axis=1))
    np.testing.assert_allclose(edge[:, edge.any(axis=0)], Box((3,)).weights(t), atol=1e-12)


@pytest.mark.parametrize("shape", [Star(1, added=1), Star(4), Star(25, added=1)], ids=repr)
def test_a_star_joins_each_corner_to_its_center_and_a_tour_runs_there_and_back(shape):
    n, t = shape.corners, np.linspace(0, 1, 9)
    center = [0.0] * n + [1.0] if shape.added else [1 / n] * n
    u = np.linspace(0, 1, 200 * n + 1)[:, None]
    for k, (at,) in enumerate(shape.corner_coordinates):
        assert at == (k + 0.5) / n
        way_out = shape.weights((k + t[:, None] / 2) / n)
        expected = np.outer(t, np.eye(len(center))[k]) + np.outer(1 - t, center)
        np.testing.assert_allclose(way_out, expected, atol=1e-11)
        way_back = shape.weights((k + 1 - t[:, None] / 2) / n)
        np.testing.assert_allclose(way_back, expected, atol=1e-11)
    assert np.abs(np.diff(shape.weights(u), axis=0)).max() < 0.0101  # no jump, one speed
    lattice = shape.lattice(6)
    assert len(lattice) == len(set(lattice)) == 5 * n + 1
    assert {shape.center, *shape.corner_coordinates} <= set(lattice)
    assert len(np.unique(shape.weights(np.asarray(lattice)).round(9), axis=0)) == len(lattice)


def test_a_set_has_its_networks_and_their_mean_and_nothing_else():
    corners = [make_network("batchnorm", seed).state_dict() for seed in range(3)]
    surface = Surface.from_corners(corners, shape="set")
    chosen = choose_points(surface.shape, 11, 51, 30)
    assert chosen.pop("grid") == [(0.0,), (0.5 / 3,), (1.5 / 3,), (2.5 / 3,)]
    assert not any(chosen.values())
    mean = average_states(corners)
    at_mean = surface.state_dict(0.0)
    torch.testing.assert_close(at_mean, {k: mean[k] for k in at_mean}, rtol=1e-6, atol=1e-7)
    with pytest.raises(InputError, match="none between"):
        surface.point(0.25)
    with pytest.raises(InputError, match="no free control points"):
        fit(surface, make_network("batchnorm"), *make_images(16), epochs=1, lr=0.1, seed=0)
    moved = Surface.from_corners(corners, shape="set", train_corners=True)
    with pytest.raises(InputError, match="nothing between"):
        fit(moved, make_network("batchnorm"), *make_images(16), epochs=1, lr=0.1, seed=0)


def test_a_star_is_raised_by_a_center_of_its_own_and_no_further():
    corners = [make_network("layernorm", seed).state_dict() for seed in range(3)]
    star = Surface.from_corners(corners, shape="star")
    higher = star.raised()
    assert higher.control_point_names[-1] == "center"
    torch.testing.assert_close(higher.point(0.4), star.point(0.4))
    for last in (higher, Surface.from_corners(corners, shape="set")):
        with pytest.raises(InputError, match="no next degree"):
            last.raised()


@pytest.mark.parametrize("degree", [(1,), (2, 2), (2, 1), (3, 1, 2)])
def test_the_gram_matrix_is_the_integral_of_products_of_the_weights(degree):
    nodes, weights = np.polynomial.legendre.leggauss(8)  # exact up to degree 15
    points = np.stack(np.meshgrid(*[(nodes + 1) / 2] * len(degree), indexing="ij"), axis=-1)
    area = np.ones(1)
    for _ in degree:
        area = np.multiply.outer(area, weights / 2)
    basis = Box(degree).weights(points.reshape(-1, len(degree)))
    np.testing.assert_allclose(gram_matrix(degree), basis.T @ (area.ravel()[:, None] * basis))


@of_every_shape
def test_a_shape_is_what_is_said_of_it(shape):
    assert shape_of(shape.described()) == shape


@of_every_shape
@pytest.mark.parametrize("name", ["batchnorm", "layernorm"])
def test_corners_are_the_checkpoints_bit_for_bit_also_after_a_fit_and_a_file(shape, name, tmp_path):
    corners = [make_network(name, seed).state_dict() for seed in range(len(shape.corner_rows))]
    surface = Surface.from_corners(corners, shape=shape)
    middle = surface.point(*shape.center)
    if surface.free_rows and len(surface.control_points) < 50:
        fit(surface, make_network(name), *make_images(16), epochs=1, lr=0.1, seed=0, batch_size=8)
        assert not torch.equal(surface.point(*shape.center), middle)
    surface.save(tmp_path / "surface.safetensors")
    surface = Surface.load(tmp_path / "surface.safetensors")
    for position, corner in enumerate(corners):
        assert differing(surface.corner(position), corner) == []
    images = make_images(8)[0]
    expected = logits_of(name, corners[0], images)
    assert torch.equal(logits_of(name, surface.corner(0), images), expected)


def test_raising_a_surface_keeps_its_networks():
    corners = [make_network("layernorm", seed).state_dict() for seed in range(3)]
    surface = Surface.from_corners(corners, shape="triangle", degree=2)
    surface.control_points[list(surface.free_rows)] += 1
    higher = surface.raised()
    assert len(higher.control_points) == 10
    torch.testing.assert_close(higher.point(0.3, 0.2), surface.point(0.3, 0.2))
    assert torch.equal(higher.point(0, 1), surface.point(0, 1))


def test_corners_that_are_trained_move_too():
    corners = [make_network("layernorm", seed).state_dict() for seed in range(2)]
    surface = Surface.from_corners(corners, 1, shape="curve", train_corners=True)
    before, network = surface.control_points.clone(), make_network("layernorm")
    fit(surface, network, *make_images(16), epochs=1, lr=0.1, seed=0, batch_size=8)
    assert (surface.control_points != before).any(dim=1).all()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"shape": "circle"}, "choose one of curve, square"),
        ({"shape": "curve", "degree": [2, 2]}, "takes 1 integer"),
        ({"degree": (2,)}, "takes 2 integers"),
        ({"degree": (0, 1)}, "from 1 to 20"),
        ({"degree": 2.5}, "degree is"),
        ({"shape": "chain", "bends": 1, "degree": 2}, "a chain has bends"),
        ({"shape": "chain", "bends": -1}, "bends is -1"),
        ({"shape": "simplex", "added": 3}, "2 to 4 vertices"),
        ({"shape": "star", "added": 2}, "added is 2; of a star it is 0 or 1"),
        ({"shape": "chain", "bends": 1.5}, r"bends is 1\.5; it must be a whole number"),
        ({"shape": "chain", "bends": "2"}, "bends is '2'; it must be a whole number"),
        ({"shape": "simplex", "added": 0.5}, r"added is 0\.5; it must be a whole number"),
        ({"shape": "star", "added": "1"}, "added is '1'; it must be a whole number"),
        ({"shape": "set", "degree": [1]}, "a set has no settings"),
        ({"shape": "triangle"}, "needs 3 corners, got 4"),
        ({"shape": "cube"}, "needs 8 corners, got 4"),
        ({"shape": Box((1, 1)), "degree": 2}, "leave degree out"),
    ],
)
def test_impossible_shapes_are_refused(given, said):
    corners = [make_network("layernorm", seed).state_dict() for seed in range(4)]
    with pytest.raises(InputError, match=said):
        Surface.from_corners(corners, **given)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: make_shape("chain", bends=1.5), r"bends is 1\.5"),
        (lambda: make_shape("simplex", added="2"), "added is '2'"),
        (lambda: Simplex(2, added=0.5), r"added is 0\.5"),
        (lambda: Simplex(2, degree=1.5), r"degree is 1\.5"),
        (lambda: Star(2.5), r"corners is 2\.5"),
    ],
)
def test_counts_that_are_no_whole_numbers_are_refused_without_networks_too(make, said):
    with pytest.raises(InputError, match=said):
        make()


@pytest.mark.parametrize(
    ("kind", "point", "said"),
    [
        ("square", (0.5,), "2: u, v"),
        ("square", (0.5, 1.5), r"each must lie in \[0, 1\]"),
        ("chain", (-0.1,), r"it must lie in \[0, 1\]"),
        ("triangle", (0.7, 0.7), "sum must be at most 1"),
        ("curve", (float("nan"),), "must lie"),
    ],
)
def test_points_that_are_not_on_the_shape_are_refused(kind, point, said):
    settings = {"chain": {"bends": 1}}.get(kind, {"degree": [2, 2][: 1 + (kind == "square")]})
    with pytest.raises(InputError, match=said):
        make_shape(kind, **settings).check(point)


def test_shapes_of_tensors_in_signatures_are_checked_in_these_tests():
    corners = [make_network("layernorm", seed).state_dict() for seed in range(4)]
    axis = torch.linspace(0, 1, 5, dtype=torch.float64)
    with pytest.raises(TypeCheckError):
        Surface.from_corners(corners).weights(axis[:, None], axis[:, None])
