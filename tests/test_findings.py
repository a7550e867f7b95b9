"""What findings.md says: yes and no only where intervals exclude zero, and all from tables."""

import math
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import import_docs_program

from fourfold.report.pairs import main_surface, pair_differences

findings, overview = map(import_docs_program, ("findings", "overview"))
TARGETS = import_docs_program("publish").read_targets(Path(__file__).parent.parent)
RIVALS, FITS = "digits-vit-rivals", "digits-resnet18-fits"
GOOD, OPEN, BAD = (0.02, 0.01, 0.03), (0.02, -0.01, 0.05), (-0.02, -0.03, -0.01)
TRAINING = ["replicate", "stage", "item", "epoch", "split", "accuracy"]


def found(*ends, name="e"):
    return [findings.Found(name, 5, "test_nll", *of) for of in ends]


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ([GOOD, GOOD], "**Yes** (of 2: 2 in favour; clearest: e nll +0.020 [+0.010, +0.030], 5"),
        ([GOOD, OPEN], "**Yes in part** (of 2: 1 in favour, 1 can't tell; clearest"),
        (
            [BAD, OPEN],
            "**No in part** (of 2: 1 against, 1 can't tell; clearest: e nll -0.020 [-0.030, -",
        ),
        ([GOOD, BAD], "**Now yes, now no** (of 2: 1 against, 1 in favour; clearest: e nll -0.020"),
        ([OPEN], "**Can't tell** (of 1: 1 can't tell; clearest: e nll +0.020 [-0.010, +0.050]"),
        ([(9.0, math.nan, math.nan)], "**Not tested** (of 1: 1 not tested; largest: e nll +9.000"),
        ([(9.0, math.nan, math.nan), OPEN], "**Can't tell** (of 2: 1 can't tell, 1 not tested; c"),
        ([(0.02, 0.0, 0.04)], "**Can't tell**"),
    ],
)
def test_a_sentence_says_no_more_than_the_intervals(ends, said):
    assert findings.say(found(*ends)).startswith(said)


def test_values_of_one_replicate_have_no_interval_and_say_nothing():
    one, two = (findings.over_replicates("e", "nll", of) for of in ([1.0], [1.0, 1.1]))
    assert (one.word, one.cell) == ("not tested", "+1.000 (no interval)")
    assert (two.low, two.high) == pytest.approx((1.05 - 0.05 * 12.706, 1.05 + 0.05 * 12.706), 1e-4)
    three = findings.over_replicates("e", findings.FACTOR, np.log([2.0, 2.0, 2.0]))
    assert (three.word, three.cell) == ("yes", "2.00 [2.00, 2.00]")


# --- constructed experiments ----------------------------------------------------------------------


def make_published(name, rows=(), **tables):
    """Return an experiment with rows of its summary: (kind, method, metric, mean, low, high)."""
    columns = ["kind", "method", "metric", "mean", "low", "high"]
    summary = pd.DataFrame(rows, columns=columns).assign(replicates=5, text="")
    settings = {"fits": TARGETS.experiments[name]["fits"]}
    environment = {"surfaces": TARGETS.described(name), "settings": settings, "replicates": 5}
    tables = {"training": pd.DataFrame(columns=TRAINING), "rival": on_val({}), **tables}
    return findings.Published(environment, tables, summary, ["rivals.png"])


def on_val(scaled):
    rows = [("val", *of) for of in scaled.items()]
    return pd.DataFrame(rows, columns=["split", "method", "nll_scaled"])


def held(method, against, ends):
    return [
        ("pair", f"{method} against {against}", f"test_{metric}", *ends)
        for metric in ("accuracy", "nll", "nll_scaled")
    ]


def rivals(of_long, of_deep, costs=200, of_averages=None):
    """Of averages (how each is held against, scaled nll on val): that of EMA costs too much."""
    count = max(s["count"] for s in TARGETS.described(RIVALS).values() if s["corners"] == "deep")
    deep, long = f"deep/ensemble-{count}", "long/network"
    cost = {"bezier/center": 200, "bezier/greedy-4": 200, long: costs, deep: costs}
    rows = [("rival", method, "images_backward", n, n, n) for method, n in cost.items()]
    rows.append(("rival_difference", "x against long/network", "test_nll", *OPEN))
    rows += held("bezier/center", long, of_long) + held("bezier/greedy-4", deep, of_deep)
    for name, (ends, _) in (of_averages or {}).items():
        paid = 1000 if name == "ema" else costs
        rows.append(("rival", f"{name}/mean", "images_backward", paid, paid, paid))
        rows += held("bezier/center", f"{name}/mean", ends)
    rival = on_val({f"{name}/mean": nll for name, (_, nll) in (of_averages or {}).items()})
    return {RIVALS: make_published(RIVALS, rows, rival=rival)}


