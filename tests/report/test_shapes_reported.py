"""Laws of the report on other shapes than squares, alone and side by side."""

import json
from functools import cache
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.patches import Polygon, Rectangle
from report.test_figures import READ as DRAWN
from report.test_figures import (
    SPLITS,
    N,
    contour_axes,
    contour_sets,
    marked,
    on_splits,
    rival_table,
    table,
)
from report.test_summary import cells, shown, value_of

from fourfold.combination.baselines import corner_ensembles
from fourfold.evaluation.certificate import measure_certificates
from fourfold.evaluation.geometry import measure_barriers
from fourfold.report import figures as plot
from fourfold.report.claims import CLAIMS
from fourfold.report.summary import render_markdown, render_metrics, summarize
from fourfold.surfaces.points import rows_at, surface_rows
from fourfold.surfaces.shapes import Box, Chain, PointSet, Simplex, Star, full_coordinates

SHAPES = {
    "curve": Box((3,)),
    "chain": Chain(2),
    "square": Box((2, 2)),
    "triangle": Simplex(3, degree=2),
    "added": Simplex(2, added=1),
    "cube": Box((2, 2, 2)),
    "tetrahedron": Simplex(4),
    "star": Star(3, added=1),
}
SETS = {"set": PointSet(3), "alone": PointSet(1)}
ALL = SHAPES | SETS
LINES = ("curve", "chain")
PLANES = sorted(name for name, shape in SHAPES.items() if shape.dims > 1)
MIXED = ("curve", "square", "triangle", "cube")
RUN, CONTINUED, FIT = 1000, 750, 10  # images


def described(*names, kind="seeds"):
    """Return surfaces of these shapes, each fitted but for sets, on corners of their own."""
    return {
        name: {"corners": f"{name}-set", "kind": kind, "fit": None if name in SETS else "standard"}
        | ALL[name].described()
        for name in names
    }


def loss(shape, point):
    """Return an nll that is low at the corners and differs along each axis."""
    (mixture,) = shape.mixture(np.array([point], float))
    tilt = sum(0.02 * (k + 1) * x for k, x in enumerate(point))
    return 0.1 + tilt + len(mixture) * 0.3 * (1 - (mixture**2).sum())


def worst_point(shape):
    """Return a point off all lattices, in the first plane that shows the shape."""
    return (0.31, 0.23, shape.center[2] if shape.kind == "cube" else 0.25)[: shape.dims]


def grid_table(names, points=5):
    """Return lattices, their corners as trained and re-estimated, edges, center, a worst point."""
    rows = []
    for name in names:
        shape = ALL[name]
        lattice = shape.lattice(9 if shape.dims == 1 else points)
        samples = [("grid", at, "reestimated", loss(shape, at)) for at in lattice]
        samples += [("grid", at, "own", 0.9 * loss(shape, at)) for at in shape.corner_coordinates]
        if shape.dims > 1:
            on_edges = [at for at in shape.edge_points(4) if at not in lattice]
            samples += [("edge", at, "reestimated", loss(shape, at)) for at in on_edges]
        if shape.center not in lattice:
            samples.append(("center", shape.center, "reestimated", loss(shape, shape.center)))
        if not shape.is_discrete:
            samples.append(("random", worst_point(shape), "reestimated", 3.0))
        for sample, at, statistics, nll in samples:
            columns = {axis: one for axis, (one,) in full_coordinates([at]).items()}
            of = {"surface": name, "sample": sample, "statistics": statistics}
            images = 0 if statistics == "own" else 100
            rows += on_splits(of | columns | {"statistics_images": images}, nll)
    return table("grid", rows)


def tables(surfaces):
    """Return all tables of an experiment with these surfaces, made once."""
    return _tables(json.dumps(surfaces))


