"""Laws of the plane through three networks: it holds them, and its coordinates are distances."""

import math

import numpy as np
import pytest
import torch
from conftest import CHOSEN, NETWORKS, differing, input_of, make_corners, make_images, make_network
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from fourfold.data.augment import RandomShiftFlip
from fourfold.errors import InputError
from fourfold.evaluation.grid import evaluate_networks, evaluate_points
from fourfold.evaluation.plane import evaluate_plane, plane
from fourfold.surfaces.surface import Surface

TRAIN, TEST = make_images(24, seed=1), make_images(19, seed=2)
SPLITS = {"train": TRAIN, "test": TEST}


def make_plane(name):
    return plane(*make_corners(name)[:3], buffers=CHOSEN.get(name))


def vector(plane, state):
    """Return a network's parameters, float64."""
    layout = plane.surface.layout
    return torch.cat([state[name].double().reshape(-1) for name in layout.names])


@pytest.mark.parametrize("name", NETWORKS)
def test_a_plane_holds_its_networks_bit_for_bit_at_their_distances(name):
    networks = make_corners(name)[:3]
    found = make_plane(name)
    a, b, c = (vector(found, state) for state in networks)
    assert found.corners[:2] == ((0, 0), (pytest.approx((b - a).norm().item()), 0))
    assert math.dist(*found.corners[::2]) == pytest.approx((c - a).norm().item())
    assert math.dist(*found.corners[1:]) == pytest.approx((c - b).norm().item())
    assert found.corners[2][1] > 0
    for place, state in zip(found.corners, networks, strict=True):
        assert differing(found.state_dict(*place), state) == []
    gram = found.basis @ found.basis.T
    torch.testing.assert_close(gram, torch.eye(2, dtype=torch.float64), rtol=0, atol=1e-12)


# What lies between networks in bfloat16 is rounded, and so beside the plane.
@pytest.mark.parametrize("name", sorted({*NETWORKS} - {"bfloat16"}))
@pytest.mark.parametrize("shares", [(0.3, 0.5), (-0.7, 0.2), (1.6, -0.4), (1.0, 0.5)])
def test_projecting_a_network_of_the_plane_gives_its_place(name, shares):
    found = make_plane(name)
    x, y = np.array(shares) @ np.array(found.corners)[1:]
    for state in (found.state_dict(x, y), found.surface.state_dict(*shares)):
        assert found.project(state) == pytest.approx((x, y, 0), abs=1e-5)


@pytest.mark.parametrize("name", ["batchnorm", "frozen", "float64"])
def test_a_network_beside_the_plane_is_projected_onto_its_nearest_point(name):
    found, fourth = make_plane(name), make_corners(name)[3]
    at = found.project(fourth)
    nearest = found.state_dict(*at[:2])
    offset = vector(found, fourth) - vector(found, nearest)
    assert at.distance == pytest.approx(offset.norm().item(), rel=1e-4)
    torch.testing.assert_close(found.basis @ offset, torch.zeros(2).double(), rtol=0, atol=1e-5)


def test_a_parameter_that_the_three_share_counts_in_the_distance_and_statistics_do_not():
    networks = make_corners("batchnorm")[:4]
    for state in networks:
        state["7.bias"] = torch.zeros(3)
        state["1.running_mean"] = torch.zeros(4)
    *three, other = networks
    found = plane(*three)
    before = found.project(other)
    moved = {**other, "7.bias": torch.full((3,), 2.0), "1.running_mean": torch.ones(4)}
    expected = math.hypot(before.distance, 2 * math.sqrt(3))
    assert found.project(moved) == pytest.approx((*before[:2], expected))


SETTINGS = {"augment": RandomShiftFlip(1, flip=False), "seed": 3}


