"""Figure of how fast fits converge: loss on val against the images that they took."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from fourfold.combination.baselines import NOBODYS, Described, Surfaces
from fourfold.evaluation.bootstrap import student_interval
from fourfold.report.figures import _style
from fourfold.report.figures._labels import label_marks
from fourfold.report.figures._measure import NLL

_NEAR = 0.1  # nats above the mean of the corners
_COLUMNS = {"max": "worst point", "mean": "mean"}
_LEVELS = (
    {"color": _style.GREY, "linewidth": 0.8, "label": "mean of the corners, as trained"},
    {"color": _style.GREY, "linewidth": 0.8, "label": f"{_NEAR} nats more", "linestyle": "--"},
)


@_style.paper_style
def plot_convergence(
    barrier: pd.DataFrame, cost: pd.DataFrame, surfaces: Surfaces, *, seeds: Sequence[int] = ()
) -> Figure:
    """Draw worst and mean nll on val of fitted surfaces against the images that their fit took.

    Shapes that only one fitted surface has are left out. A line joins surfaces of one shape and
    degree on the same corners whose fits have one origin; of several that took equally many images
    it goes through the first. The legend says at how many images it reaches the corners' mean
    nll + 0.1, interpolated between logarithms of images.

    Of several replicates it is the mean, with a pale line for each; the legend has the geometric
    mean of images, with the 95 % interval by Student's t.
    """
    rows = fit_rows(barrier, cost, surfaces)
    if rows[[*_COLUMNS]].isna().all(axis=None):
        return _style.only_text("no two surfaces of one shape are fitted")
    shapes, families = ([*dict.fromkeys(rows[key])] for key in ("shape", "family"))
    lines = 1 + len(families) + len(_LEVELS)  # of the legend
    size = (_style.FULL_WIDTH, 0.7 + 2.4 * len(shapes) + 0.15 * lines)
    figure = Figure(size, layout="constrained")
    panels = figure.subplots(len(shapes), 2, sharex=True, sharey="row", squeeze=False)
    looks = []
    for family in families:
        colour, marker = _style.surface_style(family, families)
        part = rows[rows["family"] == family].sort_values("images", kind="stable")
        runs = [one.drop_duplicates("images") for _, one in part.groupby("replicate")]
        reached = " / ".join(_reached(runs, column) for column in _COLUMNS)
        look = {"color": colour, "marker": marker, "markersize": 4}
        looks.append(look | {"label": f"{family}: {reached}"})
        means = _means(part)
        joined = means.drop_duplicates("images")
        for column, axes in zip(_COLUMNS, panels[shapes.index(part["shape"].iloc[0])], strict=True):
            axes.plot(joined["images"], joined[column], color=colour)
            axes.plot(means["images"], means[column], linestyle="", **look)
            for one in runs if len(runs) > 1 else ():
                axes.plot(one["images"], one[column], color=colour, alpha=0.3, linewidth=0.6)
    for shape, row in zip(shapes, panels, strict=True):
        of = rows[rows["shape"] == shape]
        levels = _means(of)["level"].dropna().unique()
        NLL.set_axis(row[0], "y", np.append(of[[*_COLUMNS, "level"]], levels + _NEAR))
        row[0].set_ylabel(NLL.label)
        for name, axes in zip(_COLUMNS.values(), row, strict=True):
            axes.set_title(f"{shape}: {name}")
            axes.grid()
            for level in levels:
                for at, look in zip((level, level + _NEAR), _LEVELS, strict=True):
                    axes.axhline(at, zorder=0.5, **look)
    for axes in panels[-1]:
        axes.set_xscale("log")
        axes.margins(x=0.12)
        axes.set_xlabel("images that the fit took")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda images, _: f"{images / 1000:,g}k")
        axes.xaxis.set_minor_locator(NullLocator())
    title = f"images to reach {_NEAR} nats above the corners: worst point / mean"
    _style.legend(figure, [*looks, *_LEVELS], 1, title)
    details = ("val split", *_style.without_number(rows, "max"))
    figure.suptitle(_style.heading("convergence of the fits", rows, seeds, *details))
    marks = {}
    for shape, row in zip(shapes, panels, strict=True):
        for column, axes in zip(_COLUMNS, row, strict=True):
            of = _means(rows[rows["shape"] == shape])
            places = {"name": of["surface"], "x": of["images"], "y": of[column]}
            marks[axes] = pd.DataFrame(places).dropna()
    label_marks(figure, marks)
    return figure


def fit_rows(barrier: pd.DataFrame, cost: pd.DataFrame, surfaces: Surfaces) -> pd.DataFrame:
    """Return the rows of fitted surfaces on val, with what the figure shows of each.

    A shape that only one fitted surface has is left out. Added are images, shape, family (what the
    surfaces of one line have in common), and level (the mean nll of the corners as trained, NaN if
    they were not).
    """
    shown = _style.surface_order(barrier["surface"], surfaces)
    fitted = {name: surfaces[name] for name in shown if surfaces[name]["fit"] is not None}
    counts = Counter(of["shape"] for of in fitted.values())
    names = [name for name, of in fitted.items() if counts[of["shape"]] > 1]
    rows = barrier[(barrier["metric"] == "nll") & (barrier["split"] == "val")]
    rows = rows[rows["surface"].isin(names)]
    rows = rows.sort_values("surface", key=lambda of: of.map(names.index), kind="stable")
    fits = cost[cost["stage"] == "fit_bezier_surface"]
    images = fits.set_index(["replicate", "item"])["images_backward"]
    of_rows = pd.MultiIndex.from_frame(rows[["replicate", "surface"]])
    described = [fitted[name] for name in rows["surface"]]
    is_untrained = [of["kind"] in NOBODYS for of in described]
    return rows.assign(
        images=images.reindex(of_rows).to_numpy(),
        shape=[of["shape"] for of in described],
        family=[_family(of) for of in described],
        level=rows["corner_mean_own"].mask(np.array(is_untrained, bool)),
    )


def _family(surface: Described) -> str:
    stated: dict[str, Any] = {**surface, "fit": surface.get("fit_of", surface["fit"])}
    keys = [key for key in ("degree", "bends", "added", "fit") if key in stated]
    words = [f"{key} {stated[key]}" for key in keys]
    return ", ".join([surface["corners"], surface["shape"], *words])


def images_reached(rows: pd.DataFrame, column: str) -> tuple[str, float]:
    """Return at how many images a line first gets to 0.1 nats above the corners.

    Args:
        rows: of one family, see `fit_rows`, with rising images.
        column: `max` or `mean`.

    Returns:
        Before the number `<`, if the first surface is there already, or `>`, if the last one isn't;
        NaN without a level.
    """
    rows = rows[rows[column].notna()]
    excess = (rows[column] - rows["level"] - _NEAR).to_numpy()
    images = rows["images"].to_numpy(float)
    if np.isnan(excess).all():
        return "", math.nan
    if not (excess <= 0).any():
        return ">", images[-1]
    first = int((excess <= 0).argmax())
    if first == 0:
        return "<", images[0]
    share = excess[first - 1] / (excess[first - 1] - excess[first])
    step = math.log(images[first] / images[first - 1])
    return "", images[first - 1] * math.exp(share * step)


def _reached(runs: Sequence[pd.DataFrame], column: str) -> str:
    """Return what the legend says of one line: rows of each replicate, by images."""
    found = [images_reached(one, column) for one in runs]
    values = np.array([images for _, images in found])
    if np.isnan(values).any():
        return "-"
    signs = sorted({sign for sign, _ in found} - {""})
    if len(signs) > 1:
        return f"< {_thousands(values.min())} to > {_thousands(values.max())}"
    logs = np.log(values)
    mean = " ".join([*signs, _thousands(math.exp(logs.mean()))])  # of bounds it is a bound
    if signs or len(found) == 1:
        return mean
    low, high = (_thousands(math.exp(end)) for end in student_interval(logs))
    return f"{mean} [{low}, {high}]"


def _thousands(images: float) -> str:
    return f"{images / 1000:,.0f}k"


def _means(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each surface, in the order of `rows`: the mean over the replicates."""
    values = rows.groupby("surface", sort=False)[["images", *_COLUMNS, "level"]]
    return values.agg(lambda of: of.mean(skipna=False)).reset_index()
