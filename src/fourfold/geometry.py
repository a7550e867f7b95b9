"""Barriers of a surface and distances between its control points."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import pandas as pd
from torch import Tensor

from fourfold.errors import InputError
from fourfold.metrics import disagreement
from fourfold.surface import CORNER_COORDINATES, BezierSurface


def measure_barriers(grid: pd.DataFrame) -> pd.DataFrame:
    """Measure the barrier of each surface and split of a `grid` table, in nll and in error.

    barrier = max over the grid of L(u, v) minus the bilinear interpolation of the four corners'
    losses at (u, v): how much worse than a mixture of its corners the surface is at its worst.

    Returns:
        One row per surface, split and metric (`nll`, or `error` = 1 - accuracy): corner_mean, min,
        mean, max, barrier, u_at_max, v_at_max.

    Raises:
        InputError: if a corner is not among the points of a surface.
    """
    rows = []
    for (surface, split), points in grid.groupby(["surface", "split"], sort=False):
        for metric, loss in (("nll", points["nll"]), ("error", 1 - points["accuracy"])):
            u, v = points["u"], points["v"]
            corners = [_value_at(points, loss, *corner) for corner in CORNER_COORDINATES]
            mixture = (
                (1 - u) * (1 - v) * corners[0]
                + (1 - u) * v * corners[1]
                + u * (1 - v) * corners[2]
                + u * v * corners[3]
            )
            worst = loss.idxmax()
            rows.append(
                {
                    "surface": surface,
                    "split": split,
                    "metric": metric,
                    "corner_mean": sum(corners) / 4,
                    "min": loss.min(),
                    "mean": loss.mean(),
                    "max": loss.max(),
                    "barrier": (loss - mixture).max(),
                    "u_at_max": u[worst],
                    "v_at_max": v[worst],
                }
            )
    return pd.DataFrame(rows)


def measure_distances(
    surface: BezierSurface, corner_logits: Mapping[str, Tensor] | None = None
) -> pd.DataFrame:
    """Measure the distances between all pairs of control points.

    Args:
        surface: the surface.
        corner_logits: name of a corner (`corner_00`, ...) -> (n, classes) logits; gives the
            disagreement of the corners' predictions.

    Returns:
        One row per pair: surface, a, b, l2 = |a - b|, relative_l2 = l2 over the mean norm of a and
        b, cosine of the angle between a and b, disagreement (missing where there are no logits).
    """
    logits = corner_logits or {}
    # float64: the distance of near-identical checkpoints is a small difference of large squares.
    points = surface.control_points.double()
    gram = points @ points.T
    norms = gram.diagonal().sqrt()
    rows: list[dict[str, Any]] = []
    for (i, a), (j, b) in combinations(enumerate(surface.control_point_names), 2):
        l2 = (points[i] - points[j]).norm()
        known = a in logits and b in logits
        rows.append(
            {
                "surface": surface.name,
                "a": a,
                "b": b,
                "l2": l2.item(),
                "relative_l2": (2 * l2 / (norms[i] + norms[j])).item(),
                "cosine": (gram[i, j] / (norms[i] * norms[j])).item(),
                "disagreement": disagreement(logits[a], logits[b]) if known else None,
            }
        )
    return pd.DataFrame(rows).astype({"disagreement": "float64"})


def _value_at(points: pd.DataFrame, values: pd.Series, u: float, v: float) -> float:
    found = values[(points["u"] == u) & (points["v"] == v)]
    if len(found) != 1:
        raise InputError(
            f"surface {points['surface'].iloc[0]!r} has {len(found)} rows at the corner ({u}, {v}) "
            "in one split; a barrier needs each corner once."
        )
    return float(found.iloc[0])
