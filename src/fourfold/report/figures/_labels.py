"""Names beside marks, where they cover neither each other nor a mark."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fourfold.report.figures import _style

_PADDING = 1.06  # text is wider in some resolutions than in others
_SIDE = 8  # points; room that a mark takes
_FAR = 12  # points from a mark to its name, from which on a thin line joins them
_DISTANCES = np.array([5, 8, _FAR, 18, 26, 36, 48, 62, 80])
_ANGLES = np.deg2rad([0, 180, 90, 270, 45, 135, 225, 315, 22, 158, 202, 338])
_DIRECTIONS = np.column_stack([np.cos(_ANGLES), np.sin(_ANGLES)])


def label_marks(figure: Figure, marks: Mapping[Axes, pd.DataFrame]) -> None:
    """Write a name beside each mark of some panels, at the nearest free place of some.

    To be called when all else is drawn: names take no part in the layout of the figure.

    Args:
        figure: the figure.
        marks: panel -> its marks, with the columns name, x and y.
    """
    figure.draw_without_rendering()
    for axes, of in marks.items():
        _label_marks(axes, of, figure.dpi / 72)


def _label_marks(axes: Axes, marks: pd.DataFrame, per_point: float) -> None:
    pixels = axes.transData.transform(marks[["x", "y"]])
    reach = _SIDE / 2 * per_point
    taken, rim = np.hstack([pixels - reach, pixels + reach]), np.array(axes.bbox.extents)
    look: dict[str, Any] = {"fontsize": 6, "ha": "center", "va": "center"}
    look |= {"textcoords": "offset points", "path_effects": _style.HALO}
    look["arrowprops"] = {"arrowstyle": "-", "linewidth": 0.4, "color": _style.GREY, "shrinkB": 3}
    for mark, at in zip(marks.itertuples(), pixels, strict=True):
        text = axes.annotate(mark.name, (mark.x, mark.y), xytext=(0, 0), **look)
        text.set_in_layout(False)
        half = _PADDING * np.array(text.get_window_extent().size) / 2
        steps = (_DISTANCES[:, None, None] * per_point + half) * _DIRECTIONS
        centers = at + steps.reshape(-1, 2)
        boxes = np.hstack([centers - half, centers + half])
        apart = (boxes[:, None, :2] >= taken[:, 2:]) | (boxes[:, None, 2:] <= taken[:, :2])
        is_outside = (boxes[:, :2] < rim[:2]) | (boxes[:, 2:] > rim[2:])
        covered = (~apart.any(axis=2)).sum(axis=1) + len(taken) * is_outside.any(axis=1)
        best = int(covered.argmin())
        taken = np.vstack([taken, boxes[best]])
        text.xyann = tuple((centers[best] - at) / per_point)
        if text.arrow_patch is not None:
            text.arrow_patch.set_visible(bool(_DISTANCES[best // len(_DIRECTIONS)] >= _FAR))
