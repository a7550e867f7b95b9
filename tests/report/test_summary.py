"""The headline figures: means over replicates, and the paper's claims held against them."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from combination.test_baselines import described
from conftest import CORNERS
from report.test_claims import SURFACES

from fourfold.combination.baselines import corner_ensembles
from fourfold.errors import InputError
from fourfold.evaluation.geometry import measure_barriers
from fourfold.files.table import SCHEMAS
from fourfold.report.claims import CLAIMS
from fourfold.report.summary import render_headline, render_markdown, render_metrics, summarize
from fourfold.surfaces.points import grid_points

SPLITS = {"train": 500, "val": 50, "test": 100}
NLL, SCORES = 1.0, {"ece": 0.1, "brier": 0.2}
SELECTION = 700  # images that the selection of corners from a run passed
EDGE = (0.0, 0.175)
INSIDE = {"linear": 0.2, "bezier": 0.88, "trajectory": 0.9}
PICKS = (9 - 4) * (SPLITS["val"] + 40)  # all points of the grid but the corners
CUBIC = described(cubic=("independent", "seeds", "long"))


def grid_rows(surface, inside, shifted):
    """Yield the rows of one grid: corners have accuracy 0.9, the rest `inside`, an edge less."""
    for split, n in SPLITS.items():
        points = [("grid", at, n, NLL, 0.9 if at in CORNERS else inside) for at in grid_points(3)]
        points.append(("edge", EDGE, n, NLL + 0.005, inside - 0.01))
        points.append(("edge", (0.6, 0.6), n - 1, NLL + 0.05, inside - 0.1))  # on a part of them
        own = [("grid", at, n, NLL - shifted[1], 0.9 - shifted[0]) for at in CORNERS]
        for statistics, images, rows in (("reestimated", 40, points), ("own", 0, own)):
            for sample, (u, v), n_here, nll, accuracy in rows:
                yield {
                    **{"surface": surface, "sample": sample, "u": u, "v": v, "w": None},
                    "split": split,
                    **{"n": n_here, "nll": nll, "accuracy": accuracy, **SCORES},
                    **{"statistics": statistics, "statistics_images": images},
                }


def make_tables(
    inside=INSIDE, replicate=0, differences=None, shifted=(0.0, 0.0), distance=0.7, scatter=0.0,
    surfaces=SURFACES,
):  # fmt: skip
    """Return tables in which every corner has accuracy 0.9 and the rest of a surface `inside`.

    Args:
        inside: surface -> accuracy.
        replicate: of all rows.
        differences: (surface, comparison) -> difference of all metrics and splits.
        shifted: what re-estimation adds to the corners' accuracy and nll.
        distance: of corners from one run; those of the others are 0.7 apart.
        scatter: disagreement of a corner with itself re-estimated; corners disagree on 0.1.
        surfaces: with their corners and fits.
    """
    names = ("grid", "certificate", "ensemble", "merge", "geometry", "cost", "difference")
    rows = {name: [] for name in names}
    scores = SCORES | {"nll": NLL, "split": "test", "n": 100}
    for surface, of in surfaces.items():
        value, corners = inside.get(surface, 0.5), {"corners": of["corners"]}
        rows["grid"] += grid_rows(surface, value, shifted)
        rows["certificate"] += [
            {"surface": surface, "split": "val", "metric": metric, "value": value, "rank": rank}
            | {"points": 500, "confidence": 0.95, "fraction": fraction}
            for metric, bound in (("nll", 1.5), ("error", 0.3))
            for rank, fraction, value in ((1, 0.006, 2 * bound), (2, 0.01, bound))
        ]
        rows["geometry"] += [
            {"surface": surface, "a": a, "b": b, "l2": l2, "relative_l2": l2, "cosine": 0.0}
            | {"disagreement": disagreement}
            for a, b, l2, disagreement in (
                ("corner_00", "corner_11", distance if of["kind"] == "run" else 0.7, 0.1),
                ("corner_00", "free_11", 9.9, None),
                ("corner_00", "corner_00", 0.0, scatter),
            )
        ]
        rows["ensemble"] += [
            {**scores, **corners, "ensemble": surface, "selection": selection, "members": "0,0.5"}
            | {"accuracy": value + 0.001 * passes, "forward_passes": passes}
            | {"statistics": "reestimated", "disagreement": 0.0}
            for selection, passes in (*(("validation", k) for k in (1, 2, 3, 4)), ("oracle", 4))
        ]
        rows["merge"] += [
            {**scores, **corners, "merge": merge, "surface": surface, "u": 0.0, "v": 0.5, "w": None}
            | {"accuracy": accuracy, "selected_on": "val", "statistics": "reestimated"}
            for merge, accuracy in (("best-point", value), ("best-corner", 0.9))
        ]
        places = [("low-loss", split) for split in SPLITS]
        places += [("merge", "test"), ("ensemble", "test")]
        for k, ((comparison, split), metric) in enumerate(product(places, ("accuracy", "nll"))):
            difference = (differences or {}).get((surface, comparison), 0.05)
            noise = 0.01 * np.random.default_rng(k).normal(size=1000)
            rows["difference"].append(
                {"comparison": comparison, "surface": surface, "split": split, "metric": metric}
                | {"n": 100, "value": 0.5, "reference": 0.5, "low": 0.0, "high": 0.0}
                | {"difference": difference, "draws": difference + noise}
            )
    for corners, ensemble in corner_ensembles(surfaces).items():
        rows["ensemble"] += [
            {**scores, "ensemble": ensemble, "corners": corners, "selection": selection}
            | {"accuracy": accuracy, "forward_passes": passes, "members": ""}
            | {"statistics": "own", "disagreement": 0.1}
            for selection, passes, accuracy in (
                *(("subset", 1, 0.89), ("subset", 1, 0.91), ("fixed", 4, 0.95)),
            )
        ]
    fits = [name for name, of in surfaces.items() if of["fit"]]
    runs = {of["corners"] for of in surfaces.values() if of["kind"] == "run"}
    rows["cost"] = [
        {"stage": stage, "item": item, "images_forward": forward, "images_backward": backward}
        | {"device": "cpu", "wall_s": 1.0, "flop": 1.0, "peak_bytes": 1}
        for stage, item, forward, backward in (
            *(("train_endpoint", f"seed{k}", 13, 10) for k in range(2)),
            *(("fit_bezier_surface", name, 0, 5 + place) for place, name in enumerate(fits)),
            *(("select_trajectory_corners", corners, SELECTION, 0) for corners in runs),
            ("evaluate_grid", "linear", 10_000, 0),
        )
    ]
    tables = {name: pd.DataFrame(of) for name, of in rows.items()}
    # Without sets of networks nothing of these is shown.
    for name in ("rival", "rival_difference"):
        tables[name] = pd.DataFrame(columns=SCHEMAS[name].names)
    grids = tables["grid"].groupby("surface", sort=False)
    tables["barrier"] = pd.concat(measure_barriers(grid) for _, grid in grids)
    return {
        name: table.assign(experiment="e", replicate=replicate)[SCHEMAS[name].names]
        for name, table in tables.items()
    }


def together(*parts):
    return {name: pd.concat([part[name] for part in parts]) for name in parts[0]}


def summary_of(surfaces=SURFACES, **settings):
    """Return the summary of one replicate of one experiment."""
    return summarize(make_tables(surfaces=surfaces, **settings), {"e": surfaces})


def three_replicates(**settings):
    """Return the summary of replicates in which the Bezier surface differs."""
    insides = [INSIDE | {"bezier": value} for value in (0.86, 0.88, 0.90)]
    parts = [make_tables(inside, k, **settings) for k, inside in enumerate(insides)]
    return summarize(together(*parts), {"e": SURFACES})


def value_of(summary, *key):
    return summary.set_index(["kind", "method", "metric"]).loc[key, "mean"]


def cells(text, *start):
    """Return the cells of the one line of a table that begins with these."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    (found,) = [row for row in rows if row[: len(start)] == list(start)][:1] or [[]]
    return found


