"""Dot plots: merged networks, and the summary of all experiments."""

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fourfold.report.figures import _style
from fourfold.report.figures._measure import ACCURACY, NLL, Measure
from fourfold.surfaces.shapes import AXES

# By the split that a point or set of corners was picked on: hollow where that is test.
_PICKS = {
    "none": _style.mark("o", 5, _style.BLUE, label="fixed in advance"),
    "val": _style.mark("D", 5, _style.ORANGE, label="chosen on val"),
    "test": _style.mark("s", 5, _style.VERMILLION, filled=False, label="oracle: chosen on test"),
}

# A dot is off scale when its nll or error is three times that of the median row, or a third.
_FAR = math.log(3)

_MERGES = {
    "best-corner": "best corner",
    "uniform-soup": "uniform soup",
    "greedy-soup": "greedy soup",
    "center": "center",
    "best-point": "best point on val",
    "oracle": "best point on test",
}

# From top to bottom within the place of one surface.
_SUMMARY_MARKS: dict[str, dict[str, Any]] = {
    "accuracy_corner_mean_own": _style.mark(
        "|", 22, _style.BLACK, label="mean of the corners, as trained"
    ),
    "accuracy_center": _style.mark("D", 4, _style.ORANGE, label="center"),
    "accuracy_mean": _style.mark("o", 4.5, _style.BLUE, label="mean"),
    "accuracy_min": _style.mark("v", 4.5, _style.VERMILLION, label="worst point"),
}


