"""Figure of the differences between each surface and its corners, with their intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fourfold.combination.baselines import Surfaces
from fourfold.report.claims import control_surface
from fourfold.report.figures._style import (
    BLACK,
    FULL_WIDTH,
    GREY,
    MARKED_WIDTH,
    check_run,
    heading,
    in_order,
    note_off_scale,
    paper_style,
    surface_order,
    surface_style,
)

_COMPARISONS = {
    "low-loss": "worst point against the level to keep",
    "merge": "best point on val against the best corner",
    "ensemble": "four points chosen on val against the four corners",
}
_SPLITS = ("train", "val", "test")

# metric: label of the axis, factor from the table's unit to the figure's
_METRICS = {"accuracy": ("accuracy, points", 100.0), "nll": ("nll, nats", 1.0)}

# An interval is off scale when it ends five times as far from zero as that of the median row.
_FAR = 5


@paper_style
def plot_differences(
    difference: pd.DataFrame, surfaces: Surfaces, *, seeds: Sequence[int] = ()
) -> Figure:
    """Draw each difference between a surface and its corners with its 95 % interval.

    Positive is in favour of the surface. The first linear surface through independent corners, grey
    and hollow, is the control: what holds for it too says little about another. A difference far
    from the others stands at the rim, as a number.

    Args:
        difference: table `difference` of one replicate.
        surfaces: name -> `corners`, `kind`, `fit`, in their order.
        seeds: seeds of the replicate's corners, for the title.

    Raises:
        InputError: if the table is empty or a surface unknown.
    """
    rows = check_run("difference", difference)
    shown = surface_order(rows["surface"], surfaces)
    styles = {name: _style(name, surfaces) for name in shown}
    keys = {"comparison": _COMPARISONS, "surface": shown, "split": _SPLITS}
    order = {key: in_order(rows[key], known) for key, known in keys.items()}
    ranks = {f"{key}_rank": rows[key].map(names.index) for key, names in order.items()}
    rows = rows.assign(**ranks).sort_values(list(ranks), kind="stable")
    # Each comparison is a line for its name, and below it one line per surface and split.
    line = rows.groupby(list(ranks), sort=True).ngroup() + rows["comparison_rank"] + 1
    rows = rows.assign(line=line)
    figure = Figure(figsize=(FULL_WIDTH, 1.3 + 0.155 * (line.max() + 1)), layout="constrained")
    panels = figure.subplots(1, len(_METRICS), sharey=True)
    for (metric, (label, factor)), axes in zip(_METRICS.items(), panels, strict=True):
        _draw_differences(axes, rows[rows["metric"] == metric], styles, factor)
        axes.set_xlabel(f"difference in {label} (bar: 95 % interval)")
    lines = rows.drop_duplicates("line")
    panels[0].set_yticks(
        lines["line"],
        labels=[
            f"{surface}, {split}"
            for surface, split in zip(lines["surface"], lines["split"], strict=True)
        ],
    )
    panels[0].set_ylim(line.max() + 0.6, -0.6)
    for comparison, first in rows.groupby("comparison")["line"].min().items():
        for axes in panels:
            axes.axhspan(first - 1.5, first - 0.5, color="#EEEEEE", linewidth=0, zorder=0)
        panels[0].text(
            0.01,
            first - 1,
            _COMPARISONS.get(comparison, comparison),
            transform=panels[0].get_yaxis_transform(),
            va="center",
            fontsize=7,
        )
    handles = [Line2D([], [], **style) for style in styles.values()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)))
    sizes = rows.drop_duplicates("split").sort_values("split_rank")
    counts = ", ".join(
        f"{n:,} {split}" for n, split in zip(sizes["n"], sizes["split"], strict=True)
    )
    figure.suptitle(
        heading(
            "surfaces against their corners, positive in favour of the surface",
            rows.drop(columns="n"),
            seeds,
            f"n = {counts}",
        )
    )
    return figure


def _style(surface: str, surfaces: Surfaces) -> dict[str, Any]:
    colour, marker = surface_style(surface, surfaces)
    is_control = surface == control_surface(surfaces)
    colour = GREY if is_control else colour
    return {
        "label": f"{surface} surface" + (" (control)" if is_control else ""),
        "linestyle": "",
        "marker": marker,
        "markersize": 4,
        "color": colour,
        "markerfacecolor": "white" if is_control else colour,
    }


def _draw_differences(
    axes: Axes, rows: pd.DataFrame, styles: Mapping[str, dict[str, Any]], factor: float
) -> None:
    rows = rows[rows["difference"].notna()]  # NaN where a network gave no numbers
    value, low, high = (
        factor * rows[column].to_numpy(float) for column in ("difference", "low", "high")
    )
    reach = np.maximum(np.abs(low), np.abs(high))
    is_near = reach <= _FAR * np.median(reach)
    left, right = min(0.0, low[is_near].min()), max(0.0, high[is_near].max())
    margin = 0.08 * (right - left) or 1.0  # all differences may be 0
    axes.set_xlim(left - margin, right + margin)
    rim = 0.03 * (right - left + 2 * margin)
    at = np.clip(value, left - margin + rim, right + margin - rim)
    ends = np.where(is_near, [at - np.clip(low, None, at), np.clip(high, at, None) - at], 0.0)
    for surface, style in styles.items():
        chosen = (rows["surface"] == surface).to_numpy()
        axes.errorbar(
            at[chosen],
            rows["line"].to_numpy()[chosen],
            xerr=ends[:, chosen],
            elinewidth=1.0,
            **style,
        )
    for index in np.flatnonzero(~is_near):
        beside = -7 if value[index] > 0 else 7
        point = (at[index], rows["line"].iloc[index])
        note_off_scale(
            axes, f"{value[index]:+.3g}".replace("-", "\N{MINUS SIGN}"), point, (beside, 0)
        )
    axes.axvline(0, color=BLACK, linewidth=MARKED_WIDTH, zorder=0.5)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
