"""Figures of the trained networks: their training and how far apart they are."""

from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from fourfold.report.figures import _style
from fourfold.report.figures._measure import ACCURACY, NLL

# Colour and dashes; an empty tuple is a solid line.
_SPLITS: dict[str, tuple[str, tuple[int, ...]]] = {
    "train": (_style.GREY, (4, 2)),
    "val": (_style.BLUE, ()),
    "test": (_style.VERMILLION, ()),
}


@_style.paper_style
def plot_training(
    training: pd.DataFrame, surfaces: Collection[str], *, seeds: Sequence[int] = ()
) -> Figure:
    """Draw nll (above) and accuracy (below) per epoch: endpoints first, each surface fit beside.

    One line per run and split.
    """
    if training.empty:
        return _style.only_text("nothing was trained here")
    rows = training.drop_duplicates(["stage", "item", "split", "epoch"], keep="last")
    endpoints, fits = (rows[rows["stage"] == stage] for stage in ("endpoint", "fit"))
    names = sorted(endpoints["item"].unique())
    title = f"endpoints {', '.join(names)}" if len(names) <= 4 else f"{len(names)} endpoints"
    columns = {title: endpoints} if names else {}
    for item in _style.surface_order(fits["item"], surfaces):
        columns[f"fit of the {item} surface"] = fits[fits["item"] == item]
    bands = _style.in_rows([*columns])
    count = len(bands[0])
    width = max(_style.NARROW_WIDTH, 0.5 * _style.FULL_WIDTH * count)
    size = (width, 4.0) if len(bands) == 1 else (1.3 * _style.FULL_WIDTH, 0.4 + 3.6 * len(bands))
    figure = Figure(size, layout="constrained")
    parts = [figure] if len(bands) == 1 else [*figure.subfigures(len(bands), squeeze=False).flat]
    panels = []
    for part, band in zip(parts, bands, strict=True):
        found = part.subplots(2, count, sharex="col", sharey="row", squeeze=False)
        panels += [*found.T[: len(band)]]
        for axes in found[:, len(band) :].flat:
            axes.remove()
        for measure, axes in zip((NLL, ACCURACY), found[:, 0], strict=True):
            axes.set_ylabel(measure.label)
    for (title, runs), (top, bottom) in zip(columns.items(), panels, strict=True):
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
        top.set(title=_style.panel_title(title, figure, count), xlabel="")
        bottom.set(xlabel="epoch")
        bottom.xaxis.get_major_locator().set_params(integer=True)
    lines = [
        {"color": colour, "linestyle": (0, dashes or None), "label": split}
        for split, (colour, dashes) in _SPLITS.items()
        if split in set(rows["split"])
    ]
    _style.legend(figure, lines, 3)
    figure.suptitle(_style.heading("training", rows, seeds))
    return figure


@_style.paper_style
def plot_geometry(
    geometry: pd.DataFrame, surfaces: Collection[str], *, seeds: Sequence[int] = ()
) -> Figure:
    """Draw how far apart networks are in weights, and how often corners disagree in predictions.

    Above: one mark per pair of corners; a line is the mean disagreement of a corner with itself
    when its BatchNorm statistics are re-estimated, where that makes any. Below: the distances of
    all pairs of control points.
    """
    is_alone = geometry["a"] == geometry["b"]
    alone, rows = geometry[is_alone], geometry[~is_alone]
    if rows.empty:
        return _style.only_text("a single network has no distances")
    alone = alone[alone["surface"].isin(rows["surface"])]
    shown = _style.surface_order(rows["surface"], surfaces)
    styles = {name: _style.surface_style(name, surfaces) for name in shown}
    corners = sum(rows[end].str.startswith("corner_").astype(int) for end in ("a", "b"))
    names = {2: "corners", 1: "corner to control point", 0: "control points"}
    rows = rows.assign(pair=corners.map(names))
    kinds = [
        (surface, pair)
        for surface in shown
        for pair in _style.in_order(rows.loc[rows["surface"] == surface, "pair"], ["corners"])
    ]
    # Many surfaces have a wide legend of several lines.
    width, lines = (0.75, 0) if len(shown) <= 4 else (1, len(shown) // 4)
    size = (width * _style.FULL_WIDTH, 2.8 + 0.22 * len(kinds) + 0.15 * lines)
    figure = Figure(size, layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2.0, 0.2 * len(kinds)])
    looks: list[dict[str, Any]] = []
    for surface, (colour, marker) in styles.items():
        # Later surfaces are hollow and larger, so that equal corners stay visible below them.
        look = _style.mark(marker, 6.5 if looks else 4, colour, markeredgewidth=1, label=surface)
        looks.append(look | ({"markerfacecolor": "none"} if looks else {}))
        part = rows[(rows["surface"] == surface) & rows["disagreement"].notna()]
        top.plot(part["relative_l2"], 100 * part["disagreement"], clip_on=False, **looks[-1])
    scatter = 100 * alone.groupby("surface")["disagreement"].mean()
    scatter = scatter[scatter > 0]  # networks without BatchNorm have none
    thin = {"linewidth": _style.MARKED_WIDTH}
    for surface, level in scatter.items():
        top.axhline(level, color=styles[surface][0], zorder=0.5, **thin)
    if len(scatter):
        looks.append({"color": _style.GREY, "label": "re-estimation alone", **thin})
    ticks = {"markersize": 7, "markeredgewidth": _style.MARKED_WIDTH}
    for place, (surface, pair) in enumerate(kinds):
        part = rows[(rows["surface"] == surface) & (rows["pair"] == pair)]
        places = [place] * len(part)
        bottom.plot(part["relative_l2"], places, "|", color=styles[surface][0], **ticks)
    top.set_ylim(bottom=0)
    top.set_ylabel("prediction disagreement (%)")
    _style.legend(figure, looks, min(4, len(looks)), title="corners of the surface")
    top.grid()
    bottom.set_yticks(range(len(kinds)), labels=[f"{name}: {pair}" for name, pair in kinds])
    bottom.set_ylim(len(kinds) - 0.5, -0.5)
    bottom.set_xlim(left=0)
    bottom.set_xlabel("relative L2 distance of the weights (distance / mean norm)")
    bottom.grid(axis="x")
    figure.suptitle(_style.heading("distances between networks", rows, seeds))
    return figure