@pytest.mark.parametrize(
    ("surface", "metric", "expected"),
    [
        ("linear", "accuracy_min", 0.19),  # at the edge, not where a part of the images was seen
        ("linear", "u_at_accuracy_min", EDGE[0]),
        ("linear", "v_at_accuracy_min", EDGE[1]),
        ("linear", "accuracy_max", 0.9),
        ("linear", "accuracy_center", 0.2),
        ("linear", "accuracy_corner_mean", 0.9),
        ("linear", "accuracy_corner_mean_own", 0.88),
        # Of four cells each has one corner of 0.9 and three points of 0.88.
        ("bezier", "accuracy_mean", (0.9 + 3 * 0.88) / 4),
        ("bezier", "nll_max", NLL + 0.005),
        ("bezier", "nll_corner_mean_own", NLL - 0.004),
        ("bezier", "barrier_nll_train", 0.005),
    ],
)
def test_figures_are_those_of_all_points_evaluated_on_the_whole_split(surface, metric, expected):
    summary = summary_of(shifted=(0.02, 0.004))
    assert set(summary.columns) == set(SCHEMAS["summary"].names)
    assert set(summary["n"]) == {SPLITS["test"]}
    assert value_of(summary, "surface", surface, metric) == pytest.approx(expected)
    for split, (name, change) in product(SPLITS, (("accuracy", 0.02), ("nll", 0.004))):
        found = value_of(summary, "statistics", surface, f"{split}_{name}")
        assert found == pytest.approx(change)


