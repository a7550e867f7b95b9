"""Laws of the explorer: its arithmetic, what of it fits, and the page in a browser."""

import contextlib
import itertools
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from combination.test_baselines import described

from fourfold.combination.ensemble import compare_ensembles, evaluate_ensemble
from fourfold.errors import InputError
from fourfold.evaluation.geometry import measure_barriers
from fourfold.evaluation.logits import SurfaceLogits
from fourfold.evaluation.metrics import best_network, classification_metrics
from fourfold.files.table import make_table, read_table, write_table
from fourfold.pipeline.cli import main
from fourfold.report.explorer import (
    Cached,
    Predictions,
    pack_predictions,
    render_explorer,
)
from fourfold.report.explorer.data import Members
from fourfold.report.explorer.predictions import STEPS, pack
from fourfold.surfaces.shapes import full_coordinates, make_shape, shape_of

with contextlib.suppress(ImportError):
    from playwright.sync_api import expect

CLASSES = 5
COARSE, FINE = STEPS
JOB = {"experiment": "e", "replicate": 0}
SURFACES = {
    **described(linear=("four", "seeds", None), fitted=("four", "seeds", "standard")),
    **described(make_shape("curve", degree=[2]), curve=("pair", "seeds", "standard")),
    **described(make_shape("chain", bends=1), chain=("pair", "seeds", "standard")),
    **described(make_shape("star", 3), star=("three", "seeds", None)),
    **described(make_shape("triangle", degree=[2]), triangle=("three", "seeds", None)),
    **described(make_shape("simplex", 2, added=1), simplex=("pair", "seeds", "standard")),
    **described(make_shape("simplex", 4), tetrahedron=("four", "seeds", None)),
    **described(make_shape("cube", degree=[1, 1, 1]), cube=("eight", "seeds", None)),
    **described(make_shape("set", 3), set=("three", "seeds", None)),
    **described(make_shape("set", 1), alone=("alone", "seeds", None)),
    **described(scratch=("moved", "free", "standard"), again=("moved", "free", "standard")),
}
WORST = {"accuracy": 0.001, "nll": 0.001}  # what the page may be off, see its note


def draw_logits(name, points, images=700, seed=0):
    """Return logits of a lattice, between corners that are alike for all surfaces."""
    shape = shape_of(SURFACES[name])
    lattice = shape.lattice(points)
    draw = np.random.default_rng(seed)
    labels = {split: draw.integers(CLASSES, size=images) for split in ("val", "test")}
    logits, own = {}, {}
    for split, of in labels.items():
        corners = 3 * draw.normal(size=(8, images, CLASSES))
        corners += 3 * np.eye(CLASSES)[of]
        corners = corners[: len(shape.corner_rows)]
        mixed = np.einsum("pc,cnk->pnk", shape.mixture(np.asarray(lattice)), corners)
        logits[split], own[split] = (torch.tensor(of).half() for of in (mixed, corners))
    labels = {split: torch.tensor(of) for split, of in labels.items()}
    if SURFACES[name]["kind"] == "free":  # nobody trained the corners alone
        at = [lattice.index(corner) for corner in shape.corner_coordinates]
        own = {split: of[at] for split, of in logits.items()}
    return SurfaceLogits(name, shape, "reestimated", lattice, logits, own, labels)


