"""Laws of the figures: orientation, shared scales, equal bytes, clear refusals."""

import math
from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.text import Text
from mpl_toolkits.mplot3d import Axes3D
from report.test_claims import SURFACES

from fourfold.errors import InputError
from fourfold.files.table import SCHEMAS, make_table
from fourfold.report import figures as plot
from fourfold.report.figures._labels import label_marks
from fourfold.report.figures._lattice import along, around, diagonals
from fourfold.report.figures._measure import ACCURACY, NLL
from fourfold.report.figures._style import BLACK, BLUE, GREEN, VERMILLION, surface_style
from fourfold.surfaces.points import lattice_rows
from fourfold.surfaces.shapes import SQUARE

# Highest nll inside, the corners' nll, and the slope along u that makes every surface asymmetric.
HEIGHTS = {"linear": (3.1, 0.10, 0.03), "bezier": (0.13, 0.10, 0.03), "trajectory": (0.1, 0.11, 0)}
SPLITS = {"train": 0.15, "val": 1.1, "test": 1.0}  # factors of the nll
METRICS = ["nll", "accuracy"]
N = 360


def table(name, rows, **where):
    return make_table(name, rows, **{"experiment": "digits-vgg16", "replicate": 0} | where)


def scores(nll, n=N):
    accuracy = 0.1 + 0.9 * math.exp(-0.4 * nll)
    return {"n": n, "nll": nll, "accuracy": accuracy, "ece": 0.3 * nll, "brier": 0.5 * nll}


def on_splits(rows, nll):
    """Return `rows` on every split, with the scores of an nll `nll` on test."""
    return [rows | {"split": split} | scores(nll * factor) for split, factor in SPLITS.items()]


