"""The headline figures: means over replicates, and the paper's claims held against them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import CORNERS, import_docs_program

from fourfold.combination.baselines import corner_ensembles
from fourfold.errors import InputError
from fourfold.evaluation.geometry import measure_barriers
from fourfold.files.table import SCHEMAS
from fourfold.report.claims import CLAIMS
from fourfold.report.summary import render_headline, render_markdown, render_metrics, summarize
from fourfold.surfaces.points import grid_points

SURFACES = {
    "linear": {"corners": "independent", "kind": "seeds", "fit": None},
    "bezier": {"corners": "independent", "kind": "seeds", "fit": "standard"},
    "trajectory": {"corners": "trajectory", "kind": "run", "fit": None},
}
SPLITS = {"train": 500, "val": 50, "test": 100}
NLL, SCORES = 1.0, {"ece": 0.1, "brier": 0.2}
SELECTION = 700  # images that the selection of corners from a run passed
EDGE = (0.0, 0.175)
FLAT = {"linear": [0.2] * 3, "bezier": [0.88] * 3, "trajectory": [0.9] * 3}
PUBLISHED = sorted(
    path.parent for path in (Path(__file__).parents[2] / "docs/results").glob("*/tables.md")
)


def _grid(surface, inside, shifted):
    """Yield the rows of one grid: corners have accuracy 0.9, the rest `inside`, an edge less."""
    for split, n in SPLITS.items():
        common = {"surface": surface, "split": split, **SCORES}
        for u, v in grid_points(3):
            accuracy = 0.9 if (u, v) in CORNERS else inside
            yield common | {
                "sample": "grid", "u": u, "v": v, "n": n, "nll": NLL, "accuracy": accuracy,
                "statistics": "reestimated", "statistics_images": 40,
            }  # fmt: skip
        for u, v in CORNERS:
            yield common | {
                "sample": "grid", "u": u, "v": v, "n": n, "nll": NLL - shifted[1],
                "accuracy": 0.9 - shifted[0], "statistics": "own", "statistics_images": 0,
            }  # fmt: skip
        for (u, v), worse, images in ((EDGE, 0.01, n), ((0.6, 0.6), 0.1, n - 1)):
            yield common | {
                "sample": "edge", "u": u, "v": v, "n": images, "nll": NLL + 0.5 * worse,
                "accuracy": inside - worse, "statistics": "reestimated", "statistics_images": 40,
            }  # fmt: skip


def _summarize(tables, surfaces=SURFACES):
    """Return the summary of tables of one experiment."""
    return summarize(tables, {"e": surfaces})


def _tables(
    inside=FLAT, replicates=1, differences=None, shifted=(0.0, 0.0), distance=0.7, scatter=0.0,
    surfaces=SURFACES,
):  # fmt: skip
    """Return tables in which every corner has accuracy 0.9 and the rest of a surface `inside`.

    Args:
        inside: surface -> one accuracy per replicate.
        differences: (surface, comparison) -> difference of all metrics and splits.
        shifted: what re-estimation adds to the corners' accuracy and nll.
        distance: of corners from one run; those of the others are 0.7 apart.
        scatter: disagreement of a corner with itself re-estimated; corners disagree on 0.1.
        surfaces: with their corners and fits.
    """
    rows = {name: [] for name in (
        "grid", "ensemble", "merge", "geometry", "cost", "difference"
    )}  # fmt: skip
    barriers = []
    for replicate in range(replicates):
        here = {"experiment": "e", "replicate": replicate}
        scores = SCORES | {"nll": NLL, "split": "test", "n": 100}
        for surface, described in surfaces.items():
            value = inside.get(surface, [0.5] * 3)[replicate]
            corners = {"corners": described["corners"]}
            grid = [here | row for row in _grid(surface, value, shifted)]
            rows["grid"] += grid
            barriers.append(measure_barriers(pd.DataFrame(grid)).assign(**here))
            for a, b, l2, disagreement in (
                ("corner_00", "corner_11", distance if described["kind"] == "run" else 0.7, 0.1),
                ("corner_00", "free_11", 9.9, None),
                ("corner_00", "corner_00", 0.0, scatter),
            ):
                rows["geometry"].append(
                    here | {"surface": surface, "a": a, "b": b, "l2": l2, "relative_l2": l2}
                    | {"cosine": 0.0, "disagreement": disagreement}
                )  # fmt: skip
            members = {"statistics": "reestimated", "disagreement": 0.0, "members": "0,0.5"}
            for selection, passes in (
                *(("validation", k) for k in (1, 2, 3, 4)),
                ("oracle", 4),
            ):
                rows["ensemble"].append(
                    here | scores | members | corners
                    | {"ensemble": surface, "selection": selection}
                    | {"accuracy": value + 0.001 * passes, "forward_passes": passes}
                )  # fmt: skip
            for merge in ("best-point", "best-corner"):
                rows["merge"].append(
                    here | scores | corners
                    | {"merge": merge, "surface": surface, "u": 0.0, "v": 0.5}
                    | {"accuracy": 0.9 if merge == "best-corner" else value}
                    | {"selected_on": "val", "statistics": "reestimated"}
                )  # fmt: skip
            for comparison, splits in (
                *(("low-loss", SPLITS), ("merge", ["test"]), ("ensemble", ["test"])),
            ):
                of = (differences or {}).get((surface, comparison), 0.05)
                for k, (split, metric) in enumerate(
                    (s, m) for s in splits for m in ("accuracy", "nll")
                ):
                    noise = 0.01 * np.random.default_rng(k).normal(size=1000)
                    rows["difference"].append(
                        here | {"comparison": comparison, "surface": surface, "split": split}
                        | {"n": 100, "metric": metric, "value": 0.5, "reference": 0.5}
                        | {"difference": of, "low": 0.0, "high": 0.0, "draws": of + noise}
                    )  # fmt: skip
        for corners, ensemble in corner_ensembles(surfaces).items():
            own = {"statistics": "own", "disagreement": 0.1}
            own |= {"ensemble": ensemble, "corners": corners}
            for passes, accuracies in ((1, (0.89, 0.91)), (4, (0.95,))):
                for accuracy in accuracies:
                    rows["ensemble"].append(
                        here | scores | own | {"accuracy": accuracy, "forward_passes": passes}
                        | {"members": "", "selection": "fixed" if passes == 4 else "subset"}
                    )  # fmt: skip
        fits = [name for name, described in surfaces.items() if described["fit"]]
        kinds = {described["corners"]: described["kind"] for described in surfaces.values()}
        for stage, item, forward, backward in (
            ("train_endpoint", "seed0", 13, 10),
            ("train_endpoint", "seed1", 13, 10),
            *(("fit_bezier_surface", name, 0, 5 + place) for place, name in enumerate(fits)),
            *(
                ("select_trajectory_corners", name, SELECTION, 0)
                for name, kind in kinds.items()
                if kind == "run"
            ),
            ("evaluate_grid", "linear", 10_000, 0),
        ):
            rows["cost"].append(
                here | {"stage": stage, "item": item, "device": "cpu", "wall_s": 1.0, "flop": 1.0}
                | {"images_forward": forward, "images_backward": backward, "peak_bytes": 1}
            )  # fmt: skip
    tables = {name: pd.DataFrame(of)[SCHEMAS[name].names] for name, of in rows.items()}
    return tables | {"barrier": pd.concat(barriers, ignore_index=True)[SCHEMAS["barrier"].names]}


def _value(summary, *key):
    found = summary.set_index(["kind", "method", "metric"]).loc[key]
    return found["mean"], found["low"], found["high"]


def _mean(summary, surface, metric):
    return _value(summary, "surface", surface, metric)[0]


def _cells(text, start):
    """Return the cells of the one line of a table that begins with this one."""
    found = [line for line in text.splitlines() if line.startswith(f"| {start}")]
    (line,) = found[:1] or [""]
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_figures_are_those_of_the_test_split_over_all_points_evaluated_on_it():
    summary = _summarize(_tables())
    assert set(summary.columns) == set(SCHEMAS["summary"].names)
    assert set(summary["n"]) == {100}
    assert _mean(summary, "linear", "accuracy_min") == pytest.approx(0.19)  # at the edge
    assert (_mean(summary, "linear", "u_at_accuracy_min"), 0.175) == EDGE
    assert _mean(summary, "linear", "v_at_accuracy_min") == 0.175
    assert _mean(summary, "linear", "accuracy_max") == pytest.approx(0.9)
    assert _mean(summary, "linear", "accuracy_center") == pytest.approx(0.2)
    assert _mean(summary, "linear", "accuracy_corner_mean") == pytest.approx(0.9)
    # Of four cells each has one corner of 0.9 and three points of 0.88.
    assert _mean(summary, "bezier", "accuracy_mean") == pytest.approx((0.9 + 3 * 0.88) / 4)
    assert _mean(summary, "bezier", "nll_max") == pytest.approx(NLL + 0.005)
    for split in SPLITS:
        assert _mean(summary, "bezier", f"barrier_nll_{split}") == pytest.approx(0.005)


def test_corners_are_shown_as_trained_and_what_re_estimation_changes_beside_them():
    summary = _summarize(_tables(shifted=(0.02, 0.3)))
    assert _mean(summary, "bezier", "accuracy_corner_mean_own") == pytest.approx(0.88)
    assert _mean(summary, "bezier", "accuracy_corner_mean") == pytest.approx(0.9)
    for split in SPLITS:
        for metric, change in (("accuracy", 0.02), ("nll", 0.3)):
            found, _, _ = _value(summary, "statistics", "bezier", f"{split}_{metric}")
            assert found == pytest.approx(change)


@pytest.mark.parametrize(
    ("shifted", "warned"),
    [
        ((0.0, 0.0), False),
        ((0.0049, -0.0099), False),
        ((0.0051, 0.0), True),
        ((-0.0051, 0.0), True),
        ((0.0, 0.0101), True),
        ((0.0, -0.0101), True),
    ],
)
def test_corners_that_re_estimation_changes_by_more_than_noise_are_warned_of(shifted, warned):
    text = render_headline(_summarize(_tables(shifted=shifted)), 0.9)
    lines = [line for line in text.splitlines() if line.startswith("**Warning**")]
    assert len(lines) == warned  # one line, since all three surfaces change alike
    for line in lines:
        assert all(part in line for part in ("corners of e", *SURFACES, "val", "test"))
        assert "train nll" not in line
        assert "train accuracy" not in line


def test_one_replicate_has_no_interval_and_three_have_students():
    kinds = ["surface", "statistics", "ensemble", "merge"]
    alone = _summarize(_tables())
    assert alone.loc[alone["kind"].isin(kinds), ["low", "high"]].isna().all(axis=None)
    assert alone.loc[~alone["kind"].isin(kinds), ["low", "high"]].notna().all(axis=None)
    spread = FLAT | {"bezier": [0.86, 0.88, 0.90]}
    summary = _summarize(_tables(spread, replicates=3))
    mean, low, high = _value(summary, "surface", "bezier", "accuracy_center")
    assert mean == pytest.approx(0.88)
    # t(0.975, 2) = 4.3027 and a standard error of 0.02 / sqrt(3)
    assert high - mean == pytest.approx(4.3027 * 0.02 / 3**0.5, rel=1e-4)
    assert mean - low == pytest.approx(high - mean)
    assert (summary["replicate"] == -1).all()
    assert set(summary["replicates"]) == {3}


def test_choosing_is_part_of_what_a_surface_cost():
    """A pick on val takes all points of the grid but the corners; edges and test are no choices."""
    summary = _summarize(_tables())
    backward = {s: _mean(summary, s, "images_backward") for s in SURFACES}
    assert backward == {"linear": 20, "bezier": 25, "trajectory": 10}
    picks = (9 - 4) * (SPLITS["val"] + 40)
    forward = {s: _mean(summary, s, "images_forward") for s in SURFACES}
    assert forward == {
        "linear": 20 + picks,
        "bezier": 25 + picks,
        "trajectory": 10 + picks + SELECTION,
    }


def test_ensembles_of_one_size_are_averaged_and_of_others_are_apart():
    summary = _summarize(_tables())
    assert _value(summary, "ensemble", "corners/fixed", "accuracy")[0] == pytest.approx(0.95)
    assert _value(summary, "ensemble", "corners/subset-1", "accuracy")[0] == pytest.approx(0.9)
    for size in (1, 2, 3, 4):
        method = f"bezier/validation-{size}"
        assert _value(summary, "ensemble", method, "forward_passes")[0] == size
        assert _value(summary, "ensemble", method, "accuracy")[0] == pytest.approx(
            0.88 + 0.001 * size
        )


# --- claims ---------------------------------------------------------------------------------------

LOW_LOSS = ("bezier", "low-loss")
CLAIM = "Bezier surface is low-loss everywhere"


def _said(differences, **settings):
    """Return how the claim of low loss comes out in the table of claims."""
    text = render_headline(_summarize(_tables(differences=differences, **settings)), 0.9)
    return _cells(text, CLAIM)[1]


def test_a_claim_ends_in_one_of_four_words_and_says_where_the_control_passes_too():
    failed = {("linear", "low-loss"): -0.05}
    assert _said(failed) == "yes"
    assert _said({LOW_LOSS: 0.05}) == "yes, control too"
    assert _said(failed | {LOW_LOSS: -0.05}) == "no"
    assert _said({LOW_LOSS: -0.05}) == "no"  # the control's success is none of a failed claim
    assert _said({LOW_LOSS: 0.001}) == "can't tell"
    for nearly in ({"distance": 0.04}, {"scatter": 0.1}, {"scatter": 0.2}):
        text = render_headline(_summarize(_tables(differences=failed, **nearly)), 0.9)
        found = _cells(text, "trajectory surface is low-loss")[1]
        assert found == "trivial", nearly
    text = render_headline(_summarize(_tables(differences=failed, distance=0.06)), 0.9)
    assert _cells(text, "trajectory surface is low-loss")[1] == "yes"
    failed |= {("trajectory", "low-loss"): -0.05}
    text = render_headline(_summarize(_tables(differences=failed, distance=0.04)), 0.9)
    assert _cells(text, "trajectory surface is low-loss")[1] == "no"


def test_every_claim_stands_beside_its_difference_its_interval_and_those_of_its_control():
    differences = {("linear", "low-loss"): -0.03, ("linear", "merge"): 0.001}
    summary = _summarize(_tables(differences=differences))
    for claim in CLAIMS:
        rows = summary[summary["method"] == claim.text].set_index("kind")
        assert list(rows.index) == ["claim"] + ["control"] * (not claim.fails)
        sign = -0.03 if claim.fails else 0.05
        assert rows.loc["claim", "mean"] == pytest.approx(sign)
        assert rows.loc["claim", "low"] < sign < rows.loc["claim", "high"]
    text = render_headline(summary, 0.9)
    (line,) = [line for line in text.splitlines() if line.startswith("| e ") and CLAIM in line]
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert (cells[2], cells[4]) == ("yes", "no")
    for cell, row in zip(
        (cells[3], cells[5]), summary[summary["method"] == CLAIM].itertuples(), strict=True
    ):
        split, metric = row.metric.split("_")
        unit, digits = (100, 2) if metric == "accuracy" else (1, 3)
        shown = [f"{unit * value:+.{digits}f}" for value in (row.mean, row.low, row.high)]
        assert cell == f"{split} {metric} {shown[0]} [{shown[1]}, {shown[2]}]"


def test_a_claim_of_a_surface_that_is_not_there_is_left_out_of_the_text():
    tables = _tables()
    tables["difference"] = tables["difference"].query("surface != 'bezier'")
    text = render_headline(_summarize(tables), 0.9)
    assert "Bezier surface is low-loss" not in text
    assert "linear surface fails" in text


def test_replicates_that_disagree_leave_a_claim_open():
    tables = _tables(replicates=3)
    moved = tables["difference"].copy()
    is_it = (moved["surface"] == "bezier") & (moved["comparison"] == "low-loss")
    for replicate, value in enumerate((0.05, -0.04, 0.06)):
        here = is_it & (moved["replicate"] == replicate)
        moved.loc[here, "draws"] = moved.loc[here, "draws"].map(lambda d, v=value: d - 0.05 + v)
        moved.loc[here, "difference"] = value
    text = render_headline(_summarize(tables | {"difference": moved}), 0.9)
    assert _cells(text, CLAIM)[1] == "can't tell"
    assert "and replicates" in text
    assert "and replicates" not in render_headline(_summarize(_tables()), 0.9)


# --- text -----------------------------------------------------------------------------------------


def test_the_headline_shows_each_surface_and_the_four_corners():
    text = render_headline(_summarize(_tables(shifted=(0.02, 0.0))), 0.85)
    cells = [cell.strip() for cell in text[text.index("| e ") :].splitlines()[1].split("|")[1:-1]]
    assert cells[:2] == ["e", "bezier"]
    assert cells[2] == "88.00"  # corners as trained
    assert cells[3] == "87.00 (0.00, 0.17; edge)"
    assert cells[4:8] == ["88.50", "88.00", "88.00", "88.40"]
    assert cells[8:] == ["0.005 / 0.005", "0.700", "0 / 0"]
    assert "four corners" in text
    assert "95.00" in text
    assert "85 % of what the corners have above guessing" in text


def test_with_replicates_the_worst_point_has_an_interval_in_place_of_its_place():
    text = render_headline(_summarize(_tables(replicates=3)), 0.9)
    assert "edge)" not in text
    assert "87.00 [87.00, 87.00]" in text


def test_oracles_are_marked_in_the_text():
    text = render_markdown(_summarize(_tables()), 0.9)
    oracles = [line for line in text.splitlines() if "/oracle" in line]
    assert len(oracles) == 3
    assert all("*" in line for line in oracles)


def test_the_text_shows_what_re_estimation_changes_on_every_split():
    text = render_markdown(_summarize(_tables(shifted=(0.003, 0.004))), 0.9)
    part = text[text.index("## Corners as trained") :]
    for split in SPLITS:
        (line,) = [line for line in part.splitlines() if f"| {split} " in line]
        assert "+0.30" in line
        assert "+0.004" in line


def test_metrics_are_the_means_by_experiment_kind_method_and_metric():
    summary = _summarize(_tables())
    metrics = render_metrics(summary)
    for _, row in summary.iterrows():
        found = metrics["e"][row["kind"]][row["method"].replace("/", " ")][row["metric"]]
        assert found == pytest.approx(row["mean"], abs=1e-6)


# --- any list of surfaces -------------------------------------------------------------------------


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_published_tables_give_the_published_text(folder):
    """Their pages were written when linear, bezier and trajectory were all that there was."""
    program = import_docs_program("results")
    surfaces = program.read_environment(folder)["surfaces"]
    tables = program.read_tables(program.replicate_folders(folder), surfaces)
    text = program.render_experiment(folder.name, tables, 0.9, surfaces)
    assert text == (folder / "tables.md").read_text(encoding="utf-8")


def _cost(summary, kind):
    surfaces = summary.loc[summary["kind"] == "surface", "method"].unique()
    return {name: _mean(summary, name, f"images_{kind}") for name in surfaces}


def test_two_fits_on_the_same_corners_stand_side_by_side_with_their_own_costs():
    surfaces = {
        "bezier": SURFACES["bezier"],
        "linear": SURFACES["linear"],
        "cubic": {"corners": "independent", "kind": "seeds", "fit": "long"},
    }
    summary = _summarize(_tables(surfaces=surfaces), surfaces)
    assert _cost(summary, "backward") == {"bezier": 25, "linear": 20, "cubic": 26}
    picks = (9 - 4) * (SPLITS["val"] + 40)
    assert _cost(summary, "forward") == {
        k: v + picks for k, v in _cost(summary, "backward").items()
    }
    text = render_headline(summary, 0.9, {"e": surfaces})
    shown = [line.split("|")[2].strip() for line in text.splitlines() if line.startswith("| e ")]
    assert shown[:4] == ["bezier", "linear", "cubic", "four corners"]  # in their order
    assert _cells(text, f"{CLAIM} (surface cubic)")[1] == "yes, control too"
    assert "the first is meant" in text
    assert "the first is meant" not in render_headline(_summarize(_tables()), 0.9)


def test_each_choice_of_corners_from_a_run_counts_for_its_own_surfaces():
    late = {"corners": "late", "kind": "run", "fit": None}
    surfaces = SURFACES | {"late": late, "late-fit": late | {"fit": "standard"}}
    tables = _tables(surfaces=surfaces)
    cost = tables["cost"]
    is_late = (cost["stage"] == "select_trajectory_corners") & (cost["item"] == "late")
    cost.loc[is_late, "images_forward"] = 40
    summary = _summarize(tables, surfaces)
    backward, forward = _cost(summary, "backward"), _cost(summary, "forward")
    assert backward["late"] == backward["trajectory"] == 10
    assert backward["late-fit"] == 10 + 6
    chosen = {name: forward[name] - backward[name] for name in surfaces}
    assert chosen["trajectory"] - chosen["linear"] == SELECTION
    assert chosen["late"] - chosen["linear"] == chosen["late-fit"] - chosen["linear"] == 40


@pytest.mark.parametrize(
    ("surfaces", "label", "claims"),
    [
        ({"mine": SURFACES["linear"]}, "four corners", 1),
        ({"mine": SURFACES["bezier"]}, "four corners", 5),
        ({"mine": SURFACES["trajectory"]}, "four corners (trajectory)", 1),
        ({"mine": SURFACES["trajectory"] | {"fit": "standard"}}, "four corners (trajectory)", 0),
    ],
)
def test_one_surface_is_a_list_too(surfaces, label, claims):
    summary = _summarize(_tables(surfaces=surfaces), surfaces)
    assert (summary["kind"] == "claim").sum() == claims
    assert "control" not in set(summary["kind"])
    text = render_markdown(summary, 0.9, {"e": surfaces})
    shown = [line.split("|")[2].strip() for line in text.splitlines() if line.startswith("| e ")]
    assert shown[:2] == ["mine", label]
    assert ("claim holds here?" in text) == (claims > 0)
    assert "is the control" not in text


def test_each_set_of_independent_corners_has_its_ensemble_in_the_headline():
    surfaces = SURFACES | {"other": {"corners": "others", "kind": "seeds", "fit": None}}
    summary = _summarize(_tables(surfaces=surfaces), surfaces)
    text = render_headline(summary, 0.9, {"e": surfaces})
    assert "| four corners (others) |" in text
    assert "four corners (trajectory)" not in text


def test_experiments_with_other_surfaces_share_the_tables_of_claims():
    cubic = {"cubic": {"corners": "independent", "kind": "seeds", "fit": "long"}}
    surfaces = {"e": SURFACES, "f": {"trajectory": SURFACES["trajectory"]} | SURFACES | cubic}
    first, second = _tables(), _tables(surfaces=surfaces["f"])
    tables = {
        name: pd.concat([first[name], second[name].assign(experiment="f")], ignore_index=True)
        for name in first
    }
    text = render_headline(summarize(tables, surfaces), 0.9, surfaces)
    claims = text.partition("claim holds here?")[2].partition("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in claims]
    assert [row[0] for row in rows[:4]] == [
        "linear surface fails", CLAIM, f"{CLAIM} (surface cubic)",
        "trajectory surface is low-loss without training",
    ]  # fmt: skip
    assert rows[2][1] == ""
    assert len(rows) == len(CLAIMS) + 5


@pytest.mark.parametrize("described", [{}, SURFACES | {"cubic": SURFACES["bezier"]}])
def test_grids_of_other_surfaces_than_described_are_refused(described):
    with pytest.raises(InputError, match="grids of e"):
        _summarize(_tables(), described)
