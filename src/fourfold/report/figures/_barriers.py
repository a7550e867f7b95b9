"""Figures of the barriers of all surfaces: in parts, and against the distance of their corners."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fourfold.combination.baselines import UNTRAINED, Surfaces
from fourfold.report.figures import _style
from fourfold.report.figures._labels import label_marks
from fourfold.report.figures._measure import ACCURACY, Floats
from fourfold.report.summary import corner_gaps
from fourfold.surfaces.shapes import shape_of

# Values that differ by more than this factor are drawn by their logarithm, but for small ones.
_MUCH = 30
_SMALL = {"barrier": 0.01, "corner_distance": 0.03, "corner_disagreement": 1.0}
_POWERS = 10.0 ** np.arange(-2, 7)

_SPLITS = {"train": _style.GREY, "test": _style.VERMILLION}
_OWN = _style.mark("|", 9, _style.BLACK, label="mean of the corners, as trained")
_WORST = _style.mark("v", 4.5, _style.VERMILLION, label="worst point")

# By how the corners of a square came about.
_KINDS = {
    "seeds": _style.mark("o", 5, _style.BLUE, label="independent runs"),
    "run": _style.mark("^", 5, _style.GREEN, label="one run"),
    "fork": _style.mark("D", 4.5, _style.ORANGE, label="runs that part"),
    "files": _style.mark("P", 5, _style.SKY, label="from files"),
    "aligned": _style.mark("s", 4.5, _style.PURPLE, label="aligned"),
    "random": _style.mark("X", 5, _style.GREY, label="null model"),
    "untrained": _style.mark("v", 5, _style.BLACK, label="untrained"),
    "free": _style.mark("p", 5, _style.VERMILLION, label="not trained alone"),
}


@_style.paper_style
def plot_barriers(
    barrier: pd.DataFrame, grid: pd.DataFrame, surfaces: Surfaces, *, seeds: Sequence[int] = ()
) -> Figure:
    """Draw of each surface its barrier in nll on train and test, and its worst point's accuracy.

    Of several replicates it is the mean, with a dot for each. Sets have no barrier. Surfaces whose
    statistics are neither re-estimated nor without need for it say so in their name.
    """
    shown = _style.surface_order(barrier["surface"], surfaces)
    shown = [name for name in shown if not shape_of(surfaces[name]).is_discrete]
    if not shown:
        return _style.only_text("there is nothing between the corners of any surface")
    rows = barrier[barrier["surface"].isin(shown)]
    rows = rows.assign(place=rows["surface"].map(shown.index))
    figure = Figure((_style.FULL_WIDTH, 1.25 + 0.29 * len(shown)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.25, 1])
    _draw_bars(left, rows[(rows["metric"] == "nll") & rows["split"].isin(_SPLITS)])
    _draw_worst(right, _style.shown_rows(rows[rows["metric"] == "error"]))
    statistics = grid.groupby("surface")["statistics"].agg(set)
    labels = []
    for name in shown:
        odd = statistics[name] - {"own", "reestimated", "none"}
        labels.append(f"{name} ({', '.join(sorted(odd))})" if odd else name)
    left.set_yticks(range(len(shown)), labels=labels)
    left.set_ylim(len(shown) - 0.5, -0.5)
    for axes in (left, right):
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        for border in range(1, len(shown)):
            axes.axhline(border - 0.5, **_style.BORDER)
    bars = [_style.mark("s", 5, colour, label=split) for split, colour in _SPLITS.items()]
    _style.legend(figure, [*bars, _OWN, _WORST], 4)
    what = "barrier of each surface, and its worst point on test"
    figure.suptitle(_style.heading(what, rows, seeds))
    return figure


def _draw_bars(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw a bar for each surface and split, with its number."""
    values = rows["barrier"].to_numpy(float)
    _set_axis(axes, "x", values, _SMALL["barrier"], margin=0.2)
    axes.axvline(0, color=_style.BLACK, linewidth=_style.MARKED_WIDTH)
    for split, aside in zip(_SPLITS, (-0.2, 0.2), strict=True):
        part = rows[rows["split"] == split]
        means = part.groupby("place")["barrier"].mean()
        axes.barh(means.index + aside, means, height=0.34, color=_SPLITS[split])
        ends = part.groupby("place")["barrier"].agg(["min", "max"])
        for place, mean in means.items():
            is_left = mean <= -0.0005
            end = 0 if np.isnan(mean) else ends.loc[place, "min" if is_left else "max"]
            axes.annotate(
                f"{mean:z.3f}".replace("-", "\N{MINUS SIGN}").replace("nan", "NaN"),
                (end, place + aside),
                xytext=(-3 if is_left else 3, 0),
                textcoords="offset points",
                ha="right" if is_left else "left",
                va="center",
                fontsize=6,
            )
        if part["replicate"].unique().size > 1:
            axes.plot(part["barrier"], part["place"] + aside, **_style.mark(".", 3, _style.BLACK))
    axes.set_xlabel("barrier in nll (nats per example)")


