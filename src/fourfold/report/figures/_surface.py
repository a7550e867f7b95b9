"""Figures of surfaces over their coordinates: contours, relief and profiles."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from mpl_toolkits.mplot3d import Axes3D  # type: ignore[import-untyped]  # comes without stubs

from fourfold.combination.baselines import NOBODYS, Surfaces
from fourfold.report.figures import _style
from fourfold.report.figures._lattice import (
    Heights,
    Plane,
    along,
    around,
    check_numbers,
    coordinate_names,
    diagonals,
    is_curve,
    planes,
    values_on,
)
from fourfold.report.figures._measure import (
    ACCURACY,
    NLL,
    Measure,
    draw_colourbar,
    draw_contours,
)
from fourfold.report.wording import listed
from fourfold.surfaces.points import lattice_rows, own_corner_rows, surface_rows
from fourfold.surfaces.shapes import AXES, Shape, shape_of

_NO_PLANE = "no surface has two coordinates or more; profiles show the others"
_DIAGONALS = (_style.BLUE, _style.VERMILLION)


def _mark(marker: str, size: float, face: str, label: str, **more: Any) -> dict[str, Any]:
    edge: dict[str, Any] = {"markeredgecolor": _style.BLACK, "markeredgewidth": _style.MARKED_WIDTH}
    return _style.mark(marker, size, face, clip_on=False, label=label, **edge, **more)


_CORNER_MARK = _mark("s", 5, "white", "corner")
_BEST_MARK = _mark("*", 10, _style.VERMILLION, "best point, chosen on val", zorder=5)
_WORST_MARK = _mark("v", 5, _style.ORANGE, "worst point found", zorder=5)
_CENTER_MARK = _style.mark(
    "+", 5, _style.BLACK, markeredgewidth=0.8, label="center (fixed in advance)"
)


@_style.paper_style
def plot_surfaces(
    grid: pd.DataFrame,
    merge: pd.DataFrame,
    surfaces: Surfaces,
    *,
    seeds: Sequence[int] = (),
) -> Figure:
    """Draw nll (above) and accuracy (below) over (u, v), one column per surface.

    More than four surfaces stand in several such pairs of rows, own scales in pairs of their own.
    Of a surface with a third coordinate it is the slice through its lattice that is nearest to the
    center. Curves have none.

    Each row has one colour scale; the light end is good. Surfaces that are flat on it are drawn
    once more, after the others, on scales of their own. Contour lines are chosen for each panel.
    Squares are the corners, the star is the point chosen on val (the row best-point of `merge`),
    the cross the center, the triangle the worst of all points, on and off the lattice; a point that
    is not in a slice is not marked. Panel titles give the range over all points of the surface.
    """
    rows = surface_rows(_style.shown_rows(grid))
    drawn = {name: found[0] for name, found in _planes(rows, surfaces).items() if found}
    if not drawn:
        return _nothing(rows, _NO_PLANE)
    names = list(drawn)
    on_lattice = _in_planes(rows, {name: [plane] for name, plane in drawn.items()})
    flat = _flat_surfaces(on_lattice, names)
    alike, own = [(name, False) for name in names], [(name, True) for name in flat]
    bands = _style.in_rows(alike)
    is_wrapped = len(bands) > 1
    bands = [*bands, *_style.in_rows(own)] if is_wrapped else [[*alike, *own]]
    count = max(map(len, bands))
    best = merge[merge["merge"] == "best-point"].drop_duplicates("surface")
    width, height = _size([names], 4.8)
    # Further columns make all panels smaller, and so the figure lower.
    size = (width + 1.3 * len(flat), height - 0.2 * len(flat))
    if is_wrapped:
        size = _size(bands, 4.8, 4.0)
    layout = ConstrainedLayoutEngine(compress=True, hspace=0.1)  # titles of the lower row need room
    figure = Figure(figsize=size, layout=layout)
    panels = figure.subplots(2 * len(bands), count, sharex=True, sharey=True, squeeze=False)
    for place, row in enumerate(panels):
        for axes in row[len(bands[place // 2]) :]:
            axes.set_visible(False)
    for measure, rows_of_panels in ((NLL, panels[::2]), (ACCURACY, panels[1::2])):
        shared = measure.limits(measure.values(on_lattice))
        for band, row in zip(bands, rows_of_panels, strict=True):
            last = row[min(len(names), len(band)) - 1]
            for (surface, has_own_scale), axes in zip(band, row, strict=False):
                plane, every = drawn[surface], rows[rows["surface"] == surface]
                shown = values_on(plane, on_lattice, surface, measure)
                limits = measure.limits(shown.z) if has_own_scale else shared
                filled = _draw_contours(axes, measure, plane, shown, limits)
                _mark_points(axes, measure, plane, every, best[best["surface"] == surface])
                found = measure.values(every)
                gaps = f", {np.isnan(found).sum()} NaN" if np.isnan(found).any() else ""
                low, high = np.nanmin(found), np.nanmax(found)
                axes.set_title(f"{measure.column} {low:.3g} to {high:.3g}{gaps}")
                if has_own_scale:
                    draw_colourbar(figure, filled, measure, axes, count=5, label="")
                elif axes is last:
                    draw_colourbar(figure, filled, measure, row[: len(names)])
            row[0].set_ylabel("v", rotation=0)
    for band, tops, bottoms in zip(bands, panels[::2], panels[1::2], strict=True):
        for (surface, has_own_scale), top, bottom in zip(band, tops, bottoms, strict=False):
            scale = ", own scale" if has_own_scale else ""
            title = _style.panel_title(f"{surface}{drawn[surface].suffix}{scale}", figure, count)
            top.set_title(f"{title}\n{top.get_title()}")
            bottom.set_xlabel("u")
            bottom.tick_params(labelbottom=True)
    marks = [_BEST_MARK, _CENTER_MARK, _WORST_MARK]
    if with_corners := {name: plane for name, plane in drawn.items() if plane.corners()}:
        label = _corner_label(surfaces, with_corners)
        marks = [_CORNER_MARK | {"label": label}, *marks]
    _style.legend(figure, marks, 4 if len(names) > 2 else 2)
    figure.suptitle(_heading("loss and accuracy", rows, seeds))
    return figure


@_style.paper_style
def plot_surfaces_3d(
    grid: pd.DataFrame, surfaces: Surfaces, *, seeds: Sequence[int] = ()
) -> Figure:
    """Draw nll as height over (u, v), one relief per surface, or in slices over three coordinates.

    Height is linear and colour logarithmic; all panels share both scales. The slices, one across
    each axis, go through those points of the lattice that are nearest to the center.
    """
    rows = surface_rows(_style.shown_rows(grid))
    drawn = {name: found for name, found in _planes(rows, surfaces).items() if found}
    if not drawn:
        return _nothing(rows, _NO_PLANE)
    on_lattice = _in_planes(rows, drawn)
    low, high = limits = NLL.limits(NLL.values(on_lattice))
    colours = ScalarMappable(NLL.norm(low, high), colormaps[NLL.colours])
    columns = [(name, plane) for name, found in drawn.items() for plane in found]
    lines = _style.in_rows(columns)
    shape = len(lines), len(lines[0])
    figure = Figure(_size(lines, 2.5, 2.0), layout="constrained")
    panels = []
    for place, (surface, plane) in enumerate(columns, start=1):
        shown = values_on(plane, on_lattice, surface, NLL)
        x, y = plane.axes
        name = _style.panel_title(f"{surface}{plane.suffix}", figure, shape[1])
        if plane.held:
            axes = figure.add_subplot(*shape, place)
            _draw_contours(axes, NLL, plane, shown, limits)
            axes.set_ylabel(y, rotation=0)
            axes.set_title(name)
        else:
            axes = figure.add_subplot(*shape, place, projection="3d")
            _draw_relief(axes, colours, plane, shown)
            axes.set(ylabel=y, zlim=(0, high))
            axes.set_title(name, y=0.96)
        axes.set_xlabel(x)
        panels.append(axes)
    draw_colourbar(figure, colours, NLL, np.array(panels), height=1 / len(lines))
    what = "nll in slices, as colour (log)"
    if any(not plane.held for _, plane in columns):
        slices = " or in slices," if any(plane.held for _, plane in columns) else ""
        what = f"nll as height (linear){slices} and colour (log)"
    figure.suptitle(_heading(what, rows, seeds))
    return figure


@_style.paper_style
def plot_profiles(grid: pd.DataFrame, surfaces: Surfaces, *, seeds: Sequence[int] = ()) -> Figure:
    """Draw nll along lines: of squares the diagonals (above) and around the edges (below).

    Curves and chains are drawn from corner to corner, other surfaces along all of their edges, a
    star one segment beside the other. A set has no lines.

    Solid lines are test, dashed ones train. Diagonals go through the points of the lattice, edges
    through all points on them. The grey band is the range of the corners on test as they were
    trained, the thin line their mean.
    """
    every = _style.surface_order(grid["surface"], surfaces)
    shapes = {name: shape_of(surfaces[name]) for name in every}
    shapes = {name: shape for name, shape in shapes.items() if not shape.is_discrete}
    if not (names := list(shapes)):
        return _nothing(grid, "no surface has points between its corners")
    grid = grid[grid["surface"].isin(names)]
    drawn = {split: surface_rows(grid[grid["split"] == split]) for split in ("test", "train")}
    shown_own = _style.shown_rows(grid)
    corners = {
        name: NLL.values(own_corner_rows(shown_own[shown_own["surface"] == name], shape))
        for name, shape in shapes.items()
    }
    figure, panels = _profile_panels(shapes)
    shown = np.concatenate([*map(NLL.values, drawn.values()), *corners.values()])
    for name, shape in shapes.items():
        for split, dashes in (("test", "-"), ("train", "--")):
            rows = drawn[split][drawn[split]["surface"] == name]
            check_numbers(rows, name, NLL)
            _draw_profiles(panels[name], rows, shape, dashes, split)
        band = corners[name]
        for axes in panels[name]:
            axes.axhspan(band.min(), band.max(), color=_style.PALE, linewidth=0, zorder=0)
            axes.axhline(band.mean(), color=_style.GREY, linewidth=_style.MARKED_WIDTH, zorder=0.5)
            NLL.set_axis(axes, "y", shown)
    lines = [line for pair in panels.values() for axes in pair for line in axes.get_lines()]
    labels = {str(line.get_label()): line for line in reversed(lines)}  # the first of each
    handles: list[Artist] = [
        line for label, line in reversed(labels.items()) if not label.startswith("_")
    ]
    as_trained = " as trained" if _are_trained(surfaces, names) else ""
    handles.append(Patch(color=_style.PALE, label=f"corners{as_trained}: range and mean"))
    columns = min(4, len(names) + 1)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)
    figure.suptitle(_heading(_profile_title(shapes.values()), drawn["test"], seeds))
    return figure


def _profile_panels(shapes: Mapping[str, Shape]) -> tuple[Figure, dict[str, list[Axes]]]:
    """Return surface -> its panels: one for diagonals above one for edges, or one as high as both.

    Values have one axis.
    """
    split = {name: bool(diagonals(shape)) for name, shape in shapes.items()}
    bands = _style.in_rows(list(shapes))
    layout: list[Any] = []
    for names in bands:
        padding = ["."] * (len(bands[0]) - len(names))
        layout.append([*(f"above {name}" if split[name] else name for name in names), *padding])
        layout += [[*names, *padding]] if any(split.values()) else []
    size = _size(bands, 4.6, 3.8) if any(split.values()) else _size(bands, 3.0, 2.2)
    figure = Figure(size, layout="constrained")
    found = figure.subplot_mosaic(layout, sharey=True)
    panels = {
        name: [found[key] for key in (f"above {name}", name) if key in found] for name in shapes
    }
    for name, of in panels.items():
        of[0].set_title(_style.panel_title(name, figure, len(bands[0])))
    for names in bands:
        for axes in panels[names[0]]:
            axes.set_ylabel(NLL.label)
        for before, name in pairwise(names):
            for axes in panels[name]:  # ticks of a lower panel beside a higher one lie elsewhere
                axes.tick_params(labelleft=split[before] != split[name])
    return figure, panels


def _planes(rows: pd.DataFrame, surfaces: Surfaces) -> dict[str, list[Plane]]:
    """Return surface -> the planes that show it, in the surfaces' order."""
    return {
        name: planes(shape_of(surfaces[name]), lattice_rows(rows[rows["surface"] == name]))
        for name in _style.surface_order(rows["surface"], surfaces)
    }