@_style.paper_style
def plot_merges(
    merge: pd.DataFrame, surfaces: Collection[str], *, seeds: Sequence[int] = ()
) -> Figure:
    """Draw accuracy and nll of each merged network: one network, one forward pass.

    Marker and colour tell how the point was picked; hollow ones were picked on test. The dashed
    line is the best corner by val, as it was trained.
    """
    rows = _style.shown_rows(merge)
    surfaces = _style.surface_order(rows["surface"], surfaces)
    orders = {"surface": surfaces, "merge": list(_MERGES)}
    ranks = {f"{key}_rank": rows[key].map(names.index) for key, names in orders.items()}
    rows = rows.assign(**ranks).sort_values(list(ranks), kind="stable")
    rows = rows.assign(place=range(len(rows)))
    labels = [f"{_MERGES[row.merge]}, {row.surface}" for row in rows.itertuples()]
    axes_names = [axis for axis in AXES if rows[axis].notna().any()]
    notes = [
        (", ".join(f"{at:.2g}" for at in place if pd.notna(at)) or "-")
        + (": NaN" if pd.isna(nll) else "")
        for *place, nll in rows[[*AXES, "nll"]].itertuples(index=False)
    ]
    baseline = rows[rows["merge"] == "best-corner"].head(1)
    level = {"color": _style.GREY, "linestyle": "--", "linewidth": 0.8}
    borders = rows.loc[rows["surface"] != rows["surface"].shift(), "place"].iloc[1:] - 0.5
    figure = Figure((_style.FULL_WIDTH, 1.25 + 0.17 * len(rows)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for measure, axes in zip((ACCURACY, NLL), panels, strict=True):
        _draw_dots(axes, measure, rows)
        for value in measure.values(baseline):
            axes.axvline(value, zorder=0.5, **level)
        for border in borders:
            axes.axhline(border, **_style.BORDER)
        axes.set_xlabel(measure.label)
        axes.grid()
        axes.tick_params(axis="y", length=0)
    beside = panels[1].twinx()
    beside.spines["right"].set_visible(False)
    beside.tick_params(axis="y", length=0)
    for axes, texts in ((panels[0], labels), (beside, notes)):
        axes.set_yticks(range(len(rows)), labels=texts)
        axes.set_ylim(len(rows) - 0.5, -0.5)
    where = ("axes fraction", "offset points")
    beside.annotate(f"({', '.join(axes_names)})", (1, 1), (22, 3), *where, ha="right", fontsize=7)
    looks = [look for pick, look in _PICKS.items() if pick in set(rows["selected_on"])]
    for place in baseline["place"]:
        looks.append(level | {"label": f"level of {labels[place]}"})
    _style.legend(figure, looks, len(looks))
    what = "merged networks (one forward pass)"
    figure.suptitle(_style.heading(what, rows, seeds, _style.one_example(rows)))
    return figure


def _draw_dots(axes: Axes, measure: Measure, rows: pd.DataFrame) -> None:
    """Draw one mark per row; a value far from the others stands at the rim, as a number."""
    rows = rows[rows[measure.column].notna()]
    values = measure.values(rows)
    places = measure.space(values)
    near = np.abs(places - np.median(places)) < _FAR
    measure.set_axis(axes, "x", values[near])
    low, high = measure.space(np.array(axes.get_xlim()))
    rim = 0.03 * (high - low)
    at = np.where(near, values, measure.unspace(np.clip(places, low + rim, high - rim)))
    line = rows["place"].to_numpy()
    for pick, look in _PICKS.items():
        chosen = (rows["selected_on"] == pick).to_numpy()
        axes.plot(at[chosen], line[chosen], **look)
    for i in np.flatnonzero(~near):
        aside = 6 if places[i] < low else -6
        _style.note_off_scale(axes, f"{values[i]:.3g}", (at[i], line[i]), aside, 0)


@_style.paper_style
def plot_summary(summary: pd.DataFrame, surfaces: Collection[str]) -> Figure:
    """Draw the worst, mean and center accuracy of each surface on test, one panel per experiment.

    The vertical tick is the mean of the surface's corners as they were trained. Bars, grey for
    the corners, span the replicates (low to high).
    """
    rows = summary[(summary["kind"] == "surface") & summary["metric"].isin(_SUMMARY_MARKS)]
    if rows.empty:
        return _style.only_text("no surface has points between its corners")
    experiments = list(dict.fromkeys(rows["experiment"]))
    surfaces = _style.surface_order(rows["method"], surfaces)
    columns = min(3, len(experiments))
    lines = math.ceil(len(experiments) / columns)
    width = max(_style.NARROW_WIDTH, _style.FULL_WIDTH * columns / 3)
    height = 0.7 + lines * (0.75 + 0.38 * len(surfaces))
    figure = Figure((width, height), layout="constrained")
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    for experiment, axes in zip(experiments, panels, strict=False):
        _draw_summary(axes, rows[rows["experiment"] == experiment], surfaces)
    for axes in panels[len(experiments) :]:
        axes.set_axis_off()
    marks = [look | {"markersize": min(8, look["markersize"])} for look in _SUMMARY_MARKS.values()]
    _style.legend(figure, marks, 4)
    figure.suptitle("Accuracy over the surfaces, test split")
    return figure


def _draw_summary(axes: Axes, rows: pd.DataFrame, surfaces: Sequence[str]) -> None:
    for index, (metric, look) in enumerate(_SUMMARY_MARKS.items()):
        part = rows[rows["metric"] == metric]
        places = part["method"].map(surfaces.index) + 0.24 * (index - 2) * (index > 0)
        mean, low, high = (100 * part[column].astype(float) for column in ("mean", "low", "high"))
        # One replicate has no spread: low and high are null.
        spread = [(mean - low).fillna(0), (high - mean).fillna(0)]
        band = {"elinewidth": 0.8} if index else {"elinewidth": 22, "ecolor": _style.PALE}
        axes.errorbar(mean, places, xerr=spread, zorder=2 if index else 1, **band, **look)
    ACCURACY.set_axis(axes, "x", 100 * rows[["mean", "low", "high"]].astype(float).to_numpy())
    first = rows.iloc[0]
    replicates = f"{first['replicates']} replicate" + ("s" if first["replicates"] > 1 else "")
    axes.set_title(f"{first['experiment']}\nn = {first['n']:,}, {replicates}")
    axes.set_xlabel("test accuracy (%)")
    axes.set_yticks(range(len(surfaces)), labels=surfaces)
    axes.set_ylim(len(surfaces) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    for border in range(1, len(surfaces)):
        axes.axhline(border - 0.5, **_style.BORDER)