def test_one_replicate_has_no_interval_and_three_have_students():
    kinds = ["surface", "statistics", "ensemble", "merge"]
    alone, summary = summary_of(), three_replicates()
    assert alone.loc[alone["kind"].isin(kinds), ["low", "high"]].isna().all(axis=None)
    assert alone.loc[~alone["kind"].isin(kinds), ["low", "high"]].notna().all(axis=None)
    row = summary.set_index(["kind", "method", "metric"]).loc[
        "surface", "bezier", "accuracy_center"
    ]
    # t(0.975, 2) = 4.3027 and a standard error of 0.02 / sqrt(3)
    half = 4.3027 * 0.02 / 3**0.5
    assert row[["mean", "low", "high"]].tolist() == pytest.approx([0.88, 0.88 - half, 0.88 + half])
    assert (summary["replicate"] == -1).all()
    assert set(summary["replicates"]) == {3}


def test_a_replicate_without_numbers_leaves_no_mean():
    """Else a table would be of those that didn't diverge, and say so nowhere."""
    broken = make_tables(replicate=1)
    at = broken["barrier"].eval("surface == 'bezier' and split == 'test' and metric == 'error'")
    broken["barrier"].loc[at, ["max", "mean"]] = np.nan
    summary = summarize(together(make_tables(), broken), {"e": SURFACES})
    assert np.isnan(value_of(summary, "surface", "bezier", "accuracy_min"))
    assert value_of(summary, "surface", "linear", "accuracy_min") == pytest.approx(0.19)


def test_the_certificate_of_replicates_holds_for_each_of_them():
    """The mean of bounds lies below about half of them, and bounds no surface."""
    parts = [make_tables(replicate=k) for k in range(3)]
    for factor, part in zip((0.5, 2.0, 1.0), parts, strict=True):
        part["certificate"]["value"] *= factor
    rows = summarize(together(*parts), {"e": SURFACES}).set_index(["kind", "method", "metric"])
    for metric, bound in (("certificate_nll", 3.0), ("certificate_error", 0.6)):
        row = rows.loc["surface", "bezier", metric]
        assert row["mean"] == pytest.approx(bound)
        assert row[["low", "high"]].isna().all()
    assert rows.loc[("surface", "bezier", "certificate_fraction"), "mean"] == 0.01


def costs(summary):
    """Return surface -> images backward, and images forward beside these and a pick on val."""
    found = summary[summary["kind"] == "surface"].pivot_table("mean", "method", "metric")
    chosen = found["images_forward"] - found["images_backward"] - PICKS
    return found["images_backward"].to_dict(), chosen.to_dict()


def test_each_surface_has_the_cost_of_its_corners_its_own_fit_and_what_chose_its_corners():
    """Edges and test are no choices, and networks that were fixed in advance take none."""
    late = described(late=("late", "run", None), late_fit=("late", "run", "standard"))
    last = described(last=("last", "run", None))["last"] | {"choose": [0.7, 0.8, 0.9, 1.0]}
    surfaces = SURFACES | CUBIC | late | {"last": last}
    for name in ("trajectory", *late):
        surfaces[name] = surfaces[name] | {"choose": "validation"}
    tables = make_tables(surfaces=surfaces)
    cost = tables["cost"]
    is_late = (cost["stage"] == "select_trajectory_corners") & (cost["item"] == "late")
    tables["cost"] = cost.assign(images_forward=cost["images_forward"].mask(is_late, 40))
    backward, chosen = costs(summarize(tables, {"e": surfaces}))
    assert backward == {
        "linear": 20, "bezier": 20 + 5, "cubic": 20 + 6, "trajectory": 10, "late": 10,
        "late_fit": 10 + 7, "last": 10,
    }  # fmt: skip
    assert chosen == {
        "linear": 0, "bezier": 0, "cubic": 0, "trajectory": SELECTION, "late": 40, "late_fit": 40,
        "last": 0,
    }  # fmt: skip


def test_ensembles_of_one_size_are_averaged_and_of_others_are_apart():
    summary = summary_of()
    expected = {"corners/fixed": 0.95, "corners/subset-1": 0.9}
    expected |= {f"bezier/validation-{size}": 0.88 + 0.001 * size for size in (1, 2, 3, 4)}
    for method, accuracy in expected.items():
        assert value_of(summary, "ensemble", method, "accuracy") == pytest.approx(accuracy)


