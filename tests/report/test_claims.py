"""Laws of the claims: each can come out in every way that it should, and in no other."""

import numpy as np
import pandas as pd
import pytest
import torch
from combination.test_baselines import described
from combination.test_differences import IS_CORNER, make_examples, make_logits

from fourfold.combination.differences import measure_differences
from fourfold.evaluation.bootstrap import student_interval
from fourfold.report import claims
from fourfold.report.claims import CLAIMS, NO, TRIVIAL, UNDECIDED, YES, Comparison

LOW_LOSS = "Bezier surface is low-loss everywhere"
FAILS = "linear surface fails"
FREE = "trajectory surface is low-loss without training"
MERGE = "merge: Bezier point picked on val is more accurate than the best corner"
MERGE_NLL = "merge: Bezier point picked on val has lower nll than the best corner"
ENSEMBLE = "ensemble: four Bezier points picked on val are more accurate than the four corners"
SURFACES = described(
    linear=("independent", "seeds", None),
    bezier=("independent", "seeds", "standard"),
    trajectory=("trajectory", "run", None),
)
GOOD, OPEN, BAD = 0.05, 0.001, -0.05  # differences; the draws' deviation is 0.01


def row(comparison, split, metric, difference, surface="bezier", seed=0, width=0.01):
    draws = difference + width * np.random.default_rng(seed).normal(size=1000)
    where = {"comparison": comparison, "surface": surface, "split": split, "metric": metric}
    return where | {"difference": difference, "draws": draws}


def low_loss(surface="bezier", base=GOOD, **changes):
    """Return the rows of a surface, some changed: `train_nll=BAD`."""
    return [
        row("low-loss", split, metric, changes.get(f"{split}_{metric}", base), surface)
        for split in ("train", "val", "test")
        for metric in ("accuracy", "nll")
    ]


def verdicts(rows, coincident=(), surfaces=SURFACES):
    """Return (claim, surface) -> verdict."""
    judged = claims.judge(claims.compare(pd.DataFrame(rows)), coincident, surfaces)
    return {(verdict.text, verdict.surface): verdict for verdict in judged}


def words(rows, coincident=(), surfaces=SURFACES):
    return {key: verdict.word for key, verdict in verdicts(rows, coincident, surfaces).items()}


@pytest.mark.parametrize(
    ("rows", "coincident", "claim", "word"),
    [
        (low_loss(), ["linear", "trajectory"], LOW_LOSS, YES),
        (low_loss(base=BAD), [], LOW_LOSS, NO),
        (low_loss(base=OPEN), [], LOW_LOSS, UNDECIDED),
        (low_loss(), ["bezier"], LOW_LOSS, TRIVIAL),
        (low_loss(base=OPEN), ["bezier"], LOW_LOSS, TRIVIAL),
        (low_loss(base=BAD), ["bezier"], LOW_LOSS, NO),
        (low_loss("linear", base=BAD), [], FAILS, YES),
        (low_loss("linear", test_nll=BAD), [], FAILS, YES),  # in one place is enough
        (low_loss("linear"), [], FAILS, NO),
        (low_loss("linear", base=OPEN), [], FAILS, UNDECIDED),
        (low_loss("trajectory"), [], FREE, YES),
        (low_loss("trajectory"), ["trajectory"], FREE, TRIVIAL),
    ],
)
def test_each_of_the_four_words_can_come_out(rows, coincident, claim, word):
    assert words(rows, coincident) == {(claim, rows[0]["surface"]): word}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.text)
@pytest.mark.parametrize("difference", [GOOD, OPEN, BAD, 0.0])
def test_every_claim_can_hold_and_can_fail_and_an_exact_tie_can_not_be_told(claim, difference):
    (surface,) = claim.texts(SURFACES)
    width = 0.01 * (difference != 0)
    rows = [
        row(claim.comparison, "test", metric, difference, surface, width=width)
        for metric in claim.metrics
    ]
    expected = {GOOD: YES, BAD: NO}.get(-difference if claim.fails else difference, UNDECIDED)
    assert words(rows)[claim.text, surface] == expected


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("metric", ["accuracy", "nll"])
def test_low_loss_everywhere_is_lost_on_any_split_and_in_either_metric(split, metric):
    place = f"{split}_{metric}"
    for base, value, word in ((GOOD, BAD, NO), (GOOD, OPEN, UNDECIDED), (OPEN, BAD, NO)):
        (verdict,) = verdicts(low_loss(base=base, **{place: value})).values()
        shown = verdict.decided_by
        assert verdict.word == word
        assert (shown.split, shown.metric, shown.difference) == (split, metric, value)


