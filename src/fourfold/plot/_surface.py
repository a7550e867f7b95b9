"""Figures of surfaces over (u, v): contours, relief and profiles."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from mpl_toolkits.mplot3d import Axes3D
from numpy.typing import NDArray

from fourfold.plot._lattice import corner_values, diagonals, lattice, perimeter
from fourfold.plot._measure import ACCURACY, NLL, Measure
from fourfold.plot._style import (
    BLACK,
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
    surface_label,
    surface_order,
)

# Statistics blended linearly are an ablation: drawn only where a table has nothing else.
_BATCHNORM = {
    "reestimated": "BatchNorm re-estimated",
    "none": "no BatchNorm",
    "interpolated": "BatchNorm interpolated",
}
_DIAGONALS = {"00 to 11": BLUE, "01 to 10": VERMILLION}
_CORNERS = {"00": (0, 0), "10": (1, 0), "11": (1, 1), "01": (0, 1)}  # (u, v), around the surface
_HALO = [withStroke(linewidth=1.6, foreground="white")]  # keeps text readable on any colour

_OUTLINED = {"linestyle": "", "markeredgecolor": BLACK, "markeredgewidth": MARKED_WIDTH}
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
_CENTER_MARK = {
    "linestyle": "",
    "marker": "+",
    "markersize": 5,
    "markeredgecolor": BLACK,
    "markeredgewidth": 0.8,
    "label": "center (fixed in advance)",
}


@paper_style
def plot_surfaces(
    grid: pd.DataFrame, merge: pd.DataFrame, *, split: str = "test", seeds: Sequence[int] = ()
) -> Figure:
    """Draw nll (above) and accuracy (below) over (u, v), one column per surface.

    Each row has one colour scale; the light end is good. Contour lines are chosen for each panel.
    Squares are the corners, the star is the point chosen on val, the cross the center.

    Args:
        grid: table `grid` of one replicate; each surface on a complete lattice.
        merge: table `merge` of the same replicate; its rows best-point place the stars.
        split: the split that is shown.
        seeds: seeds of the replicate's corners, for the title.

    Raises:
        InputError: if the split is absent, a table is empty or a lattice incomplete.
    """
    rows, surfaces = _surfaces(grid, split)
    best_points = _best_points(merge)
    figure = Figure(figsize=_size(surfaces, 4.9), layout="compressed")
    panels = figure.subplots(2, len(surfaces), sharex=True, sharey=True, squeeze=False)
    for measure, row in zip((NLL, ACCURACY), panels, strict=True):
        low, high = measure.limits(measure.values(rows))
        for surface, axes in zip(surfaces, row, strict=True):
            points, values = lattice(rows, surface, measure)
            filled = _draw_contours(axes, measure, points, values, (low, high))
            _mark_points(axes, best_points.get(surface))
            axes.set_title(f"{measure.column} {values.min():.3g} to {values.max():.3g}")
        _draw_colourbar(figure, filled, measure, row)
        row[0].set_ylabel("v", rotation=0)
    for surface, top, bottom in zip(surfaces, *panels, strict=True):
        top.set_title(f"{surface_label(surface)}\n{top.get_title()}")
        bottom.set_xlabel("u")
    figure.legend(
        handles=[Line2D([], [], **mark) for mark in (_CORNER_MARK, _BEST_MARK, _CENTER_MARK)],
        loc="outside lower center",
        ncols=min(3, len(surfaces)),
    )
    figure.suptitle(heading("loss and accuracy", rows, seeds, _batchnorm(rows)))
    return figure


@paper_style
def plot_surfaces_3d(
    grid: pd.DataFrame, *, split: str = "test", seeds: Sequence[int] = ()
) -> Figure:
    """Draw nll as height over (u, v), one relief per surface.

    Height is linear and colour logarithmic; all panels share both scales.

    Args:
        grid: table `grid` of one replicate; each surface on a complete lattice.
        split: the split that is shown.
        seeds: seeds of the replicate's corners, for the title.

    Raises:
        InputError: if the split is absent, the table is empty or a lattice incomplete.
    """
    rows, surfaces = _surfaces(grid, split)
    low, high = NLL.limits(NLL.values(rows))
    colours = ScalarMappable(NLL.norm(low, high), colormaps[NLL.colours])
    figure = Figure(figsize=_size(surfaces, 2.5), layout="constrained")
    panels = figure.subplots(1, len(surfaces), squeeze=False, subplot_kw={"projection": "3d"})[0]
    for surface, axes in zip(surfaces, panels, strict=True):
        _draw_relief(axes, colours, *lattice(rows, surface, NLL))
        axes.set_zlim(0, high)
        axes.set_title(surface_label(surface), y=0.96)
    _draw_colourbar(figure, colours, NLL, panels)
    figure.suptitle(
        heading("nll as height (linear) and colour (log)", rows, seeds, _batchnorm(rows))
    )
    return figure


@paper_style
def plot_profiles(grid: pd.DataFrame, *, split: str = "test", seeds: Sequence[int] = ()) -> Figure:
    """Draw nll along the two diagonals (above) and around the four edges (below) of each surface.

    Solid lines are `split`, dashed ones train. The grey band is the range of the four corners on
    `split`, the thin line their mean.

    Args:
        grid: table `grid` of one replicate; each surface on a complete lattice.
        split: the split that is drawn solid.

    Raises:
        InputError: if the split is absent, the table is empty or a lattice incomplete.
    """
    rows, surfaces = _surfaces(grid, split)
    splits = [name for name in dict.fromkeys((split, "train")) if (grid["split"] == name).any()]
    drawn = {name: _surfaces(grid, name)[0] for name in splits}
    figure = Figure(figsize=_size(surfaces, 4.6), layout="constrained")
    panels = figure.subplots(2, len(surfaces), sharey=True, squeeze=False)
    shown = np.concatenate([NLL.values(part) for part in drawn.values()])
    for surface, (top, bottom) in zip(surfaces, panels.T, strict=True):
        for name, dashes in zip(splits, ("-", "--"), strict=False):
            points, values = lattice(drawn[name], surface, NLL)
            for (path, colour), profile in zip(_DIAGONALS.items(), diagonals(values), strict=True):
                top.plot(points, profile, dashes, color=colour, label=f"{path}, {name}")
            along, profile = perimeter(points, values)
            bottom.plot(along, profile, dashes, color=BLACK, label=f"edges, {name}")
        corners = corner_values(lattice(rows, surface, NLL)[1])
        for axes in (top, bottom):
            axes.axhspan(corners.min(), corners.max(), color="#D0D0D0", linewidth=0, zorder=0)
            axes.axhline(corners.mean(), color=GREY, linewidth=MARKED_WIDTH, zorder=0.5)
            NLL.set_axis(axes, "y", shown)
        top.set(title=surface_label(surface), xlim=(0, 1), xlabel="position on the diagonal")
        bottom.set(xlim=(0, 4), xlabel="corner (uv)")
        bottom.set_xticks(range(5), labels=[*_CORNERS, "00"])
    for axes in panels[:, 0]:
        axes.set_ylabel(NLL.label)
    band = Patch(color="#D0D0D0", label="corners: range and mean")
    handles = [*panels[0, 0].get_lines(), *panels[1, 0].get_lines()]
    handles = [line for line in handles if not line.get_label().startswith("_")]
    figure.legend(
        handles=[*handles, band], loc="outside lower center", ncols=min(4, len(surfaces) + 1)
    )
    figure.suptitle(heading("loss along diagonals and edges", rows, seeds, _batchnorm(rows)))
    return figure


def _surfaces(grid: pd.DataFrame, split: str) -> tuple[pd.DataFrame, list[str]]:
    rows = check_run("grid", grid, split=split)
    rank = rows["batchnorm"].map(list(_BATCHNORM).index)
    rows = rows[rank == rank.groupby(rows["surface"]).transform("min")]
    return rows, surface_order(rows["surface"])


def _batchnorm(rows: pd.DataFrame) -> str:
    return " / ".join(_BATCHNORM[kind] for kind in in_order(rows["batchnorm"], _BATCHNORM))


def _best_points(merge: pd.DataFrame) -> dict[str, tuple[float, float]]:
    rows = check_run("merge", merge)
    rows = rows[rows["merge"] == "best-point"]
    return dict(zip(rows["surface"], zip(rows["u"], rows["v"], strict=True), strict=True))


def _size(surfaces: list[str], height: float) -> tuple[float, float]:
    # Three surfaces fill the width of a page; titles need room over a single one.
    return max(NARROW_WIDTH, FULL_WIDTH * (0.11 + 0.89 * len(surfaces) / 3)), height


def _draw_colourbar(
    figure: Figure, colours: ScalarMappable, measure: Measure, panels: NDArray
) -> None:
    bar = figure.colorbar(
        colours, ax=panels, pad=0.02, aspect=22, label=f"{measure.label}\n{measure.spacing}"
    )
    ticks = measure.ticks(*colours.get_clim(), 8)
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.minorticks_off()


def _draw_contours(
    axes: Axes, measure: Measure, points: NDArray, values: NDArray, limits: tuple[float, float]
) -> QuadContourSet:
    places = np.linspace(*measure.space(np.array(limits)), 25)
    filled = axes.contourf(
        points,
        points,
        values,
        levels=measure.unspace(places),
        norm=measure.norm(*limits),
        cmap=measure.colours,
    )
    filled.set_edgecolor("face")  # closes the hairlines that SVG viewers leave between bands
    filled.set_linewidth(0.2)
    levels = measure.ticks(values.min(), values.max(), 4)
    levels = levels[(levels > values.min()) & (levels < values.max())]
    if len(levels):
        lines = axes.contour(points, points, values, levels, colors="black", linewidths=0.4)
        for text in axes.clabel(lines, fmt="%g", fontsize=5.5):
            text.set_path_effects(_HALO)
            # A label at the rim would be cut in two or lie on the name of a corner.
            text.set_visible(all(0.09 < at < 0.91 for at in text.get_position()))
    axes.set(aspect="equal", xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    return filled


def _mark_points(axes: Axes, best_point: tuple[float, float] | None) -> None:
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


def _draw_relief(axes: Axes3D, colours: ScalarMappable, points: NDArray, values: NDArray) -> None:
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