@cache
def _tables(text):
    surfaces = json.loads(text)
    rows = {name: [] for name in ("merge", "geometry", "ensemble", "difference", "training")}
    for name, of in surfaces.items():
        shape = ALL[name]
        of_corners = {"surface": name, "corners": of["corners"], "statistics": "own"}
        merges = [("best-point", shape.lattice(5)[1], "val"), ("center", shape.center, "none")]
        if shape.is_discrete:
            merges = [("uniform-soup", shape.center, "none")]
        merges += [
            ("greedy-soup", None, "val"),
            ("best-corner", shape.corner_coordinates[-1], "val"),
        ]
        for merge, at, selected_on in merges:
            place = {axis: one for axis, (one,) in full_coordinates([at or ()]).items()}
            of_merge = of_corners | place | {"merge": merge, "selected_on": selected_on}
            rows["merge"] += on_splits(of_merge, 0.12)
        pairs = [*combinations(shape.control_point_names, 2)]
        for a, b in pairs or [shape.control_point_names * 2]:
            known = {a, b} <= {*shape.corner_names}
            rows["geometry"].append(
                {"surface": name, "a": a, "b": b, "l2": 1.0, "relative_l2": 0.5 + 0.01 * len(a)}
                | {"cosine": 0.1, "disagreement": 0.1 if known else None}
            )
        ensembles = [(name, "validation", size) for size in range(1, 9)]
        ensembles += [(name, selection, of["count"]) for selection in ("fixed", "oracle")]
        ensembles = [] if shape.is_discrete else ensembles
        corners = corner_ensembles(surfaces)[of["corners"]]
        ensembles += [(corners, "subset", size) for size in range(1, of["count"])]
        ensembles += [(corners, "fixed", of["count"])]
        for ensemble, selection, size in ensembles:
            of_ensemble = {"ensemble": ensemble, "corners": of["corners"], "selection": selection}
            of_ensemble |= {"members": "", "statistics": "own", "disagreement": 0.1}
            rows["ensemble"] += on_splits(of_ensemble | {"forward_passes": size}, 0.1 + 0.05 / size)
        places = [("low-loss", split) for split in SPLITS] + [
            ("merge", "test"),
            ("ensemble", "test"),
        ]
        if shape.is_discrete:
            continue
        rows["difference"] += [
            {"comparison": comparison, "surface": name, "split": split, "n": N, "metric": metric}
            | {"value": 0.9, "reference": 0.88, "difference": 0.02, "low": 0.01, "high": 0.03}
            | {"draws": [0.01, 0.02, 0.03]}
            for comparison, split in places
            for metric in ("accuracy", "nll")
        ]
        rows["training"] += [
            {"stage": "fit", "item": name, "epoch": epoch, "step": epoch, "split": "train"}
            | {"nll": 1 / epoch, "accuracy": 0.9, "learning_rate": 0.1, "images_seen": 1}
            | {"wall_s": 1.0}
            for epoch in range(1, 20)
        ]
    found = {name: table(name, of) for name, of in rows.items()}
    found["grid"] = grid_table(surfaces)
    found["barrier"] = table("barrier", measure_barriers(found["grid"], ALL))
    found["certificate"] = table("certificate", measure_certificates(found["grid"]))
    found["cost"] = cost_table(surfaces)
    found["rival"] = rival_table(surfaces)
    methods = found["rival"]["method"].unique()
    found["rival_difference"] = table(
        "rival_difference",
        [
            {"method": method, "against": methods[0], "split": "test", "metric": metric, "n": N}
            | {"value": 0.9, "reference": 0.88, "difference": 0.02, "low": 0.01, "high": 0.03}
            | {"draws": [0.01, 0.02, 0.03]}
            for method in methods[1:]
            for metric in ("accuracy", "nll", "nll_scaled")
        ],
    )
    return found


def cost_table(surfaces):
    jobs = [("train_endpoint", f"seed{k}", RUN) for k in range(8)]
    jobs += [("fit_bezier_surface", name, FIT) for name in surfaces]
    jobs += [("train_fork", f"{name}-set-{k}", CONTINUED) for name in SHAPES for k in range(8)]
    measured = {"device": "cpu", "wall_s": 1.0, "flop": 1.0, "peak_bytes": 1}
    return table(
        "cost",
        [
            {"stage": stage, "item": item, "images_forward": images, "images_backward": images}
            | measured
            for stage, item, images in jobs
        ],
    )


def draw(name, surfaces, **changed):
    made = tables(surfaces) | changed
    return getattr(plot, f"plot_{name}")(*(made[one] for one in DRAWN[name]), surfaces)