@pytest.mark.parametrize("name", ["resnet18", "layernorm"])
def test_the_networks_on_a_plane_are_those_that_are_evaluated_alone(name):
    networks, network = make_corners(name)[:3], make_network(name, seed=5)
    found = plane(*networks)
    settings = {**SETTINGS, "preprocess": input_of(network)}
    metrics = {"largest": lambda outputs, targets: outputs.max().item()}
    table = evaluate_plane(found, network, SPLITS, points=3, metrics=metrics, **settings)
    columns = ["nll", "accuracy", "ece", "brier", "largest"]
    assert list(table)[:5] == ["sample", "x", "y", "split", "n"]
    assert list(table)[5:] == [*columns, "statistics", "statistics_images"]
    kinds = ("own", "reestimated") if name == "resnet18" else ("none",)
    at_corners = table[table["sample"] == "corner"]
    assert len(table) == 2 * (9 + 3 * len(kinds)) and set(table["statistics"]) == {*kinds}
    for kind in kinds:
        alone = evaluate_networks(
            network, networks, SPLITS, batchnorm=kind, metrics=metrics, **settings
        )
        shown = at_corners[at_corners["statistics"] == kind]
        assert [*zip(shown["x"], shown["y"], strict=True)][::2] == [*found.corners]
        np.testing.assert_array_equal(shown[columns], alone.table[columns])
    x, y = found.lattice(3)[5]
    alone = evaluate_networks(
        network, [found.state_dict(x, y)], SPLITS, metrics=metrics, **settings
    )
    shown = table[(table["sample"] == "grid") & (table["x"] == x) & (table["y"] == y)]
    np.testing.assert_array_equal(shown[columns], alone.table[columns])


def test_inside_the_triangle_a_plane_is_the_linear_surface():
    networks, network = make_corners("batchnorm")[:3], make_network("batchnorm")
    triangle = Surface.from_corners(networks, 1, shape="triangle")
    found = plane(*networks)
    inside = [(0.25, 0.5), (0.5, 0.0)]
    expected = evaluate_points(triangle, network, SPLITS, inside, **SETTINGS)
    shown = evaluate_points(found.surface, network, SPLITS, inside, **SETTINGS)
    torch.testing.assert_close(shown.logits, expected.logits, rtol=0, atol=1e-3)


def test_a_lattice_surrounds_the_three_networks_by_the_margin():
    found = make_plane("no-norm")
    for margin in (0.0, 0.2, 1.5):
        lattice = np.array(found.lattice(5, margin))
        assert len(lattice) == 25
        assert (lattice[:5, 0] == lattice[0, 0]).all() and (np.diff(lattice[:5, 1]) > 0).all()
        corners = np.array(found.corners)
        wider = margin * np.ptp(corners, axis=0)
        np.testing.assert_allclose(lattice.min(axis=0), corners.min(axis=0) - wider, atol=1e-9)
        np.testing.assert_allclose(lattice.max(axis=0), corners.max(axis=0) + wider, atol=1e-9)


def test_beyond_the_triangle_vectors_of_spectral_norm_are_those_of_the_weights_there():
    def build(seed):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), spectral_norm(nn.Linear(64, 3))).eval()

    with torch.random.fork_rng(devices=[]):
        found = plane(*(build(seed).state_dict() for seed in range(3)))
        network = build(9)
    network.load_state_dict(found.surface.state_dict(1.0, 0.5))
    assert torch.linalg.matrix_norm(network[1].weight, 2).item() == pytest.approx(1, abs=1e-3)


A, B, C, _ = make_corners("no-norm")
MIDDLE = {name: (A[name] + 2 * B[name]) / 3 for name in A}
OTHER = make_corners("layernorm")[0]


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (lambda: plane(A, A, A), "are one network"),
        (lambda: plane(A, A, A, model=make_network("no-norm")), "lie on one line"),
        (lambda: plane(A, A, B), "lie on one line: b is 0 from a"),
        (lambda: plane(A, B, A), "lie on one line.* c 0 from"),
        (lambda: plane(A, B, MIDDLE), "lie on one line"),
        (lambda: plane(A, B, OTHER), "different architectures"),
        (lambda: plane(A, B, C).project(OTHER), "network to project.*different architectures"),
        (lambda: plane(A, B, C).lattice(1), "points is 1"),
        (lambda: plane(A, B, C).lattice(3, -0.1), "margin is -0.1"),
        (lambda: plane(A, B, C).lattice(3, math.nan), "margin is nan"),
    ],
)
def test_what_spans_no_plane_is_refused(run, said):
    with pytest.raises(InputError, match=said):
        run()