def _in_planes(rows: pd.DataFrame, drawn: Mapping[str, Sequence[Plane]]) -> pd.DataFrame:
    """Return the rows of lattices that lie in one of the planes of their surface."""
    lattices = {name: lattice_rows(rows[rows["surface"] == name]) for name in drawn}
    inside = [plane.rows(lattices[name]) for name, found in drawn.items() for plane in found]
    return pd.concat(inside).drop_duplicates(["surface", *AXES])


def _nothing(rows: pd.DataFrame, what: str) -> Figure:
    return _style.only_text(f"{rows['experiment'].iloc[0]}: {what}")


def _are_trained(surfaces: Surfaces, shown: Iterable[str]) -> bool:
    return all(surfaces[name]["kind"] not in NOBODYS for name in shown)


def _corner_label(surfaces: Surfaces, drawn: Mapping[str, Plane]) -> str:
    """Return what the legend says of the corners: all that is true of each surface."""
    trained = " (trained network)" if _are_trained(surfaces, drawn) else ""
    names = {coordinate_names(plane.shape) for plane in drawn.values()}
    named = f", named {names.pop()}" if len(names) == 1 and "" not in names else ""
    return f"corner{trained}{named}"


def _heading(what: str, rows: pd.DataFrame, seeds: Sequence[int]) -> str:
    return _style.heading(what, rows, seeds, _style.statistics(rows))


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


