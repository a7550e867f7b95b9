"""Figure of the differences between each surface and its corners, with their intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fourfold.combination.baselines import Surfaces
from fourfold.report.claims import control_surface
from fourfold.report.figures import _style
from fourfold.report.wording import equal_corners, equal_points

_COMPARISONS = {
    "low-loss": "worst point against the level to keep",
    "merge": "best point on val against the best corner",
    "ensemble": "{points} chosen on val against {corners}",
}
# metric: label of the axis, factor from the table's unit to the figure's
_METRICS = {"accuracy": ("accuracy, points", 100.0), "nll": ("nll, nats", 1.0)}

# An interval is off scale when it ends five times as far from zero as that of the median row.
_FAR = 5


@_style.paper_style
def plot_differences(
    difference: pd.DataFrame, surfaces: Surfaces, *, seeds: Sequence[int] = ()
) -> Figure:
    """Draw each difference between a surface and its corners with its 95 % interval.

    Positive is in favour of the surface. The first linear square through independent corners, grey
    and hollow, is the control: what holds for it too says little about another. A difference far
    from the others stands at the rim, as a number. Sets, which have none, are left out.
    """
    if difference.empty:
        return _style.only_text("no surface has points between its corners")
    shown = _style.surface_order(difference["surface"], surfaces)
    marks = {name: _mark(name, surfaces) for name in shown}
    numbers = {surfaces[name]["count"] for name in shown}
    words = {"points": equal_points(numbers), "corners": equal_corners(numbers)}
    orders = {"comparison": [*_COMPARISONS], "surface": shown, "split": ["train", "val", "test"]}
    keys = {key: pd.Categorical(difference[key], names) for key, names in orders.items()}
    rows = difference.assign(**keys).sort_values(list(keys))
    # Each comparison is a line for its name, and below it one line per surface and split.
    line = rows.groupby(list(keys), observed=True).ngroup() + rows["comparison"].cat.codes + 1
    rows = rows.assign(line=line)
    figure = Figure((_style.FULL_WIDTH, 1.3 + 0.155 * (line.max() + 1)), layout="constrained")
    panels = figure.subplots(1, len(_METRICS), sharey=True)
    for (metric, (label, factor)), axes in zip(_METRICS.items(), panels, strict=True):
        _draw_differences(axes, rows[rows["metric"] == metric], marks, factor)
        axes.set_xlabel(f"difference in {label} (bar: 95 % interval)")
    lines = rows.drop_duplicates("line")
    labels = [f"{row.surface}, {row.split}" for row in lines.itertuples()]
    panels[0].set_yticks(lines["line"], labels=labels)
    panels[0].set_ylim(line.max() + 0.6, -0.6)
    for comparison, first in rows.groupby("comparison", observed=True)["line"].min().items():
        for axes in panels:
            axes.axhspan(first - 1.5, first - 0.5, color="#EEEEEE", linewidth=0, zorder=0)
        across = panels[0].get_yaxis_transform()
        name = _COMPARISONS[comparison].format(**words)
        panels[0].text(0.01, first - 1, name, transform=across, va="center", fontsize=7)
    _style.legend(figure, marks.values(), min(4, len(marks)))
    sizes = rows.drop_duplicates("split").itertuples()
    counts = ", ".join(f"{row.n:,} {row.split}" for row in sizes)
    what = "surfaces against their corners, positive in favour of the surface"
    figure.suptitle(_style.heading(what, rows.drop(columns="n"), seeds, f"n = {counts}"))
    return figure


def _mark(surface: str, surfaces: Surfaces) -> dict[str, Any]:
    colour, marker = _style.surface_style(surface, surfaces)
    if surface == control_surface(surfaces):
        label = f"{surface} surface (control)"
        return _style.mark(marker, 4, _style.GREY, filled=False, label=label)
    return _style.mark(marker, 4, colour, label=f"{surface} surface")


def _draw_differences(
    axes: Axes, rows: pd.DataFrame, marks: Mapping[str, dict[str, Any]], factor: float
) -> None:
    rows = rows[rows["difference"].notna()]  # NaN where a network gave no numbers
    value, low, high = (
        factor * rows[column].to_numpy(float) for column in ("difference", "low", "high")
    )
    line = rows["line"].to_numpy()
    reach = np.maximum(np.abs(low), np.abs(high))
    is_near = reach <= _FAR * np.median(reach)
    left, right = min(0.0, low[is_near].min()), max(0.0, high[is_near].max())
    margin = 0.08 * (right - left) or 1.0  # all differences may be 0
    axes.set_xlim(left - margin, right + margin)
    rim = 0.03 * (right - left + 2 * margin)
    at = np.clip(value, left - margin + rim, right + margin - rim)
    ends = np.where(is_near, [at - np.clip(low, None, at), np.clip(high, at, None) - at], 0.0)
    for surface, look in marks.items():
        chosen = (rows["surface"] == surface).to_numpy()
        axes.errorbar(at[chosen], line[chosen], xerr=ends[:, chosen], elinewidth=1.0, **look)
    for i in np.flatnonzero(~is_near):
        number = f"{value[i]:+.3g}".replace("-", "\N{MINUS SIGN}")
        _style.note_off_scale(axes, number, (at[i], line[i]), -7 if value[i] > 0 else 7, 0)
    axes.axvline(0, color=_style.BLACK, linewidth=_style.MARKED_WIDTH, zorder=0.5)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