@pytest.mark.parametrize("surfaces", [{}, SURFACES | CUBIC])
def test_grids_of_other_surfaces_than_described_are_refused(surfaces):
    with pytest.raises(InputError, match="grids of e"):
        summarize(make_tables(), {"e": surfaces})


def test_metrics_are_the_means_by_experiment_kind_method_and_metric():
    summary = summary_of()
    metrics = render_metrics(summary)
    for _, row in summary.iterrows():
        found = metrics["e"][row["kind"]][row["method"].replace("/", " ")][row["metric"]]
        assert found == pytest.approx(row["mean"], abs=1e-6)


# --- claims ---------------------------------------------------------------------------------------

CLAIM = "Bezier surface is low-loss everywhere"
FREE = "trajectory surface is low-loss without training"
FAILED = {("linear", "low-loss"): -0.05}
LOW_LOSS = ("bezier", "low-loss")


@pytest.mark.parametrize(
    ("claim", "differences", "settings", "word"),
    [
        (CLAIM, FAILED, {}, "yes"),
        (CLAIM, {}, {}, "yes, control too"),
        (CLAIM, FAILED | {LOW_LOSS: -0.05}, {}, "no"),
        (CLAIM, {LOW_LOSS: -0.05}, {}, "no"),  # the control's success is none of a failed claim
        (CLAIM, {LOW_LOSS: 0.001}, {}, "can't tell"),
        (FREE, FAILED, {"distance": 0.06}, "yes"),
        *((FREE, FAILED, {"scatter": scatter}, "trivial") for scatter in (0.1, 0.2)),
        (FREE, FAILED, {"distance": 0.04}, "trivial"),
        (FREE, FAILED | {("trajectory", "low-loss"): -0.05}, {"distance": 0.04}, "no"),
    ],
)
def test_a_claim_ends_in_one_of_four_words_and_says_where_the_control_passes_too(
    claim, differences, settings, word
):
    text = render_headline(summary_of(differences=differences, **settings), 0.9)
    assert cells(text, claim)[1] == word


def test_every_claim_stands_beside_its_difference_its_interval_and_those_of_its_control():
    summary = summary_of(differences={("linear", "low-loss"): -0.03, ("linear", "merge"): 0.001})
    text = render_headline(summary, 0.9)
    for claim in CLAIMS:
        rows = summary[summary["method"] == claim.text]
        assert rows["kind"].tolist() == ["claim"] + ["control"] * (not claim.fails)
        expected = []
        for row in rows.itertuples():
            split, metric = row.metric.split("_")
            unit, digits = (100, 2) if metric == "accuracy" else (1, 3)
            mean, *ends = (f"{unit * x:+.{digits}f}" for x in (row.mean, row.low, row.high))
            expected += [row.text, f"{split} {metric} {mean} [{', '.join(ends)}]"]
        assert cells(text, "e", claim.text)[2:] == expected + [""] * (4 - len(expected))
        assert rows["mean"].iloc[0] == pytest.approx(-0.03 if claim.fails else 0.05)
        assert (rows["low"] < rows["mean"]).all() and (rows["mean"] < rows["high"]).all()


def test_replicates_that_disagree_leave_a_claim_open():
    parts = [make_tables(INSIDE, k, {LOW_LOSS: v}) for k, v in enumerate((0.05, -0.04, 0.06))]
    text = render_headline(summarize(together(*parts), {"e": SURFACES}), 0.9)
    assert cells(text, CLAIM)[1] == "can't tell"
    assert "and replicates" in text
    assert "and replicates" not in render_headline(summary_of(), 0.9)


# --- text -----------------------------------------------------------------------------------------


def test_the_headline_shows_each_surface_and_the_four_corners():
    text = render_headline(summary_of(shifted=(0.02, 0.0)), 0.85)
    assert cells(text, "e", "bezier")[2:] == [
        "88.00",  # corners as trained
        "87.00 (0.00, 0.17; edge)", "88.50", "88.00", "88.00", "88.40",
        "0.005 / 0.005", "≤ 1 % above 1.500 nats / 30.0 % error", "0.700", "0 / 0",
    ]  # fmt: skip
    assert cells(text, "e", "four corners")[7] == "95.00"
    assert "85 % of what the corners have above guessing" in text