@pytest.mark.parametrize(
    ("of_long", "of_deep", "word"),
    [
        (BAD, BAD, "No"), (BAD, OPEN, "No in part"), (OPEN, OPEN, "Can't tell"),
        (GOOD, OPEN, "Yes in part"),
        (GOOD, GOOD, "Yes"), (GOOD, BAD, "Now yes, now no"),
    ],
)  # fmt: skip
def test_the_first_line_answers_at_equal_cost(of_long, of_deep, word):
    page = findings.render_findings(rivals(of_long, of_deep), TARGETS)
    first = page.split("\n\n")[1]
    assert first.startswith(f"**Is the surface worth it at equal cost?** **{word}.** Against one")
    assert re.search(r"\[[-+0-9.]+, [-+0-9.]+\], 5 replicates", first)
    assert f"[{RIVALS}](results/{RIVALS}/rivals.png)" in page


def test_the_page_begins_with_the_first_answer_of_each_section():
    page = findings.render_findings(rivals(GOOD, BAD), TARGETS)
    head, *sections = page.split("\n## ")
    linked = re.findall(r"\| \[(.+?)\]\(#([\w-]+)\) +\| (.*?) +\|", head)
    assert [title for title, *_ in linked] == [of.splitlines()[0] for of in sections]
    assert len({anchor for _, anchor, _ in linked}) == len(linked)
    told = {title: word for title, _, word in linked}
    assert (told["Other ways to one network"], told["Other ensembles"]) == ("Yes", "No")
    assert told["Claim 1: the linear surface fails"] == ""  # not run


def test_the_first_line_says_so_if_the_best_average_on_val_of_one_run_is_better():
    averages = {"swa": (BAD, 0.5), "fge": (GOOD, 0.6), "ema": (GOOD, 0.1)}
    results = rivals(GOOD, GOOD, of_averages=averages)
    line = findings._first_line(results, {}, TARGETS)
    assert "**Now yes, now no.**" in line
    said = line.partition("the average of one run as long that is best on val: ")[2]
    assert said.startswith("**No** (of 3: 3 worse; clearest: digits-vit-rivals bezier/center ag")
    assert "against swa/mean" in said and "fge/mean" not in line and "ema/mean" not in line


def test_a_rival_for_less_than_half_of_the_images_is_counted_for_itself():
    text, table = findings.compare_rivals(findings.ONE, ("test_accuracy",))(rivals(BAD, BAD, 90))
    assert "**No** (of 1: 1 against; clearest" in text.partition("less than half as many? ")[2]
    assert text.startswith("Is one network of the surface better") and "None was run." in text
    assert "long/network" in table


def test_a_rival_that_costs_more_is_none():
    section = findings.compare_rivals(("center",), ("test_accuracy",))
    assert "long/network" in section(rivals(BAD, BAD))[1]
    assert section(rivals(BAD, BAD, costs=210)) is None


CELL = "cifar10-vgg16-cpu"


def cell(of_double, cost):
    method, double = "bezier/best-point", "double/network"
    rows = [("rival", of, "images_backward", n, n, n) for of, n in ((method, 200), (double, cost))]
    return {CELL: make_published(CELL, rows + held(method, double, of_double))}


@pytest.mark.parametrize(("ends", "word"), [(BAD, "No"), (OPEN, "Can't tell"), (GOOD, "Yes")])
def test_a_network_trained_for_longer_counts_where_it_costs_no_more(ends, word):
    text, table = findings.compare_longer(cell(ends, 50))
    assert "for 0.25 of its images?" in text
    assert f"**{word}** (of 3" in text
    assert table.count("bezier/best-point against double/network") == 3
    line = findings._first_line({}, cell(ends, 50), TARGETS)
    assert f"**{word}.** Against one network trained for twice a corner's epochs" in line
    assert findings.compare_longer(cell(ends, 210)) is None
    line = findings._first_line({}, cell(ends, 210), TARGETS)
    assert "Not run yet" in line


