"""The headline figures: means over replicates, and the paper's claims held against them."""

import pandas as pd
import pytest

from fourfold.summary import render_headline, render_markdown, summarize
from fourfold.table import SCHEMAS

LATTICE = [(u / 2, v / 2) for u in range(3) for v in range(3)]
CORNERS = [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)]
SURFACES = ("linear", "bezier", "trajectory")


def _tables(inside, replicates=1):
    """Return tables in which every corner has accuracy 0.9 and the rest of a surface `inside`.

    `inside` maps a surface to one accuracy per replicate.
    """
    rows = {name: [] for name in ("grid", "barrier", "ensemble", "merge", "geometry", "cost")}
    for replicate in range(replicates):
        here = {"experiment": "e", "replicate": replicate}
        scores = {"nll": 1.0, "ece": 0.1, "brier": 0.2}
        for surface in SURFACES:
            value = inside[surface][replicate]
            for u, v in LATTICE:
                accuracy = 0.9 if (u, v) in CORNERS else value
                point = {"surface": surface, "u": u, "v": v, "batchnorm": "none", "n": 100}
                for split, of in (("test", accuracy), ("val", 0.123)):
                    rows["grid"].append(here | point | scores | {"split": split, "accuracy": of})
            measures = dict.fromkeys(("corner_mean", "min", "mean", "max", "barrier"), 0.5)
            for metric in ("nll", "error"):
                rows["barrier"].append(
                    here | measures | {"surface": surface, "split": "test", "metric": metric}
                    | {"u_at_max": 0.5, "v_at_max": 0.5}
                )  # fmt: skip
            pair = {"a": "corner_00", "b": "corner_11", "l2": 1.0, "relative_l2": 0.7}
            rows["geometry"].append(
                here | pair | {"surface": surface, "cosine": 0.0, "disagreement": 0.1}
            )
            scored = here | scores | {"split": "test", "n": 100, "accuracy": value}
            for selection in ("validation", "oracle"):
                rows["ensemble"].append(
                    scored | {"ensemble": surface, "selection": selection, "members": "0,0"}
                    | {"disagreement": 0.0, "forward_passes": 3}
                )  # fmt: skip
            for merge in ("best-point", "best-corner"):
                of = {"accuracy": 0.9} if merge == "best-corner" else {}
                rows["merge"].append(
                    scored | of | {"merge": merge, "surface": surface, "u": 0.0, "v": 0.0}
                    | {"selected_on": "val"}
                )  # fmt: skip
        rows["ensemble"].append(
            here | scores | {"split": "test", "n": 100, "accuracy": 0.95, "ensemble": "corners"}
            | {"selection": "fixed", "members": "", "disagreement": 0.1, "forward_passes": 4}
        )  # fmt: skip
        for stage, images in (
            ("train_endpoint", 10),
            ("train_endpoint", 10),
            ("fit_bezier_surface", 5),
        ):
            rows["cost"].append(
                here | {"stage": stage, "item": "", "device": "cpu", "wall_s": 1.0, "flop": 1.0}
                | {"images_forward": images, "images_backward": images, "peak_bytes": 1}
            )  # fmt: skip
    return {name: pd.DataFrame(of)[SCHEMAS[name].names] for name, of in rows.items()}


def _value(summary, *key):
    found = summary.set_index(["kind", "method", "metric"]).loc[key]
    return found["mean"], found["low"], found["high"]


FLAT = {"linear": [0.2] * 3, "bezier": [0.88] * 3, "trajectory": [0.9] * 3}


def test_figures_are_those_of_the_test_split():
    summary = summarize(_tables(FLAT), margin=0.05)
    assert _value(summary, "surface", "linear", "accuracy_min")[0] == pytest.approx(0.2)
    assert _value(summary, "surface", "linear", "accuracy_corner_mean")[0] == pytest.approx(0.9)
    mean = (4 * 0.9 + 5 * 0.88) / 9
    assert _value(summary, "surface", "bezier", "accuracy_mean")[0] == pytest.approx(mean)
    assert set(summary.columns) == set(SCHEMAS["summary"].names)


def test_one_replicate_has_no_interval_and_three_have_students():
    assert summarize(_tables(FLAT), margin=0.05)[["low", "high"]].isna().all(axis=None)
    spread = FLAT | {"bezier": [0.86, 0.88, 0.90]}
    summary = summarize(_tables(spread, replicates=3), margin=0.05)
    mean, low, high = _value(summary, "surface", "bezier", "accuracy_center")
    assert mean == pytest.approx(0.88)
    # t(0.975, 2) = 4.3027 and a standard error of 0.02 / sqrt(3)
    assert high - mean == pytest.approx(4.3027 * 0.02 / 3**0.5, rel=1e-4)
    assert mean - low == pytest.approx(high - mean)
    assert (summary["replicate"] == -1).all()


@pytest.mark.parametrize(
    ("inside", "margin", "held"),
    [(0.88, 0.05, 1.0), (0.84, 0.05, 0.0), (0.84, 0.07, 1.0), (0.95, 0.0, 1.0)],
)
def test_a_surface_is_low_loss_if_its_worst_point_is_within_the_margin(inside, margin, held):
    summary = summarize(_tables(FLAT | {"bezier": [inside]}), margin)
    claim = "Bezier surface is low-loss everywhere"
    assert _value(summary, "claim", claim, "holds")[0] == held


def test_a_claim_that_does_not_hold_is_said_to_fail():
    text = render_headline(summarize(_tables(FLAT | {"linear": [0.9]}), 0.05), 0.05)
    (line,) = [line for line in text.splitlines() if "linear surface fails" in line]
    assert line.split("|")[2].strip() == "no"


def test_a_claim_counts_the_replicates_in_which_it_holds():
    mixed = FLAT | {"bezier": [0.88, 0.5, 0.89]}
    text = render_headline(summarize(_tables(mixed, replicates=3), 0.05), 0.05)
    (line,) = [line for line in text.splitlines() if "Bezier surface is low-loss" in line]
    assert line.split("|")[2].strip() == "2 of 3"


def test_training_passes_are_those_of_the_corners_and_the_fit():
    summary = summarize(_tables(FLAT), margin=0.05)
    passes = {s: _value(summary, "surface", s, "images_backward")[0] for s in SURFACES}
    assert passes == {"linear": 20, "bezier": 25, "trajectory": 10}


def test_oracles_are_marked_in_the_text():
    text = render_markdown(summarize(_tables(FLAT), 0.05), 0.05)
    for line in text.splitlines():
        if "/oracle" in line:
            assert "*" in line
