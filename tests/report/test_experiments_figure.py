"""Laws of the figure of many experiments: what lies where, one scale for each data set, gaps."""

import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.contour import QuadContourSet
from report.test_figures import SURFACES, grid_table

from fourfold.files.table import write_table
from fourfold.pipeline.cli import main
from fourfold.report import figures as plot
from fourfold.report.figures._measure import ACCURACY
from fourfold.surfaces.points import surface_rows

HEIGHTS = {
    "good": {"linear": (3.1, 0.1, 0.03), "bezier": (0.13, 0.1, 0.03)},
    "poor": {"linear": (5.0, 1.0, 0.03), "bezier": (1.5, 1.0, 0.03)},
    "alone": {"linear": (4.0, 0.5, 0.03)},
}
CELLS = {
    "easy": {"narrow": "good", "wide": "absent"},
    "hard": {"narrow": "alone", "wide": "poor"},
    "none": {"narrow": "absent", "wide": "missing"},
}
GIVEN = {"good": SURFACES, "poor": SURFACES, "alone": {"linear": SURFACES["linear"]}}


def grid():
    """Return the grids, each with a second replicate that is better everywhere."""
    tables = [grid_table(3, of).assign(experiment=name) for name, of in HEIGHTS.items()]
    both = [
        rows.assign(replicate=k, accuracy=rows["accuracy"] ** (1 - k))
        for rows in tables
        for k in (0, 1)
    ]
    return pd.concat(both)


@pytest.fixture(scope="module")
def panels():
    """Return (data set, network, line) -> axes."""
    figure = plot.plot_experiments(grid(), GIVEN, CELLS)
    axes = np.reshape(figure.axes[:12], (3, 2, 2))
    places = np.ndindex(3, 2, 2)
    names, networks = list(CELLS), ["narrow", "wide"]
    return {(names[i], networks[k], j): axes[i, j, k] for i, j, k in places}


def filled(axes):
    return next((one for one in axes.collections if isinstance(one, QuadContourSet)), None)


def test_each_panel_shows_its_surface_of_its_experiment_the_linear_one_above(panels):
    table = grid()
    table = table[(table["split"] == "test") & (table["replicate"] == 0)]
    drawn = 0
    for (dataset, network, line), axes in panels.items():
        name, surface = CELLS[dataset][network], ("linear", "bezier")[line]
        if surface not in HEIGHTS.get(name, {}):
            continue
        drawn += 1
        rows = table[(table["experiment"] == name) & (table["surface"] == surface)]
        found = ACCURACY.values(surface_rows(rows))
        assert axes.get_title().endswith(f"{found.min():.3g} to {found.max():.3g} %")
        assert filled(axes) is not None
    assert drawn == 5


def test_the_panels_of_a_data_set_have_one_scale_that_holds_all_their_points(panels):
    limits = {}
    for (dataset, _, _), axes in panels.items():
        if fill := filled(axes):
            limits.setdefault(dataset, set()).add(fill.get_clim())
    assert {name: len(of) for name, of in limits.items()} == {"easy": 1, "hard": 1}
    assert limits["easy"] != limits["hard"]


def test_what_was_not_run_is_an_empty_panel_that_says_so(panels):
    said = {place: [text.get_text() for text in axes.texts] for place, axes in panels.items()}
    for line in (0, 1):
        for place in (("easy", "wide"), ("none", "narrow"), ("none", "wide")):
            assert said[(*place, line)] == ["not run"]
    assert said["hard", "narrow", 1] == ["none"]
    assert panels["easy", "narrow", 0].get_title().startswith("narrow\n")
    assert panels["none", "narrow", 1].get_ylabel() == "none\nBezier"


def draw(folder, cells):
    write_table("grid", grid(), folder / "grid.parquet")
    given = ["--grid", folder / "grid.parquet", "--surfaces", json.dumps(GIVEN), "--cells", cells]
    return main([*map(str, ["plot-experiments", *given, "--output", folder / "experiments-cpu"])])


def test_the_command_writes_the_figure_twice(tmp_path):
    assert draw(tmp_path, json.dumps(CELLS)) == 0
    assert {path.name for path in tmp_path.glob("exp*")} == {
        f"experiments-cpu.{k}" for k in ("png", "svg")
    }


@pytest.mark.parametrize("cells", ["{}", '{"a": {}}', '{"a": {"x": "e"}, "b": {"y": "e"}}', "[]"])
def test_the_command_refuses_cells_that_are_no_table(cells, tmp_path, capsys):
    assert draw(tmp_path, cells) == 1
    assert "--cells" in capsys.readouterr().err
    assert not list(tmp_path.glob("exp*"))