def test_the_comparison_least_in_favour_is_shown_whatever_its_unit():
    """-0.05 in accuracy is five deviations; -0.2 nats may be a third of one."""
    rows = [
        row("low-loss", "val", "accuracy", -0.05),
        row("low-loss", "val", "nll", -0.2, width=0.6),
    ]
    (verdict,) = verdicts(rows).values()
    assert (verdict.word, verdict.decided_by.metric) == (NO, "accuracy")


def test_the_comparison_that_is_shown_is_one_that_decided():
    """A skewed interval may reach zero though its difference lies further from it."""
    comparisons = [
        Comparison("test", "accuracy", difference=-0.6, low=-1.1, high=-0.1),
        Comparison("test", "nll", difference=-0.9, low=-1.0, high=0.001),
    ]
    for order in (comparisons, comparisons[::-1]):
        (verdict,) = claims.judge({("bezier", "low-loss"): order}, [], SURFACES)
        assert (verdict.word, verdict.decided_by) == (NO, comparisons[0])


def test_the_control_stands_beside_each_claim_and_is_judged_alike():
    rows = [*low_loss(), *low_loss("linear", base=BAD), *low_loss("trajectory")]
    rows += [row("merge", "test", metric, OPEN) for metric in ("accuracy", "nll")]
    rows += [row("merge", "test", metric, GOOD, "linear") for metric in ("accuracy", "nll")]
    assert words(rows, ["trajectory"]) == {
        (FAILS, "linear"): YES,
        (LOW_LOSS, "bezier"): YES,
        (LOW_LOSS, "linear"): NO,
        (FREE, "trajectory"): TRIVIAL,
        (FREE, "linear"): NO,
        (MERGE, "bezier"): UNDECIDED,
        (MERGE, "linear"): YES,
        (MERGE_NLL, "bezier"): UNDECIDED,
        (MERGE_NLL, "linear"): YES,
    }


def test_a_claim_whose_surface_is_not_there_is_left_out():
    assert words([row("merge", "test", "accuracy", GOOD, "mine"), *low_loss("mine")]) == {}
    alone = [*low_loss("linear"), row("merge", "test", "accuracy", GOOD, "linear")]
    assert words(alone) == {(FAILS, "linear"): NO}  # nor is its control shown


def test_accuracy_and_nll_of_merges_and_ensembles_are_claims_of_their_own():
    rows = [
        row(comparison, "test", metric, value)
        for comparison in ("merge", "ensemble")
        for metric, value in (("accuracy", GOOD), ("nll", BAD))
    ]
    found = words(rows)
    assert len(found) == 4
    assert found[MERGE, "bezier"] == found[ENSEMBLE, "bezier"] == YES
    assert found[MERGE_NLL, "bezier"] == NO


@pytest.mark.parametrize(
    ("values", "word"), [([0.05, -0.04, 0.06], UNDECIDED), ([0.05, 0.045, 0.055], YES)]
)
def test_replicates_that_disagree_leave_a_claim_open_and_their_mean_is_shown(values, word):
    rows = [row("merge", "test", "accuracy", v, seed=k) for k, v in enumerate(values)]
    verdict = verdicts(rows)[MERGE, "bezier"]
    assert verdict.word == word
    assert verdict.decided_by.difference == pytest.approx(np.mean(values))
    low, high = student_interval(values)
    assert verdict.decided_by.low <= low < high <= verdict.decided_by.high


def test_a_replicate_without_numbers_leaves_no_difference_and_is_least_in_favour():
    """Else a point that diverged once would show what the other replicate has."""
    rows = [row("merge", "test", "accuracy", value) for value in (0.3, np.nan)]
    verdict = verdicts(rows)[MERGE, "bezier"]
    assert verdict.word == UNDECIDED
    assert np.isnan(verdict.decided_by.difference)
    for given in ((np.nan, 0.0, 1.0), (0.3, np.nan, 1.0), (0.3, 0.0, np.nan)):
        assert claims.favour(*given) == -np.inf


# --- any list of surfaces -------------------------------------------------------------------------


