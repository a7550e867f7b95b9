"""Laws of evaluation: one procedure for every network, in evaluation mode, over all examples."""

import numpy as np
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
from torch.utils.data import DataLoader, TensorDataset

from fourfold.combination.ensemble import evaluate_ensemble
from fourfold.data.augment import RandomShiftFlip
from fourfold.errors import InputError
from fourfold.evaluation.batchnorm import reestimate_batchnorm
from fourfold.evaluation.grid import choose_points, evaluate_grid, evaluate_points, predict
from fourfold.evaluation.logits import to_half
from fourfold.surfaces.points import grid_points
from fourfold.surfaces.shapes import make_shape
from fourfold.surfaces.surface import BezierSurface, Surface

TRAIN = make_images(24, seed=1)
TEST = make_images(19, seed=2)
SPLITS = {"train": TRAIN, "test": TEST}
METRICS = ["nll", "accuracy", "ece", "brier"]
SOME_POINTS = [(0.0, 0.0), (0.3, 0.8), (0.5, 0.5), (1.0, 0.0)]


SHIFT = RandomShiftFlip(2, flip=False)


def reestimated(table):
    """Return the rows of a table but those of the corners as trained."""
    return table[table["statistics"] != "own"].reset_index(drop=True)


def test_a_grid_has_one_row_per_point_and_split_with_the_columns_of_the_table():
    surface = make_surface("layernorm", (1, 2))
    table = evaluate_grid(surface, make_network("layernorm"), SPLITS, points=3)
    columns = ["surface", "sample", "u", "v", "w", "split", "n", *METRICS]
    assert list(table.columns) == [*columns, "statistics", "statistics_images"]
    assert len(table) == 9 * 2
    assert set(table["surface"]) == {"bezier"}
    assert set(table["sample"]) == {"grid"}
    assert set(table["statistics"]) == {"none"}
    assert set(table["statistics_images"]) == {0}
    assert table.groupby("split")["n"].unique().explode().to_dict() == {"train": 24, "test": 19}
    assert [tuple(p) for p in table.loc[table.split == "test", ["u", "v"]].to_numpy()] == (
        grid_points(3)
    )


@pytest.mark.parametrize("augment", [None, SHIFT])
@pytest.mark.parametrize("name", NETWORKS)
def test_each_point_is_the_network_there_with_statistics_re_estimated_by_hand(name, augment):
    surface, network = move_free_points(make_surface(name)), make_network(name, seed=5)
    settings = {"augment": augment, "seed": 7, "preprocess": input_of(network)}
    evaluation = evaluate_points(surface, network, SPLITS, SOME_POINTS, **settings)
    for i, (u, v) in enumerate(SOME_POINTS):
        by_hand = make_network(name, seed=6)
        by_hand.load_state_dict(surface.state_dict(u, v))
        reestimate_batchnorm(by_hand, TRAIN[0], **settings)
        logits = logits_of(name, by_hand.state_dict(), TEST[0]).float()
        nll = torch.nn.functional.cross_entropy(logits, TEST[1]).item()
        row = evaluation.table.query("split == 'test'").iloc[i]
        assert (row["u"], row["v"]) == (u, v)
        assert row["nll"] == pytest.approx(nll, rel=1e-3)  # of logits in half precision
        torch.testing.assert_close(evaluation.logits["test"][i], logits.half(), rtol=0, atol=2e-3)
    if set(evaluation.table["statistics"]) == {"none"}:
        assert evaluation.own is None
        assert len(evaluation.table) == len(SOME_POINTS) * len(SPLITS)
    else:
        assert set(reestimated(evaluation.table)["statistics_images"]) == {24}