def _size(rows: Sequence[Sequence[Any]], first: float, further: float = 0) -> tuple[float, float]:
    """Return the size of a figure with so many rows of panels, the first and each further high."""
    # Three columns fill the width of a page; titles need room over a single one.
    width = _style.FULL_WIDTH * (0.11 + 0.89 * max(map(len, rows)) / 3)
    return max(_style.NARROW_WIDTH, width), first + further * (len(rows) - 1)


def _draw_contours(
    axes: Axes, measure: Measure, plane: Plane, shown: Heights, limits: tuple[float, float]
) -> QuadContourSet:
    filled, labels = draw_contours(axes, measure, *shown, limits)
    for text in labels:
        text.set_visible(_has_room(text.get_position(), plane))
    axes.set(aspect="equal", xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), xlim=(0, 1), ylim=(0, 1))
    return filled


def _has_room(at: tuple[float, float], plane: Plane) -> bool:
    """Return whether a label is neither cut in two by the rim nor on the name of a corner."""
    around_it = np.add(at, 0.09 * np.array([(-1, 0), (1, 0), (0, -1), (0, 1)]))
    from_corners = [np.abs(np.subtract(at, corner)).max() for corner in plane.corners().values()]
    return bool(plane.contains(*around_it.T).all()) and min(from_corners, default=1) > 0.25


