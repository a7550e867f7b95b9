"""Laws of the selection of corners from one training run."""

from math import comb

import pandas as pd
import pytest
from conftest import make_images, make_network

from fourfold.combination.selection import select_corners
from fourfold.data.augment import RandomShiftFlip
from fourfold.errors import InputError
from fourfold.evaluation.grid import evaluate_points
from fourfold.surfaces.surface import BezierSurface

VAL, TRAIN = make_images(21, seed=3), make_images(24, seed=4)
NINE = [(u, v) for u in (0, 0.5, 1) for v in (0, 0.5, 1)]
EPOCHS = ["corner_00", "corner_01", "corner_10", "corner_11"]


def checkpoints(name, epochs):
    return {epoch: make_network(name, seed=epoch).state_dict() for epoch in epochs}


@pytest.mark.parametrize("k", [4, 5, 6])
def test_all_choices_of_four_are_tried_in_three_placings(k):
    ranked = select_corners(checkpoints("no-norm", range(k)), make_network("no-norm"), *VAL)
    assert len(ranked) == 3 * comb(k, 4)
    corners = [tuple(row) for row in ranked[EPOCHS].to_numpy()]
    assert len(set(corners)) == len(corners)
    # A placing is which pairs lie across a diagonal: all three of each four, none twice.
    diagonals = {
        frozenset([frozenset([c00, c11]), frozenset([c01, c10])]) for c00, c01, c10, c11 in corners
    }
    assert len(diagonals) == len(corners)


@pytest.mark.parametrize("name", ["layernorm", "batchnorm"])
def test_a_candidate_is_measured_by_the_nine_points_of_its_linear_surface(name):
    saved, network = checkpoints(name, (2, 3, 5, 7, 11)), make_network(name)
    ranked = select_corners(saved, network, *VAL, batchnorm_images=TRAIN[0])
    for row in ranked.iloc[[0, 4, 9, 14]].itertuples():
        corners = [saved[getattr(row, corner)] for corner in EPOCHS]
        surface = BezierSurface.from_corners(corners, degree=(1, 1))
        direct = evaluate_points(
            surface, network, {"val": VAL}, NINE, batchnorm_images=TRAIN[0]
        ).table.query("statistics != 'own'")
        assert row.nll_mean == pytest.approx(direct["nll"].mean(), rel=1e-4)
        assert row.nll_max == pytest.approx(direct["nll"].max(), rel=1e-4)
        assert row.accuracy_mean == pytest.approx(direct["accuracy"].mean())
        assert row.accuracy_min == pytest.approx(direct["accuracy"].min())
        assert (row.split, row.n) == ("val", 21)


def test_candidates_are_measured_with_statistics_of_images_augmented_by_the_seed():
    saved, network = checkpoints("batchnorm", range(4)), make_network("batchnorm")

    def ranked(**settings):
        return select_corners(saved, network, *VAL, batchnorm_images=TRAIN[0], **settings)

    augment = RandomShiftFlip(2, flip=False)
    first, again = (ranked(augment=augment, seed=1) for _ in range(2))
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    for other in (ranked(augment=augment, seed=2), ranked()):
        assert set(other["nll_mean"]).isdisjoint(first["nll_mean"])
    row = first.iloc[0]
    corners = [saved[row[corner]] for corner in EPOCHS]
    direct = evaluate_points(
        BezierSurface.from_corners(corners, degree=(1, 1)), network, {"val": VAL}, NINE,
        batchnorm_images=TRAIN[0], augment=augment, seed=1,
    ).table.query("statistics != 'own'")  # fmt: skip
    assert row["nll_mean"] == pytest.approx(direct["nll"].mean(), rel=1e-4)


def test_the_best_candidate_is_first_and_alone_selected():
    ranked = select_corners(checkpoints("no-norm", range(6)), make_network("no-norm"), *VAL)
    assert ranked["nll_mean"].is_monotonic_increasing
    assert ranked["candidate"].tolist() == list(range(1, 46))
    assert ranked["selected"].tolist() == [True] + [False] * 44


