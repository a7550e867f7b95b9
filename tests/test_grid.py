"""Laws of evaluation: one procedure for every network, in evaluation mode, over all examples."""

import pandas as pd
import pytest
import torch
from conftest import (
    CLASSES,
    CORNERS,
    NETWORKS,
    SIZE,
    input_of,
    logits_of,
    make_corners,
    make_images,
    make_network,
    make_surface,
    move_free_points,
)
from torch import nn

from fourfold.batchnorm import reestimate_batchnorm
from fourfold.errors import InputError
from fourfold.grid import evaluate_grid, evaluate_points, grid_points, predict
from fourfold.surface import BezierSurface

TRAIN = make_images(24, seed=1)
TEST = make_images(19, seed=2)
SPLITS = {"train": TRAIN, "test": TEST}
METRICS = ["nll", "accuracy", "ece", "brier"]
SOME_POINTS = [(0.0, 0.0), (0.3, 0.8), (0.5, 0.5), (1.0, 0.0)]


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


def test_a_grid_has_one_row_per_point_and_split_with_the_columns_of_the_table():
    surface = make_surface("layernorm", (1, 2))
    table = evaluate_grid(surface, make_network("layernorm"), SPLITS, points=3)
    columns = ["surface", "u", "v", "split", "n", *METRICS, "batchnorm"]
    assert list(table.columns) == columns
    assert len(table) == 9 * 2
    assert set(table["surface"]) == {"bezier"}
    assert set(table["batchnorm"]) == {"none"}
    assert table.groupby("split")["n"].unique().explode().to_dict() == {"train": 24, "test": 19}
    assert [tuple(p) for p in table.loc[table.split == "test", ["u", "v"]].to_numpy()] == (
        grid_points(3)
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_each_point_is_the_network_that_the_surface_has_there(name):
    surface = move_free_points(make_surface(name))
    network = make_network(name, seed=5)
    evaluation = evaluate_points(
        surface, network, SPLITS, SOME_POINTS, preprocess=input_of(network)
    )
    for i, (u, v) in enumerate(SOME_POINTS):
        by_hand = make_network(name, seed=6)
        by_hand.load_state_dict(surface.state_dict(u, v))
        reestimate_batchnorm(by_hand, TRAIN[0], preprocess=input_of(by_hand))
        logits = logits_of(name, by_hand.state_dict(), TEST[0]).float()
        nll = torch.nn.functional.cross_entropy(logits, TEST[1]).item()
        row = evaluation.table.query("split == 'test'").iloc[i]
        assert (row["u"], row["v"]) == (u, v)
        assert row["nll"] == pytest.approx(nll, rel=1e-5)
        torch.testing.assert_close(evaluation.logits["test"][i], logits.half(), rtol=0, atol=2e-3)


def test_corners_go_through_the_same_re_estimation_as_any_point():
    corners = make_corners("batchnorm")
    surface = BezierSurface.from_corners(corners)
    network = make_network("batchnorm", seed=5)
    table = evaluate_points(surface, network, SPLITS, CORNERS).table.query("split == 'test'")
    for nll, corner in zip(table["nll"], corners, strict=True):
        stale = nn.functional.cross_entropy(logits_of("batchnorm", corner, TEST[0]), TEST[1]).item()
        network.load_state_dict(corner)
        reestimate_batchnorm(network, TRAIN[0])
        own = logits_of("batchnorm", network.state_dict(), TEST[0])
        assert nll == pytest.approx(nn.functional.cross_entropy(own, TEST[1]).item(), rel=1e-5)
        assert nll != pytest.approx(stale, rel=1e-3)


def test_interpolated_statistics_are_those_of_the_surface():
    surface = make_surface("batchnorm")
    network = make_network("batchnorm", seed=5)
    table = evaluate_points(
        surface, network, {"test": TEST}, SOME_POINTS, batchnorm="interpolated"
    ).table
    assert set(table["batchnorm"]) == {"interpolated"}
    for nll, point in zip(table["nll"], SOME_POINTS, strict=True):
        logits = logits_of("batchnorm", surface.state_dict(*point), TEST[0])
        assert nll == pytest.approx(nn.functional.cross_entropy(logits, TEST[1]).item(), rel=1e-5)


def test_statistics_are_re_estimated_on_the_images_given_for_it():
    surface, network = make_surface("batchnorm"), make_network("batchnorm")
    by_default = evaluate_points(surface, network, SPLITS, SOME_POINTS).table
    given = evaluate_points(
        surface, network, {"test": TEST}, SOME_POINTS, batchnorm_images=TRAIN[0]
    ).table
    other = evaluate_points(
        surface, network, {"test": TEST}, SOME_POINTS, batchnorm_images=TEST[0]
    ).table
    expected = by_default.query("split == 'test'").reset_index(drop=True)
    pd.testing.assert_frame_equal(given, expected)
    assert (other["nll"] != given["nll"]).all()


@pytest.mark.parametrize("name", ["batchnorm", "dropout", "vit"])
def test_a_prediction_does_not_depend_on_the_other_images_of_its_batch(name):
    """It would, were a network left in training mode (batch statistics, dropout)."""
    surface, network = make_surface(name), make_network(name).train()
    images, labels = TEST
    whole = evaluate_points(
        surface, network, {"test": TEST}, SOME_POINTS, batchnorm_images=TRAIN[0]
    ).logits["test"]
    for i in (0, 7, 18):
        alone = {"test": (images[i : i + 1], labels[i : i + 1])}
        found = evaluate_points(surface, network, alone, SOME_POINTS, batchnorm_images=TRAIN[0])
        torch.testing.assert_close(found.logits["test"][:, 0], whole[:, i], rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", ["dropout", "batchnorm", "vgg16"])
def test_two_evaluations_are_equal_bit_for_bit(name):
    surface, network = make_surface(name), make_network(name).train()
    first, second = (evaluate_points(surface, network, SPLITS, SOME_POINTS) for _ in range(2))
    pd.testing.assert_frame_equal(first.table, second.table, check_exact=True)
    assert torch.equal(first.logits["test"], second.logits["test"])


@pytest.mark.parametrize("name", ["batchnorm", "buffers", "resnet18"])
def test_the_order_of_points_does_not_matter(name):
    surface, network = make_surface(name), make_network(name)
    forward = evaluate_points(surface, network, {"train": TRAIN}, SOME_POINTS).table
    backward = evaluate_points(surface, network, {"train": TRAIN}, SOME_POINTS[::-1]).table
    backward = backward.iloc[::-1].reset_index(drop=True)
    pd.testing.assert_frame_equal(forward, backward, check_exact=True)


@pytest.mark.parametrize("batch_size", [1, 4, 18, 19, 1000])
def test_metrics_are_means_over_all_examples_whatever_the_batch_size(batch_size):
    surface, network = make_surface("layernorm"), make_network("layernorm")
    expected = evaluate_points(surface, network, {"test": TEST}, SOME_POINTS, batch_size=7).table
    table = evaluate_points(
        surface, network, {"test": TEST}, SOME_POINTS, batch_size=batch_size
    ).table
    pd.testing.assert_frame_equal(table, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["batchnorm", "vgg16", "buffers", "frozen"])
def test_evaluation_leaves_the_callers_model_alone(name, untouched):
    network = make_network(name).train()
    check = untouched(network)
    evaluate_grid(make_surface(name), network, SPLITS, points=2)
    check()


def test_evaluation_leaves_the_surface_and_the_images_alone():
    surface = make_surface("batchnorm")
    before = surface.control_points.clone(), TEST[0].clone(), surface.corner_buffers.copy()
    evaluate_grid(surface, make_network("batchnorm"), SPLITS, points=2)
    assert torch.equal(surface.control_points, before[0])
    assert torch.equal(TEST[0], before[1])
    for name, values in surface.corner_buffers.items():
        assert torch.equal(values, before[2][name])


def test_logits_of_the_largest_networks_stay_finite_in_half_precision():
    corners = make_corners("no-norm")
    for corner in corners:
        corner["3.bias"] += torch.tensor([0.0, 2e5, 0.0])
    surface = BezierSurface.from_corners(corners)
    evaluation = evaluate_points(surface, make_network("no-norm"), {"test": TEST}, SOME_POINTS)
    assert torch.isfinite(evaluation.logits["test"]).all()
    assert (evaluation.logits["test"].argmax(2) == 1).all()


def test_predict_is_in_evaluation_mode_and_gives_float32_logits():
    for name in ("dropout", "batchnorm", "bfloat16"):
        network = make_network(name).train()
        found = predict(network, TEST[0], batch_size=4, preprocess=input_of(network))
        assert found.dtype == torch.float32
        expected = logits_of(name, network.state_dict(), TEST[0]).float()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_predict_leaves_every_modules_mode_as_it_was(training):
    network = make_network("vgg16").train(training)
    network.classifier.train(not training)
    modes = [module.training for module in network.modules()]
    predict(network, TEST[0])
    assert [module.training for module in network.modules()] == modes


def test_progress_is_reported_for_every_point():
    seen = []
    evaluate_points(
        make_surface("no-norm"), make_network("no-norm"), SPLITS, SOME_POINTS,
        on_point=lambda *progress: seen.append(progress),
    )  # fmt: skip
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


NO_IMAGES = (torch.empty(0, 1, SIZE, SIZE), torch.empty(0, dtype=torch.int64))


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("no-norm", {"splits": {}}, "splits is empty"),
        ("no-norm", {"splits": {"val": NO_IMAGES}}, "'val' has 0 images"),
        ("no-norm", {"splits": {"val": (TEST[0], TEST[1][:5])}}, "19 images and 5 labels"),
        ("no-norm", {"points": [(0.5, 1.5)]}, r"\(0.5, 1.5\).*\[0, 1\]"),
        ("no-norm", {"points": []}, "points is empty"),
        ("no-norm", {"batch_size": 0}, "batch_size is 0.*at least 1"),
        ("no-norm", {"batch_size": -4}, "batch_size is -4.*at least 1"),
        ("batchnorm", {"splits": {"test": TEST}}, "batchnorm_images"),
        ("batchnorm", {"batchnorm": "none"}, "'none'"),
        ("batchnorm", {"batchnorm": "averaged"}, "'averaged'.*reestimated, interpolated, none"),
        ("batchnorm", {"batchnorm_images": TRAIN[0][:1]}, "at least 2 images"),
    ],
)
def test_wrong_settings_are_refused_with_the_value_and_what_is_allowed(name, settings, said):
    arguments = {"splits": SPLITS, "points": SOME_POINTS} | settings
    with pytest.raises(InputError, match=said):
        evaluate_points(make_surface(name), make_network(name), **arguments)


@pytest.mark.parametrize("other", ["batchnorm", "tied"])
def test_a_model_of_another_architecture_is_refused(other):
    with pytest.raises(InputError, match="not of the checkpoints' architecture"):
        evaluate_points(make_surface("no-norm"), make_network(other), SPLITS, SOME_POINTS)


def test_a_model_with_another_number_of_classes_is_refused():
    network = make_network("no-norm")
    network[3] = nn.Linear(6, CLASSES + 1)
    with pytest.raises(InputError, match=r"3\.weight"):
        evaluate_points(make_surface("no-norm"), network, SPLITS, SOME_POINTS)
