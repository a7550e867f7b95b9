"""Figures of surfaces over (u, v): contours, relief and profiles."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import AbstractPathEffect, withStroke
from mpl_toolkits.mplot3d import Axes3D  # type: ignore[import-untyped]  # comes without stubs
from numpy.typing import NDArray

from fourfold.errors import InputError
from fourfold.report.figures._lattice import diagonals, lattice, perimeter
from fourfold.report.figures._measure import ACCURACY, NLL, Floats, Measure
from fourfold.report.figures._style import (
    BLACK,
    BLUE,
    FULL_WIDTH,
    GREY,
    MARKED_WIDTH,
    NARROW_WIDTH,
    ORANGE,
    VERMILLION,
    check_run,
    heading,
    in_order,
    paper_style,
    surface_order,
)
from fourfold.surfaces.points import lattice_rows, own_corner_rows, surface_rows

# Statistics blended linearly are an ablation: drawn only where a table has nothing else.
_STATISTICS = {
    "reestimated": "BatchNorm re-estimated",
    "none": "no BatchNorm",
    "interpolated": "BatchNorm interpolated",
}
_DIAGONALS = {"00 to 11": BLUE, "01 to 10": VERMILLION}
_CORNERS = {"00": (0, 0), "10": (1, 0), "11": (1, 1), "01": (0, 1)}  # (u, v), around the surface
# Keeps text readable on any colour.
_HALO: list[AbstractPathEffect] = [withStroke(linewidth=1.6, foreground="white")]

_OUTLINED: dict[str, Any] = {
    "linestyle": "",
    "markeredgecolor": BLACK,
    "markeredgewidth": MARKED_WIDTH,
}
_CORNER_MARK = {
    **_OUTLINED,
    "marker": "s",
    "markersize": 5,
    "markerfacecolor": "white",
    "clip_on": False,
    "label": "corner (trained network), named uv",
}
_BEST_MARK = {
    **_OUTLINED,
    "marker": "*",
    "markersize": 10,
    "markerfacecolor": VERMILLION,
    "clip_on": False,
    "zorder": 5,
    "label": "best point, chosen on val",
}
_WORST_MARK = {
    **_OUTLINED,
    "marker": "v",
    "markersize": 5,
    "markerfacecolor": ORANGE,
    "clip_on": False,
    "zorder": 5,
    "label": "worst point found",
}
_CENTER_MARK: dict[str, Any] = {
    "linestyle": "",
    "marker": "+",
    "markersize": 5,
    "markeredgecolor": BLACK,
    "markeredgewidth": 0.8,
    "label": "center (fixed in advance)",
}


@paper_style
def plot_surfaces(
    grid: pd.DataFrame,
    merge: pd.DataFrame,
    surfaces: Collection[str],
    *,
    split: str = "test",
    seeds: Sequence[int] = (),
) -> Figure:
    """Draw nll (above) and accuracy (below) over (u, v), one column per surface.

    Each row has one colour scale; the light end is good. Surfaces that are flat on it are drawn
    once more, at the right, on scales of their own. Contour lines are chosen for each panel.
    Squares are the corners, the star is the point chosen on val, the cross the center, the triangle
    the worst of all points, on and off the lattice. Panel titles give the range over all points.

    Args:
        grid: table `grid` of one replicate; each surface on a complete lattice.
        merge: table `merge` of the same replicate; its rows best-point place the stars.
        surfaces: in their order.
        split: the split that is shown.
        seeds: seeds of the replicate's corners, for the title.

    Raises:
        InputError: if the split is absent, a table is empty, a surface unknown or a lattice
            incomplete.
    """
    rows, surfaces = _surfaces(grid, surfaces, split)
    on_lattice = lattice_rows(rows)
    flat = _flat_surfaces(on_lattice, surfaces)
    columns = [*((name, False) for name in surfaces), *((name, True) for name in flat)]
    best_points = _best_points(merge)
    width, height = _size(surfaces, 4.8)
    # Further columns make all panels smaller, and so the figure lower.
    size = (width + 1.3 * len(flat), height - 0.2 * len(flat))
    layout = ConstrainedLayoutEngine(compress=True, hspace=0.1)  # titles of the lower row need room
    figure = Figure(figsize=size, layout=layout)
    panels = figure.subplots(2, len(columns), sharex=True, sharey=True, squeeze=False)
    for measure, row in zip((NLL, ACCURACY), panels, strict=True):
        shared = measure.limits(measure.values(on_lattice))
        for (surface, has_own_scale), axes in zip(columns, row, strict=True):
            points, values = lattice(on_lattice, surface, measure)
            limits = measure.limits(values) if has_own_scale else shared
            filled = _draw_contours(axes, measure, points, values, limits)
            every = rows[rows["surface"] == surface]
            _mark_points(axes, measure, every, best_points.get(surface))
            found = measure.values(every)
            gaps = f", {np.isnan(found).sum()} NaN" if np.isnan(found).any() else ""
            low, high = np.nanmin(found), np.nanmax(found)
            axes.set_title(f"{measure.column} {low:.3g} to {high:.3g}{gaps}")
            if has_own_scale:
                _draw_colourbar(figure, filled, measure, axes, count=5, label="")
            elif surface == surfaces[-1]:
                _draw_colourbar(figure, filled, measure, row[: len(surfaces)])
        row[0].set_ylabel("v", rotation=0)
    for (surface, has_own_scale), top, bottom in zip(columns, *panels, strict=True):
        scale = ", own scale" if has_own_scale else ""
        top.set_title(f"{surface}{scale}\n{top.get_title()}")
        bottom.set_xlabel("u")
    marks = (_CORNER_MARK, _BEST_MARK, _CENTER_MARK, _WORST_MARK)
    figure.legend(
        handles=[Line2D([], [], **mark) for mark in marks],
        loc="outside lower center",
        ncols=4 if len(surfaces) > 2 else 2,
    )
    figure.suptitle(heading("loss and accuracy", rows, seeds, _statistics(rows)))
    return figure


@paper_style
def plot_surfaces_3d(
    grid: pd.DataFrame, surfaces: Collection[str], *, split: str = "test", seeds: Sequence[int] = ()
) -> Figure:
    """Draw nll as height over (u, v), one relief per surface.

    Height is linear and colour logarithmic; all panels share both scales.

    Args:
        grid: table `grid` of one replicate; each surface on a complete lattice.
        surfaces: in their order.
        split: the split that is shown.
        seeds: seeds of the replicate's corners, for the title.

    Raises:
        InputError: if the split is absent, the table is empty, a surface unknown or a lattice
            incomplete.
    """
    rows, surfaces = _surfaces(grid, surfaces, split)
    rows = lattice_rows(rows)
    low, high = NLL.limits(NLL.values(rows))
    colours = ScalarMappable(NLL.norm(low, high), colormaps[NLL.colours])
    figure = Figure(figsize=_size(surfaces, 2.5), layout="constrained")
    panels = figure.subplots(1, len(surfaces), squeeze=False, subplot_kw={"projection": "3d"})[0]
    for surface, axes in zip(surfaces, panels, strict=True):
        _draw_relief(axes, colours, *lattice(rows, surface, NLL))
        axes.set_zlim(0, high)
        axes.set_title(surface, y=0.96)
    _draw_colourbar(figure, colours, NLL, panels)
    figure.suptitle(
        heading("nll as height (linear) and colour (log)", rows, seeds, _statistics(rows))
    )
    return figure


@paper_style
def plot_profiles(
    grid: pd.DataFrame, surfaces: Collection[str], *, split: str = "test", seeds: Sequence[int] = ()
) -> Figure:
    """Draw nll along the two diagonals (above) and around the four edges (below) of each surface.

    Solid lines are `split`, dashed ones train. Diagonals go through the points of the lattice,
    edges through all points on them. The grey band is the range of the four corners on `split` as
    they were trained, the thin line their mean.

    Args:
        grid: table `grid` of one replicate; each surface on a complete lattice.
        surfaces: in their order.
        split: the split that is drawn solid.
        seeds: seeds of the replicate's corners, for the title.

    Raises:
        InputError: if the split is absent, the table is empty, a surface unknown, a lattice
            incomplete or a corner missing.
    """
    rows, surfaces = _surfaces(grid, surfaces, split)
    splits = [name for name in dict.fromkeys((split, "train")) if (grid["split"] == name).any()]
    drawn = {name: _surfaces(grid, surfaces, name)[0] for name in splits}
    corners = {surface: _corner_nll(grid, surface, split) for surface in surfaces}
    figure = Figure(figsize=_size(surfaces, 4.6), layout="constrained")
    panels = figure.subplots(2, len(surfaces), sharey=True, squeeze=False)
    shown = np.concatenate([*map(NLL.values, drawn.values()), *corners.values()])
    for surface, (top, bottom) in zip(surfaces, panels.T, strict=True):
        for name, dashes in zip(splits, ("-", "--"), strict=False):
            points, values = lattice(lattice_rows(drawn[name]), surface, NLL)
            for (path, colour), profile in zip(_DIAGONALS.items(), diagonals(values), strict=True):
                top.plot(points, profile, dashes, color=colour, label=f"{path}, {name}")
            along, profile = perimeter(drawn[name], surface, NLL)
            bottom.plot(along, profile, dashes, color=BLACK, label=f"edges, {name}")
        band = corners[surface]
        for axes in (top, bottom):
            axes.axhspan(band.min(), band.max(), color="#D0D0D0", linewidth=0, zorder=0)
            axes.axhline(band.mean(), color=GREY, linewidth=MARKED_WIDTH, zorder=0.5)
            NLL.set_axis(axes, "y", shown)
        top.set(title=surface, xlim=(0, 1), xlabel="position on the diagonal")
        bottom.set(xlim=(0, 4), xlabel="corner (uv)")
        bottom.set_xticks(range(5), labels=[*_CORNERS, "00"])
    for axes in panels[:, 0]:
        axes.set_ylabel(NLL.label)
    patch = Patch(color="#D0D0D0", label="corners as trained: range and mean")
    handles = [*panels[0, 0].get_lines(), *panels[1, 0].get_lines()]
    handles = [line for line in handles if not line.get_label().startswith("_")]
    figure.legend(
        handles=[*handles, patch], loc="outside lower center", ncols=min(4, len(surfaces) + 1)
    )
    figure.suptitle(heading("loss along diagonals and edges", rows, seeds, _statistics(rows)))
    return figure


def _surfaces(
    grid: pd.DataFrame, surfaces: Collection[str], split: str
) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows of the surfaces' points on `split`, and the surfaces in their order."""
    rows = surface_rows(check_run("grid", grid, split=split))
    rank = rows["statistics"].map(list(_STATISTICS).index)
    rows = rows[rank == rank.groupby(rows["surface"]).transform("min")]
    return rows, surface_order(rows["surface"], surfaces)