def test_equal_candidates_are_in_the_order_of_their_epochs():
    state = make_network("no-norm").state_dict()
    saved = dict.fromkeys((9, 3, 7, 5, 1), state)
    ranked = select_corners(saved, make_network("no-norm"), *VAL)
    fours = [tuple(sorted(row)) for row in ranked[EPOCHS].to_numpy()]
    assert fours == sorted(fours)
    assert ranked[EPOCHS].iloc[0].tolist() == [1, 3, 5, 7]


def test_a_run_that_ends_in_equal_networks_is_placed_there():
    """Two copies of good networks beside bad ones: the flat surface is chosen."""
    good = make_network("no-norm", seed=1).state_dict()
    saved = {1: make_network("no-norm", seed=7).state_dict(), 2: good, 3: good, 4: good, 5: good}
    saved[1] = {name: 50 * tensor for name, tensor in saved[1].items()}
    ranked = select_corners(saved, make_network("no-norm"), *VAL)
    assert sorted(ranked[EPOCHS].iloc[0]) == [2, 3, 4, 5]


def test_given_candidates_alone_are_measured():
    saved, network = checkpoints("no-norm", range(6)), make_network("no-norm")
    asked = [[5, 1, 0, 2], [4, 3, 2, 1]]
    ranked = select_corners(saved, network, *VAL, candidates=asked)
    assert sorted(map(tuple, ranked[EPOCHS].to_numpy())) == sorted(map(tuple, asked))
    everything = select_corners(saved, network, *VAL)
    shared = everything.merge(ranked, on="nll_mean", suffixes=("", "_asked"))
    assert len(shared) == 2  # the same four in a symmetric placing


def test_the_model_and_the_checkpoints_are_left_alone(untouched):
    network = make_network("batchnorm").train()
    check = untouched(network)
    saved = checkpoints("batchnorm", range(4))
    expected = select_corners(saved, network, *VAL, batchnorm_images=TRAIN[0])
    check()
    again = select_corners(saved, network, *VAL, batchnorm_images=TRAIN[0])
    pd.testing.assert_frame_equal(again, expected, check_exact=True)


def test_progress_is_reported_for_every_network():
    seen = []
    select_corners(
        checkpoints("no-norm", range(4)), make_network("no-norm"), *VAL,
        on_network=lambda *progress: seen.append(progress),
    )  # fmt: skip
    # Four checkpoints, six means of two, and the mean of all.
    assert seen == [(i, 11) for i in range(1, 12)]


@pytest.mark.parametrize("k", [0, 3])
def test_fewer_than_four_checkpoints_are_refused(k):
    with pytest.raises(InputError, match="at least 4 checkpoints"):
        select_corners(checkpoints("no-norm", range(k)), make_network("no-norm"), *VAL)


@pytest.mark.parametrize("candidate", [[0, 1, 2, 9], [0, 1, 2, 2], [0, 1, 2], [0, 1, 2, 3, 4]])
def test_a_candidate_of_other_epochs_is_refused_with_the_saved_ones(candidate):
    with pytest.raises(InputError) as caught:
        select_corners(
            checkpoints("no-norm", range(5)), make_network("no-norm"), *VAL, candidates=[candidate]
        )
    assert str(candidate) in str(caught.value)
    assert "[0, 1, 2, 3, 4]" in str(caught.value)


def test_no_candidates_are_refused():
    with pytest.raises(InputError, match="candidates is empty"):
        select_corners(
            checkpoints("no-norm", range(4)), make_network("no-norm"), *VAL, candidates=[]
        )


def test_a_network_with_batchnorm_needs_training_images():
    with pytest.raises(InputError, match="batchnorm_images"):
        select_corners(checkpoints("batchnorm", range(4)), make_network("batchnorm"), *VAL)
