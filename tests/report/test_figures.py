"""Laws of the figures: orientation, shared scales, equal bytes, clear refusals."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d import Axes3D

from fourfold.errors import InputError
from fourfold.files.table import make_table
from fourfold.report import figures as plot
from fourfold.report.figures._lattice import diagonals, lattice, perimeter
from fourfold.report.figures._measure import ACCURACY, NLL
from fourfold.report.figures._style import BLACK, BLUE, GREEN, VERMILLION, surface_style
from fourfold.surfaces.points import lattice_rows

# Highest nll inside, the corners' nll, and the slope along u that makes every surface asymmetric.
SURFACES = {"linear": (3.1, 0.10, 0.03), "bezier": (0.13, 0.10, 0.03), "trajectory": (0.1, 0.11, 0)}
DESCRIBED = {
    "linear": {"corners": "independent", "kind": "seeds", "fit": None},
    "bezier": {"corners": "independent", "kind": "seeds", "fit": "standard"},
    "trajectory": {"corners": "end-of-run", "kind": "run", "fit": None},
}
SPLITS = {"train": 0.15, "val": 1.1, "test": 1.0}
N = 360


def table(name: str, rows: list[dict]) -> pd.DataFrame:
    return make_table(name, rows, experiment="digits-vgg16", replicate=0)


def scores(nll: float, n: int = N) -> dict:
    accuracy = 0.1 + 0.9 * math.exp(-0.4 * nll)
    return {"n": n, "nll": nll, "accuracy": accuracy, "ece": 0.3 * nll, "brier": 0.5 * nll}


def grid_table(points: int = 5, surfaces: dict = SURFACES) -> pd.DataFrame:
    """A lattice, its corners with their own statistics, and points searched on half of the images.

    The worst point of the edges is known on all images; it is worse than all of the lattice.
    """
    axis = np.linspace(0, 1, points)
    lattice_points = [("grid", u, v, "reestimated", N) for u, v in itertools.product(axis, axis)]
    own = [("grid", u, v, "own", N) for u, v in itertools.product((0.0, 1.0), repeat=2)]
    further = [("edge", 0.4, 0.0, "reestimated", N), ("edge", 0.6, 0.0, "reestimated", N // 2)]
    further += [("random", 0.61, 0.41, "reestimated", N // 2)]
    rows = []
    for surface, (inside, corner, slope) in surfaces.items():
        for (split, factor), (sample, u, v, statistics, n) in itertools.product(
            SPLITS.items(), lattice_points + own + further
        ):
            nll = corner + slope * u * (1 + v)
            nll += (inside - corner) * 2 * (u * (1 - u) + v * (1 - v))
            if sample != "grid":
                nll = 1.1 * max(inside, corner + 2 * slope) * (2 if n < N else 1)
            if statistics == "own":
                nll *= 0.95
            rows.append(
                {"surface": surface, "sample": sample, "u": u, "v": v, "split": split}
                | {"statistics": statistics, "statistics_images": 0 if statistics == "own" else 100}
                | scores(factor * nll, n)
            )
    return table("grid", rows)


def merge_table() -> pd.DataFrame:
    methods = []
    for surface, (inside, corner, _) in SURFACES.items():
        best = min(inside, corner)
        if surface != "bezier":
            methods += [
                ("best-corner", surface, 1, 0, "val", corner, "own"),
                ("uniform-soup", surface, 0.5, 0.5, "none", inside, "reestimated"),
                ("greedy-soup", surface, None, None, "val", corner, "own"),
            ]
        methods += [
            ("center", surface, 0.5, 0.5, "none", inside, "reestimated"),
            ("best-point", surface, 0.3, 0.9, "val", best * 0.97, "reestimated"),
            ("oracle", surface, 0.2, 0.8, "test", best * 0.93, "reestimated"),
        ]
    return table(
        "merge",
        [
            {"merge": m, "surface": s, "u": u, "v": v, "selected_on": on, "split": split}
            | {"corners": DESCRIBED[s]["corners"], "statistics": statistics}
            | scores(factor * nll)
            for (m, s, u, v, on, nll, statistics), (split, factor) in itertools.product(
                methods, SPLITS.items()
            )
        ],
    )


def ensemble_table() -> pd.DataFrame:
    methods = []
    for name, gain in (("corners", 0.03), ("end-of-run-corners", 0.01)):
        for size in range(1, 5):
            for members in itertools.combinations(range(4), size):
                nll = 0.11 - gain * (1 - 1 / size) + 0.004 * np.mean(members)
                methods.append((name, "subset" if size < 4 else "fixed", size, nll, "own"))
    for surface, nll in (("linear", 0.08), ("bezier", 0.082), ("trajectory", 0.1)):
        methods += [
            (surface, "fixed", 4, 2.5 if surface == "linear" else nll, "reestimated"),
            *((surface, "validation", k, nll * (1 + 0.2 / k), "reestimated") for k in range(1, 7)),
            (surface, "oracle", 4, nll * 0.93, "reestimated"),
            (surface, "all", 117, nll * 1.04, "reestimated"),
        ]
    return table(
        "ensemble",
        [
            {"ensemble": e, "selection": s, "members": "0,0;0,1", "split": split}
            | {
                "corners": corners_of(e),
                "statistics": statistics,
                "disagreement": 0.02,
                "forward_passes": passes,
            }
            | scores(factor * nll)
            for (e, s, passes, nll, statistics), (split, factor) in itertools.product(
                methods, SPLITS.items()
            )
        ],
    )


def corners_of(ensemble: str) -> str:
    named = {"corners": "independent", "end-of-run-corners": "end-of-run"}
    return named.get(ensemble) or DESCRIBED[ensemble]["corners"]


def difference_table() -> pd.DataFrame:
    random = np.random.default_rng(0)
    comparisons = [("low-loss", split) for split in SPLITS]
    comparisons += [("merge", "test"), ("ensemble", "test")]
    rows = []
    for surface, (comparison, split), metric in itertools.product(
        SURFACES, comparisons, ("accuracy", "nll")
    ):
        failed = surface == "linear" and comparison == "low-loss"
        difference = -0.7 if failed else random.normal(0, 0.02)
        rows.append(
            {"comparison": comparison, "surface": surface, "split": split, "n": N, "metric": metric}
            | {"value": 0.9 + difference, "reference": 0.9, "difference": difference}
            | {"low": difference - 0.01, "high": difference + 0.015, "draws": [difference]}
        )
    return table("difference", rows)


def training_table() -> pd.DataFrame:
    runs = [("endpoint", f"seed{seed}", 20, seed) for seed in range(4)] + [("fit", "bezier", 30, 9)]
    rows = []
    for stage, item, epochs, seed in runs:
        noise = np.random.default_rng(seed).normal(0, 0.05, (epochs, 2))
        for epoch, (split, floor) in itertools.product(
            range(epochs), (("train", 0.01), ("val", 0.1))
        ):
            nll = (floor + 2.2 * np.exp(-epoch / 3)) * (1 + noise[epoch, int(split == "val")])
            accuracy = max(0.1, 1 - 0.3 * nll)
            rows.append(
                {"stage": stage, "item": item, "epoch": epoch + 1, "step": 19 * (epoch + 1)}
                | {"split": split, "nll": nll, "accuracy": accuracy, "learning_rate": 0.1}
                | {"images_seen": 1200 * (epoch + 1), "wall_s": 1.0}
            )
    return table("training", rows)


def geometry_table() -> pd.DataFrame:
    corners = {"corner_00": (0, 0), "corner_01": (0, 1), "corner_10": (1, 0), "corner_11": (1, 1)}
    others = {"P_01": (0, 0.5), "P_10": (0.5, 0), "P_11": (0.5, 0.5), "P_12": (0.5, 1)}
    random = np.random.default_rng(0)
    rows = []
    for surface in SURFACES:
        names = corners | (others if surface == "bezier" else {})
        for a, b in itertools.combinations(names, 2):
            both = a in corners and b in corners
            distance = np.hypot(*np.subtract(names[a], names[b]))
            relative = 0.1 * distance if surface == "trajectory" else 1.0 + 0.02 * distance
            if not both:
                relative = 0.7 + 0.3 * distance
            rows.append(
                {"surface": surface, "a": a, "b": b, "l2": 37 * relative, "relative_l2": relative}
                | {"cosine": 0.1, "disagreement": 0.04 * relative + 0.005 * random.random()}
            )
            if not both:
                rows[-1]["disagreement"] = None
        scatter = 0.004 if surface == "trajectory" else 0.006
        rows += [
            {"surface": surface, "a": name, "b": name, "l2": 0.0, "relative_l2": 0.0}
            | {"cosine": 1.0, "disagreement": scatter * (1 + 0.1 * place)}
            for place, name in enumerate(corners)
        ]
    return table("geometry", rows)


def summary_table(experiments: int = 3, replicates: int = 1) -> pd.DataFrame:
    surfaces = {
        "linear": (0.12, 0.60, 0.12, 0.975),
        "bezier": (0.958, 0.974, 0.970, 0.975),
        "trajectory": (0.965, 0.972, 0.978, 0.971),
    }
    names = ["accuracy_min", "accuracy_mean", "accuracy_center", "accuracy_corner_mean_own"]
    frames = []
    for index in range(experiments):
        rows = [
            {"kind": "surface", "method": surface, "metric": metric, "mean": value - 0.02 * index}
            for surface, values in surfaces.items()
            for metric, value in zip(names, values, strict=True)
        ] + [{"kind": "ensemble", "method": "corners", "metric": "accuracy", "mean": 0.98}]
        for row in rows:
            spread = 0.004 if replicates > 1 else None
            row |= {"low": spread and row["mean"] - spread, "high": spread and row["mean"] + spread}
            row |= {"n": N, "replicates": replicates, "text": None}
        experiment = ("digits-vgg16", "digits-resnet18", "digits-vit")[index % 3]
        frames.append(make_table("summary", rows, experiment=experiment, replicate=-1))
    return pd.concat(frames, ignore_index=True)


FIGURES = {
    "surfaces": lambda of=DESCRIBED: plot.plot_surfaces(grid_table(), merge_table(), of),
    "surfaces_3d": lambda of=DESCRIBED: plot.plot_surfaces_3d(grid_table(), of),
    "profiles": lambda of=DESCRIBED: plot.plot_profiles(grid_table(), of),
    "ensembles": lambda of=DESCRIBED: plot.plot_ensembles(ensemble_table(), of),
    "merges": lambda of=DESCRIBED: plot.plot_merges(merge_table(), of),
    "differences": lambda of=DESCRIBED: plot.plot_differences(difference_table(), of),
    "training": lambda of=DESCRIBED: plot.plot_training(training_table(), of),
    "geometry": lambda of=DESCRIBED: plot.plot_geometry(geometry_table(), of),
    "summary": lambda of=DESCRIBED: plot.plot_summary(summary_table(4, 3), of),
}


def tilted_grid(points: int = 5) -> pd.DataFrame:
    """One surface whose nll is 1 + u + 10 v: no symmetry of the square leaves it unchanged."""
    grid = grid_table(points, {"bezier": SURFACES["bezier"]})
    return grid.assign(nll=1 + grid["u"] + 10 * grid["v"])


def without_center(grid: pd.DataFrame) -> pd.DataFrame:
    return grid[(grid["u"] != 0.5) | (grid["v"] != 0.5)]


def contour_axes(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if contour_sets(axes)]


def contour_sets(axes: Axes) -> list[QuadContourSet]:
    return [artist for artist in axes.collections if isinstance(artist, QuadContourSet)]


@pytest.mark.parametrize("name", FIGURES)
def test_same_tables_give_the_same_bytes(name, tmp_path):
    for run in ("first", "second"):
        plot.save_figure(FIGURES[name](), tmp_path / run / name)
    for suffix in ("png", "svg"):
        first, second = (tmp_path / run / f"{name}.{suffix}" for run in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()
    assert len(list(tmp_path.rglob("*.*"))) == 4  # nothing unfinished is left


def test_u_runs_to_the_right_and_v_upwards(monkeypatch):
    drawn = {}
    contourf, plot_surface = Axes.contourf, Axes3D.plot_surface

    def catch_contourf(axes, *args, **kwargs):
        drawn.setdefault("flat", (axes, *args))
        return contourf(axes, *args, **kwargs)

    def catch_plot_surface(axes, *args, **kwargs):
        drawn.setdefault("relief", (axes, *args))
        return plot_surface(axes, *args, **kwargs)

    monkeypatch.setattr(Axes, "contourf", catch_contourf)
    monkeypatch.setattr(Axes3D, "plot_surface", catch_plot_surface)
    # The order of the rows of a table says nothing.
    grid = tilted_grid().sample(frac=1, random_state=0)
    plot.plot_surfaces(grid, merge_table(), DESCRIBED)
    plot.plot_surfaces_3d(grid, DESCRIBED)

    axes, x, y, values = drawn["flat"]
    np.testing.assert_allclose(values, 1 + x[None, :] + 10 * y[:, None])
    assert (axes.figure.axes[1].get_xlabel(), axes.get_ylabel()) == ("u", "v")
    assert not axes.xaxis_inverted() and not axes.yaxis_inverted()
    axes, x, y, values = drawn["relief"]
    np.testing.assert_allclose(values, 1 + x + 10 * y)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("u", "v")


def test_lines_through_the_lattice_start_and_end_at_the_corners_they_name():
    rows = tilted_grid().query("split == 'test' and statistics != 'own'")
    nll = {"00": 1, "10": 2, "11": 12, "01": 11}
    rising, falling = diagonals(lattice(lattice_rows(rows), "bezier", NLL)[1])
    np.testing.assert_allclose(rising[[0, -1]], [nll["00"], nll["11"]])
    np.testing.assert_allclose(falling[[0, -1]], [nll["01"], nll["10"]])
    along, around = perimeter(rows, "bezier", NLL)
    np.testing.assert_allclose(
        np.interp([0, 1, 2, 3, 4, 2.5], along, around), [*nll.values(), nll["00"], 11.5]
    )
    assert 0.4 in along  # between points of the lattice
    assert (np.diff(along) > 0).all()


def test_colour_and_height_are_of_the_lattice_alone(monkeypatch):
    drawn = []
    for kind, method in ((Axes, "contourf"), (Axes3D, "plot_surface")):
        original = getattr(kind, method)

        def catch(axes, x, y, values, *args, original=original, **kwargs):
            drawn.append(values)
            return original(axes, x, y, values, *args, **kwargs)

        monkeypatch.setattr(kind, method, catch)

    def draw(grid: pd.DataFrame) -> list:
        drawn.clear()
        plot.plot_surfaces(grid, merge_table(), DESCRIBED)
        plot.plot_surfaces_3d(grid, DESCRIBED)
        return list(drawn)

    grid = grid_table()
    only_lattice = grid.query("sample == 'grid' and statistics != 'own'")
    for values, expected in zip(draw(grid), draw(only_lattice), strict=True):
        np.testing.assert_array_equal(values, expected)


def test_surfaces_share_one_colour_scale_and_flat_ones_get_their_own_beside_it():
    figure = plot.plot_surfaces(grid_table(), merge_table(), DESCRIBED)
    panels = contour_axes(figure)
    lattices = lattice_rows(grid_table().query("split == 'test'"))
    for row, measure in zip(np.array(panels).reshape(2, 5), (NLL, ACCURACY), strict=True):
        scales = [contour_sets(axes)[0].get_clim() for axes in row]
        assert len(set(scales[:3])) == 1
        for (low, high), surface in zip(
            scales[2:], ["linear", "bezier", "trajectory"], strict=True
        ):
            of_surface = lattices if surface == "linear" else lattices.query("surface == @surface")
            values = measure.values(of_surface)
            assert low <= values.min() and high >= values.max()
            assert np.ptp(measure.space([low, high])) < np.ptp(measure.space(values)) + 0.01
    titles = [axes.get_title().split("\n")[0] for axes in panels[:5]]
    assert titles[3:] == ["bezier, own scale", "trajectory, own scale"]


def test_surfaces_of_equal_range_get_no_scales_of_their_own():
    alike = grid_table(surfaces=dict.fromkeys(SURFACES, SURFACES["bezier"]))
    assert len(contour_axes(plot.plot_surfaces(alike, merge_table(), DESCRIBED))) == 6


def test_reliefs_share_one_height_scale():
    panels = plot.plot_surfaces_3d(grid_table(), DESCRIBED).axes[:3]
    assert len({axes.get_zlim() for axes in panels}) == 1


def test_star_stands_at_the_point_chosen_on_val():
    axes = plot.plot_surfaces(grid_table(), merge_table(), DESCRIBED).axes[0]
    assert marked(axes, "*") == (0.3, 0.9)


def test_triangle_stands_at_the_worst_point_evaluated_on_all_images():
    for axes in contour_axes(plot.plot_surfaces(grid_table(), merge_table(), DESCRIBED)):
        assert marked(axes, "v") == (0.4, 0)
    # The points of the table that are worse still were seen on half of the images.
    worst = grid_table().query("split == 'test'").nlargest(1, "nll")
    assert worst["n"].item() < N


def test_band_of_a_profile_is_that_of_the_corners_as_trained():
    grid = grid_table()
    is_own = grid["statistics"] == "own"
    figure = plot.plot_profiles(grid.assign(nll=grid["nll"].mask(is_own, 0.7)), DESCRIBED)
    for axes in figure.axes:
        assert [line.get_ydata()[0] for line in axes.get_lines()][-1] == pytest.approx(0.7)


def test_edges_of_a_profile_go_through_all_their_points():
    bottom = plot.plot_profiles(grid_table(), DESCRIBED).axes[3]
    solid = bottom.get_lines()[0]
    assert 0.4 in solid.get_xdata()
    assert 0.6 not in solid.get_xdata()  # on half of the images


def test_networks_without_batchnorm_are_their_own_corners():
    grid = grid_table().query("statistics != 'own'").assign(statistics="none", statistics_images=0)
    assert "no BatchNorm" in plot.plot_profiles(grid, DESCRIBED).get_suptitle()


def curve(axes: Axes, **style: str) -> tuple[list, list]:
    line = next(
        line
        for line in axes.get_lines()
        if all(getattr(line, f"get_{key}")() == value for key, value in style.items())
    )
    return list(line.get_xdata()), list(line.get_ydata())


def test_curve_of_the_corners_goes_through_the_mean_over_all_choices():
    ensemble = ensemble_table()
    corners = ensemble.query("ensemble == 'corners' and split == 'test'")
    accuracy, nll = plot.plot_ensembles(ensemble, DESCRIBED).axes
    for axes, column, factor in ((accuracy, "accuracy", 100), (nll, "nll", 1)):
        members, values = curve(axes, linestyle="--", color="#000000")
        assert members == [1, 2, 3, 4]
        for size, value in zip(members, values, strict=True):
            of_size = corners.loc[corners["forward_passes"] == size, column]
            assert value == pytest.approx(factor * of_size.sum() / math.comb(4, size))


def test_curve_of_a_surface_has_one_value_per_number_of_members():
    ensemble = ensemble_table()
    chosen = ensemble.query("ensemble == 'bezier' and selection == 'validation'")
    members, values = curve(
        plot.plot_ensembles(ensemble, DESCRIBED).axes[1], linestyle="-", color=BLUE
    )
    assert members == list(range(1, 7))
    np.testing.assert_allclose(values, chosen.query("split == 'test'")["nll"])


def test_far_ensemble_stands_at_the_rim_as_a_number():
    axes = plot.plot_ensembles(ensemble_table(), DESCRIBED).axes[1]
    assert [text.get_text() for text in axes.texts] == ["2.5 (off scale)"]
    low, high = axes.get_ylim()
    assert all(low <= value <= high for line in axes.get_lines()[:-1] for value in line.get_ydata())


def intervals(axes: Axes) -> list[np.ndarray]:
    """Return the ends of each interval of a panel."""
    return [
        segment
        for container in axes.containers
        for bars in container.lines[2]
        for segment in bars.get_segments()
    ]


def test_each_difference_has_its_interval_on_a_line_of_its_own():
    table = difference_table()
    for metric, factor, axes in zip(
        ("accuracy", "nll"), (100, 1), plot.plot_differences(table, DESCRIBED).axes, strict=True
    ):
        rows = table[table["metric"] == metric]
        drawn = intervals(axes)
        assert len({segment[0, 1] for segment in drawn}) == len(drawn) == len(rows)
        ends = {tuple(np.round(segment[:, 0], 9)) for segment in drawn}
        for _, row in rows.iterrows():
            is_far = row["difference"] == -0.7
            interval = tuple(np.round([factor * row["low"], factor * row["high"]], 9))
            assert (interval in ends) != is_far
        numbers = [text for text in axes.texts if "off scale" in text.get_text()]
        assert len(numbers) == (rows["difference"] == -0.7).sum()


def test_lines_of_differences_bear_the_names_of_their_rows():
    table = difference_table().sample(frac=1, random_state=0)
    axes = plot.plot_differences(table, DESCRIBED).axes[0]
    labels = [text.get_text() for text in axes.get_yticklabels()]
    names = dict(zip(axes.get_yticks(), labels, strict=True))
    row = table.query("surface == 'bezier' and comparison == 'low-loss' and metric == 'accuracy'")
    for _, one in row.iterrows():
        place = next(
            segment[0, 1]
            for segment in intervals(axes)
            if segment[0, 0] == pytest.approx(100 * one["low"])
        )
        assert names[place] == f"bezier, {one['split']}"


def test_a_corner_with_itself_is_a_line_and_no_pair():
    geometry = geometry_table()
    alone = geometry["a"] == geometry["b"]
    top = plot.plot_geometry(geometry, DESCRIBED).axes[0]
    pairs = [line for line in top.get_lines() if line.get_linestyle() == "None"]
    assert sum(len(line.get_xdata()) for line in pairs) == 3 * math.comb(4, 2)
    levels = sorted(line.get_ydata()[0] for line in top.get_lines() if line not in pairs)
    means = 100 * geometry[alone].groupby("surface")["disagreement"].mean()
    np.testing.assert_allclose(levels, sorted(means))
    without_batchnorm = geometry.assign(disagreement=geometry["disagreement"].mask(alone, 0.0))
    lines = plot.plot_geometry(without_batchnorm, DESCRIBED).axes[0].get_lines()
    assert all(line.get_linestyle() == "None" for line in lines)


def marked(axes: Axes, marker: str) -> tuple[float, float]:
    """Return where the one mark of this kind stands."""
    (line,) = [line for line in axes.get_lines() if line.get_marker() == marker]
    return line.get_xdata()[0], line.get_ydata()[0]


@pytest.mark.parametrize("draw", ["ensembles", "merges"])
def test_only_what_was_chosen_on_test_is_hollow(draw):
    legend = FIGURES[draw]().legends[0]
    hollow = {
        text.get_text(): handle.get_markerfacecolor() == "white"
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
        if handle.get_marker() != "None"
    }
    assert hollow
    assert all(is_hollow == ("on test" in text) for text, is_hollow in hollow.items())


def test_reestimated_statistics_are_drawn_where_interpolated_ones_are_in_the_table_too():
    ablation = tilted_grid().replace({"statistics": {"reestimated": "interpolated"}})
    for draw in (plot.plot_surfaces_3d, plot.plot_profiles):
        both = draw(pd.concat([ablation, tilted_grid()]), DESCRIBED)
        assert "BatchNorm re-estimated" in both.get_suptitle()
        assert "BatchNorm interpolated" in draw(ablation, DESCRIBED).get_suptitle()


def test_equal_values_everywhere_can_be_drawn(tmp_path):
    grid = grid_table(3).assign(nll=0.0, accuracy=1.0)
    plot.save_figure(plot.plot_surfaces(grid, merge_table(), DESCRIBED), tmp_path / "surfaces")
    plot.save_figure(plot.plot_surfaces_3d(grid, DESCRIBED), tmp_path / "surfaces_3d")
    plot.save_figure(plot.plot_profiles(grid, DESCRIBED), tmp_path / "profiles")


def test_networks_without_numbers_are_gaps(tmp_path):
    metrics = ["nll", "accuracy"]
    grid, merge, ensemble = grid_table(), merge_table(), ensemble_table()
    is_broken = (grid["surface"] == "linear") & (grid["u"] == 0.5)
    grid.loc[is_broken, metrics] = float("nan")
    merge.loc[(merge["surface"] == "linear") & (merge["u"] == 0.5), metrics] = float("nan")
    ensemble.loc[ensemble["selection"] == "all", metrics] = float("nan")
    difference = difference_table()
    is_worst = (difference["surface"] == "linear") & (difference["comparison"] == "low-loss")
    difference.loc[is_worst, ["difference", "low", "high"]] = float("nan")
    figures = [
        plot.plot_surfaces(grid, merge, DESCRIBED),
        plot.plot_surfaces_3d(grid, DESCRIBED),
        plot.plot_profiles(grid, DESCRIBED),
        plot.plot_merges(merge, DESCRIBED),
        plot.plot_ensembles(ensemble, DESCRIBED),
        plot.plot_differences(difference, DESCRIBED),
    ]
    for number, figure in enumerate(figures):
        plot.save_figure(figure, tmp_path / f"{number}.png")
    titles = [axes.get_title() for axes in figures[0].axes]
    assert sum("NaN" in title for title in titles) >= 2


def test_a_single_split_can_be_drawn():
    grid = grid_table(3).query("split == 'test'")
    plot.plot_profiles(grid, DESCRIBED).draw_without_rendering()
    plot.plot_surfaces(grid, merge_table(), DESCRIBED).draw_without_rendering()


def drawn_texts(figure: Figure) -> list[str]:
    """Return titles, tick labels and legend of a figure in their order."""
    labels = [text for axes in figure.axes for text in (axes.title, *axes.get_yticklabels())]
    labels += [text for legend in figure.legends for text in legend.get_texts()]
    return [text.get_text() for text in labels]


@pytest.mark.parametrize("name", sorted(set(FIGURES) - {"training"}))
def test_surfaces_stand_in_their_order(name):
    """Of each text that names a surface the first one comes earlier than that of a later one."""
    for surfaces in (DESCRIBED, dict(reversed(DESCRIBED.items()))):
        texts = drawn_texts(FIGURES[name](surfaces))
        first = [next(i for i, t in enumerate(texts) if surface in t) for surface in surfaces]
        assert first == sorted(first)


def only(frame: pd.DataFrame, column: str, names: list[str]) -> pd.DataFrame:
    return frame[frame[column].isin(names)]


@pytest.mark.parametrize("surface", DESCRIBED)
def test_one_surface_can_be_drawn(surface):
    described = {surface: DESCRIBED[surface]}
    ensembles = [surface, "end-of-run-corners" if surface == "trajectory" else "corners"]
    grid, merge = (only(t, "surface", [surface]) for t in (grid_table(3), merge_table()))
    training = only(training_table(), "item", [surface, "seed0"])
    figures = [
        plot.plot_surfaces(grid, merge, described),
        plot.plot_surfaces_3d(grid, described),
        plot.plot_profiles(grid, described),
        plot.plot_ensembles(only(ensemble_table(), "ensemble", ensembles), described),
        plot.plot_merges(merge, described),
        plot.plot_differences(only(difference_table(), "surface", [surface]), described),
        plot.plot_training(training, described),
        plot.plot_geometry(only(geometry_table(), "surface", [surface]), described),
        plot.plot_summary(only(summary_table(), "method", [surface]), described),
    ]
    assert len(figures) == len(FIGURES)
    for figure in figures:
        figure.draw_without_rendering()


def test_the_control_is_the_first_surface_between_independent_corners_without_a_fit():
    names = {"linear": "a", "bezier": "linear", "trajectory": "c"}
    described = {names[name]: surface for name, surface in DESCRIBED.items()}
    figure = plot.plot_differences(difference_table().replace({"surface": names}), described)
    handles = dict(zip(drawn_texts(figure)[-3:], figure.legends[0].legend_handles, strict=True))
    assert list(handles) == ["a surface (control)", "linear surface", "c surface"]
    hollow = [text for text, mark in handles.items() if mark.get_markerfacecolor() == "white"]
    assert hollow == ["a surface (control)"]


def test_corners_have_the_colour_of_the_surface_that_stands_for_them():
    styles = {
        line.get_label(): (line.get_linestyle(), line.get_color())
        for line in plot.plot_ensembles(ensemble_table(), DESCRIBED).axes[0].get_lines()
    }
    assert styles["corners, mean over all choices"] == ("--", BLACK)
    of_run = "corners of the trajectory surface, mean over all choices"
    points = "trajectory surface, points chosen on val"
    assert styles[of_run] == ("--", styles[points][1])


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


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (
            lambda: plot.plot_profiles(grid_table(), DESCRIBED, split="tset"),
            "'tset'; it has .*'train'",
        ),
        (
            lambda: plot.plot_ensembles(ensemble_table().head(0), DESCRIBED),
            "'ensemble' has no rows",
        ),
        (
            lambda: plot.plot_surfaces_3d(without_center(tilted_grid()), DESCRIBED),
            "24 grid points on 5 coord",
        ),
        (
            lambda: plot.plot_surfaces_3d(tilted_grid().query("u > 0"), DESCRIBED),
            "'bezier' has 20 grid",
        ),
        (
            lambda: plot.plot_profiles(tilted_grid().assign(nll=float("nan")), DESCRIBED),
            "nll of surface 'bezier' is NaN at all",
        ),
        (
            lambda: plot.plot_profiles(grid_table().query("statistics != 'own'"), DESCRIBED),
            "'linear' has 0 rows of corners as trained",
        ),
        (
            lambda: plot.plot_differences(difference_table().head(0), DESCRIBED),
            "'difference' has no rows",
        ),
        *(
            (lambda draw=draw: draw({"mine": DESCRIBED["linear"]}), "not among those to draw")
            for draw in FIGURES.values()
        ),
        (
            lambda: plot.plot_merges(merge_table().drop(columns=["nll"]), DESCRIBED),
            r"lacks the columns \['nll'\]",
        ),
        (
            lambda: plot.plot_training(
                pd.concat([training_table(), training_table().assign(replicate=1)]), DESCRIBED
            ),
            r"replicates \[0, 1\]",
        ),
        (
            lambda: plot.plot_geometry(
                geometry_table().assign(disagreement=float("nan")), DESCRIBED
            ),
            "no disagreement",
        ),
        (
            lambda: plot.plot_summary(summary_table().query("kind == 'ensemble'"), DESCRIBED),
            r"its kinds are \['ensemble'\]",
        ),
    ],
)
def test_wrong_input_is_named(draw, message):
    with pytest.raises(InputError, match=message):
        draw()


def test_figures_need_no_torch():
    command = "import sys, fourfold.report.figures; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0