def test_what_a_longer_training_gives_stands_beside_the_best_point():
    said = overview.what_they_say(cell(BAD, 50), [CELL])
    assert "One network trained for longer than a corner" in said
    assert said.endswith("is more accurate than that point in 1 of 1.")
    assert "for longer" not in overview.what_they_say(cell(BAD, 210), [CELL])


@pytest.mark.parametrize(("double", "count"), [(0.809, "1 of 1"), (0.811, "0 of 1")])
def test_it_is_said_where_corners_are_trained_out(double, count):
    """By val after the last epoch: neither test nor the best epoch decides."""
    ends = {"seed0": 0.78, "seed1": 0.82, "double-seed0": double}
    rows = [
        (0, "endpoint", item, epoch, split, end if (epoch, split) == (2, "val") else 0.95)
        for item, end in ends.items()
        for epoch in (1, 2)
        for split in ("train", "val", "test")
    ]
    training = pd.DataFrame(rows, columns=TRAINING)
    said = overview.what_they_say({CELL: make_published(CELL, training=training)}, [CELL])
    gain = f"{100 * (double - 0.8):+.1f} points in {CELL}"
    assert said.endswith(
        f"on val from {gain} (one run against the corners' mean, without an interval), less than a "
        f"point in {count}."
    )
    is_double = training["item"] == "double-seed0"
    for alone in (training[~is_double], training[is_double]):  # corners may come from files
        said = overview.what_they_say({CELL: make_published(CELL, training=alone)}, [CELL])
        assert "Twice the epochs" not in said


def test_beside_merges_stands_what_longer_training_gives_and_where_no_corners_gain_anything():
    ends = {"seed0": 0.8, "double-seed0": 0.86}
    rows = [(0, "endpoint", item, 2, "val", end) for item, end in ends.items()]
    merge = findings.CLAIMS[3].text
    choices = {"gain": [-0.1, -0.2], "distance": [0.04, 0.1], "selected": [True, False]}
    selection = pd.DataFrame({"replicate": 0, **choices})
    of = claimed(CELL, (merge, "test_accuracy", *GOOD, "yes"))
    training = pd.DataFrame(rows, columns=TRAINING)
    of.tables.update({"training": training, "selection-trajectory": selection})
    sections = {section.title: section.write for section in findings.SECTIONS}
    said, _ = sections["Claim 4: good merges and ensembles"]({CELL: of})
    assert f"+6.0 points in {CELL}" in said and "may not be better than those" in said
    third = claimed(CELL, (findings.CLAIMS[2].text, "test_nll", *GOOD, "trivial"))
    third.tables["selection-trajectory"] = selection
    said, _ = sections["Claim 3: selected corners need no fit"]({CELL: third})
    assert "In 1 of 1 no choice" in said and "in 1 of these between the nearest networks" in said
    third.tables["selection-trajectory"] = selection.assign(gain=[0.1, -0.2])
    said, _ = sections["Claim 3: selected corners need no fit"]({CELL: third})
    assert "no choice" not in said


def claimed(name, *rows):
    """Return an experiment with claims: (text, metric, mean, low, high, word)."""
    made = make_published(name, [("claim", *row[:5]) for row in rows])
    made.summary["text"] = [row[5] for row in rows]
    return made


def test_least_in_favour_is_what_lies_furthest_on_that_side_whichever_stands_first():
    """In widths of the interval; of the sentence that a surface fails, the other side."""
    linear, bezier = (claim.text for claim in findings.CLAIMS[:2])
    near, far = (-0.02, -0.03, -0.01), (-0.01, -0.011, -0.009)
    names = ("cifar10-vgg16-cpu", "cifar10-vit-cpu")
    for ends in ((near, far), (far, near)):
        for text, word, least in ((bezier, "no", far), (linear, "yes", near)):
            results = {
                name: claimed(name, (text, "test_nll", *end, word))
                for name, end in zip(names, ends, strict=True)
            }
            said, _ = findings.claims([text])(results)
            name = names[ends.index(least)]
            assert f"Least in favour of it: {name} nll {least[0]:+.3f}" in said.replace("test ", "")