def _mark_points(
    axes: Axes, measure: Measure, plane: Plane, rows: pd.DataFrame, best: pd.DataFrame
) -> None:
    """Mark the corners, the center, the point chosen on val (`best`) and the worst of `rows`."""
    for name, (x, y) in plane.corners().items():
        axes.plot(x, y, **_CORNER_MARK)
        axes.annotate(
            name,
            (x, y),
            xytext=(5 - 10 * x, 5 - 10 * y),
            textcoords="offset points",
            ha="right" if x else "left",
            va="top" if y else "bottom",
            fontsize=6.5,
            path_effects=_style.HALO,
        )
    coordinates = list(plane.shape.axes)
    worst = rows.iloc[[measure.worst(measure.values(rows))]]
    marked = [(plane.shape.center, _CENTER_MARK)]
    marked += [(point, _BEST_MARK) for point in best[coordinates].to_numpy(float)]
    marked += [(point, _WORST_MARK) for point in worst[coordinates].to_numpy(float)]
    for point, look in marked:
        if place := plane.project(point):
            axes.plot(*place, **look)


def _draw_profiles(
    panels: Sequence[Axes], rows: pd.DataFrame, shape: Shape, dashes: str, split: str
) -> None:
    """Draw nll along a curve, or along the diagonals, if there are any, and all edges."""
    top, bottom = panels[0], panels[-1]
    if is_curve(shape):
        (line,) = shape.edges
        look = _line(_style.GREEN, dashes, f"corner to corner, {split}")
        top.plot(*along(rows, shape, line, NLL), **look)
        top.set(xlim=(0, 1), xlabel="u")
        return
    across = diagonals(shape)
    for (path, line), colour in zip(across.items(), _DIAGONALS[: len(across)], strict=True):
        top.plot(*along(rows, shape, line, NLL), **_line(colour, dashes, f"{path}, {split}"))
        top.set(xlim=(0, 1), xlabel="position on the diagonal")
    walk = around(rows, shape, NLL)
    bottom.plot(walk.places, walk.values, **_line(_style.BLACK, dashes, f"edges, {split}"))
    named = f" ({names})" if (names := coordinate_names(shape)) else ""
    bottom.set(xlim=(0, max(walk.vertices)), xlabel=f"corner{named}")
    turned = 90 if len(walk.vertices) > 8 else 0
    bottom.set_xticks([*walk.vertices], labels=[*walk.vertices.values()], rotation=turned)


