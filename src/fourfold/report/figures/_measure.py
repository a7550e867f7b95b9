"""How nll and accuracy are drawn: units, spacing, ticks and colours.

A barrier is a hundred times as high as a flat surface is rough. Nll is therefore spaced by its
logarithm and accuracy by the logarithm of the error, which keeps both readable on one scale.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import FuncNorm
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from fourfold.report.figures import _style

Floats = NDArray[np.float64]

_SMALLEST_NLL = 1e-6  # nats; keeps an nll of 0 on a logarithmic scale
_ERROR_OFFSET = 0.5  # percentage points; keeps an accuracy of 100 % on a logarithmic scale


@dataclass(frozen=True)
class Measure:
    """A column of a table as it is drawn."""

    column: str
    factor: float  # from the table's unit to the figure's
    label: str  # of an axis, with the unit
    colours: str  # name of the colour map; its light end is good for every measure
    space: Callable[[ArrayLike], Floats]  # rising, from a drawn value to its place on the scale
    unspace: Callable[[ArrayLike], Floats]  # its inverse
    spacing: str  # what the scale is called
    worst: Callable[[Floats], np.intp]  # position of the worst of some values
    round_values: Floats  # good ticks, about three to each power of ten
    rounder_values: Floats  # good ticks for a wide range, about one to each power of ten

    def values(self, rows: pd.DataFrame) -> Floats:
        """Return the column in the figure's unit."""
        values: Floats = rows[self.column].to_numpy(float)
        return values * self.factor

    def limits(self, values: ArrayLike, margin: float = 0.0) -> tuple[float, float]:
        """Return the range of `values`, wider by a fraction `margin` of itself at both ends."""
        low, high = self.space(np.array([np.nanmin(values), np.nanmax(values)]))
        pad = max(margin * (high - low), 1e-3)  # equal values still need a range
        return tuple(self.unspace(np.array([low - pad, high + pad])).tolist())

    def ticks(self, low: float, high: float, count: int) -> Floats:
        """Return at most `count` round values in [low, high]."""
        round_ones, rounder_ones = (
            choice[(choice >= low) & (choice <= high)]
            for choice in (self.round_values, self.rounder_values)
        )
        if len(round_ones) < 3:  # less than a decade: an evenly spaced choice is finer
            locator = MaxNLocator(min(count, 6), steps=[1, 2, 2.5, 5, 10])
            ticks = np.asarray(locator.tick_values(low, high))
            return ticks[(ticks >= low) & (ticks <= high)]
        if len(round_ones) > count and len(rounder_ones) >= 3:
            round_ones = rounder_ones
        return round_ones[:: math.ceil(len(round_ones) / count)]

    def norm(self, low: float, high: float) -> FuncNorm:
        """Return the colour scale from `low` to `high`."""
        return FuncNorm((self.space, self.unspace), vmin=low, vmax=high)

    def set_axis(self, axes: Axes, which: str, values: ArrayLike) -> None:
        """Give axis `which` ("x" or "y") the scale, limits and ticks that show all `values`."""
        low, high = self.limits(values, margin=0.07)
        ticks = self.ticks(low, high, 9)
        getattr(axes, f"set_{which}scale")("function", functions=(self.space, self.unspace))
        getattr(axes, f"set_{which}lim")(low, high)
        getattr(axes, f"set_{which}ticks")(ticks, labels=[f"{tick:g}" for tick in ticks])


_POWERS = 10.0 ** np.arange(-6.0, 4)
_ONE_TWO_FIVE = np.outer(_POWERS, [1, 2, 5]).ravel()

NLL = Measure(
    column="nll",
    factor=1.0,
    label="nll (nats per example)",
    colours="viridis_r",
    space=lambda nll: np.log(np.maximum(nll, _SMALLEST_NLL)),
    unspace=np.exp,
    spacing="log scale",
    worst=np.argmax,
    round_values=_ONE_TWO_FIVE,
    rounder_values=_POWERS,
)
ACCURACY = Measure(
    column="accuracy",
    factor=100.0,
    label="accuracy (%)",
    colours="viridis",
    space=lambda accuracy: -np.log(np.maximum(100 + _ERROR_OFFSET - np.asarray(accuracy), 1e-6)),
    unspace=lambda place: 100 + _ERROR_OFFSET - np.exp(-np.asarray(place)),
    spacing="log scale of the error",
    worst=np.argmin,
    round_values=np.array([0, 50, 80, 90, 95, 98, 99, 99.5, 100]),
    rounder_values=np.array([0.0, 90, 99, 100]),
)


def draw_contours(
    axes: Axes, measure: Measure, x: Floats, y: Floats, z: Floats, limits: tuple[float, float]
) -> tuple[QuadContourSet, list[Text]]:
    """Fill the contours of values z[y, x] on a scale; return them, and the labels of some lines."""
    start, stop = measure.space(np.array(limits))
    filled = axes.contourf(
        *(x, y, z),
        levels=measure.unspace(np.linspace(start, stop, 25)),
        norm=measure.norm(*limits),
        cmap=measure.colours,
    )
    filled.set_edgecolor("face")  # closes the hairlines that SVG viewers leave between bands
    filled.set_linewidth(0.2)
    low, high = np.nanmin(z), np.nanmax(z)
    levels = measure.ticks(low, high, 4)
    levels = levels[(levels > low) & (levels < high)]
    if not len(levels):
        return filled, []
    lines = axes.contour(x, y, z, levels, colors="black", linewidths=0.4)
    labels = list(axes.clabel(lines, fmt="%g", fontsize=5.5))
    for text in labels:
        text.set_path_effects(_style.HALO)
    return filled, labels


def draw_colourbar(
    figure: Figure,
    colours: ScalarMappable,
    measure: Measure,
    panels: Axes | NDArray[np.object_],
    *,
    count: int = 8,
    label: str | None = None,
    height: float = 1,
) -> None:
    """Draw the colour scale of a measure beside panels, with at most `count` ticks.

    `height` is its share of that of the panels.
    """
    label = f"{measure.label}\n{measure.spacing}" if label is None else label
    bar = figure.colorbar(colours, ax=panels, pad=0.02, aspect=22, shrink=height, label=label)
    ticks = measure.ticks(*colours.get_clim(), count)
    bar.set_ticks(ticks.tolist(), labels=[f"{tick:g}" for tick in ticks])
    bar.minorticks_off()
