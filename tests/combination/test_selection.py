"""Laws of the selection of corners from one training run."""

from math import comb

import pandas as pd
import pytest
import torch
from conftest import CORNERS, make_images, make_network

from fourfold.combination.selection import select_corners
from fourfold.data.augment import RandomShiftFlip
from fourfold.errors import InputError
from fourfold.evaluation.geometry import measure_distances
from fourfold.evaluation.grid import evaluate_networks, evaluate_points
from fourfold.surfaces.shapes import SQUARE, PointSet, Star
from fourfold.surfaces.surface import Surface

VAL, TRAIN = make_images(21, seed=3), make_images(24, seed=4)
NINE = [(u, v) for u in (0, 0.5, 1) for v in (0, 0.5, 1)]
PLAIN = make_network("no-norm")


def checkpoints(name, epochs):
    return {epoch: make_network(name, seed=epoch).state_dict() for epoch in epochs}


def selected(name, saved, **settings):
    settings = {"batchnorm_images": TRAIN[0]} | settings
    return select_corners(saved, make_network(name), *VAL, **settings)


def epochs_of(table):
    return [tuple(map(int, epochs.split(";"))) for epochs in table["corners"]]


@pytest.mark.parametrize("k", [4, 6])
def test_all_choices_of_four_are_tried_in_three_placings_and_the_best_is_selected(k):
    ranked = selected("no-norm", checkpoints("no-norm", range(k)))
    # A placing is which pairs lie across a diagonal: all three of each four, none twice.
    diagonals = {
        frozenset([frozenset([c00, c11]), frozenset([c01, c10])])
        for c00, c01, c10, c11 in epochs_of(ranked)
    }
    assert len(diagonals) == len(ranked) == 3 * comb(k, 4)
    assert ranked["gain"].is_monotonic_decreasing
    assert ranked["candidate"].tolist() == [*range(1, len(ranked) + 1)]
    assert ranked["selected"].tolist() == [True] + [False] * (len(ranked) - 1)


@pytest.mark.parametrize("count", [1, 5])
def test_a_set_is_measured_by_its_networks_and_their_mean(count):
    saved = checkpoints("no-norm", range(count))
    ranked = selected("no-norm", saved, shape=PointSet(count), candidates=[[*saved]])
    surface = Surface.from_corners([*saved.values()], shape="set")
    points = surface.shape.lattice(2)[count == 1 :]  # one network is its own mean
    direct = evaluate_points(surface, PLAIN, {"val": VAL}, points).table
    assert ranked["nll_mean"].tolist() == pytest.approx([direct["nll"].mean()], rel=1e-4)
    assert ranked["nll_max"].tolist() == pytest.approx([direct["nll"].max()], rel=1e-4)


@pytest.mark.parametrize("name", ["layernorm", "batchnorm"])
def test_a_candidate_is_measured_by_the_nine_points_of_its_linear_surface(name):
    """With statistics of images augmented by the seed."""
    saved, settings = checkpoints(name, (2, 3, 5, 7, 11)), {"batchnorm_images": TRAIN[0]}
    settings |= {"augment": RandomShiftFlip(2, flip=False), "seed": 1}
    ranked = selected(name, saved, **settings)
    best = min(
        evaluate_networks(make_network(name), saved.values(), {"val": VAL}, **settings).table["nll"]
    )
    for row in ranked.iloc[[0, 4, 9, 14]].itertuples():
        corners = [saved[int(epoch)] for epoch in row.corners.split(";")]
        surface = Surface.from_corners(corners, degree=(1, 1))
        direct = evaluate_points(surface, make_network(name), {"val": VAL}, NINE, **settings).table
        direct = direct.query("statistics != 'own'")
        assert row.nll_mean == pytest.approx(direct["nll"].mean(), rel=1e-4)
        assert row.nll_max == pytest.approx(direct["nll"].max(), rel=1e-4)
        assert row.accuracy_mean == pytest.approx(direct["accuracy"].mean())
        assert row.accuracy_min == pytest.approx(direct["accuracy"].min())
        assert (row.split, row.n) == ("val", 21)
        between = direct[~SQUARE.is_corner(direct)]
        assert row.gain == pytest.approx(best - between["nll"].mean(), rel=1e-3, abs=1e-5)
        networks = evaluate_points(surface, make_network(name), {"val": VAL}, CORNERS, **settings)
        logits = dict(zip(surface.shape.corner_names, networks.logits["val"], strict=True))
        gaps = measure_distances(surface, logits)
        assert row.distance == pytest.approx(gaps["relative_l2"].mean(), rel=1e-5)
        assert row.disagreement == pytest.approx(gaps["disagreement"].mean())