def make_tables(logits):
    """Return the tables that the page is made of, from logits on val and test."""
    grid, merge = [], []
    for name, surface in logits.items():
        corners = list(surface.shape.corner_coordinates)
        rows = []
        for split, labels in surface.labels.items():
            for places, networks, how in (
                (surface.points, surface.logits[split], "reestimated"),
                (corners, surface.own[split], "own"),
            ):
                if how == "own" and SURFACES[name]["kind"] == "free":
                    continue
                columns = pd.DataFrame(full_coordinates(places)).to_dict("records")
                for at, of in zip(columns, networks, strict=True):
                    scores = classification_metrics(of.float().log_softmax(dim=1), labels)
                    rows.append({**at, **scores, "split": split, "n": len(labels)})
                    rows[-1] |= {"statistics": how, "statistics_images": 9, "sample": "grid"}
                    rows[-1] |= {"surface": name}
        grid += rows
        if not surface.candidates:
            continue
        of = dict.fromkeys(("best-point", "oracle"), surface.candidates)
        for kind, split in (("best-point", "val"), ("oracle", "test")):
            best = best_network(surface.logits[split][of[kind]], surface.labels[split])
            point = surface.points[of[kind][best]]
            (row,) = (
                row
                for row in rows
                if row["split"] == "test"
                and row["statistics"] != "own"
                and all(row[axis] == x for axis, x in zip(surface.shape.axes, point, strict=True))
            )
            merge.append(row | {"merge": kind, "corners": "four", "selected_on": split})
    tables = {
        "grid": make_table("grid", pd.DataFrame(grid), **JOB),
        "ensemble": make_table(
            "ensemble", compare_ensembles(logits, surfaces_of(logits), 4), **JOB
        ),
        "merge": make_table(
            "merge",
            pd.DataFrame(merge).drop(columns=["sample", "statistics_images"]),
            **JOB,
        ),
    }
    shapes = {name: surface.shape for name, surface in logits.items()}
    barrier = measure_barriers(tables["grid"], shapes)
    tables["barrier"] = make_table("barrier", barrier, **JOB)
    rival = {"surface": "fitted", "corners": "four", "split": "test", "n": 9, "ece": 0.1}
    rival |= {"brier": 0.1, "disagreement": 0.0, "temperature": 1.0, "equivalents": np.inf}
    rival |= dict.fromkeys(("nll_low", "nll_high", "accuracy_low", "accuracy_high"), 0.5)
    methods = [("four/network", 0, 1, 0.6), ("four/ensemble-4", 400, 4, 0.4)]
    methods += [("fitted/all", 500, 4, 0.5), ("fitted/center", 500, 1, 0.3)]
    rows = [
        rival
        | {"method": name, "images_backward": cost, "images_forward": cost, "nll": nll}
        | {"forward_passes": passes, "nll_scaled": nll, "accuracy": 1 - nll}
        for name, cost, passes, nll in methods
    ]
    return tables | {"rival": make_table("rival", rows, **JOB)}


def surfaces_of(logits):
    return {name: SURFACES[name] for name in logits}


# --- arithmetic -----------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [300, 6000])
@pytest.mark.parametrize("sharpness", [0.3, 1.0, 5.0])  # the last: sure, and often wrong
@pytest.mark.parametrize(("steps", "worst"), [(FINE, 0.001), (COARSE, 0.007)])
def test_packed_networks_have_the_metrics_of_their_logits(images, sharpness, steps, worst):
    draw = torch.Generator().manual_seed(images)
    labels = torch.randint(CLASSES, (images,), generator=draw)
    right = torch.nn.functional.one_hot(labels, CLASSES)
    logits = (sharpness * (torch.randn(6, images, CLASSES, generator=draw) + right)).half()
    packed = pack(lambda k: logits[k].numpy(), labels.numpy(), [range(6)], steps, 10**9)
    for members in ([0], [1, 4], [0, 2, 3, 5], range(6)):
        found = packed.evaluate(members)
        exact = evaluate_ensemble(logits, members, labels)
        assert abs(found["accuracy"] - exact["accuracy"]) < worst
        assert found["nll"] == pytest.approx(exact["nll"], rel=2e-3)
        assert abs(found["ece"] - exact["ece"]) < 0.004  # one image may change its bin


@pytest.mark.parametrize(
    ("images", "sharpness", "steps"), [(6000, 1, COARSE), (6000, 1.35, FINE), (300, 1, FINE)]
)
def test_steps_are_fine_where_the_accuracies_of_the_table_need_it(images, sharpness, steps):
    logits = draw_logits("linear", 3, images)
    for part in (logits.logits, logits.own):
        part.update({split: of * sharpness for split, of in part.items()})
    tables = make_tables({"linear": logits})
    loads = {("e", 0, "linear"): lambda: Cached.of(logits)}
    page = render_explorer(tables, {"e": {"linear": SURFACES["linear"]}}, loads)
    (surface,) = data_of(page)["replicates"][0]["surfaces"]
    assert surface["predictions"]["steps"] == steps
    assert surface["predictions"]["errors"]["accuracy"] < 0.0005


def test_equal_logits_are_told_apart_as_by_argmax():
    logits = np.zeros((1, 3, 3), np.float16)
    packed = pack(lambda k: logits[k], np.array([0, 1, 2]), [[0]], FINE, 10**9)
    assert packed.evaluate([0])["accuracy"] == pytest.approx(1 / 3)
    assert packed.evaluate([0])["nll"] == pytest.approx(np.log(3), abs=1e-3)


