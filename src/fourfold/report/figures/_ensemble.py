"""Figure of ensembles: what each further member is worth."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fourfold.combination.baselines import Surfaces, corner_ensembles, reference_surfaces
from fourfold.report.figures._measure import ACCURACY, NLL, Measure
from fourfold.report.figures._style import (
    BLACK,
    FULL_WIDTH,
    GREY,
    check_run,
    heading,
    in_order,
    note_off_scale,
    one_example,
    paper_style,
    surface_order,
    surface_style,
)

# Selections that are one ensemble per surface: legend text, marker, filled.
_SINGLE = {
    "fixed": ("four midpoints of the edges, fixed in advance", "D", True),
    "all": ("all points of the grid", "^", True),
    "oracle": ("oracle: four points chosen on test", "s", False),
}


@paper_style
def plot_ensembles(
    ensemble: pd.DataFrame,
    surfaces: Surfaces,
    *,
    split: str = "test",
    seeds: Sequence[int] = (),
) -> Figure:
    """Draw accuracy (left) and nll (right) of averaged predictions over the number of members.

    Solid lines are points of a surface, chosen one after another on val; dashed ones are corners as
    they were trained, in the mean over all choices of so many (dots). Marks are single ensembles;
    hollow ones were chosen on test. Marks far from all lines stand at the rim, as numbers.

    Args:
        ensemble: table `ensemble` of one replicate.
        surfaces: name -> `corners`, `kind`, `fit`, in their order.
        split: the split that is shown.
        seeds: seeds of the replicate's corners, for the title.

    Raises:
        InputError: if the split is absent, the table empty or a surface unknown.
    """
    rows = check_run("ensemble", ensemble, split=split)
    # Each ensemble of corners, and the surface that stands for them.
    of_corners = reference_surfaces(surfaces)
    corners = {name: of_corners[key] for key, name in corner_ensembles(surfaces).items()}
    is_corners = rows["ensemble"].isin(corners)
    curves = rows[is_corners | (rows["selection"] == "validation")]
    marks = rows[~is_corners & rows["selection"].isin(list(_SINGLE))]
    colours = {name: surface_style(name, surfaces)[0] for name in surfaces}
    shown = surface_order(rows.loc[~is_corners, "ensemble"], surfaces)
    styles = {
        name: _line_style(name, colours, corners)
        for name in in_order(curves["ensemble"], [*shown, *corners])
    }
    most = int(curves["forward_passes"].max())
    figure = Figure(figsize=(FULL_WIDTH, 3.7), layout="constrained")
    for measure, axes in zip((ACCURACY, NLL), figure.subplots(1, 2), strict=True):
        _set_scale(axes, measure, curves, marks)
        for name, style in styles.items():
            _draw_curve(axes, measure, curves[curves["ensemble"] == name], style)
        _draw_marks(axes, measure, marks, {name: colours[name] for name in shown}, most)
        axes.set_ylabel(measure.label)
        axes.grid(axis="y")
        _set_members(axes, most, marks.loc[marks["selection"] == "all", "forward_passes"])
    handles = [Line2D([], [], **style) for style in styles.values()]
    if (rows["selection"] == "subset").any():
        handles.append(Line2D([], [], label="one choice of corners", **_choice_mark(BLACK)))
    for selection in in_order(marks["selection"], _SINGLE):
        handles.append(Line2D([], [], label=_SINGLE[selection][0], **_mark(selection, GREY)))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    figure.suptitle(heading("ensembles (averaged predictions)", rows, seeds, one_example(rows)))
    return figure


def _line_style(
    name: str, colours: Mapping[str, str], corners: Mapping[str, str]
) -> dict[str, Any]:
    """Return how the line of an ensemble looks, of a surface or of its corners."""
    if name not in corners:
        label = f"{name} surface, points chosen on val"
        style = {"linestyle": "-", "marker": ".", "markersize": 4, "label": label}
        return {"color": colours[name], **style}
    if name == "corners":
        return {"color": BLACK, "linestyle": "--", "label": "corners, mean over all choices"}
    label = f"corners of the {corners[name]} surface, mean over all choices"
    return {"color": colours[corners[name]], "linestyle": "--", "label": label}


def _mark(selection: str, colour: str) -> dict[str, Any]:
    _, marker, is_filled = _SINGLE[selection]
    face = colour if is_filled else "white"
    return {
        "linestyle": "",
        "marker": marker,
        "markersize": 4.5,
        "color": colour,
        "markerfacecolor": face,
    }


def _choice_mark(colour: str) -> dict[str, Any]:
    return {
        "linestyle": "",
        "marker": "o",
        "markersize": 2.5,
        "color": colour,
        "alpha": 0.35,
        "markeredgewidth": 0,
    }


def _set_scale(axes: Axes, measure: Measure, curves: pd.DataFrame, marks: pd.DataFrame) -> None:
    """Show all lines, and marks that are no further from them than half of what the lines span."""
    lines, single = measure.values(curves), measure.values(marks)
    low, high = measure.limits(lines, margin=0.5)
    measure.set_axis(axes, "y", [*lines, *single[(single >= low) & (single <= high)]])


def _draw_curve(axes: Axes, measure: Measure, rows: pd.DataFrame, style: dict[str, Any]) -> None:
    choices = rows[rows["selection"] == "subset"]
    axes.plot(choices["forward_passes"], measure.values(choices), **_choice_mark(style["color"]))
    mean = rows.groupby("forward_passes")[[measure.column]].mean()
    axes.plot(mean.index, measure.values(mean), **style)


def _draw_marks(
    axes: Axes, measure: Measure, marks: pd.DataFrame, colours: Mapping[str, str], most: int
) -> None:
    low, high = measure.space(np.array(axes.get_ylim()))
    rim = 0.03 * (high - low)
    noted: dict[bool, int] = {}  # numbers at the lower rim, at the upper one
    for index, (surface, colour) in enumerate(colours.items()):
        part = marks[marks["ensemble"] == surface]
        beside = min(0.14, 0.6 / len(colours)) * (index - (len(colours) - 1) / 2)
        for selection, passes, value in zip(
            part["selection"], part["forward_passes"], measure.values(part), strict=True
        ):
            if np.isnan(value):  # one of all points gave no numbers
                continue
            place = measure.space(value)
            x = beside + (_place_of_all(most) if selection == "all" else passes)
            y = float(measure.unspace(np.clip(place, low + rim, high - rim)))
            is_off = not low <= place <= high
            axes.plot(x, value if not is_off else y, clip_on=False, **_mark(selection, colour))
            if is_off:
                is_below = bool(place < low)
                from_rim = 8 * noted.setdefault(is_below, 0)
                noted[is_below] += 1
                aside = -8 if selection == "all" else 8
                up = from_rim if is_below else -from_rim
                note_off_scale(axes, f"{value:.3g}", (x, y), (aside, up))


def _set_members(axes: Axes, most: int, numbers_of_all: pd.Series) -> None:
    members = range(1, most + 1, 1 + most // 12)
    ticks: list[float] = [*members]
    labels = [str(n) for n in members]
    if len(numbers_of_all):
        axes.axvline(most + 0.6, color="#BBBBBB", linewidth=0.4)
        ticks.append(_place_of_all(most))
        numbers = ", ".join(f"{number:,}" for number in sorted(set(numbers_of_all)))
        labels.append(f"all\n({numbers})")
    axes.set_xticks(ticks, labels=labels)
    axes.set_xlim(0.6, ticks[-1] + 0.6)
    axes.set_xlabel("members (forward passes per example)")


def _place_of_all(most: int) -> float:
    return most + 1.2
