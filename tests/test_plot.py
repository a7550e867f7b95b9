"""Laws of the figures: orientation, shared scales, equal bytes, clear refusals."""

import itertools
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from mpl_toolkits.mplot3d import Axes3D

from fourfold import plot
from fourfold.errors import InputError
from fourfold.plot._lattice import corner_values, diagonals, lattice, perimeter
from fourfold.plot._measure import ACCURACY, NLL
from fourfold.table import make_table

# Highest nll inside, the corners' nll, and the slope along u that makes every surface asymmetric.
SURFACES = {"linear": (3.1, 0.10, 0.03), "bezier": (0.13, 0.10, 0.03), "trajectory": (0.1, 0.11, 0)}
SPLITS = {"train": 0.15, "val": 1.1, "test": 1.0}
N = 360


def table(name: str, rows: list[dict]) -> pd.DataFrame:
    return make_table(name, rows, experiment="digits-vgg16", replicate=0)


def scores(nll: float, n: int = N) -> dict:
    accuracy = max(0.1, 1 - 0.3 * nll)
    return {"n": n, "nll": nll, "accuracy": accuracy, "ece": 0.3 * nll, "brier": 0.5 * nll}


def grid_table(points: int = 5, surfaces: dict = SURFACES) -> pd.DataFrame:
    axis = np.linspace(0, 1, points)
    return table(
        "grid",
        [
            {
                "surface": surface,
                "u": u,
                "v": v,
                "split": split,
                "batchnorm": "reestimated",
                **scores(
                    factor
                    * (
                        corner
                        + slope * u * (1 + v)
                        + (inside - corner) * 2 * (u * (1 - u) + v * (1 - v))
                    )
                ),
            }
            for (surface, (inside, corner, slope)), (split, factor), u, v in itertools.product(
                surfaces.items(), SPLITS.items(), axis, axis
            )
        ],
    )


def merge_table() -> pd.DataFrame:
    methods = [
        ("best-corner", "linear", 1, 0, "val", 0.10),
        ("uniform-soup", "linear", 0.5, 0.5, "none", 3.1),
        ("greedy-soup", "linear", None, None, "val", 0.10),
    ]
    for surface, (inside, corner, _) in SURFACES.items():
        best = min(inside, corner)
        methods += [
            ("center", surface, 0.5, 0.5, "none", inside),
            ("best-point", surface, 0.3, 0.9, "val", best * 0.97),
            ("oracle", surface, 0.2, 0.8, "test", best * 0.93),
        ]
    return table(
        "merge",
        [
            {"merge": m, "surface": s, "u": u, "v": v, "selected_on": on, "split": split}
            | scores(factor * nll)
            for (m, s, u, v, on, nll), (split, factor) in itertools.product(methods, SPLITS.items())
        ],
    )


def ensemble_table() -> pd.DataFrame:
    methods = [
        ("best-corner", "validation", 1, 0.10),
        ("corners", "fixed", 4, 0.075),
        ("trajectory-corners", "fixed", 4, 0.10),
    ]
    for surface, nll in (("linear", 0.08), ("bezier", 0.082), ("trajectory", 0.1)):
        methods += [
            (surface, "fixed", 5, nll),
            (surface, "validation", 4, nll * 0.98),
            (surface, "oracle", 4, nll * 0.93),
            (surface, "all", 121, nll * 1.04),
        ]
    return table(
        "ensemble",
        [
            {"ensemble": e, "selection": s, "members": "0,0;0,1", "split": split}
            | {"disagreement": 0.02, "forward_passes": passes, **scores(factor * nll)}
            for (e, s, passes, nll), (split, factor) in itertools.product(methods, SPLITS.items())
        ],
    )


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
    return table("geometry", rows)


def summary_table(experiments: int = 3, replicates: int = 1) -> pd.DataFrame:
    surfaces = {
        "linear": (0.12, 0.60, 0.12, 0.975),
        "bezier": (0.958, 0.974, 0.970, 0.975),
        "trajectory": (0.965, 0.972, 0.978, 0.971),
    }
    names = ["accuracy_min", "accuracy_mean", "accuracy_center", "accuracy_corner_mean"]
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
            row |= {"n": N, "replicates": replicates}
        experiment = ("digits-vgg16", "digits-resnet18", "digits-vit")[index % 3]
        frames.append(make_table("summary", rows, experiment=experiment, replicate=-1))
    return pd.concat(frames, ignore_index=True)


FIGURES = {
    "surfaces": lambda: plot.plot_surfaces(grid_table(), merge_table()),
    "surfaces_3d": lambda: plot.plot_surfaces_3d(grid_table()),
    "profiles": lambda: plot.plot_profiles(grid_table()),
    "ensembles": lambda: plot.plot_ensembles(ensemble_table()),
    "merges": lambda: plot.plot_merges(merge_table()),
    "training": lambda: plot.plot_training(training_table()),
    "geometry": lambda: plot.plot_geometry(geometry_table()),
    "summary": lambda: plot.plot_summary(summary_table(4, 3)),
}