def test_a_surface_without_random_points_has_no_certificate():
    tables = make_tables()
    certificate = tables["certificate"]
    tables["certificate"] = certificate[certificate["surface"] != "linear"]
    text = render_headline(summarize(tables, {"e": SURFACES}), 0.9)
    assert [bool(cells(text, "e", name)[9]) for name in SURFACES] == [False, True, True]


def test_with_replicates_the_worst_point_has_an_interval_in_place_of_its_place():
    text = render_headline(three_replicates(), 0.9)
    assert "edge)" not in text
    assert cells(text, "e", "linear")[3] == "19.00 [19.00, 19.00]"


@pytest.mark.parametrize(
    ("shifted", "warned"),
    [
        ((0.0049, -0.0099), False),
        *((shifted, True) for shifted in ((0.0051, 0.0), (-0.0051, 0.0), (0.0, 0.0101))),
        ((0.0, -0.0101), True),
    ],
)
def test_corners_that_re_estimation_changes_by_more_than_noise_are_warned_of(shifted, warned):
    text = render_headline(summary_of(shifted=shifted), 0.9)
    lines = [line for line in text.splitlines() if line.startswith("**Warning**")]
    assert len(lines) == warned  # one line, since all three surfaces change alike
    for line in lines:
        assert all(part in line for part in ("corners of e", *SURFACES, "val", "test"))
        assert "train nll" not in line and "train accuracy" not in line


def test_the_text_marks_oracles_and_shows_what_re_estimation_changes_on_every_split():
    text = render_markdown(summary_of(shifted=(0.003, 0.004)), 0.9)
    oracles = [line for line in text.splitlines() if "/oracle" in line]
    assert len(oracles) == 3
    assert all("*" in line for line in oracles)
    for split in SPLITS:
        assert cells(text, "e", " and ".join(SURFACES), split)[3:] == ["+0.30", "+0.0040"]


# --- any list of surfaces -------------------------------------------------------------------------


def shown(text):
    """Return the surfaces and ensembles of corners of the headline table in their order."""
    rows = text.partition("| experiment ")[2].partition("\n\n")[0].splitlines()[2:]
    return [line.split("|")[2].strip() for line in rows]


def test_two_fits_on_the_same_corners_stand_side_by_side_in_their_order():
    surfaces = {name: (SURFACES | CUBIC)[name] for name in ("bezier", "linear", "cubic")}
    text = render_headline(summary_of(surfaces), 0.9, {"e": surfaces})
    assert shown(text) == ["bezier", "linear", "cubic", "four corners"]
    assert cells(text, f"{CLAIM} (surface cubic)")[1] == "yes, control too"
    assert "the first is meant" in text
    assert "the first is meant" not in render_headline(summary_of(), 0.9)


@pytest.mark.parametrize(
    ("surface", "label", "claims"),
    [
        (("independent", "seeds", None), "four corners", 1),
        (("independent", "seeds", "standard"), "four corners", 5),
        (("run", "run", None), "four corners (run)", 1),
        (("run", "run", "standard"), "four corners (run)", 0),
    ],
)
def test_one_surface_is_a_list_too(surface, label, claims):
    surfaces = described(mine=surface)
    summary = summary_of(surfaces)
    assert (summary["kind"] == "claim").sum() == claims
    assert "control" not in set(summary["kind"])
    text = render_markdown(summary, 0.9, {"e": surfaces})
    assert shown(text) == ["mine", label]
    assert ("claim holds here?" in text) == (claims > 0)
    assert "is the control" not in text


def test_each_set_of_independent_corners_has_its_ensemble_in_the_headline():
    surfaces = SURFACES | described(other=("others", "seeds", None))
    text = render_headline(summary_of(surfaces), 0.9, {"e": surfaces})
    assert shown(text) == [*surfaces, "four corners", "four corners (others)"]


def test_experiments_with_other_surfaces_share_the_tables_of_claims():
    surfaces = {"e": SURFACES, "f": dict(reversed((SURFACES | CUBIC).items()))}
    second = {n: t.assign(experiment="f") for n, t in make_tables(surfaces=surfaces["f"]).items()}
    text = render_headline(summarize(together(make_tables(), second), surfaces), 0.9, surfaces)
    table = text.partition("claim holds here?")[2].partition("\n\n")[0].splitlines()[2:]
    named = [line.split("|")[1].strip() for line in table]
    # Five claims are about the fitted surfaces, of which `cubic` is the first in f.
    assert named[:4] == ["linear surface fails", CLAIM, f"{CLAIM} (surface bezier)", FREE]
    assert len(named) == len(CLAIMS) + 5
    assert cells(text, f"{CLAIM} (surface bezier)")[1:] == ["", "yes, control too"]