def test_low_loss_on_corners_that_nearly_coincide_is_trivial_and_nulls_say_what_they_lack():
    name = "digits-vgg16-corners"
    surfaces = ("tuned", "random-tuned", "trajectory")
    numbers = {"corner_distance": (0.2, 0.2, 0.01), "corner_disagreement": (0.1, 0.1, 0.1)}
    numbers |= {"corner_scatter": (0.0, 0.0, 0.0), "barrier_nll_test": (0.0, 0.0, 0.0)}
    numbers |= {"accuracy_corner_mean_own": (0.9, 0.8, 0.9), "accuracy_min": (0.8, 0.75, 0.9)}
    rows = [
        ("surface", surface, metric, value, value, value)
        for metric, values in numbers.items()
        for surface, value in zip(surfaces, values, strict=True)
    ]
    rows += [("difference", f"{one}/low-loss", "test_nll", *GOOD) for one in surfaces]
    made = make_published(name, rows)
    made.summary.loc[made.summary["kind"] == "difference", "text"] = "yes"
    said, table = findings.compare_kinds({name: made})
    assert "1 trivially" in said.split("Null models")[0]
    assert ": 1 of 4 low-loss without a fit, 0 trivially" in said.split("Null models")[1]
    assert "they lack 10.0 to 10.0 points of test accuracy" in said
    assert "the surface's worst point 5.0 to 5.0 beside" in said
    assert "| trivial; " in table


def test_what_is_not_there_says_how_it_is_run():
    page = findings.render_findings({}, TARGETS)
    assert page.count("Not run yet: `snakemake") == len(findings.SECTIONS) + 1
    assert f"{RIVALS}" in page.split("\n\n")[1]
    assert "**Yes" not in page


def fits(worst):
    """Return an experiment of fits, each with the worst val nll that `worst` gives (surface, fit).

    The corners have 0.1; all take 1,000 images an epoch but the published, which take 60,000.
    """
    described, of = TARGETS.described(FITS), TARGETS.experiments[FITS]["fits"]
    names = [name for name, surface in described.items() if surface["fit"]]
    barriers, costs = [], []
    for replicate, name in product(range(3), names):
        fit = of[described[name]["fit"]]
        value = worst(described[name]["corners"], fit)
        barriers.append(
            {"experiment": FITS, "replicate": replicate, "surface": name, "split": "val"}
            | {"metric": "nll", "corner_mean_own": 0.1, "max": value, "mean": value}
        )
        costs.append(
            {"replicate": replicate, "stage": "fit_bezier_surface", "item": name}
            | {"images_backward": 60_000 if fit["repeats"] > 1 else 1000 * fit["epochs"]}
        )
    aligning = {"stage": "align_corners", "item": "aligned", "images_forward": 2000}
    costs += [{"replicate": replicate, **aligning} for replicate in range(3)]
    tables = {"barrier": pd.DataFrame(barriers), "cost": pd.DataFrame(costs)}
    return {FITS: make_published(FITS, **tables)}


def test_images_of_a_fit_are_compared_where_both_lines_get_there():
    def worst(corners, fit):
        if fit["repeats"] > 1:
            return 1.0
        return 0.1 + 0.1 * (20 if corners == "aligned" else 40) / fit["epochs"]

    text, tables = findings.compare_fits(fits(worst))
    # The excess is 0.1 nats at 20 and at 40 epochs, up to the interpolation in log images.
    (factor,) = {
        float(of) for of in re.findall(r"independent / aligned +\| factor \| (\S+)", tables)
    }
    assert factor == pytest.approx(2, rel=0.1)
    assert "**Yes**" in text.partition(" Is the worst")[0]
    assert "Not counted: up to 2000 images that aligning passes forward." in text
    published = text.partition(" Is the worst")[2]
    for passes in (735, 640, 60):  # the published code's two versions, and both in short
        assert f"In {passes} passes over the data: **Yes**" in published
    largest = max(fit["epochs"] for fit in (TARGETS.experiments[FITS]["fits"][of["fit"]]
        for of in TARGETS.described(FITS).values() if of["fit"])
        if fit["repeats"] == 1 and fit["epochs"] <= 60)  # fmt: skip
    for corners, at in (("aligned", 20), ("independent", 40)):
        assert f"ours, {corners}" in tables
        ratio = 1 / (0.1 + 0.1 * at / largest)
        assert f"{ratio:.2f} [{ratio:.2f}, {ratio:.2f}]" in tables
    never = findings.compare_fits(fits(lambda corners, fit: 0.5))
    assert "**Can't tell**: not both get there" in never[0]
    # If independent corners never get there, what they are known to take bounds the factor.
    text, tables = findings.compare_fits(
        fits(lambda corners, fit: 0.5 if corners == "independent" else worst(corners, fit))
    )
    assert "at least" in tables
    described = TARGETS.described(FITS)
    (alone,) = fits(worst).values()
    tables = {
        name: of[~of[key].isin([x for x in described if described[x]["kind"] == "seeds"])]
        for name, key, of in (
            ("barrier", "surface", alone.tables["barrier"]),
            ("cost", "item", alone.tables["cost"]),
        )
    }
    text, _ = findings.compare_fits({FITS: make_published(FITS, **tables)})
    assert "**Can't tell**: not both get there" in text, "one line is no comparison"


