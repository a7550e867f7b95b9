"""Figures of the trained networks: their training and how far apart they are."""

from collections.abc import Collection, Sequence

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fourfold.errors import InputError
from fourfold.report.figures._measure import ACCURACY, NLL
from fourfold.report.figures._style import (
    BLUE,
    FULL_WIDTH,
    GREY,
    MARKED_WIDTH,
    NARROW_WIDTH,
    VERMILLION,
    check_run,
    heading,
    in_order,
    paper_style,
    surface_order,
    surface_style,
)

# Colour and dashes; an empty tuple is a solid line.
_SPLITS: dict[str, tuple[str, tuple[int, ...]]] = {
    "train": (GREY, (4, 2)),
    "val": (BLUE, ()),
    "test": (VERMILLION, ()),
}


@paper_style
def plot_training(
    training: pd.DataFrame, surfaces: Collection[str], *, seeds: Sequence[int] = ()
) -> Figure:
    """Draw nll (above) and accuracy (below) per epoch: endpoints left, each surface fit beside.

    One line per run and split.

    Args:
        training: table `training` of one replicate.
        surfaces: in their order.
        seeds: seeds of the replicate's corners, for the title.

    Raises:
        InputError: if the table is empty or a surface unknown.
    """
    rows = check_run("training", training)
    rows = rows.drop_duplicates(["stage", "item", "split", "epoch"], keep="last")
    endpoints = rows[rows["stage"] == "endpoint"]
    names = ", ".join(sorted(endpoints["item"].unique()))
    columns = {f"endpoints {names}": endpoints} if names else {}
    fits = rows[rows["stage"] == "fit"]
    for item in surface_order(fits["item"], surfaces):
        columns[f"fit of the {item} surface"] = fits[fits["item"] == item]
    figure = Figure(
        figsize=(max(NARROW_WIDTH, 0.5 * FULL_WIDTH * len(columns)), 4.0), layout="constrained"
    )
    panels = figure.subplots(2, len(columns), sharex="col", sharey="row", squeeze=False)
    for (title, runs), (top, bottom) in zip(columns.items(), panels.T, strict=True):
        for measure, axes in ((NLL, top), (ACCURACY, bottom)):
            sns.lineplot(
                x=runs["epoch"],
                y=measure.values(runs),
                hue=runs["split"],
                style=runs["split"],
                units=runs["item"],
                estimator=None,  # each run is drawn, not a mean
                palette={split: colour for split, (colour, _) in _SPLITS.items()},
                dashes={split: dashes for split, (_, dashes) in _SPLITS.items()},
                marker="." if runs["epoch"].nunique() < 10 else None,  # one epoch makes no line
                linewidth=0.8,
                legend=False,
                ax=axes,
            )
            measure.set_axis(axes, "y", measure.values(rows))
            axes.grid(axis="y")
        top.set(title=title, xlabel="")
        bottom.set(xlabel="epoch")
        bottom.xaxis.get_major_locator().set_params(integer=True)
    for measure, axes in zip((NLL, ACCURACY), panels[:, 0], strict=True):
        axes.set_ylabel(measure.label)
    handles = [
        Line2D(
            [],
            [],
            color=_SPLITS[split][0],
            linestyle=(0, _SPLITS[split][1] or None),  # type: ignore[arg-type]  # stubs lack None
            label=split,
        )
        for split in in_order(rows["split"], _SPLITS)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    figure.suptitle(heading("training", rows, seeds))
    return figure


@paper_style
def plot_geometry(
    geometry: pd.DataFrame, surfaces: Collection[str], *, seeds: Sequence[int] = ()
) -> Figure:
    """Draw how far apart networks are in weights, and how often corners disagree in predictions.

    Above: one mark per pair of corners; a line is the mean disagreement of a corner with itself
    when its BatchNorm statistics are re-estimated, where that makes any. Below: the distances of
    all pairs of control points.

    Args:
        geometry: table `geometry` of one replicate.
        surfaces: in their order.
        seeds: seeds of the replicate's corners, for the title.

    Raises:
        InputError: if the table is empty, a surface unknown, or no pair of corners has a
            disagreement.
    """
    rows = check_run("geometry", geometry)
    is_alone = rows["a"] == rows["b"]
    alone, rows = rows[is_alone], rows[~is_alone]
    known = rows[rows["disagreement"].notna()]
    if known.empty:
        raise InputError("table 'geometry' has no disagreement; it needs one per pair of corners.")
    styles = {name: surface_style(name, surfaces) for name in surfaces}
    shown = surface_order(rows["surface"], styles)
    corners = sum(rows[end].str.startswith("corner_").astype(int) for end in ("a", "b"))
    rows = rows.assign(
        pair=corners.map({2: "corners", 1: "corner to control point", 0: "control points"})
    )
    kinds = [
        (surface, pair)
        for surface in shown
        for pair in in_order(rows.loc[rows["surface"] == surface, "pair"], ["corners"])
    ]
    figure = Figure(figsize=(0.75 * FULL_WIDTH, 2.8 + 0.22 * len(kinds)), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2.0, 0.2 * len(kinds)])
    for index, surface in enumerate(shown):
        colour, marker = styles[surface]
        mark = {
            "marker": marker,
            "linestyle": "",
            # Later surfaces are hollow and larger, so that equal corners stay visible below them.
            "markersize": 6.5 if index else 4,
            "markerfacecolor": "none" if index else colour,
            "markeredgecolor": colour,
            "markeredgewidth": 1,
            "clip_on": False,
        }
        part = known[known["surface"] == surface]
        top.plot(part["relative_l2"], 100 * part["disagreement"], label=surface, **mark)
    scatter = 100 * alone.groupby("surface")["disagreement"].mean()
    scatter = scatter[scatter > 0]  # networks without BatchNorm have none
    for surface, level in scatter.items():
        top.axhline(level, color=styles[surface][0], linewidth=MARKED_WIDTH, zorder=0.5)
    for place, (surface, pair) in enumerate(kinds):
        part = rows[(rows["surface"] == surface) & (rows["pair"] == pair)]
        bottom.plot(
            part["relative_l2"],
            [place] * len(part),
            "|",
            markersize=7,
            color=styles[surface][0],
            markeredgewidth=MARKED_WIDTH,
        )
    top.set_ylim(bottom=0)
    top.set_ylabel("prediction disagreement (%)")
    handles, labels = top.get_legend_handles_labels()
    if len(scatter):
        handles.append(Line2D([], [], color=GREY, linewidth=MARKED_WIDTH))
        labels.append("re-estimation alone")
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=min(4, len(handles)),
        title="corners of the surface",
    )
    top.grid()
    bottom.set_yticks(range(len(kinds)), labels=[f"{name}: {pair}" for name, pair in kinds])
    bottom.set_ylim(len(kinds) - 0.5, -0.5)
    bottom.set_xlim(left=0)
    bottom.set_xlabel("relative L2 distance of the weights (distance / mean norm)")
    bottom.grid(axis="x")
    figure.suptitle(heading("distances between networks", rows, seeds))
    return figure