def test_claims_are_about_corners_and_fits_and_not_about_names():
    names = {"linear": "bezier", "bezier": "trajectory", "trajectory": "linear"}
    renamed = {names[name]: surface for name, surface in SURFACES.items()}
    rows = [*low_loss(), *low_loss("linear", base=BAD), *low_loss("trajectory", base=OPEN)]
    moved = [one | {"surface": names[one["surface"]]} for one in rows]
    expected = {(text, names[surface]): word for (text, surface), word in words(rows).items()}
    assert words(moved, surfaces=renamed) == expected


def test_further_surfaces_of_a_kind_have_the_claim_with_their_names_beside_the_same_control():
    surfaces = SURFACES | described(
        cubic=("independent", "seeds", "long"),
        middle=("others", "seeds", None),
        late=("end", "run", None),
    )
    rows = [one for name in surfaces for one in low_loss(name)]
    rows += [row("merge", "test", "accuracy", BAD, name) for name in ("bezier", "cubic")]
    found = words(rows, ["late"], surfaces)
    assert list(found) == [
        (FAILS, "linear"),
        (f"{FAILS} (surface middle)", "middle"),
        (LOW_LOSS, "bezier"),
        (LOW_LOSS, "linear"),
        (f"{LOW_LOSS} (surface cubic)", "cubic"),
        (f"{LOW_LOSS} (surface cubic)", "linear"),
        (FREE, "trajectory"),
        (FREE, "linear"),
        (f"{FREE} (surface late)", "late"),
        (f"{FREE} (surface late)", "linear"),
        (MERGE, "bezier"),  # for which the control has no comparison
        (f"{MERGE} (surface cubic)", "cubic"),
    ]
    assert found[f"{FREE} (surface late)", "late"] == TRIVIAL
    # The name stays with a surface though the first of its kind is not in the tables.
    without = [one for one in rows if one["surface"] not in ("linear", "bezier")]
    assert (f"{LOW_LOSS} (surface cubic)", "cubic") in words(without, surfaces=surfaces)


def test_a_fit_on_the_corners_of_one_run_is_what_no_claim_is_about():
    mine = described(mine=("trajectory", "run", "standard"))
    assert words(low_loss("mine"), surfaces=mine) == {}


def test_texts_are_ordered_by_claim_then_as_they_occur():
    cubic = f"{LOW_LOSS} (surface cubic)"
    texts = [MERGE, cubic, LOW_LOSS, FAILS, cubic]
    assert claims.in_claim_order(texts) == [FAILS, cubic, LOW_LOSS, MERGE]


# --- from networks to words -----------------------------------------------------------------------


def differences_of(points, own, grid):
    """Return the differences of a surface from margins of networks and accuracies of points."""
    logits = make_logits(points, own, n=400)
    return pd.DataFrame(measure_differences(logits, make_examples(grid, [0.9] * 4, n=400), 0.9))


def test_a_linear_surface_in_the_place_of_the_bezier_surface_is_not_low_loss_everywhere():
    """Where four networks of their own are averaged, the middle is lost: so must the claim be.

    Nor do its merge and its ensemble beat the corners, though its corners are the best of it.
    """
    margins = [3.0 if corner else 0.2 for corner in IS_CORNER]
    linear = words(differences_of(margins, [3.0] * 4, [0.9, 0.7, 0.2, 0.7, 0.9]))
    bezier = words(differences_of([3.2] * 9, [3.0] * 4, [0.9, 0.89, 0.89, 0.9]))
    assert bezier[LOW_LOSS, "bezier"] == YES
    assert {linear[claim, "bezier"] for claim in (LOW_LOSS, MERGE, MERGE_NLL, ENSEMBLE)} == {NO}


def test_a_corner_that_is_best_on_val_does_not_make_the_claim_of_the_merge_true():
    """A surface may be anything at its corners; between them it is exactly the corners here."""
    logits = make_logits([2.0] * 9, [2.0] * 4, n=400)
    for split, own in logits.own.items():
        logits.logits[split][:] = own[0]
        logits.own[split][:] = own[0].clone()
        right = torch.nn.functional.one_hot(logits.labels[split], 10).half()
        logits.logits[split][[k for k in range(9) if IS_CORNER[k]]] += 20 * right
    found = words(measure_differences(logits, make_examples([0.9] * 2, [0.9] * 4), 0.9))
    assert {found[claim, "bezier"] for claim in (MERGE, MERGE_NLL, ENSEMBLE)} == {UNDECIDED}