@pytest.mark.parametrize("name", ["batchnorm", "resnet18"])
def test_corners_are_shown_re_estimated_as_any_point_and_as_they_were_trained(name):
    corners, network = make_corners(name), make_network(name, seed=5)
    surface = move_free_points(BezierSurface.from_corners(corners))
    evaluation = evaluate_points(
        surface, network, SPLITS, [*CORNERS, (0.5, 0.5)], preprocess=input_of(network)
    )
    tables = evaluation.table.query("split == 'test'").groupby("statistics")
    assert {kind: len(table) for kind, table in tables} == {"reestimated": 5, "own": 4}
    again, own = (tables.get_group(kind).reset_index() for kind in ("reestimated", "own"))
    for k, corner in enumerate(corners):
        as_trained = make_network(name, seed=6)
        as_trained.load_state_dict(corner)
        logits = to_half(predict(as_trained, TEST[0], preprocess=input_of(as_trained)))
        assert torch.equal(evaluation.own.logits["test"][k], logits)
        expected = nn.functional.cross_entropy(logits.float(), TEST[1]).item()
        assert own["nll"][k] == pytest.approx(expected, rel=1e-6)
        reestimate_batchnorm(as_trained, TRAIN[0], preprocess=input_of(as_trained))
        logits = to_half(predict(as_trained, TEST[0], preprocess=input_of(as_trained)))
        assert torch.equal(evaluation.logits["test"][k], logits)
        assert again["nll"][k] != pytest.approx(own["nll"][k], rel=1e-3)
        for table in (again, own):
            assert (table["u"][k], table["v"][k]) == CORNERS[k]


def test_all_numbers_of_an_evaluation_are_of_the_logits_that_it_returns():
    surface, network = make_surface("resnet18"), make_network("resnet18")
    evaluation = evaluate_points(surface, network, SPLITS, SOME_POINTS)
    for found, table in (
        (evaluation, reestimated(evaluation.table)),
        (evaluation.own, evaluation.table.query("statistics == 'own'")),
    ):
        for split, (_, labels) in SPLITS.items():
            rows = table.query("split == @split")
            logits = found.logits[split].float()
            nll = torch.stack(
                [nn.functional.cross_entropy(one, labels, reduction="none") for one in logits]
            )
            right = logits.argmax(dim=2) == labels
            torch.testing.assert_close(found.nll[split], nll, rtol=1e-5, atol=1e-6)
            assert torch.equal(found.correct[split], right)
            assert rows["nll"].tolist() == pytest.approx(nll.mean(dim=1).tolist(), rel=1e-5)
            assert rows["accuracy"].tolist() == pytest.approx(right.double().mean(dim=1).tolist())


def test_logits_are_kept_of_the_splits_asked_for_and_the_rest_of_all():
    surface, network = make_surface("batchnorm"), make_network("batchnorm")
    whole = evaluate_points(surface, network, SPLITS, SOME_POINTS)
    part = evaluate_points(surface, network, SPLITS, SOME_POINTS, keep_logits=["test"])
    assert set(whole.logits) == set(whole.own.logits) == {"train", "test"}
    assert set(part.logits) == set(part.own.logits) == {"test"}
    pd.testing.assert_frame_equal(part.table, whole.table, check_exact=True)
    for split in SPLITS:
        assert torch.equal(part.nll[split], whole.nll[split])
        assert torch.equal(part.correct[split], whole.correct[split])


@pytest.mark.parametrize("form", [torch.tensor, np.array, lambda points: map(list, points)])
def test_points_may_be_lists_or_rows_of_arrays_and_tensors(form):
    surface, model = make_surface("batchnorm"), make_network("batchnorm")
    points = [(0.0, 0.0), (0.25, 0.5), (1.0, 0.0)]
    expected = evaluate_points(surface, model, SPLITS, points).table
    pd.testing.assert_frame_equal(
        evaluate_points(surface, model, SPLITS, form(points)).table, expected
    )
    of_scalars = [tuple(torch.tensor(x) for x in point) for point in points]
    assert evaluate_points(surface, model, SPLITS, of_scalars).table.equals(expected)


