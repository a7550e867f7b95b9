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
from matplotlib.patches import Patch
from matplotlib.patheffects import AbstractPathEffect, withStroke
from mpl_toolkits.mplot3d import Axes3D  # type: ignore[import-untyped]  # comes without stubs
from numpy.typing import NDArray

from fourfold.report.figures import _style
from fourfold.report.figures._lattice import diagonals, lattice, perimeter
from fourfold.report.figures._measure import ACCURACY, NLL, Floats, Measure
from fourfold.surfaces.points import lattice_rows, own_corner_rows, surface_rows

_STATISTICS = {
    "reestimated": "BatchNorm re-estimated",
    "none": "no BatchNorm",
    "interpolated": "BatchNorm interpolated",
}
_DIAGONALS = {"00 to 11": _style.BLUE, "01 to 10": _style.VERMILLION}
_CORNERS = {"00": (0, 0), "10": (1, 0), "11": (1, 1), "01": (0, 1)}  # (u, v), around the surface
# Keeps text readable on any colour.
_HALO: list[AbstractPathEffect] = [withStroke(linewidth=1.6, foreground="white")]


def _mark(marker: str, size: float, face: str, label: str, **more: Any) -> dict[str, Any]:
    edge: dict[str, Any] = {"markeredgecolor": _style.BLACK, "markeredgewidth": _style.MARKED_WIDTH}
    return _style.mark(marker, size, face, clip_on=False, label=label, **edge, **more)


_CORNER_MARK = _mark("s", 5, "white", "corner (trained network), named uv")
_BEST_MARK = _mark("*", 10, _style.VERMILLION, "best point, chosen on val", zorder=5)
_WORST_MARK = _mark("v", 5, _style.ORANGE, "worst point found", zorder=5)
_CENTER_MARK = _style.mark(
    "+", 5, _style.BLACK, markeredgewidth=0.8, label="center (fixed in advance)"
)


@_style.paper_style
def plot_surfaces(
    grid: pd.DataFrame,
    merge: pd.DataFrame,
    surfaces: Collection[str],
    *,
    seeds: Sequence[int] = (),
) -> Figure:
    """Draw nll (above) and accuracy (below) over (u, v), one column per surface.

    Each row has one colour scale; the light end is good. Surfaces that are flat on it are drawn
    once more, at the right, on scales of their own. Contour lines are chosen for each panel.
    Squares are the corners, the star is the point chosen on val (the row best-point of `merge`),
    the cross the center, the triangle the worst of all points, on and off the lattice. Panel titles
    give the range over all points.
    """
    rows = surface_rows(_style.shown_rows(grid))
    surfaces = _style.surface_order(rows["surface"], surfaces)
    on_lattice = lattice_rows(rows)
    flat = _flat_surfaces(on_lattice, surfaces)
    columns = [*((name, False) for name in surfaces), *((name, True) for name in flat)]
    best = merge[merge["merge"] == "best-point"]
    best_points = {row.surface: (row.u, row.v) for row in best.itertuples()}
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
    _style.legend(figure, marks, 4 if len(surfaces) > 2 else 2)
    figure.suptitle(_heading("loss and accuracy", rows, seeds))
    return figure


@_style.paper_style
def plot_surfaces_3d(
    grid: pd.DataFrame, surfaces: Collection[str], *, seeds: Sequence[int] = ()
) -> Figure:
    """Draw nll as height over (u, v), one relief per surface.

    Height is linear and colour logarithmic; all panels share both scales.
    """
    rows = lattice_rows(_style.shown_rows(grid))
    surfaces = _style.surface_order(rows["surface"], surfaces)
    low, high = NLL.limits(NLL.values(rows))
    colours = ScalarMappable(NLL.norm(low, high), colormaps[NLL.colours])
    figure = Figure(_size(surfaces, 2.5), layout="constrained")
    panels = figure.subplots(1, len(surfaces), squeeze=False, subplot_kw={"projection": "3d"})[0]
    for surface, axes in zip(surfaces, panels, strict=True):
        _draw_relief(axes, colours, *lattice(rows, surface, NLL))
        axes.set_zlim(0, high)
        axes.set_title(surface, y=0.96)
    _draw_colourbar(figure, colours, NLL, panels)
    figure.suptitle(_heading("nll as height (linear) and colour (log)", rows, seeds))
    return figure


@_style.paper_style
def plot_profiles(
    grid: pd.DataFrame, surfaces: Collection[str], *, seeds: Sequence[int] = ()
) -> Figure:
    """Draw nll along the two diagonals (above) and around the four edges (below) of each surface.

    Solid lines are test, dashed ones train. Diagonals go through the points of the lattice, edges
    through all points on them. The grey band is the range of the four corners on test as they were
    trained, the thin line their mean.
    """
    drawn = {split: surface_rows(grid[grid["split"] == split]) for split in ("test", "train")}
    surfaces = _style.surface_order(drawn["test"]["surface"], surfaces)
    own = own_corner_rows(_style.shown_rows(grid))
    corners = {surface: NLL.values(own[own["surface"] == surface]) for surface in surfaces}
    figure = Figure(_size(surfaces, 4.6), layout="constrained")
    panels = figure.subplots(2, len(surfaces), sharey=True, squeeze=False)
    shown = np.concatenate([*map(NLL.values, drawn.values()), *corners.values()])
    for surface, (top, bottom) in zip(surfaces, panels.T, strict=True):
        for (split, rows), dashes in zip(drawn.items(), ("-", "--"), strict=True):
            points, values = lattice(lattice_rows(rows), surface, NLL)
            for (path, colour), profile in zip(_DIAGONALS.items(), diagonals(values), strict=True):
                top.plot(points, profile, dashes, color=colour, label=f"{path}, {split}")
            edges = perimeter(rows, surface, NLL)
            bottom.plot(*edges, dashes, color=_style.BLACK, label=f"edges, {split}")
        band = corners[surface]
        for axes in (top, bottom):
            axes.axhspan(band.min(), band.max(), color=_style.PALE, linewidth=0, zorder=0)
            thin = {"color": _style.GREY, "linewidth": _style.MARKED_WIDTH}
            axes.axhline(band.mean(), zorder=0.5, **thin)
            NLL.set_axis(axes, "y", shown)
        top.set(title=surface, xlim=(0, 1), xlabel="position on the diagonal")
        bottom.set(xlim=(0, 4), xlabel="corner (uv)")
        bottom.set_xticks(range(5), labels=[*_CORNERS, "00"])
    for axes in panels[:, 0]:
        axes.set_ylabel(NLL.label)
    lines = [line for axes in panels[:, 0] for line in axes.get_lines()]
    handles = [line for line in lines if not line.get_label().startswith("_")]
    handles.append(Patch(color=_style.PALE, label="corners as trained: range and mean"))
    columns = min(4, len(surfaces) + 1)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)
    figure.suptitle(_heading("loss along diagonals and edges", drawn["test"], seeds))
    return figure


def _heading(what: str, rows: pd.DataFrame, seeds: Sequence[int]) -> str:
    statistics = " / ".join(_STATISTICS[kind] for kind in rows["statistics"].unique())
    return _style.heading(what, rows, seeds, statistics)


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


def _size(surfaces: list[str], height: float) -> tuple[float, float]:
    # Three surfaces fill the width of a page; titles need room over a single one.
    return max(_style.NARROW_WIDTH, _style.FULL_WIDTH * (0.11 + 0.89 * len(surfaces) / 3)), height


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