def experiment(surfaces):
    """Return the summary and its text."""
    summary = summarize(tables(surfaces), {"digits-vgg16": surfaces})
    return summary, render_markdown(summary, 0.9, {"digits-vgg16": surfaces})


# --- figures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(DRAWN.keys() - {"summary"}))
@pytest.mark.parametrize("surfaces", [*zip(SHAPES), *zip(SETS), ("set", "alone", "square")])
def test_a_surface_of_any_shape_can_be_drawn_alone_and_beside_a_set(name, surfaces):
    draw(name, described(*surfaces)).draw_without_rendering()


@pytest.mark.parametrize("name", ["surfaces", "surfaces_3d"])
def test_a_figure_of_planes_says_in_one_line_that_curves_have_none(name):
    (text,) = draw(name, described(*LINES, "star", *SETS)).texts
    assert text.get_text().startswith("digits-vgg16: no surface")
    assert "\n" not in text.get_text()


def test_nothing_trained_is_said_in_one_line():
    surfaces = described("square")
    (text,) = draw("training", surfaces, training=tables(surfaces)["training"].head(0)).texts
    assert "nothing was trained" in text.get_text()


@pytest.mark.parametrize("surface", PLANES)
def test_colours_are_those_of_the_table_and_nothing_is_drawn_off_the_shape(surface, monkeypatch):
    caught, original = [], Axes.contourf

    def catch(axes, *args, **kwargs):
        caught.append(args)
        return original(axes, *args, **kwargs)

    monkeypatch.setattr(Axes, "contourf", catch)
    draw("surfaces", described(surface))
    shape = SHAPES[surface]
    u, v, nll = caught[0]
    for (j, i), value in np.ndenumerate(nll):
        point = (u[i], v[j], *shape.center[2:])
        is_inside = shape.contains(np.array([point]))[0]
        assert value == pytest.approx(loss(shape, point)) if is_inside else np.isnan(value)


