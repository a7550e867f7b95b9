"""Figure of ensembles: what each further member is worth."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fourfold.combination.baselines import Surfaces, corner_ensembles, reference_surfaces
from fourfold.report.figures import _style
from fourfold.report.figures._measure import ACCURACY, NLL, Measure
from fourfold.report.wording import equal_points

_LONG = 62  # characters; two columns of a legend hold no longer texts
_POINTS = ".vPX"  # of lines, by how often all colours were taken before

# Selections that are one ensemble per surface: legend text, marker, filled.
_SINGLE = {
    "fixed": ("{inner}, fixed in advance", "D", True),
    "all": ("all points of the grid", "^", True),
    "oracle": ("oracle: {points} chosen on test", "s", False),
}


@_style.paper_style
def plot_ensembles(
    ensemble: pd.DataFrame, surfaces: Surfaces, *, seeds: Sequence[int] = ()
) -> Figure:
    """Draw accuracy (left) and nll (right) of averaged predictions over the number of members.

    Solid lines are points of a surface, chosen one after another on val; dashed ones are corners as
    they were trained, in the mean over all choices of so many (dots). Marks are single ensembles;
    hollow ones were chosen on test. Marks far from all lines stand at the rim, as numbers.
    """
    rows = _style.shown_rows(ensemble)
    # Each ensemble of corners, and the surface that stands for them.
    references = reference_surfaces(surfaces)
    corners = {name: references[key] for key, name in corner_ensembles(surfaces).items()}
    is_corners = rows["ensemble"].isin(corners)
    curves = rows[is_corners | (rows["selection"] == "validation")]
    marks = rows[~is_corners & rows["selection"].isin(list(_SINGLE))]
    shown = _style.surface_order(rows.loc[~is_corners, "ensemble"], surfaces)
    colours = {name: _style.surface_style(name, surfaces)[0] for name in surfaces}
    looks = {
        name: _line(name, surfaces, corners)
        for name in _style.in_order(curves["ensemble"], [*shown, *corners])
    }
    most = int(curves["forward_passes"].max())
    figure = Figure((_style.FULL_WIDTH, 3.7), layout="constrained")
    for measure, axes in zip((ACCURACY, NLL), figure.subplots(1, 2), strict=True):
        # Marks further from all lines than half of what these span are off scale.
        lines, single = measure.values(curves), measure.values(marks)
        low, high = measure.limits(lines, margin=0.5)
        measure.set_axis(axes, "y", [*lines, *single[(single >= low) & (single <= high)]])
        for name, look in looks.items():
            _draw_curve(axes, measure, curves[curves["ensemble"] == name], look)
        _draw_marks(axes, measure, marks, {name: colours[name] for name in shown}, most)
        axes.set_ylabel(measure.label)
        axes.grid(axis="y")
        _set_members(axes, most, marks.loc[marks["selection"] == "all", "forward_passes"])
    points = equal_points({surfaces[name]["count"] for name in shown})
    squares = {surfaces[name]["shape"] for name in shown} == {"square"}
    inner = "four midpoints of the edges" if squares else f"{points} between the corners"
    handles = [*looks.values()]
    if (rows["selection"] == "subset").any():
        handles.append(_choice(_style.BLACK) | {"label": "one choice of corners"})
    for selection in _style.in_order(marks["selection"], _SINGLE):
        label = _SINGLE[selection][0].format(inner=inner, points=points)
        handles.append(_single(selection, _style.GREY) | {"label": label})
    columns = 2 if max(len(look["label"]) for look in handles) <= _LONG else 1
    _style.legend(figure, handles, columns)
    figure.set_figheight(3.7 + 0.15 * max(0, math.ceil(len(handles) / columns) - 6))
    what = "ensembles (averaged predictions)"
    figure.suptitle(_style.heading(what, rows, seeds, _style.one_example(rows)))
    return figure


def _line(name: str, surfaces: Surfaces, corners: Mapping[str, str]) -> dict[str, Any]:
    """Return how the line of an ensemble looks, of a surface or of its corners."""
    surface = corners.get(name, name)
    colour, turn = _style.surface_style(surface, surfaces)[0], _style.colour_turn(surface, surfaces)
    points: dict[str, Any] = {"marker": _POINTS[turn % len(_POINTS)], "markersize": 4}
    if name not in corners:
        label = f"{name} surface, points chosen on val"
        return {"color": colour, "linestyle": "-", "label": label, **points}
    of = f"corners of the {surface} surface"
    if name == "corners":
        colour, of = _style.BLACK, "corners"
    look = {"color": colour, "linestyle": "--", "label": f"{of}, mean over all choices"}
    return look | (points if turn and name != "corners" else {})


def _single(selection: str, colour: str) -> dict[str, Any]:
    _, marker, is_filled = _SINGLE[selection]
    return _style.mark(marker, 4.5, colour, is_filled)


def _choice(colour: str) -> dict[str, Any]:
    return _style.mark("o", 2.5, colour, alpha=0.35, markeredgewidth=0)


def _draw_curve(axes: Axes, measure: Measure, rows: pd.DataFrame, look: dict[str, Any]) -> None:
    choices = rows[rows["selection"] == "subset"]
    axes.plot(choices["forward_passes"], measure.values(choices), **_choice(look["color"]))
    mean = rows.groupby("forward_passes")[[measure.column]].mean()
    axes.plot(mean.index, measure.values(mean), **look)


def _draw_marks(
    axes: Axes, measure: Measure, marks: pd.DataFrame, colours: Mapping[str, str], most: int
) -> None:
    low, high = measure.space(np.array(axes.get_ylim()))
    rim = 0.03 * (high - low)
    noted = {"below": 0, "above": 0}  # numbers at each rim
    marks = marks[marks[measure.column].notna()]  # else one of all points gave no numbers
    for index, (surface, colour) in enumerate(colours.items()):
        part = marks[marks["ensemble"] == surface]
        beside = min(0.14, 0.6 / len(colours)) * (index - (len(colours) - 1) / 2)
        for selection, passes, value in zip(
            part["selection"], part["forward_passes"], measure.values(part), strict=True
        ):
            place = measure.space(value)
            is_off = not low <= place <= high
            x = beside + (_place_of_all(most) if selection == "all" else passes)
            y = float(measure.unspace(np.clip(place, low + rim, high - rim))) if is_off else value
            axes.plot(x, y, clip_on=False, **_single(selection, colour))
            if is_off:
                side, sign = ("below", 1) if place < low else ("above", -1)
                aside = -8 if selection == "all" else 8
                _style.note_off_scale(axes, f"{value:.3g}", (x, y), aside, sign * 8 * noted[side])
                noted[side] += 1


def _set_members(axes: Axes, most: int, numbers_of_all: pd.Series) -> None:
    members = range(1, most + 1, _step(most))
    ticks, labels = [*map(float, members)], [*map(str, members)]
    if len(numbers_of_all):
        axes.axvline(most + 0.6 * _step(most), **_style.BORDER)
        ticks.append(_place_of_all(most))
        numbers = ", ".join(f"{number:,}" for number in sorted(set(numbers_of_all)))
        labels.append(f"all\n({numbers})")
    axes.set_xticks(ticks, labels=labels)
    axes.set_xlim(0.6, ticks[-1] + 0.6)
    axes.set_xlabel("members (forward passes per example)")


def _place_of_all(most: int) -> float:
    return most + 1.2 * _step(most)


def _step(most: int) -> int:
    """Return how many members lie between ticks."""
    return 1 + most // 12
