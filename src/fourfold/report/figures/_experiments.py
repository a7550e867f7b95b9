"""Linear and Bezier surfaces of many experiments side by side: data sets down, networks across."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from fourfold.combination.baselines import Surfaces
from fourfold.report.claims import control_surface
from fourfold.report.figures import _style
from fourfold.report.figures._lattice import planes, values_on
from fourfold.report.figures._measure import ACCURACY, draw_colourbar, draw_contours
from fourfold.report.pairs import main_surface
from fourfold.surfaces.points import lattice_rows, surface_rows
from fourfold.surfaces.shapes import SQUARE

Cells = Mapping[str, Mapping[str, str]]  # data set -> network -> experiment

_PANEL, _BESIDE, _ABOVE = 1.2, 1.1, 0.7  # inches; of a panel with its title, and around all


def _compared(surfaces: Surfaces) -> dict[str, str | None]:
    """Return what is shown of an experiment -> its surface of that kind, if it has one."""
    return {"linear": control_surface(surfaces), "Bezier": main_surface(surfaces)}


@_style.paper_style
def plot_experiments(grid: pd.DataFrame, surfaces: Mapping[str, Surfaces], cells: Cells) -> Figure:
    """Draw accuracy over (u, v), of each experiment the linear surface above the Bezier surface.

    All panels of a data set have one colour scale; the light end is good. Contour lines are chosen
    for each panel, above which stands the range over all points of the surface. Panels of an
    experiment that `grid` does not have are empty.

    Args:
        grid: table `grid` of several experiments; of each the first replicate is drawn.
        surfaces: experiment -> its surfaces.
        cells: data set -> network -> experiment, each with the same networks.
    """
    kinds, networks = list(_compared({})), list(next(iter(cells.values())))
    lines = len(kinds) * len(cells)
    figure = Figure(
        (_BESIDE + _PANEL * len(networks), _ABOVE + _PANEL * lines),
        layout=ConstrainedLayoutEngine(compress=True, hspace=0.03),
    )
    panels = figure.subplots(lines, len(networks), squeeze=False)
    for axes in panels.flat:
        axes.set(aspect="equal", xlim=(0, 1), ylim=(0, 1), xticks=(), yticks=())
    for first, (dataset, experiments) in zip(
        range(0, lines, len(kinds)), cells.items(), strict=True
    ):
        block = panels[first : first + len(kinds)]
        shown = {
            experiment: _surfaces_of(grid, experiment, surfaces.get(experiment, {}))
            for experiment in experiments.values()
        }
        found = [rows for of in shown.values() for rows in of.values() if not isinstance(rows, str)]
        limits = ACCURACY.limits(ACCURACY.values(pd.concat(found))) if found else (0.0, 100.0)
        drawn = [
            _draw(axes, rows, limits)
            for column, of in zip(block.T, shown.values(), strict=True)
            for axes, rows in zip(column, of.values(), strict=True)
        ]
        for kind, axes in zip(kinds, block[:, 0], strict=True):
            axes.set_ylabel(f"{dataset}\n{kind}")
        if filled := [one for one in drawn if one is not None]:
            draw_colourbar(figure, filled[0], ACCURACY, block, count=6)
    for network, axes in zip(networks, panels[0], strict=True):
        axes.set_title(f"{network}\n{axes.get_title()}".rstrip())
    figure.suptitle("Accuracy on test over the linear surface and, below it, the Bezier surface")
    return figure


def _surfaces_of(
    grid: pd.DataFrame, experiment: str, surfaces: Surfaces
) -> dict[str, pd.DataFrame | str]:
    """Return what each panel of an experiment shows: the rows of a surface, or words."""
    every = _style.shown_rows(grid[grid["experiment"] == experiment])
    if every.empty:
        return dict.fromkeys(_compared({}), "not run")
    first = surface_rows(every[every["replicate"] == every["replicate"].min()])
    return {
        kind: "none" if name is None else first[first["surface"] == name]
        for kind, name in _compared(surfaces).items()
    }


def _draw(
    axes: Axes, rows: pd.DataFrame | str, limits: tuple[float, float]
) -> QuadContourSet | None:
    """Draw a panel; return its contours, if it has any."""
    if isinstance(rows, str):
        axes.text(0.5, 0.5, rows, ha="center", va="center", color=_style.GREY)
        axes.spines[:].set(visible=True, **_style.BORDER)
        return None
    (plane,) = planes(SQUARE, rows)
    lattice = lattice_rows(rows)
    shown = values_on(plane, lattice, rows["surface"].iloc[0], ACCURACY)
    filled, labels = draw_contours(axes, ACCURACY, *shown, limits)
    for text in labels:  # none that the rim would cut
        text.set_visible(bool(np.all(np.abs(np.subtract(text.get_position(), 0.5)) < 0.36)))
    found = ACCURACY.values(rows)
    gaps = f", {np.isnan(found).sum()} NaN" if np.isnan(found).any() else ""
    axes.set_title(f"{np.nanmin(found):.3g} to {np.nanmax(found):.3g} %{gaps}", fontsize=7)
    return filled
