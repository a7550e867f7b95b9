"""Dot plots: merged networks, and the summary of all experiments."""

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fourfold.errors import InputError
from fourfold.report.figures._measure import ACCURACY, NLL, Measure
from fourfold.report.figures._style import (
    BLACK,
    BLUE,
    FULL_WIDTH,
    GREY,
    NARROW_WIDTH,
    ORANGE,
    VERMILLION,
    check_rows,
    check_run,
    heading,
    in_order,
    note_off_scale,
    one_example,
    paper_style,
    surface_order,
)

# How a point or set of corners was picked: legend text, colour, marker, filled.
_PICKS = {
    "fixed": ("fixed in advance", BLUE, "o", True),
    "validation": ("chosen on val", ORANGE, "D", True),
    "oracle": ("oracle: chosen on test", VERMILLION, "s", False),
}
_PICK_OF_SPLIT = {"none": "fixed", "val": "validation", "test": "oracle"}

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
    "accuracy_corner_mean_own": {
        "label": "mean of the corners, as trained",
        "marker": "|",
        "color": BLACK,
        "markersize": 22,
        "elinewidth": 22,
        "ecolor": "#D0D0D0",
        "zorder": 1,
    },
    "accuracy_center": {"label": "center", "marker": "D", "color": ORANGE, "markersize": 4},
    "accuracy_mean": {"label": "mean", "marker": "o", "color": BLUE, "markersize": 4.5},
    "accuracy_min": {"label": "worst point", "marker": "v", "color": VERMILLION, "markersize": 4.5},
}


@paper_style
def plot_merges(
    merge: pd.DataFrame,
    surfaces: Collection[str],
    *,
    split: str = "test",
    seeds: Sequence[int] = (),
) -> Figure:
    """Draw accuracy and nll of each merged network: one network, one forward pass.

    Marker and colour tell how the point was picked; hollow ones were picked on test. The dashed
    line is the best corner by val, as it was trained.

    Args:
        merge: table `merge` of one replicate.
        surfaces: in their order.
        split: the split that is shown.
        seeds: seeds of the replicate's corners, for the title.

    Raises:
        InputError: if the split is absent, the table empty or a surface unknown.
    """
    rows = check_run("merge", merge, split=split)
    surfaces = surface_order(rows["surface"], surfaces)
    merges = in_order(rows["merge"], _MERGES)
    rows = rows.assign(
        group=rows["surface"],
        label=[
            f"{_MERGES.get(name, name)}, {surface}"
            for name, surface in zip(rows["merge"], rows["surface"], strict=True)
        ],
        pick=rows["selected_on"].map(_PICK_OF_SPLIT),
        note=[
            "-" if pd.isna(u) else f"{u:.2g}, {v:.2g}{': NaN' if pd.isna(nll) else ''}"
            for u, v, nll in zip(rows["u"], rows["v"], rows["nll"], strict=True)
        ],
        rank=rows["surface"].map(surfaces.index),
        order=rows["merge"].map(merges.index),
    ).sort_values(["rank", "order"], kind="stable")
    figure = _dot_plot(rows, note="(u, v)", reference=rows["merge"] == "best-corner")
    figure.suptitle(heading("merged networks (one forward pass)", rows, seeds, one_example(rows)))
    return figure


