"""Barriers of a surface and distances between its control points."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from fourfold.errors import InputError
from fourfold.evaluation.metrics import disagreement
from fourfold.surfaces.points import own_corner_rows, rows_at, surface_rows
from fourfold.surfaces.shapes import AXES, SQUARE, Point, Shape
from fourfold.surfaces.surface import Surface


def measure_barriers(
    grid: pd.DataFrame, shapes: Mapping[str, Shape | Surface] | None = None
) -> pd.DataFrame:
    """Measure the barrier of each surface and split of a `grid` table, in nll and in error.

    barrier = max over all points of L minus the mixture of the corners' losses there (bilinear on a
    square): how much worse than a mixture of its corners the surface is at its worst. The corners'
    losses come from the same procedure as those of the points (BatchNorm re-estimated); the corners
    themselves are no candidates for the maximum, which would make it at least 0.

    Worst point and barrier are over all points that were evaluated on the whole split: grid, edges
    and random ones. The mean is over the shape, from the grid alone by the trapezoid rule. A point
    whose network gives no numbers is the worst there is: maximum, mean and barrier are then NaN.
    The one point of a set beside its corners is their mean; of a single network the barrier is 0.

    Args:
        grid: rows of `grid` tables.
        shapes: surface -> its shape, or the surface itself, where that is no square.

    Returns:
        One row per surface, split and metric (`nll`, or `error` = 1 - accuracy; of what is no
        classifier `loss`): corner_mean_own
        (the corners as trained), corner_mean, min, mean, max, u_at_max, v_at_max, w_at_max,
        sample_at_max, barrier, u_at_barrier, v_at_barrier, w_at_barrier.
    """
    rows = []
    grid = grid.reset_index(drop=True)  # tables that were put together may repeat theirs
    for (surface, split), every in grid.groupby(["surface", "split"], sort=False):
        shape = (shapes or {}).get(surface, SQUARE)
        shape = shape.shape if isinstance(shape, Surface) else shape
        axes = list(shape.axes)
        points, own = surface_rows(every), own_corner_rows(every, shape)
        lattice = points[points["sample"] == "grid"]
        between = points[~shape.is_corner(points)]
        if between.empty:
            raise InputError(
                f"surface {surface!r} has no points beside its corners in split {split!r}; a "
                "barrier needs at least one."
            )
        shares = shape.mixture(between[axes].to_numpy(float))
        for metric in loss_metrics(grid):
            loss, own_loss = loss_of(points, metric), loss_of(own, metric)
            corners = [_value_at(points, loss, shape, at) for at in shape.corner_coordinates]
            excess = loss[between.index] - shares @ corners
            worst, highest = loss.fillna(math.inf).idxmax(), excess.fillna(math.inf).idxmax()
            rows.append(
                {
                    "surface": surface,
                    "split": split,
                    "metric": metric,
                    "corner_mean_own": own_loss.mean(skipna=False),
                    "corner_mean": sum(corners) / len(corners),
                    "min": loss.min(),
                    "mean": shape.mean(lattice, loss[lattice.index]),
                    "max": loss[worst],
                    **{f"{axis}_at_max": points[axis][worst] for axis in axes},
                    "sample_at_max": points["sample"][worst],
                    "barrier": excess[highest],
                    **{f"{axis}_at_barrier": points[axis][highest] for axis in axes},
                }
            )
    columns = [f"{axis}_at_{of}" for of in ("max", "barrier") for axis in AXES]
    table = pd.DataFrame(rows)
    return table.reindex(columns=[*table, *(name for name in columns if name not in table)])


def loss_of(rows: pd.DataFrame, metric: str) -> pd.Series:
    """Return a loss at each row: nll, error = 1 - accuracy, or loss."""
    return 1 - rows["accuracy"] if metric == "error" else rows[metric]


def loss_metrics(grid: pd.DataFrame) -> tuple[str, ...]:
    """Return the losses of a `grid` table: nll and error, of what is no classifier loss."""
    if "nll" in grid:
        return ("nll", "error")
    if "loss" in grid:
        return ("loss",)
    raise InputError("the grid has neither nll nor loss; evaluate it with a loss_function.")


def measure_distances(
    surface: Surface,
    corner_logits: Mapping[str, Float[Tensor, "images classes"]] | None = None,
    reestimated_logits: Mapping[str, Float[Tensor, "images classes"]] | None = None,
) -> pd.DataFrame:
    """Measure the distances between all pairs of control points.

    Args:
        surface: the surface.
        corner_logits: name of a corner (`corner_00`, ...) -> logits of the network as trained;
            gives the disagreement of the corners' predictions.
        reestimated_logits: the same with re-estimated BatchNorm statistics; gives a row for each
            corner with itself, whose disagreement is what re-estimation alone scatters.

    Returns:
        One row per pair: surface, a, b, l2 = |a - b|, relative_l2 = l2 over the mean norm of a and
        b, cosine of the angle between a and b, disagreement (missing where there are no logits).
    """
    logits = corner_logits or {}
    pairs = pair_rows(surface.control_points, surface.control_point_names, logits)
    rows = [{"surface": surface.name} | row for row in pairs]
    for name, again in (reestimated_logits or {}).items():
        rows.append(
            {"surface": surface.name, "a": name, "b": name, "l2": 0.0, "relative_l2": 0.0}
            | {"cosine": 1.0, "disagreement": disagreement(logits[name], again)}
        )
    columns = ["surface", "a", "b", "l2", "relative_l2", "cosine", "disagreement"]
    return pd.DataFrame(rows, columns=columns).astype({"disagreement": "float64"})


def pair_rows(
    points: Float[Tensor, "networks parameters"],
    names: Sequence[Any],
    logits: Mapping[Any, Float[Tensor, "images classes"]],
) -> Iterator[dict[str, Any]]:
    """Yield the rows of `measure_distances` for all pairs of networks with these names."""
    # float64: the distance of near-identical checkpoints is a small difference of large squares.
    points = points.double()
    gram = points @ points.T
    norms = gram.diagonal().sqrt()
    for (i, a), (j, b) in combinations(enumerate(names), 2):
        l2 = (points[i] - points[j]).norm()
        # Corners that share everything have no coordinates: they are one point.
        size, product = norms[i] + norms[j], norms[i] * norms[j]
        known = a in logits and b in logits
        yield {
            "a": a,
            "b": b,
            "l2": l2.item(),
            "relative_l2": (2 * l2 / size).item() if size else 0.0,
            "cosine": (gram[i, j] / product).item() if product else 1.0,
            "disagreement": disagreement(logits[a], logits[b]) if known else None,
        }


def _value_at(points: pd.DataFrame, values: pd.Series, shape: Shape, at: Point) -> float:
    found = values[rows_at(points, shape, at).index]
    if len(found) != 1:
        raise InputError(
            f"surface {points['surface'].iloc[0]!r} has {len(found)} rows at the corner {at} "
            f"in one split; a barrier of a {shape.kind} needs each corner once. If it has another "
            "shape, pass shapes={name: surface}."
        )
    return float(found.iloc[0])
