"""Figure of all methods at equal cost: what training and predicting buy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from fourfold.combination.baselines import Surfaces
from fourfold.report.figures import _style
from fourfold.report.figures._labels import label_marks
from fourfold.report.figures._measure import ACCURACY, NLL, Floats, Measure
from fourfold.report.pairs import is_named_twice

# By the end of a method's name, without a number of members.
_FAMILIES = {
    "network": _style.mark("o", 4, _style.BLACK, label="one network, as trained"),
    "mean": _style.mark("D", 4, _style.GREY, label="mean of networks"),
    "ensemble": _style.mark("s", 4, _style.BLUE, label="ensemble of networks"),
    "point": _style.mark("^", 4.5, _style.ORANGE, label="one point of a surface"),
    "points": _style.mark("v", 4.5, _style.VERMILLION, label="ensemble of points"),
}
_OF = {"center": "point", "best-point": "point", "greedy-soup": "mean"}
_OF |= dict.fromkeys(("greedy", "inner", "all"), "points")

# Costs on the horizontal axes: factor from the table's unit, label, and how far families that cost
# the same stand apart, in decades: less than costs of training that differ.
_COSTS = {
    "images_backward": (1e-3, "thousand images passed backward", 0.012),
    "forward_passes": (1.0, "forward passes per prediction", 0.035),
}
_READING = "side by side: the same cost; at the rim: off scale"
_FAR = 1.2  # a mark is off scale that lies further above the front than this times its own range


@_style.paper_style
def plot_rivals(rival: pd.DataFrame, surfaces: Surfaces, *, seeds: Sequence[int] = ()) -> Figure:
    """Draw nll (above) and accuracy of all methods over what they cost to train and to use.

    The line is the front: methods that no cheaper one matches, which have their names beside them.
    Marks far from it stand at the rim; where there are some that took no training here, they stand
    at the left end.
    """
    rows = _style.shown_rows(rival)
    rows = rows[[not is_named_twice(method, surfaces) for method in rows["method"]]]
    _style.surface_order(rows["surface"], surfaces)
    kind = rows["method"].str.rpartition("/")[2].str.replace(r"-\d+$", "", regex=True)
    rows = rows.assign(family=kind.map(lambda name: _OF.get(name, name)))
    figure = Figure((_style.FULL_WIDTH, 6.2), layout="constrained")
    panels = figure.subplots(2, len(_COSTS), sharex="col", sharey="row")
    fronts: dict[Axes, pd.DataFrame] = {}
    for measure, line in zip((NLL, ACCURACY), panels, strict=True):
        known = rows[rows[measure.column].notna()]
        every = {cost: _front(known, cost, measure) for cost in _COSTS}
        _set_measure(line[0], measure, known, pd.concat(every.values()))
        line[0].set_ylabel(measure.label)
        for (cost, front), axes in zip(every.items(), line, strict=True):
            fronts[axes] = _draw_methods(axes, measure, known, front, cost)
            axes.grid()
    for (_, label, _), axes in zip(_COSTS.values(), panels[-1], strict=True):
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.xaxis.set_minor_formatter("")
        axes.set_xlabel(label)
    used = [look for family, look in _FAMILIES.items() if family in set(rows["family"])]
    front = {"color": _style.GREY, "linewidth": 0.8, "label": "front"}
    _style.legend(figure, [*used, front], 3, title=_READING)
    what = "what training and predicting cost, and what that gives"
    details = ("bars: 95 % intervals over images", _style.one_example(rows))
    figure.suptitle(_style.heading(what, rows, seeds, *details))
    label_marks(figure, fronts)
    return figure


def _front(rows: pd.DataFrame, cost: str, measure: Measure) -> pd.DataFrame:
    """Return the methods that are better than all that cost no more, by rising cost.

    Of equals it is the one whose other cost is less.
    """
    sign = -1 if measure is ACCURACY else 1
    loss = sign * rows[measure.column]
    others = [other for other in _COSTS if other != cost]
    ordered = rows.assign(loss=loss).sort_values([cost, "loss", *others], kind="stable")
    return ordered[ordered["loss"] < ordered["loss"].cummin().shift(fill_value=np.inf)]


def _set_measure(axes: Axes, measure: Measure, rows: pd.DataFrame, front: pd.DataFrame) -> None:
    """Scale the vertical axis so that it shows the fronts, and what is not far from them."""
    places = measure.space(measure.values(rows))
    least, most = np.sort(measure.space(measure.values(front)))[[0, -1]]
    reach = _FAR * max(most - least, 0.2)
    near = rows[(places >= least - reach) & (places <= most + reach)]
    ends = [measure.factor * near[f"{measure.column}_{end}"] for end in ("low", "high")]
    measure.set_axis(axes, "y", np.concatenate(ends))


def _draw_methods(
    axes: Axes, measure: Measure, rows: pd.DataFrame, front: pd.DataFrame, cost: str
) -> pd.DataFrame:
    """Draw the marks of all methods and the front; return the names and places of the front."""
    factor, _, aside = _COSTS[cost]
    paid = factor * rows.loc[rows[cost] > 0, cost]
    free = paid.min() / 2 if len(paid) else 1.0  # no place on a logarithmic scale is zero
    axes.set_xscale("log")
    low, high = measure.space(np.array(axes.get_ylim()))
    rim = 0.02 * (high - low)

    def place(of: pd.DataFrame) -> tuple[Floats, Floats]:
        values = np.clip(measure.space(measure.values(of)), low + rim, high - rim)
        costs = factor * of[cost].to_numpy(float)
        turn = of["family"].map([*_FAMILIES].index).to_numpy(float) - (len(_FAMILIES) - 1) / 2
        x = np.where(costs > 0, costs, free) * 10 ** (aside * turn)
        return x, np.asarray(measure.unspace(values))

    x, y = place(front)
    end = x.max(initial=factor * rows[cost].max())
    line: dict[str, Any] = {
        "color": _style.GREY,
        "linewidth": 0.8,
        "drawstyle": "steps-post",
        "zorder": 1,
    }
    axes.plot([*x, end], [*y, y[-1]], **line)
    for family, look in _FAMILIES.items():
        part = rows[rows["family"] == family]
        here, value = place(part)
        ends = [measure.factor * part[f"{measure.column}_{end}"] for end in ("low", "high")]
        is_near = value == measure.values(part)
        bars: Any = [np.where(is_near, np.abs(value - end), 0) for end in ends]
        axes.errorbar(here, value, yerr=bars, elinewidth=0.5, zorder=2, **look)
    return pd.DataFrame({"name": front["method"].to_numpy(), "x": x, "y": y})
