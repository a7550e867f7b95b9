"""Laws of surfaces: they meet their corners, and start as the bilinear one."""

import re

import pytest
import torch
from conftest import (
    CORNERS,
    DEGREES,
    NETWORKS,
    differing,
    input_of,
    logits_of,
    make_corners,
    make_images,
    make_network,
    make_surface,
    move_free_points,
    snapshot,
)

from fourfold.errors import DivergenceError, InputError
from fourfold.files.tensors import load_tensors, save_tensors, state_hash
from fourfold.surfaces.surface import Surface, separate
from fourfold.training.fit import fit

IMAGES, LABELS = make_images(16)
POINTS = ((0.5, 0.5), (0.25, 0.75), (1.0, 0.3), (0.0, 0.6), (0.9, 0.1))


def assert_meets_its_corners(surface: Surface, name: str, corners: list) -> None:
    for (u, v), corner in zip(CORNERS, corners, strict=True):
        state = surface.state_dict(u, v)
        assert differing(state, corner) == []
        expected = logits_of(name, corner, IMAGES)
        torch.testing.assert_close(logits_of(name, state, IMAGES), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_surface_meets_its_corners_before_and_after_fitting_and_saving(name, degree, tmp_path):
    corners = make_corners(name)
    surface = make_surface(name, degree)
    assert_meets_its_corners(surface, name, corners)
    if surface.free_rows:
        started = surface.control_points.clone()
        network = make_network(name, seed=7)
        fit(
            surface, network, IMAGES, LABELS, epochs=1, lr=0.3, batch_size=16, points_per_step=2,
            boundary_epochs=1, warmup=0, schedule="constant", preprocess=input_of(network),
        )  # fmt: skip
        moved = (surface.control_points != started).any(dim=1)
        assert moved[list(surface.free_rows)].all()
        assert_meets_its_corners(surface, name, corners)
    surface.save(tmp_path / "surface.safetensors")
    loaded = Surface.load(tmp_path / "surface.safetensors")
    assert_meets_its_corners(loaded, name, corners)


def test_a_corner_has_the_hash_of_its_checkpoint_also_with_negative_zeros():
    corners = make_corners("batchnorm")
    for corner in corners:
        corner["1.bias"][0] = -0.0
        corner["1.running_mean"][0] = -0.0
    surface = move_free_points(Surface.from_corners(iter(corners), degree=(2, 2)))
    hashes = [state_hash(corner) for corner in corners]
    assert [state_hash(surface.state_dict(u, v)) for u, v in CORNERS] == hashes
    assert list(surface.corner_hashes) == hashes


@pytest.mark.parametrize("degree", DEGREES)
def test_a_surface_of_any_degree_starts_as_the_bilinear_one(degree):
    corners = make_corners("layernorm")
    layout, _ = separate(corners, "abcd")
    rows = torch.empty(4, layout.dimension)
    for corner, row in zip(corners, rows, strict=True):
        layout.flatten(corner, out=row)
    surface = Surface.from_corners(corners, degree=degree)
    for u, v in POINTS:
        weights = torch.tensor([(1 - u) * (1 - v), (1 - u) * v, u * (1 - v), u * v])
        torch.testing.assert_close(surface.point(u, v), weights @ rows, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("degree", [(2, 1), (1, 2), (1, 3), (2, 3)])
def test_u_comes_before_v_in_control_points_and_their_names(degree):
    surface = make_surface("no-norm", degree)
    n, m = degree
    assert surface.control_points.shape[0] == (n + 1) * (m + 1)
    surface.control_points.zero_()
    surface.control_points[1] = 1  # P_01: one step along v from the corner (0, 0)
    t = 0.3
    along_v = m * t * (1 - t) ** (m - 1) if m > 1 else t
    assert surface.point(0, t)[0].item() == pytest.approx(along_v, rel=1e-5)
    assert surface.point(t, 0)[0].item() == 0
    names = [f"P_{i}{j}" for i in range(n + 1) for j in range(m + 1)]
    for row, corner in zip(
        (0, m, n * (m + 1), n * (m + 1) + m), ("00", "01", "10", "11"), strict=True
    ):
        names[row] = f"corner_{corner}"
    assert surface.control_point_names == tuple(names)


@pytest.mark.parametrize(
    ("shape", "degree", "count"), [("square", (1, 1), 4), ("curve", 1, 2), ("simplex", 1, 3)]
)
def test_corners_that_are_one_network_span_no_surface(shape, degree, count):
    """They may be where a fit starts; a model says that a surface without one is meant."""
    network = make_network("no-norm")
    corners = [network.state_dict()] * count
    with pytest.raises(InputError, match=r"are one network: D is 0.*Give \d different networks"):
        Surface.from_corners(corners, degree, shape=shape)
    with pytest.warns(UserWarning, match="same network"):
        assert Surface.from_corners(corners, degree, shape=shape, model=network).dimension == 0
    with pytest.warns(UserWarning, match="same network"):
        surface = Surface.from_corners(corners, degree, shape=shape, train_corners=True)
    fit(surface, network, IMAGES, LABELS, epochs=1, batch_size=8)
    assert surface.dimension == sum(parameter.numel() for parameter in network.parameters())
    with (
        pytest.warns(UserWarning, match="same network"),
        pytest.raises(InputError, match="no trainable parameter"),
    ):
        surface = Surface.from_corners(corners, degree, shape=shape, train_corners=True)
        fit(surface, network.requires_grad_(False), IMAGES, LABELS, epochs=1, batch_size=8)


@pytest.mark.parametrize("edge", range(4))
def test_an_edge_depends_on_its_own_control_points_alone(edge):
    surface = move_free_points(make_surface("no-norm", (3, 2)))
    n, m = surface.shape.degree
    i, j = torch.arange(n + 1).repeat_interleave(m + 1), torch.arange(m + 1).repeat(n + 1)
    on_edge = (i == 0, i == n, j == 0, j == m)[edge]
    u, v = ((0.0, 0.4), (1.0, 0.4), (0.4, 0.0), (0.4, 1.0))[edge]
    before = surface.point(u, v)
    surface.control_points[~on_edge] += 10
    assert torch.equal(surface.point(u, v), before)
    surface.control_points[on_edge] += 10
    torch.testing.assert_close(surface.point(u, v), before + 10)


def test_a_surface_is_a_copy_of_its_corners_and_a_state_dict_one_of_the_surface():
    corners = make_corners("batchnorm")
    for name, parameter in make_network("batchnorm").named_parameters():
        corners[0][name] = parameter  # requires grad
    surface = Surface.from_corners(corners)
    assert not surface.control_points.requires_grad
    expected = [snapshot(surface.state_dict(*point)) for point in (*CORNERS, (0.5, 0.5))]
    for point in (*CORNERS, (0.5, 0.5)):
        for tensor in surface.state_dict(*point).values():
            tensor.zero_()
    for tensor in corners[1].values():
        tensor.zero_()
    for state, point in zip(expected, (*CORNERS, (0.5, 0.5)), strict=True):
        assert differing(surface.state_dict(*point), state) == []


def test_running_statistics_are_interpolated_and_counters_are_a_corners_own():
    corners = make_corners("batchnorm")
    state = Surface.from_corners(corners).state_dict(0.9, 0.2)
    weights = (0.08, 0.02, 0.72, 0.18)
    expected = sum(w * c["1.running_var"] for w, c in zip(weights, corners, strict=True))
    torch.testing.assert_close(state["1.running_var"], expected)
    assert state["1.num_batches_tracked"] == corners[2]["1.num_batches_tracked"]


@pytest.mark.parametrize("loose", range(4))
def test_a_corner_that_stores_both_copies_of_tied_weights_is_still_that_corner(loose):
    corners = make_corners("tied")
    corners[loose] = {name: tensor.clone() for name, tensor in corners[loose].items()}
    surface = move_free_points(Surface.from_corners(corners))
    for (u, v), corner in zip(CORNERS, corners, strict=True):
        assert differing(surface.state_dict(u, v), corner) == []


def test_a_corner_that_unties_tied_weights_is_refused_by_name():
    corners = [{name: t.clone() for name, t in c.items()} for c in make_corners("tied")]
    corners[0] = make_corners("tied")[0]
    corners[2]["second.weight"] += 1
    with pytest.raises(InputError, match=r"first\.weight.*second\.weight.*corner_10"):
        Surface.from_corners(corners)


@pytest.mark.parametrize("name", ["batchnorm", "tied", "bfloat16", "buffers", "float64"])
def test_saving_and_loading_a_surface_changes_no_bit(name, tmp_path):
    surface = move_free_points(make_surface(name, (2, 1)))
    surface.name = "bent"
    surface.save(tmp_path / "s.safetensors", {"note": "hello"})
    loaded = Surface.load(tmp_path / "s.safetensors")
    assert torch.equal(loaded.control_points, surface.control_points)
    assert loaded.layout == surface.layout
    assert (loaded.name, loaded.shape.degree) == ("bent", (2, 1))
    assert loaded.corner_hashes == surface.corner_hashes
    for u, v in POINTS:
        assert differing(loaded.state_dict(u, v), surface.state_dict(u, v)) == []


def test_a_linear_surface_is_named_linear_and_any_other_bezier_unless_told():
    corners = make_corners("no-norm")
    assert Surface.from_corners(corners, degree=(1, 1)).name == "linear"
    assert Surface.from_corners(corners, degree=(1, 2)).name == "bezier"
    assert Surface.from_corners(corners, name="trajectory").name == "trajectory"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_surface_with_a_nan_or_an_infinity_is_not_saved(value, tmp_path):
    surface = make_surface("no-norm")
    surface.control_points[4, 0] = value
    with pytest.raises(DivergenceError, match="NaN or an infinity"):
        surface.save(tmp_path / "s.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_mask_of_infinities_that_all_corners_share_is_no_parameter():
    mask = torch.full((2, 2), float("-inf")).triu(1)
    corners = [{"weight": torch.randn(3), "mask": mask.clone()} for _ in range(4)]
    surface = Surface.from_corners(corners)
    assert surface.dimension == 3
    assert torch.equal(surface.state_dict(0.3, 0.6)["mask"], mask)
    corners[2]["mask"][1, 0] = float("inf")
    with pytest.raises(InputError, match="'mask'"):
        Surface.from_corners(corners)


@pytest.mark.parametrize("degree", [[0, 2], [2, 21], [2], [2, 2, 2], [1.5, 2]])
def test_an_impossible_degree_is_refused_with_its_value_and_the_range(degree):
    with pytest.raises(InputError, match=rf"degree is {re.escape(str(degree))}.*from 1 to 20"):
        Surface.from_corners(make_corners("no-norm"), degree=degree)


@pytest.mark.parametrize(
    ("corners", "said"),
    [
        (make_corners("no-norm")[:3], "needs 4 corners, got 3"),
        (make_corners("no-norm")[:3] + make_corners("layernorm")[:1], "corner_11 and corner_00"),
    ],
)
def test_what_are_no_four_networks_of_one_architecture_is_refused(corners, said):
    with pytest.raises(InputError, match=said):
        Surface.from_corners(corners)


@pytest.mark.parametrize("point", [(-0.01, 0.5), (0.5, 1.01), (float("nan"), 0.5)])
def test_a_point_outside_the_square_is_refused_with_its_value(point):
    with pytest.raises(InputError, match=rf"{point[0]}, {point[1]}.*\[0, 1\]"):
        make_surface("no-norm").state_dict(*point)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "other"}, "no surface.*'other'.*fourfold-surface-3"),
        ({"sha256": "0" * 64}, "hash"),
        ({"shape": {"shape": "square", "degree": [3, 3]}}, r"\(16, "),
        ({"shape": None}, "shape"),
        ({"control_points": None}, "control_points"),
    ],
)
def test_a_file_that_is_no_surface_is_refused_with_its_name(changes, said, tmp_path):
    path = tmp_path / "odd.safetensors"
    make_surface("batchnorm").save(path)
    tensors, header = load_tensors(path)
    tensors = {name: tensor for name, tensor in tensors.items() if name not in changes}
    header |= {"sha256": state_hash(tensors)} | changes
    save_tensors(tensors, path, {k: v for k, v in header.items() if v is not None})
    with pytest.raises(InputError, match=rf"odd\.safetensors.*{said}"):
        Surface.load(path)