def _draw_worst(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw the accuracy of each surface's worst point, joined to that of its corners."""
    values = 100 * (1 - rows[["max", "corner_mean_own"]])
    ACCURACY.set_axis(axes, "x", values.to_numpy(float))
    means = values.groupby(rows["place"]).mean()
    axes.hlines(means.index, *means.to_numpy().T, color=_style.PALE, zorder=1)
    axes.plot(means["corner_mean_own"], means.index, **_OWN)
    axes.plot(means["max"], means.index, **_WORST)
    if rows["replicate"].unique().size > 1:
        axes.plot(values["max"], rows["place"] + 0.25, **_style.mark(".", 3, _style.BLACK))
    axes.set_xlabel("test accuracy (%)")


@_style.paper_style
def plot_careful(
    barrier: pd.DataFrame, geometry: pd.DataFrame, surfaces: Surfaces, *, seeds: Sequence[int] = ()
) -> Figure:
    """Draw the barrier of squares on val against the distance and disagreement of their corners.

    Shown are squares without a fit and, hollow, fitted ones whose corners were untrained: what
    corners have to be like for a surface to be low-loss without training.
    """
    _style.surface_order(barrier["surface"], surfaces)
    squares = [
        name
        for name, of in surfaces.items()
        if of["shape"] == "square" and (of["fit"] is None or of["kind"] in UNTRAINED)
    ]
    is_shown = (barrier["metric"] == "nll") & (barrier["split"] == "val")
    rows = barrier[is_shown & barrier["surface"].isin(squares)]
    if rows.empty:
        return _style.only_text("no square is without a fit")
    gaps = pd.DataFrame({name: corner_gaps(of) for name, of in geometry.groupby("surface")}).T
    rows = rows.join(gaps.reindex(columns=["corner_distance", "corner_disagreement"]), on="surface")
    labels = {
        "corner_distance": ("distance of the corners (distance / mean norm)", 1),
        "corner_disagreement": ("disagreement of the corners on test (%)", 100),
    }
    figure = Figure((_style.FULL_WIDTH, 3.8), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    looks: dict[tuple[str, bool], dict[str, Any]] = {}
    for (column, (label, factor)), axes in zip(labels.items(), panels, strict=True):
        _set_axis(axes, "x", factor * rows[column].to_numpy(float), _SMALL[column], margin=0.1)
        _set_axis(axes, "y", rows["barrier"].to_numpy(float), _SMALL["barrier"], margin=0.1)
        axes.axhline(0, color=_style.BLACK, linewidth=_style.MARKED_WIDTH)
        for row in rows.itertuples():
            of = surfaces[row.surface]
            look = _KINDS[of["kind"]]
            if of["fit"] is not None:
                look = look | {"markerfacecolor": "white", "label": f"{look['label']}, fitted"}
            looks[of["kind"], of["fit"] is not None] = look
            axes.plot(factor * getattr(row, column), row.barrier, **look)
        axes.set_xlabel(label)
        axes.grid()
    panels[0].set_ylabel("barrier in nll on val (nats per example)")
    order = sorted(looks, key=lambda of: ([*_KINDS].index(of[0]), of[1]))
    _style.legend(figure, [looks[key] for key in order], min(4, len(order)))
    what = "barrier of squares without a fit, by how far apart their corners are"
    details = ("val split", *_style.without_number(rows, "barrier"))
    figure.suptitle(_style.heading(what, rows, seeds, *details))
    marks = {}
    for (column, (_, factor)), axes in zip(labels.items(), panels, strict=True):
        places = {"name": rows["surface"], "x": factor * rows[column], "y": rows["barrier"]}
        marks[axes] = pd.DataFrame(places).dropna()
    label_marks(figure, marks)
    return figure


def _set_axis(axes: Axes, which: str, values: Floats, small: float, margin: float) -> None:
    """Give an axis the scale, limits and ticks that show 0 and values that may be 0 or less.

    Where they differ much it is linear up to about `small` and logarithmic beyond.
    """
    values = np.append(values[np.isfinite(values)], 0.0)
    sizes = np.abs(values[:-1])
    is_wide = sizes.size > 0 and sizes.max() > max(_MUCH * sizes.min(), 5 * small)
    # The inverse hyperbolic sine of x is about x if that is small, and log(2 x) if it is large.
    width = small if is_wide else 1e9
    low, high = np.arcsinh([values.min() / width, values.max() / width])
    pad = margin * (high - low or small / width)
    low, high = width * np.sinh([low - (pad if low < 0 else pad / 3), high + pad])
    if is_wide:
        sizes = np.outer(_POWERS, [1] if high > 300 * small else [1, 3]).ravel()
        ticks = np.array([*-sizes[::-1], 0, *sizes])
        ticks = ticks[(ticks >= low) & (ticks <= high) & ((ticks == 0) | (abs(ticks) >= small))]
        getattr(axes, f"set_{which}scale")("asinh", linear_width=width)
        getattr(axes, f"set_{which}ticks")(ticks, labels=[f"{tick:g}" for tick in ticks])
        getattr(axes, f"{which}axis").minorticks_off()
    getattr(axes, f"set_{which}lim")(low, high)