def _statistics(rows: pd.DataFrame) -> str:
    return " / ".join(_STATISTICS[kind] for kind in in_order(rows["statistics"], _STATISTICS))


def _flat_surfaces(rows: pd.DataFrame, surfaces: list[str]) -> list[str]:
    """Return the surfaces that a colour scale shared by all shows in a third of its colours."""

    def extent(measure: Measure, part: pd.DataFrame) -> float:
        places = measure.space(measure.values(part))
        return float(np.nanmax(places) - np.nanmin(places))

    flat = [
        surface
        for surface in surfaces
        if any(
            extent(measure, rows[rows["surface"] == surface]) < extent(measure, rows) / 3
            for measure in (NLL, ACCURACY)
        )
    ]
    return flat[-max(2, len(surfaces) - 1) :]  # more would leave each panel too small


def _corner_nll(grid: pd.DataFrame, surface: str, split: str) -> Floats:
    rows = own_corner_rows(grid[(grid["surface"] == surface) & (grid["split"] == split)])
    rows = rows.drop_duplicates(["u", "v"])
    if len(rows) != len(_CORNERS):
        raise InputError(
            f"surface {surface!r} has {len(rows)} rows of corners as trained (statistics 'own' or "
            f"'none') on split {split!r}; a figure needs {len(_CORNERS)}."
        )
    return NLL.values(rows)