def test_mixed_shapes_share_one_colour_scale():
    panels = contour_axes(draw("surfaces", described(*MIXED)))
    titles = [axes.get_title().split("\n")[0] for axes in panels]
    common = [axes for axes in panels[: len(panels) // 2] if "own scale" not in axes.get_title()]
    assert titles[:3] == ["square", "triangle", "cube, w = 0.5"]
    assert len(common) == 3
    assert len({contour_sets(axes)[0].get_clim() for axes in common}) == 1
    slices = contour_axes(draw("surfaces_3d", described("cube", "tetrahedron")))
    assert len({contour_sets(axes)[0].get_clim() for axes in slices}) == 1
    named = [f"cube, {axis} = 0.5" for axis in "wvu"]
    assert [axes.get_title() for axes in slices[:3]] == named
    assert [(axes.get_xlabel(), axes.get_ylabel()) for axes in slices[:3]] == [
        ("u", "v"), ("u", "w"), ("v", "w"),
    ]  # fmt: skip


@pytest.mark.parametrize("surface", PLANES)
def test_marks_stand_where_the_tables_say(surface):
    surfaces = described(surface)
    barrier, shape = tables(surfaces)["barrier"], SHAPES[surface]
    worst = barrier.query("split == 'test' and metric == 'nll'").iloc[0]
    for axes in contour_axes(draw("surfaces", surfaces)):
        assert marked(axes, "v") == (worst["u_at_max"], worst["v_at_max"])
        assert marked(axes, "+") == shape.center[:2]
        squares = [line.get_xydata()[0] for line in axes.get_lines() if line.get_marker() == "s"]
        corners = shape.corner_coordinates if shape.dims == 2 else []
        assert sorted(map(tuple, squares)) == sorted(corners)


def test_a_point_off_the_slice_is_not_marked():
    grid = grid_table(["cube"])
    moved = grid.assign(w=grid["w"].mask(grid["sample"] == "random", 0.4))
    panels = contour_axes(draw("surfaces", described("cube"), grid=moved))
    for axes in panels:
        assert "v" not in [line.get_marker() for line in axes.get_lines()]
    assert panels[0].get_title().endswith("to 3")  # the range is of all points


def test_a_slice_goes_through_the_points_nearest_to_a_center_off_the_lattice():
    grid = grid_table(["tetrahedron"], points=4)
    titles = [
        axes.get_title() for axes in draw("surfaces_3d", described("tetrahedron"), grid=grid).axes
    ]
    assert titles[:3] == [f"tetrahedron, {axis} = 0.333" for axis in "wvu"]


def test_profiles_go_through_the_values_of_the_table_from_corner_to_corner():
    surfaces = described(*SHAPES)
    grid = surface_rows(grid_table(surfaces).query("split == 'test'"))
    axes = {axes.get_title(): axes for axes in draw("profiles", surfaces).axes}
    for name in LINES:
        rows = grid[grid["surface"] == name].sort_values("u")
        u, nll = axes[name].get_lines()[0].get_data()
        np.testing.assert_array_equal(u, rows["u"])
        np.testing.assert_array_equal(nll, rows["nll"])
    star = ("center", "0", "center", "1", "center", "2")
    walks = {"triangle": "0120", "added": ("0", "1", "vertex_0", "0"), "star": star}
    for name, walk in walks.items():
        labels = [label.get_text() for label in axes[name].get_xticklabels()]
        assert labels == [*walk]
    for name in ("triangle", "added", "cube", "tetrahedron", "star"):
        shape = SHAPES[name]
        places, nll = axes[name].get_lines()[0].get_data()
        at = dict(zip(places, nll, strict=True))
        for tick, label in zip(axes[name].get_xticks(), axes[name].get_xticklabels(), strict=True):
            if (corner := f"corner_{label.get_text()}") in shape.corner_names:
                point = shape.corner_coordinates[shape.corner_names.index(corner)]
                (expected,) = rows_at(grid[grid["surface"] == name], shape, point)["nll"]
                assert at[tick] == expected
        # All edges are there, each point of them once but for the corners.
        on_edges = [*shape.lattice(5), *shape.edge_points(4)]
        expected = {
            round(loss(shape, point), 9) for point in on_edges if is_on_an_edge(shape, point)
        }
        if name == "star":  # on the way back is the worst point, which lies on a segment too
            expected = {round(loss(shape, point), 9) for point in shape.lattice(9)} | {3.0}
        assert expected == {*nll[np.isfinite(nll)].round(9)}


def is_on_an_edge(shape, point):
    at = np.array(point)
    return any(
        np.isclose(
            np.linalg.norm(at - a) + np.linalg.norm(at - b), np.linalg.norm(np.subtract(a, b))
        )
        for a, b in shape.edges
    )


@pytest.mark.parametrize("kind", ["seeds", "free", "untrained", "random"])
def test_the_band_of_profiles_is_of_the_corners_as_trained_if_anybody_trained_them(kind):
    grid = grid_table(["curve"])
    if kind == "free":
        grid = grid[grid["statistics"] != "own"]
    figure = draw("profiles", described("curve", kind=kind), grid=grid)
    (band,) = [p for p in figure.axes[0].patches if isinstance(p, (Polygon, Rectangle))]
    ends = [loss(SHAPES["curve"], at) * (1 if kind == "free" else 0.9) for at in ((0,), (1,))]
    assert [band.get_y(), band.get_y() + band.get_height()] == pytest.approx(ends)
    label = figure.legends[0].get_texts()[-1].get_text()
    assert ("as trained" in label) == (kind == "seeds")


def test_panels_beside_others_of_another_height_have_their_own_tick_labels():
    figure = draw("profiles", described("curve", "square", "chain"))
    is_labelled = {
        (axes.get_title() or axes.get_xlabel()): axes.yaxis.get_tick_params()["labelleft"]
        for axes in figure.axes
    }
    assert all(is_labelled.values())


@pytest.mark.parametrize(
    ("surfaces", "fixed", "oracle"),
    [
        (("square",), "four midpoints of the edges", "four points"),
        (("curve", "chain"), "two points between", "two points"),
        (MIXED, "as many points between", "as many points"),
    ],
)
def test_ensembles_of_equal_size_have_the_number_of_corners(surfaces, fixed, oracle):
    surfaces = described(*surfaces)
    texts = [text.get_text() for text in draw("ensembles", surfaces).legends[0].get_texts()]
    assert sum(text.startswith(fixed) for text in texts) == 1
    assert f"oracle: {oracle} chosen on test" in texts
    beside = [text.get_text() for axes in draw("differences", surfaces).axes for text in axes.texts]
    assert sum(text.startswith(f"{oracle} chosen on val against the") for text in beside) == 1


def test_merges_show_as_many_coordinates_as_there_are():
    figure = draw("merges", described(*MIXED))
    notes = [label.get_text() for label in figure.axes[-1].get_yticklabels()]
    assert [note for note in notes if note.startswith("0.5")] == [
        "0.5",
        "0.5, 0.5",
        "0.5, 0.5, 0.5",
    ]
    assert "-" in notes and "0.33, 0.33" in notes


# --- summary --------------------------------------------------------------------------------------


@pytest.mark.parametrize("surface", SHAPES)
def test_the_summary_of_one_surface_has_its_worst_point_and_its_center(surface):
    shape = SHAPES[surface]
    summary, text = experiment(described(surface))
    of_surface = summary[summary["kind"] == "surface"].set_index("metric")["mean"]
    found = [of_surface.get(f"{axis}_at_accuracy_min") for axis in "uvw"[: shape.dims]]
    assert found == list(worst_point(shape))
    assert f"{'uvw'[shape.dims :][:1] or 'none'}_at_accuracy_min" not in of_surface
    assert of_surface["nll_max"] == pytest.approx(3)
    assert of_surface["nll_center"] == pytest.approx(loss(shape, shape.center))
    place = ", ".join(f"{x:.2f}" for x in worst_point(shape))
    assert cells(text, "digits-vgg16", surface)[3].endswith(f" ({place}; random)")
    assert f"in brackets ({', '.join(shape.axes)}) and which" in text


@pytest.mark.parametrize(
    ("surfaces", "label", "points", "said"),
    [
        (("square",), "four corners", "four points", "beside them the four corners,"),
        (("curve", "chain"), "two corners", "two points", "beside them the two corners,"),
        (("cube",), "eight corners", "eight points", "replicate of eight corners."),
        (MIXED, "two corners", "as many points", "replicate of two, three, four or eight corners."),
    ],
)
def test_ensembles_stand_beside_those_of_as_many_corners(surfaces, label, points, said):
    surfaces = described(*surfaces)
    summary, text = experiment(surfaces)
    assert label in shown(text)
    assert points in text.partition("| experiment ")[2].partition("\n")[0]
    assert said in text
    for name, of in surfaces.items():
        expected = value_of(summary, "ensemble", f"{name}/validation-{of['count']}", "accuracy")
        assert cells(text, "digits-vgg16", name)[7] == f"{100 * expected:.2f}"


@pytest.mark.parametrize(
    ("kind", "images"),
    [
        ("seeds", 3 * RUN),
        ("run", RUN),
        ("fork", 0.25 * RUN + 3 * CONTINUED),  # parted after a quarter of a run
        ("files", 0),
        ("free", 0),
    ],
)
def test_corners_cost_what_was_trained_for_them_here(kind, images):
    summary, text = experiment(described("triangle", "square", kind=kind))
    assert value_of(summary, "surface", "triangle", "images_backward") == images + FIT
    named = {"seeds": "", "free": " (triangle-set of triangle)"}.get(kind, " (triangle-set)")
    assert f"three corners{named}" in shown(text)
    # Nobody trained free corners alone: nothing can be as trained.
    assert ("statistics" in set(summary["kind"])) == (kind != "free")
    assert ("Nobody trained the corners" in text) == (kind == "free")


def test_sets_stand_among_merges_and_ensembles_alone():
    surfaces = described("set", "square", "alone")
    summary, text = experiment(surfaces)
    assert shown(text) == ["square", "four corners (square-set)"]
    kinds = summary.groupby("kind")["method"].unique()
    assert list(kinds["surface"]) == ["square"]
    assert {"set", "alone"} < set(kinds["statistics"])
    assert {"set/uniform-soup", "alone/best-corner"} < set(kinds["merge"])
    assert {"corners/fixed", "alone-set-corners/fixed"} < set(kinds["ensemble"])
    barrier = tables(surfaces)["barrier"].query("metric == 'nll'").groupby("surface")["barrier"]
    for name, shape in SETS.items():
        corners = [loss(shape, corner) for corner in shape.corner_coordinates]
        at_mean = loss(shape, shape.center) - np.mean(corners)
        assert barrier.get_group(name).tolist()[-1] == pytest.approx(at_mean)


def test_an_experiment_of_sets_shows_their_ensembles():
    summary, text = experiment(described(*SETS))
    kinds = {"statistics", "merge", "ensemble", "rival", "rival_difference"}
    assert set(summary["kind"]) == kinds
    assert shown(text) == ["three corners", "one corners (alone-set)"]
    plot.plot_summary(summary, SETS).draw_without_rendering()


def test_a_cell_is_empty_where_no_ensemble_of_points_is_as_large_as_that_of_the_corners():
    surfaces = described("cube")
    made = tables(surfaces)
    ensemble = made["ensemble"]
    is_large = (ensemble["selection"] == "validation") & (ensemble["forward_passes"] > 4)
    summary = summarize(made | {"ensemble": ensemble[~is_large]}, {"digits-vgg16": surfaces})
    text = render_markdown(summary, 0.9, {"digits-vgg16": surfaces})
    assert cells(text, "digits-vgg16", "cube")[7] == ""
    assert cells(text, "digits-vgg16", "eight corners")[7] != ""


def test_claims_are_about_squares():
    judged, _ = experiment(described(*SHAPES.keys() - {"square"}))
    assert not {"claim", "control"} & set(judged["kind"])
    judged, _ = experiment(described(*MIXED))
    texts = judged.loc[judged["kind"] == "claim", "method"]
    assert list(texts) == [claim.text for claim in CLAIMS if "Bezier" in claim.text]


@pytest.mark.parametrize("kind", ["fork", "files", "free"])
def test_no_claim_is_about_networks_that_no_run_of_their_own_made(kind):
    judged, text = experiment(described("square", kind=kind))
    assert "claim" not in set(judged["kind"])
    of = " of square" if kind == "free" else ""  # those of each surface are its own
    assert shown(text) == ["square", f"four corners (square-set{of})"]


def test_equivalents_of_several_replicates_are_their_median_as_they_may_be_endless():
    surfaces = described("square", "set")
    made = tables(surfaces)
    again = {
        name: pd.concat([table.assign(replicate=k) for k in range(3)])
        for name, table in made.items()
    }
    rival = again["rival"]
    of_one = rival["method"] == "square/center"
    for k, value in enumerate((3.0, np.inf, 2.0)):
        rival.loc[of_one & (rival["replicate"] == k), "equivalents"] = value
    summary = summarize(again | {"rival": rival}, {"digits-vgg16": surfaces})
    assert value_of(summary, "rival", "square/center", "equivalents") == 3.0


def test_methods_at_equal_cost_are_shown_where_sets_of_networks_stand_beside_surfaces():
    surfaces = described("square", "set")
    summary, text = experiment(surfaces)
    block = text.partition("## digits-vgg16: at equal cost")[2].partition("\n\nBy the images")[0]
    rows = [line for line in block.splitlines() if "/" in line]
    assert len(rows) == 16  # methods of both
    images = [float(line.split("|")[2]) for line in rows]
    assert images == sorted(images)
    row = cells(block, "square/greedy-9")
    assert row[1:3] == ["0", "9"] and row[9] == "inf"
    assert row[10:] == ["+2.00 [+1.05, +2.95], yes", "+0.020 [+0.011, +0.029], yes"]
    assert cells(block, "square-set/network")[8:] == ["", "1.00", "", ""]
    assert "Differences to square-set/network" in text
    assert value_of(summary, "rival", "set/all", "images_backward") == 10_000
    metrics = json.dumps(render_metrics(summary), allow_nan=False)  # DVC reads JSON alone
    assert "set greedy-9" in metrics
    without, text = experiment(described("square"))
    assert not without["kind"].str.startswith("rival").any()
    assert "at equal cost" not in text