def tilted_grid(points: int = 5) -> pd.DataFrame:
    """One surface whose nll is 1 + u + 10 v: no symmetry of the square leaves it unchanged."""
    grid = grid_table(points, {"bezier": SURFACES["bezier"]})
    return grid.assign(nll=1 + grid["u"] + 10 * grid["v"])


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
    plot.plot_surfaces(grid, merge_table())
    plot.plot_surfaces_3d(grid)

    axes, x, y, values = drawn["flat"]
    np.testing.assert_allclose(values, 1 + x[None, :] + 10 * y[:, None])
    assert (axes.figure.axes[1].get_xlabel(), axes.get_ylabel()) == ("u", "v")
    assert not axes.xaxis_inverted() and not axes.yaxis_inverted()
    axes, x, y, values = drawn["relief"]
    np.testing.assert_allclose(values, 1 + x + 10 * y)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("u", "v")


def test_lines_through_the_lattice_start_and_end_at_the_corners_they_name():
    points, values = lattice(tilted_grid().query("split == 'test'"), "bezier", NLL)
    nll = {"00": 1, "10": 2, "11": 12, "01": 11}
    np.testing.assert_allclose(corner_values(values), list(nll.values()))
    rising, falling = diagonals(values)
    np.testing.assert_allclose(rising[[0, -1]], [nll["00"], nll["11"]])
    np.testing.assert_allclose(falling[[0, -1]], [nll["01"], nll["10"]])
    along, around = perimeter(points, values)
    np.testing.assert_allclose(
        np.interp([0, 1, 2, 3, 4, 2.5], along, around), [*nll.values(), nll["00"], 11.5]
    )


def test_panels_of_a_row_share_one_colour_scale():
    figure = plot.plot_surfaces(grid_table(), merge_table())
    for row in np.array(figure.axes[:6]).reshape(2, 3):
        scales = {contour_sets(axes)[0].get_clim() for axes in row}
        assert len(scales) == 1
    low, high = contour_sets(figure.axes[0])[0].get_clim()
    shown = grid_table().query("split == 'test'")["nll"]
    assert low <= shown.min() and high >= shown.max()


def test_reliefs_share_one_height_scale():
    panels = plot.plot_surfaces_3d(grid_table()).axes[:3]
    assert len({axes.get_zlim() for axes in panels}) == 1


def test_star_stands_at_the_point_chosen_on_val():
    axes = plot.plot_surfaces(grid_table(), merge_table()).axes[0]
    star = next(line for line in axes.get_lines() if line.get_marker() == "*")
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (0.3, 0.9)


@pytest.mark.parametrize("draw", ["ensembles", "merges"])
def test_only_what_was_chosen_on_test_is_hollow(draw):
    legend = FIGURES[draw]().legends[0]
    hollow = {
        text.get_text(): handle.get_markerfacecolor() == "white"
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
        if handle.get_marker() != "None"
    }
    assert hollow.pop("oracle: chosen on test")
    assert hollow and not any(hollow.values())


def test_reestimated_statistics_are_drawn_where_interpolated_ones_are_in_the_table_too():
    ablation = tilted_grid().assign(batchnorm="interpolated", nll=5.0)
    figure = plot.plot_surfaces_3d(pd.concat([ablation, tilted_grid()]))
    assert "BatchNorm re-estimated" in figure.get_suptitle()


def test_equal_values_everywhere_can_be_drawn(tmp_path):
    grid = grid_table(3).assign(nll=0.0, accuracy=1.0)
    plot.save_figure(plot.plot_surfaces(grid, merge_table()), tmp_path / "surfaces")
    plot.save_figure(plot.plot_surfaces_3d(grid), tmp_path / "surfaces_3d")
    plot.save_figure(plot.plot_profiles(grid), tmp_path / "profiles")


def test_foreign_surfaces_and_a_single_split_can_be_drawn(tmp_path):
    test_only = grid_table(3).query("split == 'test'")
    grid = test_only.replace({"surface": {"linear": "aligned", "bezier": "cubic"}})
    plot.save_figure(plot.plot_profiles(grid), tmp_path / "profiles")
    plot.save_figure(plot.plot_surfaces(grid, merge_table()), tmp_path / "surfaces")
    geometry = geometry_table().replace({"surface": {"linear": "aligned", "bezier": "cubic"}})
    plot.save_figure(plot.plot_geometry(geometry), tmp_path / "geometry")


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
        (lambda: plot.plot_profiles(grid_table(), split="tset"), "'tset'; it has .*'train'"),
        (lambda: plot.plot_ensembles(ensemble_table().head(0)), "'ensemble' has no rows"),
        (lambda: plot.plot_surfaces_3d(tilted_grid().iloc[:-1]), "24 grid points on 5 coord"),
        (lambda: plot.plot_surfaces_3d(tilted_grid().query("u > 0")), "'bezier' has 20 grid"),
        (
            lambda: plot.plot_profiles(tilted_grid().assign(nll=float("nan"))),
            r"nll of surface 'bezier' is nan at \(u, v\) = \(0, 0\)",
        ),
        (
            lambda: plot.plot_merges(merge_table().drop(columns=["nll"])),
            r"lacks the columns \['nll'\]",
        ),
        (
            lambda: plot.plot_training(
                pd.concat([training_table(), training_table().assign(replicate=1)])
            ),
            r"replicates \[0, 1\]",
        ),
        (
            lambda: plot.plot_geometry(geometry_table().assign(disagreement=float("nan"))),
            "no disagreement",
        ),
        (
            lambda: plot.plot_summary(summary_table().query("kind == 'ensemble'")),
            r"its kinds are \['ensemble'\]",
        ),
    ],
)
def test_wrong_input_is_named(draw, message):
    with pytest.raises(InputError, match=message):
        draw()


def test_figures_need_no_torch():
    command = "import sys, fourfold.plot; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0