def test_equal_candidates_are_in_the_order_of_their_epochs():
    ranked = selected("no-norm", dict.fromkeys((9, 3, 7, 5, 1), PLAIN.state_dict()))
    fours = [tuple(sorted(epochs)) for epochs in epochs_of(ranked)]
    assert fours == sorted(fours)
    assert epochs_of(ranked)[0] == (1, 3, 5, 7)


def test_a_run_that_ends_in_equal_networks_is_placed_there():
    """Copies of a good network beside a bad one: the flat surface is chosen."""
    saved = dict.fromkeys((2, 3, 4, 5), make_network("no-norm", seed=1).state_dict())
    saved[1] = {name: 50 * tensor for name, tensor in PLAIN.state_dict().items()}
    assert sorted(epochs_of(selected("no-norm", saved))[0]) == [2, 3, 4, 5]


def test_corners_are_selected_for_what_is_gained_between_them_over_the_best_network():
    """Neither for lying near each other nor for being bad: networks with a constant output.

    With balanced labels the nll of an output b is logsumexp(b) - mean(b), lowest at b = 0.
    """
    pairs = torch.tensor([[1.0, -1, 0], [-1, 1, 0], [0, 1, -1], [0, -1, 1]])
    outputs = {
        "coinciding": torch.tensor([0.4, 0, 0]) + 1e-3 * pairs,
        "spread": 0.5 * pairs,  # around the optimum
        "bad": torch.tensor([1.0, 0, 0]) + 3 * pairs,  # to which an average helps most
    }
    zero = {name: torch.zeros_like(tensor) for name, tensor in PLAIN.state_dict().items()}
    saved = {
        epoch: zero | {"3.bias": output}
        for epoch, output in enumerate(torch.cat([*outputs.values()]))
    }
    asked = {name: list(range(4 * k, 4 * k + 4)) for k, name in enumerate(outputs)}
    ranked = selected("no-norm", saved, candidates=list(asked.values()))
    names = {";".join(map(str, epochs)): name for name, epochs in asked.items()}
    ranked = ranked.set_index(ranked["corners"].map(names))
    assert ranked.index.tolist() == ["spread", "coinciding", "bad"]
    assert ranked["gain"]["spread"] > 0.005 > abs(ranked["gain"]["coinciding"])
    assert ranked["nll_mean"].idxmin() == "coinciding"
    corners = {name: (b.logsumexp(1) - b.mean(1)).min().item() for name, b in outputs.items()}
    best = corners["coinciding"]
    assert (pd.Series(corners) - (best - ranked["gain"])).idxmax() == "bad"


def test_given_candidates_alone_are_measured():
    saved, asked = checkpoints("no-norm", range(6)), [[5, 1, 0, 2], [4, 3, 2, 1]]
    ranked = selected("no-norm", saved, candidates=asked)
    assert sorted(epochs_of(ranked)) == sorted(map(tuple, asked))
    # Among all candidates are the same four in a symmetric placing.
    assert len(selected("no-norm", saved).merge(ranked, on="nll_mean")) == 2


def test_the_model_is_left_alone_and_progress_is_reported_for_every_network(untouched):
    network, saved, seen = make_network("batchnorm").train(), checkpoints("batchnorm", range(4)), []
    check = untouched(network)
    tables = [
        select_corners(saved, network, *VAL, batchnorm_images=TRAIN[0], on_network=report)
        for report in (None, lambda *progress: seen.append(progress))
    ]
    check()
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    # Four checkpoints, six means of two, and the mean of all.
    assert seen == [(i, 11) for i in range(1, 12)]


@pytest.mark.parametrize(
    ("name", "k", "settings", "said"),
    [
        ("no-norm", 0, {}, ["at least 4 checkpoints"]),
        ("no-norm", 3, {}, ["at least 4 checkpoints", "[0, 1, 2]"]),
        *(
            ("no-norm", 5, {"candidates": [wrong]}, [str(wrong), said])
            for wrong, said in (
                ([0, 1, 2, 9], "[0, 1, 2, 3, 4]"),
                ([0, 1, 2, 2], "4 different"),
                ([0, 1, 2], "4 different"),
                ([0, 1, 2, 3, 4], "4 different"),
            )
        ),
        ("no-norm", 4, {"candidates": []}, ["candidates is empty"]),
        ("batchnorm", 4, {"batchnorm_images": None}, ["batchnorm_images"]),
        ("no-norm", 4, {"shape": Star(3)}, ["no corners", "PointSet"]),
    ],
)
def test_wrong_input_is_named(name, k, settings, said):
    with pytest.raises(InputError) as caught:
        selected(name, checkpoints(name, range(k)), **settings)
    assert all(part in str(caught.value) for part in said)