@pytest.mark.parametrize("form", [list, np.array, torch.tensor])
def test_points_of_a_curve_may_be_numbers(form):
    curve = Surface.from_corners(make_corners("no-norm")[:2], shape="curve")
    table = evaluate_points(curve, make_network("no-norm"), {"test": TEST}, form([0, 0.25])).table
    assert table["u"].tolist() == [0, 0.25]


def test_labels_are_in_the_order_of_the_logits_also_of_a_loader_that_shuffles():
    loader = DataLoader(TensorDataset(*TEST), batch_size=5, shuffle=True)
    splits = {"train": TRAIN, "test": loader}
    evaluation = evaluate_points(
        make_surface("batchnorm"), make_network("batchnorm"), splits, SOME_POINTS
    )
    assert torch.equal(evaluation.labels["train"], TRAIN[1])
    assert not torch.equal(evaluation.labels["test"], TEST[1])
    for part, kind in ((evaluation, "reestimated"), (evaluation.own, "own")):
        for split, labels in part.labels.items():
            of_first = evaluate_ensemble(part.logits[split], [0], labels)
            rows = evaluation.table[evaluation.table["split"] == split]
            row = rows[rows["statistics"] == kind].iloc[0]
            assert of_first["nll"] == pytest.approx(row["nll"])
            assert of_first["accuracy"] == row["accuracy"]


def test_a_grid_evaluates_its_points_as_they_are_evaluated_alone():
    surface, network = move_free_points(make_surface("batchnorm")), make_network("batchnorm")
    settings = {"augment": SHIFT, "seed": 2}
    table = evaluate_grid(surface, network, SPLITS, points=3, edges=4, random=2, **settings)
    rows = reestimated(table)
    for _, row in rows[rows["split"] == "test"].iloc[::4].iterrows():
        alone = evaluate_points(
            surface, network, SPLITS, [(row["u"], row["v"])], sample=row["sample"], **settings
        ).table
        expected = reestimated(alone).query("split == 'test'").iloc[0]
        pd.testing.assert_series_equal(row, expected, check_names=False, check_exact=True)


def test_beside_the_grid_there_are_points_of_the_edges_and_random_ones_by_the_seed():
    surface, network = make_surface("no-norm"), make_network("no-norm")

    def evaluated(seed):
        table = evaluate_grid(
            surface, network, {"test": TEST}, points=3, edges=7, random=9, seed=seed
        )
        return {
            sample: list(zip(rows["u"], rows["v"], strict=True))
            for sample, rows in table.groupby("sample")
        }

    found, again, other = evaluated(1), evaluated(1), evaluated(2)
    assert set(found["grid"]) == set(grid_points(3))
    # Seven along each of four edges; corners and midpoints are points of the grid.
    assert len(found["edge"]) == 4 * (7 - 3)
    assert set(found["edge"]).isdisjoint(found["grid"])
    assert all({u, v} & {0.0, 1.0} for u, v in found["edge"])
    assert len(found["random"]) == 9
    assert all(0 < u < 1 and 0 < v < 1 for u, v in found["random"])
    assert again == found
    assert other["edge"] == found["edge"]
    assert set(other["random"]).isdisjoint(found["random"])
    with pytest.raises(InputError, match=r"random points is -1; .* at least 0"):
        evaluate_grid(surface, network, SPLITS, 3, random=-1)
    for key, said in (("points", "grid"), ("edges", "edge"), ("random", "random")):
        with pytest.raises(InputError, match=f"{said} points is 2.5; .* whole number"):
            evaluate_grid(surface, network, SPLITS, **{key: 2.5})


@pytest.mark.parametrize("n", [6, 7, 11])
@pytest.mark.parametrize(
    "shape",
    [make_shape("square", degree=[2, 2]), make_shape("triangle", degree=[2]),
     make_shape("simplex", added=1)],
    ids=str,
)  # fmt: skip
def test_a_point_of_an_edge_that_the_grid_has_is_evaluated_once(shape, n):
    chosen = choose_points(shape, n, edges=n)
    assert chosen["edge"] == []