@paper_style
def plot_summary(summary: pd.DataFrame, surfaces: Collection[str]) -> Figure:
    """Draw the worst, mean and center accuracy of each surface on test, one panel per experiment.

    The vertical tick is the mean of the surface's four corners as they were trained. Bars, grey for
    the corners, span the replicates (low to high).

    Args:
        summary: table `summary`, any number of experiments.
        surfaces: of all of them, in their order.

    Raises:
        InputError: if the table has no rows of kind "surface", or a surface is unknown.
    """
    rows = check_rows("summary", summary)
    rows = rows[(rows["kind"] == "surface") & rows["metric"].isin(_SUMMARY_MARKS)]
    if rows.empty:
        raise InputError(
            f"table 'summary' has no surface with one of {list(_SUMMARY_MARKS)}; "
            f"its kinds are {sorted(summary['kind'].unique())}."
        )
    experiments = list(dict.fromkeys(rows["experiment"]))
    surfaces = surface_order(rows["method"], surfaces)
    columns = min(3, len(experiments))
    lines = math.ceil(len(experiments) / columns)
    figure = Figure(
        figsize=(
            max(NARROW_WIDTH, FULL_WIDTH * columns / 3),
            0.7 + lines * (0.75 + 0.38 * len(surfaces)),
        ),
        layout="constrained",
    )
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    for experiment, axes in zip(experiments, panels, strict=False):
        _draw_summary(axes, rows[rows["experiment"] == experiment], surfaces)
    for axes in panels[len(experiments) :]:
        axes.set_axis_off()
    handles = [
        Line2D(
            [],
            [],
            linestyle="",
            markersize=min(8, mark["markersize"]),
            **{key: mark[key] for key in ("label", "marker", "color")},
        )
        for mark in _SUMMARY_MARKS.values()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    figure.suptitle("Accuracy over the surfaces, test split")
    return figure


def _draw_summary(axes: Axes, rows: pd.DataFrame, surfaces: Sequence[str]) -> None:
    for index, (metric, mark) in enumerate(_SUMMARY_MARKS.items()):
        part = rows[rows["metric"] == metric]
        places = part["method"].map(surfaces.index) + 0.24 * (index - 2) * (index > 0)
        mean, low, high = (100 * part[column].astype(float) for column in ("mean", "low", "high"))
        # One replicate has no spread: low and high are null.
        spread = [(mean - low).fillna(0), (high - mean).fillna(0)]
        axes.errorbar(mean, places, xerr=spread, linestyle="", **{"elinewidth": 0.8, **mark})
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
        axes.axhline(border - 0.5, color="#BBBBBB", linewidth=0.4)


def _dot_plot(rows: pd.DataFrame, *, note: str, reference: pd.Series) -> Figure:
    """Draw accuracy and nll of `rows` from top to bottom.

    `rows` has the columns label, pick (a key of _PICKS), note (text at the right, headed `note`)
    and group (a thin line separates groups). The first row in `reference` gets the dashed lines.
    """
    figure = Figure(figsize=(FULL_WIDTH, 1.25 + 0.17 * len(rows)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    rows = rows.assign(place=range(len(rows)))
    baseline = rows[reference.loc[rows.index]].head(1)
    borders = rows.loc[rows["group"] != rows["group"].shift(), "place"].iloc[1:] - 0.5
    for measure, axes in zip((ACCURACY, NLL), panels, strict=True):
        _draw_dots(axes, measure, rows)
        for value in measure.values(baseline):
            axes.axvline(value, color=GREY, linestyle="--", linewidth=0.8, zorder=0.5)
        for border in borders:
            axes.axhline(border, color="#BBBBBB", linewidth=0.4)
        axes.set_xlabel(measure.label)
        axes.grid()
        axes.tick_params(axis="y", length=0)
    beside = panels[1].twinx()
    beside.spines["right"].set_visible(False)
    beside.tick_params(axis="y", length=0)
    for axes, texts in ((panels[0], rows["label"]), (beside, rows["note"])):
        axes.set_yticks(range(len(rows)), labels=texts)
        axes.set_ylim(len(rows) - 0.5, -0.5)
    beside.annotate(note, (1, 1), (22, 3), "axes fraction", "offset points", ha="right", fontsize=7)
    handles = [Line2D([], [], **_pick_mark(pick)) for pick in in_order(rows["pick"], _PICKS)]
    handles += [
        Line2D([], [], color=GREY, linestyle="--", linewidth=0.8, label=f"level of {label}")
        for label in baseline["label"]
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _draw_dots(axes: Axes, measure: Measure, rows: pd.DataFrame) -> None:
    """Draw one mark per row; a value far from the others stands at the rim, as a number."""
    values = measure.values(rows)
    places = measure.space(values)
    rows, values, places = (part[~np.isnan(values)] for part in (rows, values, places))
    near = np.abs(places - np.median(places)) < _FAR
    measure.set_axis(axes, "x", values[near])
    low, high = measure.space(np.array(axes.get_xlim()))
    rim = 0.03 * (high - low)
    at = measure.unspace(np.clip(places, low + rim, high - rim))
    at = np.where(near, values, at)
    for pick in in_order(rows["pick"], _PICKS):
        chosen = rows["pick"] == pick
        axes.plot(at[chosen], rows.loc[chosen, "place"], **_pick_mark(pick))
    for index in np.flatnonzero(~near):
        left = places[index] < low
        place = (at[index], rows["place"].iloc[index])
        note_off_scale(axes, f"{values[index]:.3g}", place, (6 if left else -6, 0))


def _pick_mark(pick: str) -> dict[str, Any]:
    label, colour, marker, filled = _PICKS[pick]
    return {
        "label": label,
        "marker": marker,
        "linestyle": "",
        "markersize": 5,
        "color": colour,
        "markerfacecolor": colour if filled else "white",
    }