def _line(colour: str, dashes: str, label: str) -> dict[str, Any]:
    return {"color": colour, "linestyle": dashes, "label": label}


def _profile_title(shapes: Collection[Shape]) -> str:
    """Return what lines the profiles show."""
    lines = {
        "curves": any(map(is_curve, shapes)),
        "diagonals": any(map(diagonals, shapes)),
        "edges": not all(map(is_curve, shapes)),
    }
    return f"loss along {listed([line for line, is_there in lines.items() if is_there], 'and')}"


def _draw_relief(axes: Axes3D, colours: ScalarMappable, plane: Plane, shown: Heights) -> None:
    x, y = np.meshgrid(shown.x, shown.y)  # "xy": rows are y, as in `values_on`
    values = shown.z
    look: dict[str, Any] = {"edgecolor": (0, 0, 0, 0.35), "linewidth": 0.2, "shade": False}
    if plane.contains(x, y).all():
        faces = (values[1:, 1:] + values[:-1, 1:] + values[1:, :-1] + values[:-1, :-1]) / 4
        look |= {"facecolors": colours.to_rgba(faces), "rstride": 1, "cstride": 1}
        axes.plot_surface(x, y, values, **look)
    else:
        cells = np.arange(values.size).reshape(values.shape)
        right, upper, left = cells[:-1, 1:].ravel(), cells[1:, :-1].ravel(), cells[:-1, :-1].ravel()
        triangles = np.stack([left, right, upper], axis=1)
        beyond = np.stack([cells[1:, 1:].ravel(), right, upper], axis=1)
        triangles = np.concatenate([triangles, beyond])
        triangles = triangles[np.isfinite(values.ravel()[triangles]).all(axis=1)]
        # Corners that no triangle has may be NaN, but not in the limits of the axes.
        flat = np.where(np.isfinite(values), values, 0).ravel()
        look |= {"triangles": triangles, "cmap": colours.get_cmap(), "norm": colours.norm}
        axes.plot_trisurf(x.ravel(), y.ravel(), flat, **look)
    axes.set(xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    axes.tick_params(labelsize=6, pad=-3)
    axes.xaxis.labelpad = axes.yaxis.labelpad = -9
    axes.zaxis.get_major_locator().set_params(nbins=4)
    axes.view_init(elev=24, azim=-58)
    axes.set_box_aspect((1, 1, 0.7), zoom=1.12)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_pane_color((1, 1, 1, 0))
