"""Dot plots that compare methods: ensembles, merges, and the summary of all experiments."""

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fourfold.errors import InputError
from fourfold.plot._measure import ACCURACY, NLL
from fourfold.plot._style import (
    BLACK,
    BLUE,
    FULL_WIDTH,
    GREEN,
    GREY,
    ORANGE,
    VERMILLION,
    check_rows,
    check_run,
    heading,
    in_order,
    paper_style,
    surface_label,
    surface_order,
)

# How a point, checkpoint or set of them was picked: legend text, colour, marker, filled.
_PICKS = {
    "fixed": ("fixed in advance", BLUE, "o", True),
    "validation": ("chosen on val", ORANGE, "D", True),
    "all": ("all grid points", BLACK, "^", True),
    "oracle": ("oracle: chosen on test", VERMILLION, "s", False),
}
_PICK_OF_SPLIT = {"none": "fixed", "val": "validation", "test": "oracle"}

_ENSEMBLES = {
    "best-corner": "best corner alone",
    "corners": "four corners",
    "trajectory-corners": "four checkpoints of one run",
    "linear": "linear surface",
    "bezier": "Bézier surface",
    "trajectory": "trajectory surface",
}
_MERGES = {
    "best-corner": "best corner",
    "uniform-soup": "uniform soup",
    "greedy-soup": "greedy soup",
    "center": "center",
    "best-point": "best point",
    "oracle": "best point",
}


@paper_style
def plot_ensembles(ensemble: pd.DataFrame, *, split: str = "test") -> Figure:
    """Draw accuracy and nll of each ensemble, with its forward passes per example.

    Marker and colour tell how the members were picked; hollow ones were picked on test. The dashed
    line is the ensemble of the four corners, the baseline of every other one.

    Args:
        ensemble: table `ensemble` of one replicate.
        split: the split that is shown.

    Raises:
        InputError: if the split is absent or the table empty.
    """
    rows = check_run("ensemble", ensemble, split=split)
    order = in_order(rows["ensemble"], _ENSEMBLES)
    rows = rows.assign(
        group=rows["ensemble"],
        label=rows["ensemble"].map(lambda name: _ENSEMBLES.get(name, surface_label(name))),
        pick=rows["selection"],
        note=rows["forward_passes"].map("{:,}".format),
        rank=rows["ensemble"].map(order.index),
    ).sort_values(["rank", "forward_passes"], kind="stable")
    figure = _dot_plot(
        rows, note="forward\npasses", reference=rows["ensemble"] == "corners", line="four corners"
    )
    figure.suptitle(heading("ensembles (averaged predictions)", rows, _one_example(rows)))
    return figure


@paper_style
def plot_merges(merge: pd.DataFrame, *, split: str = "test") -> Figure:
    """Draw accuracy and nll of each merged network: one network, one forward pass.

    Marker and colour tell how the point was picked; hollow ones were picked on test. The dashed
    line is the best corner by val.

    Args:
        merge: table `merge` of one replicate.
        split: the split that is shown.

    Raises:
        InputError: if the split is absent or the table empty.
    """
    rows = check_run("merge", merge, split=split)
    surface = rows["surface"].fillna("")
    surfaces, merges = surface_order(surface), in_order(rows["merge"], _MERGES)
    rows = rows.assign(
        # Soups belong to no surface, or to the one through the same corners: they come first.
        rank=surface.map(surfaces.index).where(rows["u"].notna() & (surface != ""), -1),
        group=surface,
        label=[
            _MERGES.get(name, name) + (f", {surface_label(on)}" if on else "")
            for name, on in zip(rows["merge"], surface, strict=True)
        ],
        pick=rows["selected_on"].map(_PICK_OF_SPLIT),
        note=[
            "–" if math.isnan(u) else f"{u:.2g}, {v:.2g}"
            for u, v in zip(rows["u"].astype(float), rows["v"].astype(float), strict=True)
        ],
        order=rows["merge"].map(merges.index),
    ).sort_values(["rank", "order"], kind="stable")
    figure = _dot_plot(
        rows, note="u, v", reference=rows["merge"] == "best-corner", line="best corner"
    )
    figure.suptitle(heading("merged networks (one forward pass)", rows, _one_example(rows)))
    return figure