def test_interpolated_statistics_are_those_of_the_surface():
    surface = make_surface("batchnorm")
    network = make_network("batchnorm", seed=5)
    table = evaluate_points(
        surface, network, {"test": TEST}, SOME_POINTS, batchnorm="interpolated"
    ).table
    assert set(table["statistics"]) == {"interpolated", "own"}
    table = reestimated(table)
    assert set(table["statistics_images"]) == {0}
    for nll, point in zip(table["nll"], SOME_POINTS, strict=True):
        logits = logits_of("batchnorm", surface.state_dict(*point), TEST[0]).half().float()
        assert nll == pytest.approx(nn.functional.cross_entropy(logits, TEST[1]).item(), rel=1e-4)


def test_statistics_are_re_estimated_on_the_images_given_for_it():
    surface, network = make_surface("batchnorm"), make_network("batchnorm")
    by_default = evaluate_points(surface, network, SPLITS, SOME_POINTS).table
    given, other = (
        evaluate_points(
            surface, network, {"test": TEST}, SOME_POINTS, batchnorm_images=images
        ).table
        for images, _ in (TRAIN, TEST)
    )
    expected = by_default.query("split == 'test'").reset_index(drop=True)
    pd.testing.assert_frame_equal(given, expected)
    assert ((other["nll"] == given["nll"]) == (given["statistics"] == "own")).all()


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


@pytest.mark.parametrize("name", ["batchnorm", "vgg16", "buffers", "frozen"])
def test_evaluation_leaves_the_callers_model_alone(name, untouched):
    network = make_network(name).train()
    check = untouched(network)
    evaluate_grid(make_surface(name), network, SPLITS, points=2)
    check()


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


OTHER_CLASSES = make_network("no-norm")
OTHER_CLASSES[3] = nn.Linear(6, CLASSES + 1)
NO_IMAGES = (torch.empty(0, 1, SIZE, SIZE), torch.empty(0, dtype=torch.int64))


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("no-norm", {"splits": {}}, "splits is empty"),
        ("no-norm", {"splits": {"val": NO_IMAGES}}, "'val' has 0 images"),
        ("no-norm", {"splits": {"val": (TEST[0], TEST[1][:5])}}, "19 images but 5 labels"),
        ("no-norm", {"points": [(0.5, 1.5)]}, r"\(0.5, 1.5\).*\[0, 1\]"),
        ("no-norm", {"points": []}, "points is empty"),
        ("no-norm", {"points": 0.5}, "points is 0.5; give a list"),
        ("no-norm", {"points": [0.5, 0.5]}, "1 coordinates; a point of a square has 2"),
        ("no-norm", {"points": ["center"]}, "a point is 'center'; give a number for each of u, v"),
        ("no-norm", {"keep_logits": True}, "keep_logits is True; give names of splits.*test"),
        ("no-norm", {"keep_logits": ["val"]}, r"keep_logits is \['val'\]"),
        ("no-norm", {"batch_size": 0}, "batch_size is 0.*at least 1"),
        ("no-norm", {"batch_size": -4}, "batch_size is -4.*at least 1"),
        ("batchnorm", {"splits": {"test": TEST}}, "batchnorm_images"),
        ("batchnorm", {"batchnorm": "none"}, "'none'"),
        ("batchnorm", {"batchnorm": "averaged"}, "'averaged'.*reestimated, interpolated, own"),
        ("batchnorm", {"batchnorm": "own"}, "'own'.*reestimated"),
        ("batchnorm", {"batchnorm_images": TRAIN[0][:1]}, "at least 2 images"),
        ("no-norm", {"model": make_network("batchnorm")}, "the model doesn't own"),
        ("no-norm", {"model": OTHER_CLASSES}, r"3\.weight"),
    ],
)
def test_wrong_settings_are_refused_with_the_value_and_what_is_allowed(name, settings, said):
    arguments = {"model": make_network(name), "splits": SPLITS, "points": SOME_POINTS} | settings
    with pytest.raises(InputError, match=said):
        evaluate_points(make_surface(name), **arguments)
