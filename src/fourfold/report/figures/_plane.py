"""The figure of the plane through three networks."""

from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from fourfold.errors import InputError
from fourfold.report.figures import _style
from fourfold.report.figures._measure import NLL, draw_colourbar, draw_contours

_SPLITS = ("train", "test")
_EDGE: dict[str, Any] = {
    "linewidth": 1.4,
    "dash_capstyle": "butt",
    "path_effects": [withStroke(linewidth=2.8, foreground="white")],
}
_DASH = 3.0  # line widths
_LEGEND = 110  # characters in a row of the legend
_RUN = _style.mark(".", 3, _style.BLACK, linewidth=0.6) | {"linestyle": ":"}


@_style.paper_style
def plot_plane(plane: pd.DataFrame, path: pd.DataFrame, surfaces: Collection[str]) -> Figure:
    """Draw nll on the plane through three networks, on train (left) and test (right).

    Both panels have one logarithmic colour scale; the light end is good. Squares are the three
    networks, lines what is projected onto the plane: edges of fitted surfaces, coloured, and what
    training runs kept, dotted. The legend says how far from the plane it is at most.
    """
    grid = plane[plane["sample"] == "grid"]
    if np.isnan(NLL.values(grid)).all():
        raise InputError("nll on the plane is NaN at all of its points.")
    limits = NLL.limits(NLL.values(grid))
    figure = Figure((_style.FULL_WIDTH, 3.6), layout="compressed")
    panels = figure.subplots(1, len(_SPLITS), sharex=True, sharey=True)
    looks = _looks(path, surfaces)
    for split, axes in zip(_SPLITS, panels, strict=True):
        shown = grid[grid["split"] == split]
        values = shown.pivot_table("nll", "y", "x", dropna=False)
        x, y = values.columns.to_numpy(), values.index.to_numpy()
        filled, _ = draw_contours(axes, NLL, x, y, values.to_numpy(), limits)
        axes.set(aspect="equal", xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), xlabel="x (L2 distance)")
        axes.set_title(f"{split}, n = {shown['n'].iloc[0]:,}")
        for (kind, surface, _), rows in path.groupby(["kind", "surface", "name"], dropna=False):
            if kind != "network":
                key = surface if kind == "edge" else kind
                rows = rows.sort_values("order")
                axes.plot(rows["x"], rows["y"], **looks[key] | {"label": None})
        _mark_networks(axes, path[path["kind"] == "network"], looks["network"])
    panels[0].set_ylabel("y (L2 distance)")
    draw_colourbar(figure, filled, NLL, panels)
    longest = max(len(look["label"]) for look in looks.values())
    _style.legend(figure, looks.values(), max(1, min(len(looks), _LEGEND // longest)))
    through = path.loc[path["kind"] == "network", "surface"].iloc[0]
    what = f"plane through three networks at corners of {through}"
    figure.suptitle(_style.heading(what, grid.drop(columns="n"), (), _style.statistics(grid)))
    return figure


def _looks(path: pd.DataFrame, surfaces: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return what lines and marks look like: of the networks, of each surface, of runs."""
    edge: dict[str, Any] = {"markeredgecolor": _style.BLACK, "zorder": 4}
    looks = {"network": _style.mark("s", 5, "white", label="network", **edge)}
    edges = path[path["kind"] == "edge"]
    drawn = _style.surface_order(edges["surface"], surfaces)
    for place, surface in enumerate(drawn):
        colour, _ = _style.surface_style(surface, surfaces)
        far = _farthest(edges[edges["surface"] == surface])
        # Dashes take turns, so that lines that coincide are all seen.
        dashes = (_DASH * place, (_DASH, _DASH * (len(drawn) - 1)))
        looks[surface] = {"color": colour, "linestyle": dashes, "label": f"edges of {surface}{far}"}
        looks[surface] |= _EDGE
    if len(runs := path[path["kind"] == "run"]):
        names = ", ".join(_style.in_order(runs["name"], ()))
        looks["run"] = _RUN | {"label": f"kept along {names}{_farthest(runs)}"}
    return looks


def _farthest(rows: pd.DataFrame) -> str:
    return f" (projected, up to {rows['distance'].max():.2g} off the plane)"


def _mark_networks(axes: Axes, networks: pd.DataFrame, look: dict[str, Any]) -> None:
    for row in networks.itertuples():
        axes.plot(row.x, row.y, **look)
        axes.annotate(
            row.name.removeprefix("corner_"),
            (row.x, row.y),
            xytext=(5, 5),
            textcoords="offset points",
            fontsize=6.5,
            path_effects=_style.HALO,
        )