def grid_table(points=5, heights=HEIGHTS):
    """A lattice, its corners with their own statistics, and points searched on half of the images.

    The worst point of the edges is known on all images; it is worse than all of the lattice.
    """
    axis = np.linspace(0, 1, points)
    places = [("grid", u, v, "reestimated", N) for u, v in product(axis, axis)]
    places += [("grid", u, v, "own", N) for u, v in product((0.0, 1.0), repeat=2)]
    places += [("edge", 0.4, 0.0, "reestimated", N), ("edge", 0.6, 0.0, "reestimated", N // 2)]
    places += [("random", 0.61, 0.41, "reestimated", N // 2)]
    rows = []
    for surface, (inside, corner, slope) in heights.items():
        for (split, factor), (sample, u, v, statistics, n) in product(SPLITS.items(), places):
            nll = corner + slope * u * (1 + v)
            nll += (inside - corner) * 2 * (u * (1 - u) + v * (1 - v))
            if sample != "grid":
                nll = 1.1 * max(inside, corner + 2 * slope) * (2 if n < N else 1)
            nll *= factor * (0.95 if statistics == "own" else 1)
            images = 0 if statistics == "own" else 100
            at = {"surface": surface, "sample": sample, "u": u, "v": v, "w": None, "split": split}
            statistics = {"statistics": statistics, "statistics_images": images}
            rows.append(at | statistics | scores(nll, n))
    return table("grid", rows)


def merge_table():
    rows = []
    for surface, (inside, corner, _) in HEIGHTS.items():
        best = min(inside, corner)
        merges = [
            ("best-corner", 1, 0, "val", corner),
            ("uniform-soup", 0.5, 0.5, "none", inside),
            ("greedy-soup", None, None, "val", corner),
            ("center", 0.5, 0.5, "none", inside),
            ("best-point", 0.3, 0.9, "val", best * 0.97),
            ("oracle", 0.2, 0.8, "test", best * 0.93),
        ]
        of = {"surface": surface, "corners": SURFACES[surface]["corners"], "statistics": "own"}
        for merge, u, v, on, nll in merges[3 * (surface == "bezier") :]:
            at = {"u": u, "v": v, "w": None}
            rows += on_splits({**of, **at, "merge": merge, "selected_on": on}, nll)
    return table("merge", rows)


def ensemble_table():
    of_corners = {"corners": 0.03, "trajectory-corners": 0.01}
    ensembles = [
        (name, "subset" if size < 4 else "fixed", size, nll + 0.004 * np.mean(members))
        for (name, gain), size in product(of_corners.items(), range(1, 5))
        for nll in [0.11 - gain * (1 - 1 / size)]
        for members in combinations(range(4), size)
    ]
    for surface, nll in (("linear", 0.08), ("bezier", 0.082), ("trajectory", 0.1)):
        ensembles += [
            (surface, "fixed", 4, 2.5 if surface == "linear" else nll),
            *((surface, "validation", k, nll * (1 + 0.2 / k)) for k in range(1, 7)),
            (surface, "oracle", 4, nll * 0.93),
            (surface, "all", 117, nll * 1.04),
        ]
    common = {"corners": "any", "members": "0,0;0,1", "statistics": "own", "disagreement": 0.02}
    rows = []
    for name, selection, passes, nll in ensembles:
        of = {"ensemble": name, "selection": selection, "forward_passes": passes}
        rows += on_splits(common | of, nll)
    return table("ensemble", rows)


def difference_table():
    random = np.random.default_rng(0)
    places = [("low-loss", split) for split in SPLITS] + [("merge", "test"), ("ensemble", "test")]
    rows = []
    for surface, (comparison, split), metric in product(SURFACES, places, ("accuracy", "nll")):
        failed = surface == "linear" and comparison == "low-loss"
        difference = -0.7 if failed else random.normal(0, 0.02)
        rows.append(
            {"comparison": comparison, "surface": surface, "split": split, "n": N, "metric": metric}
            | {"value": 0.9 + difference, "reference": 0.9, "difference": difference}
            | {"low": difference - 0.01, "high": difference + 0.015, "draws": [difference]}
        )
    return table("difference", rows)


def training_table():
    runs = [("endpoint", f"seed{seed}", 20) for seed in range(4)] + [("fit", "bezier", 30)]
    rows = []
    for stage, item, epochs in runs:
        for epoch, (split, floor) in product(range(epochs), (("train", 0.01), ("val", 0.1))):
            nll = floor + 2.2 * np.exp(-epoch / 3)
            rows.append(
                {"stage": stage, "item": item, "epoch": epoch + 1, "step": 19 * (epoch + 1)}
                | {"split": split, "nll": nll, "accuracy": max(0.1, 1 - 0.3 * nll)}
                | {"learning_rate": 0.1, "images_seen": 1200 * (epoch + 1), "wall_s": 1.0}
            )
    return table("training", rows)


def geometry_table():
    corners = {"corner_00": (0, 0), "corner_01": (0, 1), "corner_10": (1, 0), "corner_11": (1, 1)}
    rows = []
    for surface in SURFACES:
        names = corners | ({"P_01": (0, 0.5), "P_11": (0.5, 0.5)} if surface == "bezier" else {})
        pairs = [*combinations(names, 2), *((name, name) for name in corners)]
        for a, b in pairs:
            distance = math.dist(names[a], names[b]) * (0.1 if surface == "trajectory" else 1)
            known = a in corners and b in corners
            rows.append(
                {"surface": surface, "a": a, "b": b, "l2": 37 * distance, "relative_l2": distance}
                | {
                    "cosine": 0.1,
                    "disagreement": 0.04 * distance + 0.001 * len(surface) if known else None,
                }
            )
    return table("geometry", rows)


def barrier_table(heights=HEIGHTS, replicate=0):
    rows = []
    for (name, (inside, corner, _)), (split, factor) in product(heights.items(), SPLITS.items()):
        for metric, at_most in (("nll", math.inf), ("error", 0.9)):
            row = {"surface": name, "split": split, "metric": metric, "sample_at_max": "grid"}
            row |= {"barrier": factor * (inside - corner), "max": min(at_most, factor * inside)}
            row |= {"mean": factor * (inside + corner) / 2, "corner_mean_own": factor * corner}
            rows.append(row | dict.fromkeys(("corner_mean", "min"), factor * corner))
    columns = SCHEMAS["barrier"].names[2:]
    return table("barrier", pd.DataFrame(rows).reindex(columns=columns), replicate=replicate)


def cost_table(**images):
    """What fits took: surface=images passed backward."""
    stage = {"stage": "fit_bezier_surface", "device": "cpu"}
    counts = dict.fromkeys(("wall_s", "images_forward", "flop", "peak_bytes"), 1)
    images = images or {"bezier": 1000}
    return table(
        "cost",
        [stage | counts | {"item": name, "images_backward": n} for name, n in images.items()],
    )


def rival_table(surfaces=SURFACES):
    """Return methods of which the last ones are far off, or were trained elsewhere."""
    rows = []
    for k, (surface, of) in enumerate(surfaces.items()):
        methods = [("network", 1), ("mean", 1), ("ensemble-4", 4)]
        methods = [(f"{of['corners']}/{name}", size) for name, size in methods]
        points = [("center", 1), ("best-point", 1), ("inner", 4), ("greedy-9", 9), ("all", 117)]
        methods += [(f"{surface}/{name}", size) for name, size in points]
        for place, (method, size) in enumerate(methods):
            nll = 2.5 if place == 1 else 0.1 + 0.05 / size + 0.01 * k + 0.001 * place
            costs = dict.fromkeys(("images_backward", "images_forward"), 10_000 * k)
            row = {"method": method, "surface": surface, "corners": of["corners"]} | costs
            row |= {"forward_passes": size, "disagreement": 0.1, "temperature": 1.2}
            row |= {"equivalents": math.inf if size > 4 else size}
            for one in on_splits(row, nll):
                ends = {
                    f"{metric}_{end}": one[metric] + change
                    for metric in METRICS
                    for end, change in (("low", -0.01), ("high", 0.02))
                }
                rows.append(one | ends | {"nll_scaled": 0.9 * one["nll"]})
    return table("rival", rows)


def summary_table(experiments=3, replicates=1):
    names = ("accuracy_min", "accuracy_mean", "accuracy_center", "accuracy_corner_mean_own")
    surfaces = {
        "linear": dict(zip(names, (0.12, 0.60, 0.12, 0.975), strict=True)),
        "bezier": dict(zip(names, (0.958, 0.974, 0.970, 0.975), strict=True)),
        "trajectory": dict(zip(names, (0.965, 0.972, 0.978, 0.971), strict=True)),
    }
    frames = []
    for index in range(experiments):
        values = [("surface", name, *one) for name, of in surfaces.items() for one in of.items()]
        rows = []
        for kind, method, metric, mean in [*values, ("ensemble", "corners", "accuracy", 0.98)]:
            mean -= 0.02 * index
            ends = (mean - 0.004, mean + 0.004) if replicates > 1 else (None, None)
            rows.append(
                {"kind": kind, "method": method, "metric": metric, "mean": mean, "text": None}
                | {"low": ends[0], "high": ends[1], "n": N, "replicates": replicates}
            )
        frames.append(table("summary", rows, experiment=f"digits-{index}", replicate=-1))
    return pd.concat(frames, ignore_index=True)


TABLES = {
    "grid": grid_table, "merge": merge_table, "ensemble": ensemble_table,
    "difference": difference_table, "training": training_table, "geometry": geometry_table,
    "summary": lambda: summary_table(4, 3), "barrier": barrier_table, "cost": cost_table,
    "rival": rival_table,
}  # fmt: skip
READ = {
    "surfaces": ("grid", "merge"), "surfaces_3d": ("grid",), "profiles": ("grid",),
    "ensembles": ("ensemble",), "merges": ("merge",), "differences": ("difference",),
    "training": ("training",), "geometry": ("geometry",), "summary": ("summary",),
    "barriers": ("barrier", "grid"), "convergence": ("barrier", "cost"),
    "careful": ("barrier", "geometry"), "rivals": ("rival",),
}  # fmt: skip


def draw(name, surfaces=SURFACES, **tables):
    """Draw a figure from the tables above, or others in their place."""
    read = [tables[one] if one in tables else TABLES[one]() for one in READ[name]]
    return getattr(plot, f"plot_{name}")(*read, surfaces)


def tilted_grid(points=5):
    """One surface whose nll is 1 + u + 10 v: no symmetry of the square leaves it unchanged."""
    grid = grid_table(points, {"bezier": HEIGHTS["bezier"]})
    return grid.assign(nll=1 + grid["u"] + 10 * grid["v"])


def contour_sets(axes):
    return [artist for artist in axes.collections if isinstance(artist, QuadContourSet)]


def contour_axes(figure):
    return [axes for axes in figure.axes if contour_sets(axes)]


def drawn_texts(figure):
    """Return titles, tick labels and legend of a figure in their order."""
    labels = [text for axes in figure.axes for text in (axes.title, *axes.get_yticklabels())]
    labels += [text for legend in figure.legends for text in legend.get_texts()]
    return [text.get_text() for text in labels]


# --- of all figures -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", READ)
def test_same_tables_give_the_same_bytes(name, tmp_path):
    for run in ("first", "second"):
        plot.save_figure(draw(name), tmp_path / run / name)
    for suffix in ("png", "svg"):
        first, second = (tmp_path / run / f"{name}.{suffix}" for run in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()
    assert len(list(tmp_path.rglob("*.*"))) == 4  # nothing unfinished is left


@pytest.mark.parametrize(
    "name", sorted(READ.keys() - {"training", "convergence", "careful", "rivals"})
)
@pytest.mark.parametrize("order", [1, -1])
def test_surfaces_stand_in_their_order(name, order):
    """Of each text that names a surface the first one comes earlier than that of a later one."""
    surfaces = dict([*SURFACES.items()][::order])
    texts = drawn_texts(draw(name, surfaces))
    first = [next(i for i, text in enumerate(texts) if surface in text) for surface in surfaces]
    assert first == sorted(first)


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("name", READ)
def test_one_surface_can_be_drawn(name, surface):
    of = ["trajectory-corners" if surface == "trajectory" else "corners", "seed0", surface]
    tables = {}
    for one in READ[name]:
        frame = grid_table(3) if one == "grid" else TABLES[one]()
        column = {
            "ensemble": "ensemble",
            "training": "item",
            "summary": "method",
            "cost": "item",
        }.get(one)
        tables[one] = frame[frame[column or "surface"].isin(of)]
    draw(name, {surface: SURFACES[surface]}, **tables).draw_without_rendering()


@pytest.mark.parametrize(
    ("name", "count", "panels"),
    [
        ("surfaces", 5, 18),  # four of them once more, on scales of their own
        ("surfaces_3d", 6, 6), ("profiles", 6, 12), ("training", 6, 14),
        ("ensembles", 16, 2), ("geometry", 16, 2),
    ],
)  # fmt: skip
def test_many_surfaces_fit_a_page_across(name, count, panels):
    """Warnings are errors: also that of a layout without room for its panels."""
    names = [f"surface-number-{k}" for k in range(count)]
    surfaces = {one: SURFACES["trajectory"] | {"corners": one} for one in names}
    heights = {one: HEIGHTS["bezier" if k else "linear"] for k, one in enumerate(names)}
    tables = {"grid": grid_table(3, heights)} if "grid" in READ[name] else {}
    for one in {*READ[name]} - tables.keys():
        rows = TABLES[one]()
        of = "bezier" if one == "training" else "trajectory"
        column = {"ensemble": "ensemble", "training": "item"}.get(one, "surface")
        part = rows[rows[column].str.startswith(of)]
        copies = [part.assign(**{column: part[column].str.replace(of, new)}) for new in names]
        tables[one] = pd.concat([*copies, rows[rows[column] == "seed0"]])
    figure = draw(name, surfaces, **tables)
    figure.draw_without_rendering()
    assert figure.get_figwidth() < 9.2
    shown = [
        axes for axes in figure.axes if axes.get_visible() and axes.get_label() != "<colorbar>"
    ]
    assert len(shown) == panels
    for axes in shown:
        assert (axes.get_window_extent().size > figure.dpi / 2).all()
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert min(box.x0, box.y0) >= 0 and box.x1 <= figure.bbox.x1
    titles = [axes.title.get_window_extent() for axes in shown if axes.get_title()]
    assert not any(a.overlaps(b) for a, b in combinations(titles, 2))


@pytest.mark.parametrize("name", READ)
def test_a_surface_that_is_not_among_those_to_draw_is_named(name):
    with pytest.raises(InputError, match="not among those to draw"):
        draw(name, {"mine": SURFACES["linear"]})


def test_a_surface_without_any_number_is_named():
    with pytest.raises(InputError, match="nll of surface 'bezier' is NaN at all"):
        draw("profiles", grid=tilted_grid().assign(nll=float("nan")))


@pytest.mark.parametrize("name", ["surfaces", "surfaces_3d", "profiles"])
def test_equal_values_everywhere_can_be_drawn(name):
    draw(name, grid=grid_table(3).assign(nll=0.0, accuracy=1.0)).draw_without_rendering()


def test_networks_without_numbers_are_gaps():
    grid, merge, ensemble, difference = (
        TABLES[name]() for name in ("grid", "merge", "ensemble", "difference")
    )
    for frame, is_broken, columns in (
        (grid, (grid["surface"] == "linear") & (grid["u"] == 0.5), METRICS),
        (merge, (merge["surface"] == "linear") & (merge["u"] == 0.5), METRICS),
        (ensemble, ensemble["selection"] == "all", METRICS),
        (difference, difference["difference"] == -0.7, ["difference", "low", "high"]),
    ):
        frame.loc[is_broken, columns] = float("nan")
    tables = {"grid": grid, "merge": merge, "ensemble": ensemble, "difference": difference}
    tables["barrier"] = TABLES["barrier"]()
    is_broken = tables["barrier"]["surface"] == "linear"
    tables["barrier"].loc[is_broken, ["barrier", "max", "mean"]] = float("nan")
    for name in sorted(READ.keys() - {"training", "geometry", "summary"}):
        draw(name, **tables).draw_without_rendering()
    assert sum("NaN" in text for text in drawn_texts(draw("surfaces", **tables))) >= 2
    assert "NaN: linear" in draw("careful", **tables).get_suptitle()
    assert "NaN" in [text.get_text() for text in draw("barriers", **tables).axes[0].texts]


@pytest.mark.parametrize("name", ["ensembles", "merges"])
def test_only_what_was_chosen_on_test_is_hollow(name):
    legend = draw(name).legends[0]
    hollow = {
        text.get_text(): handle.get_markerfacecolor() == "white"
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
        if handle.get_marker() != "None"
    }
    assert sum(hollow.values()) == 1
    assert all(is_hollow == ("on test" in text) for text, is_hollow in hollow.items())


# --- surfaces over (u, v) -------------------------------------------------------------------------


@pytest.fixture
def caught(monkeypatch):
    """Return what is drawn as colour and as height: (axes, x, y, values)."""
    drawn = []
    for kind, method in ((Axes, "contourf"), (Axes3D, "plot_surface")):
        original = getattr(kind, method)

        def catch(axes, *args, original=original, **kwargs):
            drawn.append((axes, *args[:3]))
            return original(axes, *args, **kwargs)

        monkeypatch.setattr(kind, method, catch)
    return drawn


def test_u_runs_to_the_right_and_v_upwards(caught):
    # The order of the rows of a table says nothing.
    grid = tilted_grid().sample(frac=1, random_state=0)
    draw("surfaces", grid=grid)
    draw("surfaces_3d", grid=grid)
    (axes, x, y, values), (relief, x3, y3, heights) = caught[0], caught[-1]
    np.testing.assert_allclose(values, 1 + x[None, :] + 10 * y[:, None])
    assert (axes.figure.axes[1].get_xlabel(), axes.get_ylabel()) == ("u", "v")
    assert not axes.xaxis_inverted() and not axes.yaxis_inverted()
    np.testing.assert_allclose(heights, 1 + x3 + 10 * y3)
    assert (relief.get_xlabel(), relief.get_ylabel()) == ("u", "v")


def test_colour_and_height_are_of_the_lattice_alone(caught):
    for grid in (grid_table(), grid_table().query("sample == 'grid' and statistics != 'own'")):
        draw("surfaces", grid=grid)
        draw("surfaces_3d", grid=grid)
    values = [of[-1] for of in caught]
    half = len(values) // 2
    for found, expected in zip(values[:half], values[half:], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_lines_through_the_lattice_start_and_end_at_the_corners_they_name():
    rows = tilted_grid().query("split == 'test' and statistics != 'own'")
    nll = {"00": 1, "10": 2, "11": 12, "01": 11}
    lines = diagonals(SQUARE)
    assert list(lines) == ["00 to 11", "01 to 10"]
    for name, line in lines.items():
        shares, values = along(rows, SQUARE, line, NLL)
        assert shares.tolist() == [0, 0.25, 0.5, 0.75, 1]
        np.testing.assert_allclose(values[[0, -1]], [nll[end] for end in name.split(" to ")])
    places, values, vertices = around(rows, SQUARE, NLL)
    assert vertices == dict(enumerate([*nll, "00"]))
    np.testing.assert_allclose(
        np.interp([*vertices, 2.5], places, values), [*nll.values(), nll["00"], 11.5]
    )
    assert (np.diff(places) > 0).all()


def test_surfaces_share_one_colour_scale_and_flat_ones_get_their_own_beside_it():
    panels = contour_axes(draw("surfaces"))
    lattices = lattice_rows(grid_table().query("split == 'test'"))
    for row, measure in zip(np.array(panels).reshape(2, 5), (NLL, ACCURACY), strict=True):
        scales = [contour_sets(axes)[0].get_clim() for axes in row]
        assert len(set(scales[:3])) == 1
        for (low, high), surface in zip(scales[2:], SURFACES, strict=True):
            of_surface = lattices if surface == "linear" else lattices.query("surface == @surface")
            values = measure.values(of_surface)
            assert low <= values.min() and high >= values.max()
            assert np.ptp(measure.space([low, high])) < np.ptp(measure.space(values)) + 0.01
    titles = [axes.get_title().split("\n")[0] for axes in panels[:5]]
    assert titles[3:] == ["bezier, own scale", "trajectory, own scale"]


def test_surfaces_of_equal_range_get_no_scales_of_their_own_and_reliefs_share_one():
    alike = grid_table(heights=dict.fromkeys(SURFACES, HEIGHTS["bezier"]))
    assert len(contour_axes(draw("surfaces", grid=alike))) == 6
    assert len({axes.get_zlim() for axes in draw("surfaces_3d").axes[:3]}) == 1


def marked(axes, marker):
    """Return where the one mark of this kind stands."""
    (line,) = [line for line in axes.get_lines() if line.get_marker() == marker]
    return line.get_xdata()[0], line.get_ydata()[0]


def test_star_stands_at_the_point_chosen_on_val_and_triangle_at_the_worst_one():
    """Of those evaluated on all images: points that are worse still were seen on half of them."""
    for axes in contour_axes(draw("surfaces")):
        assert marked(axes, "*") == (0.3, 0.9)
        assert marked(axes, "v") == (0.4, 0)
    assert grid_table().query("split == 'test'").nlargest(1, "nll")["n"].item() < N


def test_profiles_show_the_corners_as_trained_and_edges_with_all_points_on_them():
    grid = grid_table()
    is_own = grid["statistics"] == "own"
    axes = draw("profiles", grid=grid.assign(nll=grid["nll"].mask(is_own, 0.7))).axes
    for panel in axes:
        assert panel.get_lines()[-1].get_ydata()[0] == pytest.approx(0.7)
    along = axes[3].get_lines()[0].get_xdata()
    assert 0.4 in along  # between points of the lattice
    assert 0.6 not in along  # on half of the images


def test_titles_say_which_statistics_the_networks_have():
    """Networks without BatchNorm are their own corners."""
    grid = grid_table()
    without = grid.query("statistics != 'own'").assign(statistics="none", statistics_images=0)
    assert "no BatchNorm" in draw("profiles", grid=without).get_suptitle()
    assert "BatchNorm re-estimated" in draw("profiles", grid=grid).get_suptitle()
    ablation = grid.replace({"statistics": {"reestimated": "interpolated"}})
    assert "BatchNorm interpolated" in draw("profiles", grid=ablation).get_suptitle()


# --- ensembles, differences, networks -------------------------------------------------------------


def curve(axes, **style):
    (line,) = (
        line
        for line in axes.get_lines()
        if all(getattr(line, f"get_{key}")() == value for key, value in style.items())
    )
    return list(line.get_xdata()), list(line.get_ydata())


@pytest.mark.parametrize(("panel", "column", "factor"), [(0, "accuracy", 100), (1, "nll", 1)])
def test_curves_go_through_points_chosen_on_val_and_the_mean_over_all_choices_of_corners(
    panel, column, factor
):
    rows = ensemble_table().query("split == 'test'").assign(shown=lambda t: factor * t[column])
    axes = draw("ensembles").axes[panel]
    members, values = curve(axes, linestyle="--", color=BLACK)
    means = rows.query("ensemble == 'corners'").groupby("forward_passes")["shown"].mean()
    assert members == [1, 2, 3, 4]
    np.testing.assert_allclose(values, means)
    members, values = curve(axes, linestyle="-", color=BLUE)
    assert members == [*range(1, 7)]
    chosen = rows.query("ensemble == 'bezier' and selection == 'validation'")
    np.testing.assert_allclose(values, chosen["shown"])


def test_corners_have_the_colour_of_the_surface_that_stands_for_them():
    looks = {
        line.get_label(): (line.get_linestyle(), line.get_color())
        for line in draw("ensembles").axes[0].get_lines()
    }
    assert looks["corners, mean over all choices"] == ("--", BLACK)
    _, colour = looks["trajectory surface, points chosen on val"]
    assert looks["corners of the trajectory surface, mean over all choices"] == ("--", colour)


def test_far_ensemble_stands_at_the_rim_as_a_number():
    axes = draw("ensembles").axes[1]
    assert [text.get_text() for text in axes.texts] == ["2.5 (off scale)"]
    low, high = axes.get_ylim()
    assert all(low <= value <= high for line in axes.get_lines()[:-1] for value in line.get_ydata())


@pytest.mark.parametrize(("panel", "metric", "factor"), [(0, "accuracy", 100), (1, "nll", 1)])
def test_each_difference_has_its_interval_on_a_line_of_its_own_with_its_name(panel, metric, factor):
    rows = difference_table().sample(frac=1, random_state=0)
    figure = draw("differences", difference=rows)
    rows, axes = rows[rows["metric"] == metric], figure.axes[panel]
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    names = dict(zip(figure.axes[0].get_yticks(), labels, strict=True))
    segments = [
        segment
        for container in axes.containers
        for bars in container.lines[2]
        for segment in bars.get_segments()
    ]
    assert len({segment[0, 1] for segment in segments}) == len(segments) == len(rows)
    drawn = {tuple(segment[:, 0].round(9)): names[segment[0, 1]] for segment in segments}
    for row in rows.itertuples():
        ends = (round(factor * row.low, 9), round(factor * row.high, 9))
        is_far = row.difference == -0.7
        assert drawn.get(ends) == (None if is_far else f"{row.surface}, {row.split}")
    numbers = [text for text in axes.texts if "off scale" in text.get_text()]
    assert len(numbers) == (rows["difference"] == -0.7).sum()


def test_the_control_is_the_first_surface_between_independent_corners_without_a_fit():
    names = {"linear": "a", "bezier": "linear", "trajectory": "c"}
    surfaces = {names[name]: surface for name, surface in SURFACES.items()}
    figure = draw(
        "differences", surfaces, difference=difference_table().replace({"surface": names})
    )
    handles = dict(zip(drawn_texts(figure)[-3:], figure.legends[0].legend_handles, strict=True))
    assert list(handles) == ["a surface (control)", "linear surface", "c surface"]
    hollow = [text for text, mark in handles.items() if mark.get_markerfacecolor() == "white"]
    assert hollow == ["a surface (control)"]


def test_a_corner_with_itself_is_a_line_and_no_pair():
    geometry = geometry_table()
    alone = geometry["a"] == geometry["b"]
    lines = draw("geometry").axes[0].get_lines()
    pairs = [line for line in lines if line.get_linestyle() == "None"]
    assert sum(len(line.get_xdata()) for line in pairs) == 3 * math.comb(4, 2)
    levels = sorted(line.get_ydata()[0] for line in lines if line not in pairs)
    means = 100 * geometry[alone].groupby("surface")["disagreement"].mean()
    np.testing.assert_allclose(levels, sorted(means))
    without_batchnorm = geometry.assign(disagreement=geometry["disagreement"].mask(alone, 0.0))
    lines = draw("geometry", geometry=without_batchnorm).axes[0].get_lines()
    assert all(line.get_linestyle() == "None" for line in lines)


# --- of all surfaces: barriers, convergence, careful selection ------------------------------------


def described(corners, kind="seeds", fit=None, shape="square", **more):
    sizes = {"square": {"degree": [1, 1], "count": 4}, "set": {"count": 4}}
    return {"corners": corners, "kind": kind, "fit": fit, "shape": shape, **sizes[shape]} | more


def test_bars_are_the_mean_barrier_of_each_surface_and_a_set_has_none():
    replicates = [
        barrier_table(dict.fromkeys(("a", "b", "deep"), (k + 1, 0.5, 0)), replicate=k)
        for k in (0, 2)
    ]
    surfaces = {"b": described("x"), "deep": described("x", shape="set"), "a": described("y")}
    grid = grid_table(3, dict.fromkeys("ab", HEIGHTS["bezier"]))
    grid.loc[(grid["surface"] == "a") & (grid["statistics"] != "own"), "statistics"] = "repaired"
    figure = draw("barriers", surfaces, barrier=pd.concat(replicates), grid=grid)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["b", "a (repaired)"]
    bars = [(bar.get_width(), round(bar.get_y())) for bar in figure.axes[0].patches]
    expected = [(SPLITS[split] * 1.5, place) for split in ("train", "test") for place in (0, 1)]
    np.testing.assert_allclose(sorted(bars), sorted(expected))
    dots = [line.get_xdata() for line in figure.axes[0].get_lines() if line.get_marker() == "."]
    assert sorted(set(np.concatenate(dots))) == [0.075, 0.375, 0.5, 2.5]
    assert "replicates 0, 2" in figure.get_suptitle()


def test_small_and_negative_barriers_stay_visible_beside_large_ones():
    heights = {"linear": (3.0, 0.5, 0), "bezier": (0.52, 0.5, 0), "trajectory": (0.49, 0.5, 0)}
    axes = draw("barriers", barrier=barrier_table(heights)).axes[0]
    lengths = {
        round(bar.get_width(), 6): np.ptp(axes.transData.transform(bar.get_bbox())[:, 0])
        for bar in axes.patches
    }
    assert lengths[0.02] > 0.1 * lengths[2.5] and lengths[-0.01] > 0.1 * lengths[2.5]
    rising = [lengths[barrier] for barrier in sorted(lengths) if barrier > 0]
    assert rising == sorted(set(rising))


@pytest.mark.parametrize(
    ("excess", "text"),
    [
        ((0.3, 0.2, -0.2), "100k / 100k"),  # halfway between 10k and 1,000k in their logarithm
        ((0.3, 0.0, -0.2), "10k / 10k"),
        ((-0.1, -0.2, -0.3), "< 1k / < 1k"),
        ((0.3, 0.2, 0.1), "> 1,000k / > 1,000k"),
    ],
)
def test_convergence_says_at_how_many_images_a_family_reaches_its_corners(excess, text):
    images = {"long": 1_000_000, "short": 1_000, "middle": 10_000, "other": 10_000}
    names = ["short", "middle", "long"]
    surfaces = {name: described("x", fit=name, fit_of="short") for name in names}
    surfaces |= {"other": described("x", fit="other", fit_of="short")}
    surfaces |= {"scratch": described("y", "untrained", fit="short")}
    rows = barrier_table(dict.fromkeys(surfaces, (5.0, 1 / SPLITS["val"], 0)))  # corners on val: 1
    loss = rows["surface"].map(dict(zip(names, 1.1 + np.array(excess), strict=True))).fillna(3.0)
    rows = rows.assign(max=loss, mean=loss)
    figure = draw("convergence", surfaces, barrier=rows, cost=cost_table(**images, scratch=1000))
    legend = [label.get_text() for label in figure.legends[0].get_texts()]
    assert legend[:2] == [
        f"x, square, degree [1, 1], fit short: {text}",
        "y, square, degree [1, 1], fit short: - / -",
    ]
    joined = figure.axes[0].get_lines()[0]
    assert list(joined.get_xdata()) == [1_000, 10_000, 1_000_000]
    np.testing.assert_allclose(joined.get_ydata(), 1.1 + np.array(excess))
    assert sorted(text.get_text() for text in figure.axes[1].texts) == sorted(surfaces)


@pytest.mark.parametrize(
    ("shifts", "text"),
    [
        ((0.0, 0.0), "100k [100k, 100k]"),
        ((0.0, 0.4), "> 316k"),  # of 100k and more than 1,000k
        ((-1.0, 0.4), "< 1k to > 1,000k"),
    ],
)
def test_convergence_of_several_replicates_is_their_mean_with_a_pale_line_for_each(shifts, text):
    images = {"short": 1_000, "middle": 10_000, "long": 1_000_000}
    surfaces = {name: described("x", fit=name, fit_of="short") for name in images}
    excess = np.array([0.3, 0.2, -0.2])
    rows, cost = [], []
    for replicate, shift in enumerate(shifts):
        of = barrier_table(dict.fromkeys(images, (5.0, 1 / SPLITS["val"], 0)), replicate=replicate)
        loss = of["surface"].map(dict(zip(images, 1.1 + excess + shift, strict=True)))
        rows.append(of.assign(max=loss, mean=loss))
        cost.append(cost_table(**images).assign(replicate=replicate))
    figure = draw("convergence", surfaces, barrier=pd.concat(rows), cost=pd.concat(cost))
    label = figure.legends[0].get_texts()[0].get_text()
    assert label == f"x, square, degree [1, 1], fit short: {text} / {text}"
    joined, marked, *pale = figure.axes[0].get_lines()[:4]
    for line in (joined, marked):
        np.testing.assert_allclose(line.get_ydata(), 1.1 + excess + np.mean(shifts))
    for line, shift in zip(pale, shifts, strict=True):
        assert line.get_alpha() < 1
        np.testing.assert_allclose(line.get_ydata(), 1.1 + excess + shift)
    assert "replicates 0, 1" in figure.get_suptitle()
    assert len(figure.axes[0].texts) == 3  # a name for each surface, not for each replicate


def test_careful_marks_squares_without_a_fit_and_hollow_those_fitted_on_untrained_corners():
    surfaces = {
        "linear": described("independent"),
        "bezier": described("independent", fit="standard"),
        "trajectory": described("trajectory", "run"),
    }
    axes = draw("careful", surfaces).axes
    barrier = barrier_table().query("split == 'val' and metric == 'nll'").set_index("surface")
    pairs = geometry_table().query("a != b and surface != 'bezier'")
    means = pairs.groupby("surface")[["relative_l2", "disagreement"]].mean()
    for panel, column, factor in ((axes[0], "relative_l2", 1), (axes[1], "disagreement", 100)):
        marks = [line for line in panel.get_lines() if line.get_linestyle() == "None"]
        found = sorted((line.get_xdata()[0], line.get_ydata()[0]) for line in marks)
        expected = zip(factor * means[column], barrier.loc[means.index, "barrier"], strict=True)
        np.testing.assert_allclose(found, sorted(expected))
        assert sorted(text.get_text() for text in panel.texts) == ["linear", "trajectory"]
    surfaces["bezier"] |= {"kind": "untrained"}
    marks = [line for line in draw("careful", surfaces).axes[0].get_lines() if line.get_marker()]
    hollow = [line.get_label() for line in marks if line.get_markerfacecolor() == "white"]
    assert hollow == ["untrained, fitted"]


def test_names_of_marks_lie_inside_and_cover_neither_marks_nor_each_other():
    random = np.random.default_rng(0)
    near, far = random.normal(0.5, 0.02, (8, 2)), random.uniform(0, 1, (14, 2))
    marks = pd.DataFrame(np.concatenate([near, far]), columns=["x", "y"])
    marks["name"] = [f"surface-{k}" for k in range(len(marks))]
    figure = Figure((5, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(marks["x"], marks["y"], "o", markersize=4)
    label_marks(figure, {axes: marks})
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in axes.texts]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert not any(
        box.contains(*at) for box in boxes for at in axes.transData.transform(marks[["x", "y"]])
    )
    assert all(axes.bbox.contains(*corner) for box in boxes for corner in box.corners())


@pytest.mark.parametrize(("line", "metric", "sign"), [(0, "nll", 1), (1, "accuracy", -1)])
@pytest.mark.parametrize(("column", "cost"), [(0, "images_backward"), (1, "forward_passes")])
def test_names_stand_at_the_methods_that_none_of_the_same_or_less_cost_matches(
    line, metric, sign, column, cost
):
    rows = rival_table().query("split == 'test'")
    is_beaten = [
        ((rows[cost] <= row[cost]) & (sign * rows[metric] < sign * row[metric])).any()
        for _, row in rows.iterrows()
    ]
    texts = [text.get_text() for text in draw("rivals").axes[2 * line + column].texts]
    assert sorted(texts) == sorted(rows["method"][~np.array(is_beaten)])


def test_the_same_network_under_another_name_has_no_name_of_its_own():
    surfaces = SURFACES | {"aligned": described("moved", "aligned", origin="independent")}
    rival = rival_table(surfaces)
    is_same = rival["method"].isin(["moved/network", "moved/mean", "moved/ensemble-4"])
    assert is_same.sum() == 3 * rival["split"].nunique()
    rival.loc[is_same, ["nll", "accuracy"]] = 0.001, 0.999
    drawn = [plot.plot_rivals(one, surfaces) for one in (rival, rival[~is_same])]
    names = [[text.get_text() for axes in one.axes for text in axes.texts] for one in drawn]
    assert "independent/ensemble-4" in names[0]
    assert names[0] == names[1]
    of_others = {"aligned": described("moved", "aligned", origin="of no surface")}
    alone = plot.plot_rivals(rival, SURFACES | of_others)
    assert "moved/network" in [text.get_text() for axes in alone.axes for text in axes.texts]
    fitted = {"aligned": described("moved", "aligned", "standard", origin="independent")}
    fitted = SURFACES | fitted  # no linear one
    texts = [
        text.get_text() for axes in plot.plot_rivals(rival, fitted).axes for text in axes.texts
    ]
    assert "moved/mean" in texts


# --- scales and styles ----------------------------------------------------------------------------


def test_colours_and_markers_follow_from_the_place_of_a_surface():
    names = [f"s{k}" for k in range(20)]
    styles = [surface_style(name, names) for name in names]
    assert styles[:3] == [(VERMILLION, "o"), (BLUE, "s"), (GREEN, "^")]
    assert len(set(styles)) == len(names)


@pytest.mark.parametrize("measure", [NLL, ACCURACY])
def test_spacing_rises_and_is_undone_by_its_inverse(measure):
    values = np.array([0.01, 0.2, 5.0, 50.0, 97.0, 100.0])
    places = measure.space(values)
    assert (np.diff(places) > 0).all()
    np.testing.assert_allclose(measure.unspace(places), values, rtol=1e-9)


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.101), (0.1, 5.0), (1e-4, 99.0), (96.2, 97.8)])
@pytest.mark.parametrize("measure", [NLL, ACCURACY])
def test_ticks_lie_inside_and_are_few(measure, low, high):
    ticks = measure.ticks(low, high, 6)
    assert 1 <= len(ticks) <= 6
    assert low <= ticks.min() and ticks.max() <= high