def _best_points(merge: pd.DataFrame) -> dict[str, tuple[float, float]]:
    rows = check_run("merge", merge)
    rows = rows[rows["merge"] == "best-point"]
    return dict(zip(rows["surface"], zip(rows["u"], rows["v"], strict=True), strict=True))


def _size(surfaces: list[str], height: float) -> tuple[float, float]:
    # Three surfaces fill the width of a page; titles need room over a single one.
    return max(NARROW_WIDTH, FULL_WIDTH * (0.11 + 0.89 * len(surfaces) / 3)), height


def _draw_colourbar(
    figure: Figure,
    colours: ScalarMappable,
    measure: Measure,
    panels: Axes | NDArray[np.object_],
    *,
    count: int = 8,
    label: str | None = None,
) -> None:
    label = f"{measure.label}\n{measure.spacing}" if label is None else label
    bar = figure.colorbar(colours, ax=panels, pad=0.02, aspect=22, label=label)
    ticks = measure.ticks(*colours.get_clim(), count)
    bar.set_ticks(ticks.tolist(), labels=[f"{tick:g}" for tick in ticks])
    bar.minorticks_off()


def _draw_contours(
    axes: Axes, measure: Measure, points: Floats, values: Floats, limits: tuple[float, float]
) -> QuadContourSet:
    start, stop = measure.space(np.array(limits))
    filled = axes.contourf(
        points,
        points,
        values,
        levels=measure.unspace(np.linspace(start, stop, 25)),
        norm=measure.norm(*limits),
        cmap=measure.colours,
    )
    filled.set_edgecolor("face")  # closes the hairlines that SVG viewers leave between bands
    filled.set_linewidth(0.2)
    low, high = np.nanmin(values), np.nanmax(values)
    levels = measure.ticks(low, high, 4)
    levels = levels[(levels > low) & (levels < high)]
    if len(levels):
        lines = axes.contour(points, points, values, levels, colors="black", linewidths=0.4)
        for text in axes.clabel(lines, fmt="%g", fontsize=5.5):
            text.set_path_effects(_HALO)
            # A label at the rim would be cut in two or lie on the name of a corner.
            from_rim = sorted(min(at, 1 - at) for at in text.get_position())
            text.set_visible(from_rim[0] > 0.09 and from_rim[1] > 0.25)
    axes.set(aspect="equal", xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    return filled


def _mark_points(
    axes: Axes, measure: Measure, rows: pd.DataFrame, best_point: tuple[float, float] | None
) -> None:
    """Mark the corners, the center, the point chosen on val and the worst of `rows`."""
    axes.plot(0.5, 0.5, **_CENTER_MARK)
    for name, (u, v) in _CORNERS.items():
        axes.plot(u, v, **_CORNER_MARK)
        axes.annotate(
            name,
            (u, v),
            xytext=(5 - 10 * u, 5 - 10 * v),
            textcoords="offset points",
            ha="right" if u else "left",
            va="top" if v else "bottom",
            fontsize=6.5,
            path_effects=_HALO,
        )
    if best_point:
        axes.plot(*best_point, **_BEST_MARK)
    worst = rows.iloc[measure.worst(measure.values(rows))]
    axes.plot(worst["u"], worst["v"], **_WORST_MARK)


def _draw_relief(axes: Axes3D, colours: ScalarMappable, points: Floats, values: Floats) -> None:
    u, v = np.meshgrid(points, points)  # "xy": rows are v, as in `lattice`
    faces = (values[1:, 1:] + values[:-1, 1:] + values[1:, :-1] + values[:-1, :-1]) / 4
    axes.plot_surface(
        u,
        v,
        values,
        facecolors=colours.to_rgba(faces),
        rstride=1,
        cstride=1,
        edgecolor=(0, 0, 0, 0.35),
        linewidth=0.2,
        shade=False,
    )
    axes.set(xlabel="u", ylabel="v", xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    axes.tick_params(labelsize=6, pad=-3)
    axes.xaxis.labelpad = axes.yaxis.labelpad = -9
    axes.zaxis.get_major_locator().set_params(nbins=4)
    axes.view_init(elev=24, azim=-58)
    axes.set_box_aspect((1, 1, 0.7), zoom=1.12)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_pane_color((1, 1, 1, 0))