def test_a_class_that_no_network_prefers_takes_no_room():
    logits = np.tile(np.float16([4, 0, 0]), (2, 50, 1))
    packed = pack(lambda k: logits[k], np.zeros(50, int), [[0, 1]], FINE, 10**9)
    assert not packed.below.any() and not packed.above.any()
    logits[1, 7] = [0, 0, 4]
    packed = pack(lambda k: logits[k], np.zeros(50, int), [[0, 1]], FINE, 10**9)
    assert (packed.below.sum(), packed.above.nonzero()[0].tolist()) == (0, [7])


def test_the_largest_choice_that_fits_is_packed():
    draw = np.random.default_rng(0).normal(size=(9, 200, CLASSES)).astype(np.float16)
    labels = np.zeros(200, int)
    choices = [[*range(9)], [0, 1, 2], [0]]

    def packed(limit):
        found = pack(lambda k: draw[k], labels, choices, FINE, limit)
        return found and [*found.streams]

    size = sum(map(len, pack(lambda k: draw[k], labels, choices[1:], FINE, 10**9).streams.values()))
    assert packed(10**9) == choices[0]
    assert packed(size + 600) == choices[1]  # and how many rivals there are
    assert packed(10) is None


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        (make_shape("square", degree=[2, 2]), [121, 100, 81, 64]),
        (make_shape("curve", degree=[2]), [11, 10, 9, 8]),
        (make_shape("star", 3), [31, 28, 25, 22]),
        (make_shape("set", 3), [3]),
    ],
)
def test_coarser_lattices_hold_the_corners_as_trained_and_what_tables_name(shape, sizes):
    members = Members(shape, shape.lattice(11))
    named = {members.point(shape.lattice(11)[-2])} - {
        members.point(corner) for corner in shape.corner_coordinates
    }
    choices = members.choices(named)
    found = list(map(len, choices))
    assert found == sorted(found, reverse=True) and found[: len(sizes)] == sizes[: len(found)]
    assert choices[-1] == [*range(members.corners)]
    for choice in choices[:-1]:
        assert {*range(members.corners), *named} <= {*choice}
        assert not {members.point(corner) for corner in shape.corner_coordinates} & {*choice}


# --- the page without a browser -------------------------------------------------------------------


@pytest.fixture(scope="module")
def logits():
    points = {"linear": 5, "fitted": 5, "cube": 3, "tetrahedron": 3}
    seeds = {"again": 1}  # whose corners moved elsewhere
    return {
        name: draw_logits(name, points.get(name, 5), seed=seeds.get(name, 0)) for name in SURFACES
    }


@pytest.fixture(scope="module")
def tables(logits):
    return make_tables(logits)


def data_of(page):
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text[1])


def test_a_full_page_leaves_out_points_and_never_grows(tables, logits):
    loads = {("e", 0, name): lambda s=of: Cached.of(s) for name, of in logits.items()}
    whole = render_explorer(tables, {"e": SURFACES}, loads)
    none = render_explorer(tables, {"e": SURFACES}, {})
    middle = (len(whole.encode()) + len(none.encode())) // 2
    page = render_explorer(tables, {"e": SURFACES}, loads, middle)
    assert len(page.encode()) <= middle
    kept = [
        {one["name"]: len(one["predictions"]["networks"]) for one in of["surfaces"]}
        for of in (data_of(whole)["replicates"][0], data_of(page)["replicates"][0])
    ]
    assert kept[0]["fitted"] == 25 and sum(kept[1].values()) < sum(kept[0].values())
    for name, count in kept[1].items():
        assert len(shape_of(SURFACES[name]).corner_rows) <= count <= kept[0][name]
    with pytest.raises(InputError, match="name fewer experiments"):
        render_explorer(tables, {"e": SURFACES}, loads, len(none.encode()) - 1)


