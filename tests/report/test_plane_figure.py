"""Laws of the figure of a plane: orientation, one scale, what is projected onto it."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
from matplotlib.contour import QuadContourSet
from report.test_figures import scores, table

from fourfold.errors import InputError
from fourfold.report import figures as plot
from fourfold.report.figures._style import surface_style

SURFACES = ["linear", "bezier", "curve"]
PLACES = [(0.0, 0.0), (10.0, 0.0), (4.0, 8.0)]


def plane_table(nll=lambda x, y: 0.1 + x + 10 * y):
    """A lattice wider than it is high, in any order of its rows; train is half as high as test."""
    rows = []
    for x, y, (split, share) in product((-2, 5, 12), (-1, 9), {"train": 0.5, "test": 1.0}.items()):
        at = {"surface": "linear", "sample": "grid", "x": x, "y": y, "split": split}
        of = {"statistics": "reestimated", "statistics_images": 100}
        rows.append(at | of | scores(nll(x + 2, y + 1) * share))
    return table("plane", rows[::-1])


def path_table():
    rows = [("network", "linear", f"corner_{k}", 0, *at, 0.0) for k, at in enumerate(PLACES)]
    rows += [("edge", "curve", "edge_0", k, 10 * k, 3 * (k == 1), 4.5 * (k == 1)) for k in range(3)]
    rows += [("run", None, "seed7", k, -4 / k, 0, 12.0 / k) for k in (4, 1, 2)]
    columns = ["kind", "surface", "name", "order", "x", "y", "distance"]
    return table("plane_path", pd.DataFrame(rows, columns=columns))


def test_both_panels_show_the_plane_as_it_lies_on_one_scale():
    figure = plot.plot_plane(plane_table(), path_table(), SURFACES)
    panels = figure.axes[:2]
    fills = [next(c for c in a.collections if isinstance(c, QuadContourSet)) for a in panels]
    assert fills[0].get_clim() == fills[1].get_clim()
    assert fills[0].get_clim() == pytest.approx((0.05, 114.1), rel=1e-2)
    for axes, title in zip(panels, ("train", "test"), strict=True):
        assert axes.get_title().startswith(title)
        assert (axes.get_xlim(), axes.get_ylim()) == ((-2, 12), (-1, 9))
        assert axes.get_aspect() == 1
        marks = [line.get_xydata()[0] for line in axes.lines if line.get_marker() == "s"]
        np.testing.assert_array_equal(marks, PLACES)
    for fill in fills:  # nll rises upwards, and less to the right
        low, *_, high = (p.vertices.mean(axis=0) for p in fill.get_paths() if len(p.vertices))
        assert low[1] < 0 < 7 < high[1]
        assert low[0] < high[0]


def test_what_is_projected_is_drawn_in_its_order_and_named_with_its_distance():
    figure = plot.plot_plane(plane_table(), path_table(), SURFACES)
    (legend,) = figure.legends
    said = [text.get_text() for text in legend.get_texts()]
    assert said == [
        "network",
        "edges of curve (projected, up to 4.5 off the plane)",
        "kept along seed7 (projected, up to 12 off the plane)",
    ]
    edge, run = (line for line in figure.axes[0].lines if len(line.get_xdata()) == 3)
    assert edge.get_color() == surface_style("curve", SURFACES)[0]
    assert edge.get_xydata().tolist() == [[0, 0], [10, 3], [20, 0]]
    assert run.get_xdata().tolist() == [-4, -2, -1]


def test_a_network_without_numbers_is_a_gap_and_a_plane_without_any_is_refused():
    some = plane_table(lambda x, y: 0.1 if x else math.nan)  # x from the lattice's left end
    figure = plot.plot_plane(some, path_table(), SURFACES)
    for panel in figure.axes[:2]:
        drawn = [one for one in panel.collections if isinstance(one, QuadContourSet)]
        places = np.concatenate([path.vertices for one in drawn for path in one.get_paths()])
        assert places[:, 0].min() == 5
    with pytest.raises(InputError, match="NaN at all"):
        plot.plot_plane(plane_table(lambda x, y: math.nan), path_table(), SURFACES)


def test_the_legend_lies_within_the_figure():
    path = path_table().replace({"surface": {"curve": "a-surface-of-a-long-name"}})
    path["distance"] = path["distance"] * 1.2345
    figure = plot.plot_plane(plane_table(), path, ["linear", "a-surface-of-a-long-name"])
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width