# --- pairs ----------------------------------------------------------------------------------------


def test_two_methods_differ_by_what_they_differ_from_a_third():
    rng = np.random.default_rng(0)
    draws = {name: rng.normal(size=4) for name in ("bezier/center", "swa/mean", "star/center")}
    rows = pd.DataFrame(
        {"replicate": 0, "method": name, "against": "long/network", "split": "test"}
        | {"metric": "nll", "difference": of.mean(), "draws": of}
        for name, of in draws.items()
    )
    pairs = pair_differences(rows, TARGETS.described(RIVALS)).set_index(["method", "against"])
    center = draws.pop("bezier/center")
    assert {of for _, of in pairs.index} == {"long/network", *draws}
    for against, reference in {**draws, "long/network": np.zeros(4)}.items():
        pair = pairs.loc[("bezier/center", against)]
        assert np.allclose(pair["draws"], center - reference)
        assert pair["difference"] == pytest.approx(center.mean() - reference.mean())


def test_surfaces_from_scratch_are_held_against_one_network_and_without_the_cosine():
    methods = [f"{of}/center" for of in ("scratch-square", "scratch-square-cosine", "star")]
    rows = pd.DataFrame(
        {"replicate": 0, "method": name, "against": "long/network", "split": "test"}
        | {"metric": "nll", "difference": 0.0, "draws": np.zeros(4)}
        for name in [*methods, "independent/ensemble-1"]
    )
    pairs = pair_differences(rows, TARGETS.described(RIVALS))
    assert set(zip(pairs["method"], pairs["against"], strict=True)) == {
        ("scratch-square/center", "independent/ensemble-1"),
        ("scratch-square-cosine/center", "independent/ensemble-1"),
        ("scratch-square-cosine/center", "scratch-square/center"),
    }


def test_the_surface_that_others_are_held_against_is_of_the_usual_fit():
    def of(corners, fit, **further):
        kind = {"independent": "seeds", "aligned": "aligned"}[corners]
        square = {"shape": "square", "degree": [2, 2], "count": 4, "corners": corners}
        return square | {"kind": kind, "origin_kind": "seeds", "fit": fit} | further

    short = of("independent", "short", fit_of="standard")
    published, usual = of("independent", "paper"), of("independent", "standard")
    surfaces = {"published": published, "short": short, "brief": {**short, "fit": "brief"}}
    assert main_surface(surfaces) == "short"
    assert main_surface(surfaces | {"usual": usual}) == "usual"
    aligned = of("aligned", "standard")
    assert main_surface(surfaces | {"usual": usual, "aligned": aligned}) == "aligned"
    assert main_surface({"linear": {**usual, "fit": None}}) is None


def test_rivals_are_left_out_by_what_they_are():
    of = make_published(RIVALS)
    kept = ["deep/network", "long/network", "ema/network", "swa/mean", "forked/mean", "star/center"]
    networks = ["independent/network", "aligned/network", "deep/ensemble-1", "swa/network"]
    means = ["independent/mean", "deep/mean"]  # of networks that were trained apart
    means += ["long/mean", "ema/mean"]  # of one
    points = ["linear/center", "aligned/best-point", "linear-repaired/center"]  # without a fit
    assert findings.rivals_of(of, "bezier/center", kept + networks + means + points) == {*kept}
    sizes = [f"deep/ensemble-{n}" for n in (1, 2, 4, 5)] + ["aligned/ensemble-4"]
    sizes += ["independent/ensemble-4"]  # four of the five
    as_many, largest = "deep/ensemble-4", "deep/ensemble-5"
    assert findings.rivals_of(of, "bezier/greedy-4", sizes) == {as_many, largest}
    assert findings.rivals_of(of, "bezier/all", sizes) == {largest}
    every = findings.surfaces(of)
    aligned = {name: one for name, one in every.items() if one["kind"] in ("aligned", "free")}
    alone = replace(of, environment={"surfaces": aligned})  # they are of independent networks
    known = ["independent/network", "independent/mean"]
    assert findings.rivals_of(alone, "bezier/center", known) == {"independent/network"}