def test_a_page_of_kept_predictions_is_that_of_the_logits(tables, logits):
    one = {"e": {"fitted": SURFACES["fitted"]}}
    here = {
        name: rows[rows["surface"] == "fitted"] if "surface" in rows else rows
        for name, rows in tables.items()
    }
    cached = Cached.of(logits["fitted"])
    whole = render_explorer(here, one, {("e", 0, "fitted"): lambda: cached})
    kept = pack_predictions(here, one["e"], "fitted", cached, 10**7)
    kept = Predictions(*json.loads(json.dumps(kept)))
    assert render_explorer(here, one, {}, packed={("e", 0, "fitted"): kept}) == whole
    assert data_of(whole)["replicates"][0]["surfaces"][0]["predictions"]["blob"] == 0
    fewer = pack_predictions(here, one["e"], "fitted", cached, len(kept.stored) // 2)
    assert len(fewer.stored) < len(kept.stored) / 2
    assert 4 <= len(fewer.said["networks"]) < len(kept.said["networks"])


def test_what_the_page_says_of_its_own_error_is_small(tables, logits):
    loads = {("e", 0, name): lambda s=of: Cached.of(s) for name, of in logits.items()}
    for one in data_of(render_explorer(tables, {"e": SURFACES}, loads))["replicates"][0][
        "surfaces"
    ]:
        errors = one["predictions"]["errors"]
        assert errors["rows"] == len(one["ensembles"])
        # Among pairs of networks that are sure of different classes one image may be a tie.
        assert errors["accuracy"] < 1.1 / 700 and errors["nll"] < WORST["nll"]


def test_the_page_asks_for_nothing_and_has_the_numbers_of_the_tables(tables):
    page = render_explorer(tables, {"e": SURFACES}, {})
    assert "default-src 'none'" in page
    merge = tables["merge"].set_index(["surface", "merge"])
    for one in data_of(page)["replicates"][0]["surfaces"]:
        assert "predictions" not in one
        for mark in one["marks"]:
            if mark["kind"] != "worst":
                row = merge.loc[(one["name"], mark["kind"])]
                assert mark["test"]["nll"] == pytest.approx(row["nll"], rel=1e-5)
                found = one["splits"]["test"]["points"]["nll"][mark["point"]]
                assert found == mark["test"]["nll"]


def test_corners_that_a_fit_moves_are_named_where_they_are_those_of_the_table(tables):
    page = render_explorer(tables, {"e": SURFACES}, {})
    found = {one["name"]: one for one in data_of(page)["replicates"][0]["surfaces"]}
    named = {
        name: [of["label"] for of in one["ensembles"] if of["isCorners"]]
        for name, one in found.items()
    }
    assert named["fitted"] == ["the four corners, as trained"]
    assert named["scratch"] == ["the four corners, not trained alone"]
    assert named["again"] == []
    assert [found[name]["statistics"] for name in ("fitted", "again")] == ["re-estimated", ""]


def test_a_network_without_numbers_is_shown_and_is_in_no_ensemble(logits):
    one = draw_logits("fitted", 3, 50)
    one.logits["test"][4, 0, 0] = np.nan
    tables = make_tables({"fitted": one})
    loads = {("e", 0, "fitted"): lambda: Cached.of(one)}
    page = render_explorer(tables, {"e": {"fitted": SURFACES["fitted"]}}, loads)
    (surface,) = data_of(page)["replicates"][0]["surfaces"]
    assert surface["splits"]["test"]["points"]["nll"][4] is None
    assert 4 + 4 not in surface["predictions"]["networks"]


# --- the page in a browser ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page_file(tables, logits, tmp_path_factory):
    """Write tables and logits, and return the page that the command makes of them."""
    folder = tmp_path_factory.mktemp("explorer")
    arguments = []
    for name, frame in tables.items():
        write_table(name, frame, folder / f"{name}.parquet")
        arguments += [f"--{name}", str(folder / f"{name}.parquet")]
    for name, surface in logits.items():
        surface.save(folder / f"{name}.safetensors", JOB)
    files = [str(folder / f"{name}.safetensors") for name in logits]
    output = folder / "explorer.html"
    given = ["--surfaces", json.dumps({"e": SURFACES}), "--output", str(output)]
    assert main(["plot-explorer", *arguments, "--logits", *files, *given]) == 0
    return output


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip(f"there is no browser: none of {', '.join(names)} is installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, page_file):
    """Return a function that opens the page; nothing may have gone wrong in it at the end."""
    wrong, pages = [], []

    def open_page(address="", width=1100, **options):
        page = chromium.new_page(viewport={"width": width, "height": 800}, **options)
        page.set_default_timeout(20_000)
        page.on("console", lambda told: wrong.append(told.text) if told.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request", lambda asked: wrong.append(asked.url[:80]) if not _is_own(asked) else None
        )
        page.goto(f"{page_file.as_uri()}#{address}")
        page.wait_for_selector("body[data-ready]")
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert wrong == []


def _is_own(request):
    return request.url.startswith(("file:", "data:", "blob:"))


def show(page, surface):
    page.select_option("#surface", label=surface)
    assert page.evaluate("surface().name") == surface


def choose_row(page, label):
    page.get_by_role("button", name=label, exact=True).click()
    members = page.evaluate("state.members.join()")
    expect(page.locator("#ensemble")).to_have_attribute("data-members", members)
    return page.locator("#ensemble tbody tr").first.locator("td").all_inner_texts()


def test_the_page_computes_the_ensembles_of_the_table(opened, tables):
    page = opened("experiment=e&replicate=0&surface=fitted")
    test = tables["ensemble"][tables["ensemble"]["split"] == "test"]
    rows = test[test["ensemble"].isin(("corners", "fitted"))].set_index(
        ["ensemble", "selection", "forward_passes"]
    )
    for label, key in (
        ("the four corners, as trained", ("corners", "fixed", 4)),
        ("four points fixed in advance", ("fitted", "fixed", 4)),
        ("all 21 points", ("fitted", "all", 21)),
        ("four points picked on val", ("fitted", "validation", 4)),
        ("oracle: four points picked on test", ("fitted", "oracle", 4)),
    ):
        accuracy, nll, _ = choose_row(page, label)
        row = rows.loc[key]
        assert accuracy == f"{100 * row['accuracy']:.2f} %"
        assert abs(float(nll) - row["nll"]) < WORST["nll"]


def test_page_and_python_take_the_same_steps(opened, logits):
    page = opened()
    for name in ("fitted", "set"):
        show(page, name)
        surface = logits[name]
        networks = torch.cat([surface.own["test"], surface.logits["test"]]).numpy()
        chosen = page.evaluate("surface().predictions.networks")
        labels = surface.labels["test"].numpy()
        packed = pack(lambda k, of=networks: of[k], labels, [chosen], FINE, 10**9)
        for members in itertools.combinations(chosen[:3], 2):
            found = page.evaluate(
                "async (members) => (await Predictions.open(surface().predictions.blob))"
                ".evaluate(members)",
                list(members),
            )
            assert found == pytest.approx(packed.evaluate(members), abs=1e-9)


def test_corners_are_called_what_they_are_and_values_by_their_split(opened):
    page = opened("experiment=e&replicate=0&split=val")
    rows = page.locator("#point tbody tr th")
    parts = page.locator("#barrier-table thead th")
    for name, at_corner, barrier in (
        (
            "fitted",
            ["val, as trained", "val, re-estimated", "test, as trained", "test, re-estimated"],
            ["corners, as trained", "corners, re-estimated"],
        ),
        (
            "again",
            ["val, not trained alone", "test, not trained alone"],
            ["corners, not trained alone"],
        ),
    ):
        show(page, name)
        page.evaluate("moveTo(surface().atCorner[0])")
        assert rows.all_inner_texts() == at_corner
        rest = ["mean of the surface", "worst point", "barrier"]
        assert parts.all_inner_texts()[1:] == [*barrier, *rest]
        assert barrier[0].removeprefix("corners, ") in page.locator("#facts").inner_text()
    assert not page.locator("#rivals-card").is_visible()  # the table has none on val
    page.locator("#split input[value=test]").check(force=True)
    assert page.locator("#rivals-title").inner_text() == "At equal cost, on test"


@pytest.mark.parametrize("grid", [7, 13])
def test_marks_of_a_curve_stand_at_their_points(grid, opened):
    page = opened("experiment=e&replicate=0&surface=curve")
    found = page.evaluate(
        """(n) => {
          const at = Array.from({ length: n + 1 }, (_, k) => k / n);
          const points = at.map((u) => [Number(u.toPrecision(6))]);  // as in the page's data
          const paths = [{ name: "", points: [...at.keys()], at: points.flat() }];
          const view = lineView({ ...surface(), points, paths }, at, currentScale());
          return at.map((u) => view.mark({ at: [u] }) !== null);
        }""",
        grid,
    )
    assert found == [True] * (grid + 1)


def test_what_has_no_number_is_drawn_nowhere(opened):
    page = opened("experiment=e&replicate=0&surface=fitted")
    drawn = page.evaluate(
        """() => {
          const rows = surface().barrier.map((row) => ({ ...row, max: null, barrier: null }));
          drawBarrier($("barrier"), rows, partsOf(surface()), "error");
          return $("barrier").data.map((trace) => [...trace.x].slice(-2));
        }"""
    )
    assert drawn and all(values == [None, None] for values in drawn)


@pytest.mark.long
def test_every_shape_shows_what_it_has_on_any_screen(opened):
    wide, narrow = opened(), opened(width=400, color_scheme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    assert wide.evaluate(paper) != narrow.evaluate(paper)
    most = ("curve", "star", "triangle", "tetrahedron", "cube", "set", "alone")
    for page, names in ((wide, most), (narrow, ("cube", "star", "set"))):
        for name in names:
            show(page, name)
            shape = shape_of(SURFACES[name])
            assert page.locator("#map .main-svg").first.is_visible()
            assert page.locator("#relief-card").is_visible() == (shape.dims > 1)
            assert page.locator("#profile-card").is_visible() == (shape.dims > 1)
            assert page.locator("#slice-label").is_visible() == (shape.dims > 2)
            assert page.locator("#barrier-card").is_visible() != shape.is_discrete
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
    wide.emulate_media(media="print")
    assert not wide.locator("#relief-card").is_visible()
    assert wide.locator("#map .main-svg").first.is_visible()


def test_keys_and_clicks_move_choose_and_are_said(opened, tables):
    page = opened("experiment=e&replicate=0&surface=fitted&metric=accuracy&split=val")
    said, members = page.locator("#said"), page.locator("#members button")
    assert page.locator("#metric input:checked").input_value() == "accuracy"
    page.evaluate("moveTo(0)")
    page.locator("#map").focus()
    for key in ("ArrowRight", "ArrowUp", "ArrowUp"):
        page.keyboard.press(key)
    grid = tables["grid"]
    row = grid[(grid["surface"] == "fitted") & (grid["u"] == 0.25) & (grid["v"] == 0.5)]
    row = row[row["split"] == "val"].iloc[0]
    text = said.inner_text()
    assert "u 0.25, v 0.5" in text and f"accuracy {100 * row['accuracy']:.2f} %" in text
    page.keyboard.press("Delete")
    assert members.count() == 0
    page.keyboard.press("Enter")
    assert members.all_inner_texts() == ["0.25, 0.5 \u00d7"]
    x, y = page.evaluate("view.pixel([0.75, 0.75])")
    page.locator("#map").click(position={"x": x, "y": y})
    assert members.all_inner_texts() == ["0.25, 0.5 \u00d7", "0.75, 0.75 \u00d7"]
    assert "taken into the ensemble of 2" in said.inner_text()
    members.first.click()
    assert members.all_inner_texts() == ["0.75, 0.75 \u00d7"]
    page.locator("#split input[value=test]").check(force=True)
    assert "split=test" in page.url


def test_both_ends_of_the_line_move_by_key_and_by_pointer(opened):
    page = opened("experiment=e&replicate=0&surface=fitted")
    note = page.locator("#profile-note")
    assert "bilinearly" in note.inner_text()
    page.locator("#handle-A").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowUp")
    assert page.locator("#handle-A").get_attribute("aria-valuetext") == "u 0.05, v 0.01"
    assert "end A" in page.locator("#said").inner_text()
    box = page.locator("#overlay").bounding_box()
    start, end = (page.evaluate(f"view.pixel([{at}, {at}])") for at in (1, 0.5))
    page.mouse.move(box["x"] + start[0], box["y"] + start[1])
    page.mouse.down()
    page.mouse.move(box["x"] + end[0], box["y"] + end[1], steps=3)
    page.mouse.up()
    expect(note).to_contain_text("B (0.50, 0.50)")
    # At a point of the grid the profile has its value.
    shown = page.evaluate("lattice.value(valuesOf('nll'), state.line[1], 0)")
    n = page.evaluate("lattice.number([2, 2])")
    assert shown == pytest.approx(page.evaluate(f"valuesOf('nll')[{n}]"))


def test_the_command_refuses_logits_that_are_none(page_file, tmp_path, capsys):
    folder = page_file.parent
    given = [
        x
        for name in ("grid", "barrier", "merge", "ensemble", "rival")
        for x in (f"--{name}", str(folder / f"{name}.parquet"))
    ]
    given += ["--surfaces", json.dumps({"e": SURFACES}), "--output", str(tmp_path / "e.html")]
    assert main(["plot-explorer", *given, "--logits", str(folder / "grid.parquet")]) == 1
    assert "grid.parquet" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert len(read_table("grid", folder / "grid.parquet"))
