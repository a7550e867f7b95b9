"""Laws of the claims: each can come out in every way that it should, and in no other."""

import numpy as np
import pandas as pd
import pytest
import torch
from combination.test_differences import IS_CORNER, make_examples, make_logits

from fourfold.combination.differences import measure_differences
from fourfold.evaluation.bootstrap import student_interval
from fourfold.report.claims import (
    CLAIMS,
    NO,
    TRIVIAL,
    UNDECIDED,
    YES,
    Comparison,
    compare,
    in_claim_order,
    judge,
)

LOW_LOSS = "Bezier surface is low-loss everywhere"
FAILS = "linear surface fails"
FREE = "trajectory surface is low-loss without training"
MERGE = "merge: Bezier point picked on val is more accurate than the best corner"
MERGE_NLL = "merge: Bezier point picked on val has lower nll than the best corner"
ENSEMBLE = "ensemble: four Bezier points picked on val are more accurate than the four corners"
SURFACES = {
    "linear": {"corners": "independent", "kind": "seeds", "fit": None},
    "bezier": {"corners": "independent", "kind": "seeds", "fit": "standard"},
    "trajectory": {"corners": "trajectory", "kind": "run", "fit": None},
}
GOOD, OPEN, BAD = 0.05, 0.001, -0.05  # differences; the draws' deviation is 0.01


def row(comparison, split, metric, difference, surface="bezier", seed=0, width=0.01):
    draws = difference + width * np.random.default_rng(seed).normal(size=1000)
    return {
        "comparison": comparison, "surface": surface, "split": split, "metric": metric, "n": 100,
        "difference": difference, "draws": draws,
    }  # fmt: skip


def low_loss(surface="bezier", base=GOOD, **changes):
    """Return the rows of a surface, some changed: `train_nll=BAD`."""
    return [
        row("low-loss", split, metric, changes.get(f"{split}_{metric}", base), surface)
        for split in ("train", "val", "test")
        for metric in ("accuracy", "nll")
    ]


def verdicts(rows, coincident=(), surfaces=SURFACES):
    """Return (claim, surface) -> verdict."""
    judged = judge(compare(pd.DataFrame(rows)), coincident, surfaces)
    return {(verdict.text, verdict.surface): verdict for verdict in judged}


def words(rows, coincident=(), surfaces=SURFACES):
    return {key: verdict.word for key, verdict in verdicts(rows, coincident, surfaces).items()}


@pytest.mark.parametrize(
    ("rows", "coincident", "word"),
    [
        (low_loss(), [], YES),
        (low_loss(base=BAD), [], NO),
        (low_loss(base=OPEN), [], UNDECIDED),
        (low_loss(), ["bezier"], TRIVIAL),
        (low_loss(base=OPEN), ["bezier"], TRIVIAL),
        (low_loss(base=BAD), ["bezier"], NO),
        (low_loss(), ["linear", "trajectory"], YES),
    ],
)
def test_each_of_the_four_words_can_come_out(rows, coincident, word):
    assert words(rows, coincident) == {(LOW_LOSS, "bezier"): word}


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("metric", ["accuracy", "nll"])
def test_low_loss_everywhere_is_lost_on_any_split_and_in_either_metric(split, metric):
    place = f"{split}_{metric}"
    for value, word in ((BAD, NO), (OPEN, UNDECIDED)):
        (verdict,) = verdicts(low_loss(**{place: value})).values()
        assert verdict.word == word
        assert (verdict.decided_by.split, verdict.decided_by.metric) == (split, metric)
        assert verdict.decided_by.difference == value
    (verdict,) = verdicts(low_loss(base=OPEN, **{place: BAD})).values()
    assert verdict.word == NO  # a failure is one, whatever else is open


def test_the_comparison_least_in_favour_is_shown_whatever_its_unit():
    """-0.05 in accuracy is five deviations; -0.2 nats may be a third of one."""
    rows = [
        row("low-loss", "val", "accuracy", -0.05),
        row("low-loss", "val", "nll", -0.2, width=0.6),
    ]
    (verdict,) = verdicts(rows).values()
    assert verdict.word == NO
    assert verdict.decided_by.metric == "accuracy"


def test_the_comparison_that_is_shown_is_one_that_decided():
    """A skewed interval may reach zero though its difference lies further from it."""
    comparisons = [
        Comparison("test", "accuracy", difference=-0.6, low=-1.1, high=-0.1),
        Comparison("test", "nll", difference=-0.9, low=-1.0, high=0.001),
    ]
    for order in (comparisons, comparisons[::-1]):
        (verdict,) = judge({("bezier", "low-loss"): order}, [], SURFACES)
        assert (verdict.word, verdict.decided_by) == (NO, comparisons[0])


@pytest.mark.parametrize(("base", "word"), [(BAD, YES), (GOOD, NO), (OPEN, UNDECIDED)])
def test_the_linear_surface_fails_where_it_is_not_low_loss(base, word):
    found = words(low_loss("linear", base=base))
    assert found[FAILS, "linear"] == word
    some = words(low_loss("linear", test_nll=BAD))  # in one place is enough
    assert some[FAILS, "linear"] == YES


def test_the_control_stands_beside_each_claim_and_is_judged_alike():
    rows = [*low_loss(), *low_loss("linear", base=BAD), *low_loss("trajectory")]
    rows += [row("merge", "test", metric, OPEN) for metric in ("accuracy", "nll")]
    rows += [row("merge", "test", metric, GOOD, "linear") for metric in ("accuracy", "nll")]
    found = words(rows, ["trajectory"])
    assert found == {
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
    assert words(low_loss("trajectory")) == {(FREE, "trajectory"): YES}
    assert words([row("merge", "test", "accuracy", GOOD, "mine"), *low_loss("mine")]) == {}
    assert FAILS not in {claim for claim, _ in words(low_loss("bezier"))}
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


def about(claim):
    """Return the one surface that a claim is about."""
    (surface,) = claim.texts(SURFACES)
    return surface


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.text)
def test_an_exact_tie_can_not_be_told(claim):
    rows = [
        row(claim.comparison, split, metric, 0.0, about(claim), width=0.0)
        for split in ("train", "val", "test")
        for metric in claim.metrics
    ]
    assert words(rows)[claim.text, about(claim)] == UNDECIDED


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.text)
def test_every_claim_can_hold_and_can_fail(claim):
    found = {
        words([row(claim.comparison, "test", m, base, about(claim)) for m in claim.metrics])[
            claim.text, about(claim)
        ]
        for base in (GOOD, OPEN, BAD)
    }
    assert found == {YES, UNDECIDED, NO}


def test_replicates_that_disagree_leave_a_claim_open_and_their_mean_is_shown():
    values = [0.05, -0.04, 0.06]
    rows = [row("merge", "test", "accuracy", v, seed=k) for k, v in enumerate(values)]
    verdict = verdicts(rows)[MERGE, "bezier"]
    assert verdict.word == UNDECIDED
    assert verdict.decided_by.difference == pytest.approx(np.mean(values))
    low, high = student_interval(values)
    assert verdict.decided_by.low <= low < 0 < high <= verdict.decided_by.high
    agreed = [
        row("merge", "test", "accuracy", v, seed=k) for k, v in enumerate([0.05, 0.045, 0.055])
    ]
    assert words(agreed)[MERGE, "bezier"] == YES


# --- any list of surfaces -------------------------------------------------------------------------


def test_claims_are_about_corners_and_fits_and_not_about_names():
    names = {"linear": "bezier", "bezier": "trajectory", "trajectory": "linear"}
    renamed = {names[name]: surface for name, surface in SURFACES.items()}
    rows = [*low_loss(), *low_loss("linear", base=BAD), *low_loss("trajectory", base=OPEN)]
    moved = [one | {"surface": names[one["surface"]]} for one in rows]
    expected = {(text, names[surface]): word for (text, surface), word in words(rows).items()}
    assert words(moved, surfaces=renamed) == expected


def test_further_surfaces_of_a_kind_have_the_claim_with_their_names_beside_the_same_control():
    surfaces = SURFACES | {
        "cubic": {"corners": "independent", "kind": "seeds", "fit": "long"},
        "middle": {"corners": "others", "kind": "seeds", "fit": None},
        "late": {"corners": "end", "kind": "run", "fit": None},
    }
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
    mine = {"mine": {"corners": "trajectory", "kind": "run", "fit": "standard"}}
    assert words(low_loss("mine"), surfaces=mine) == {}


def test_texts_are_ordered_by_claim_then_as_they_occur():
    cubic = f"{LOW_LOSS} (surface cubic)"
    texts = [MERGE, cubic, LOW_LOSS, FAILS, cubic]
    assert in_claim_order(texts) == [FAILS, cubic, LOW_LOSS, MERGE]


# --- from networks to words -----------------------------------------------------------------------


def differences_of(points, own, grid):
    """Return the differences of a surface from margins of networks and accuracies of points."""
    logits = make_logits(points, own, n=400)
    return pd.DataFrame(measure_differences(logits, make_examples(grid, [0.9] * 4, n=400), 0.9))


def test_a_linear_surface_in_the_place_of_the_bezier_surface_is_not_low_loss_everywhere():
    """Where four networks of their own are averaged, the middle is lost: so must the claim be."""
    margins = [3.0 if corner else 0.2 for corner in IS_CORNER]
    rows = differences_of(margins, [3.0] * 4, [0.9, 0.7, 0.2, 0.7, 0.9])
    bezier = differences_of([3.2] * 9, [3.0] * 4, [0.9, 0.89, 0.89, 0.9])
    for surface, expected in ((rows, NO), (bezier, YES)):
        found = words(surface.assign(surface="bezier").to_dict("records"))
        assert found[LOW_LOSS, "bezier"] == expected
    # Nor do its merge and its ensemble beat the corners, though its corners are the best of it.
    found = words(rows.assign(surface="bezier").to_dict("records"))
    assert found[MERGE, "bezier"] == found[MERGE_NLL, "bezier"] == found[ENSEMBLE, "bezier"] == NO


def test_a_corner_that_is_best_on_val_does_not_make_the_claim_of_the_merge_true():
    """A surface may be anything at its corners; between them it is exactly the corners here."""
    logits = make_logits([2.0] * 9, [2.0] * 4, n=400)
    for split, own in logits.own.items():
        logits.logits[split][:] = own[0]
        logits.own[split][:] = own[0].clone()
        right = torch.nn.functional.one_hot(logits.labels[split], 10).half()
        logits.logits[split][[k for k in range(9) if IS_CORNER[k]]] += 20 * right
    rows = measure_differences(logits, make_examples([0.9] * 2, [0.9] * 4), 0.9)
    found = words(rows)
    assert found[MERGE, "bezier"] == found[MERGE_NLL, "bezier"] == UNDECIDED
    assert found[ENSEMBLE, "bezier"] == UNDECIDED
