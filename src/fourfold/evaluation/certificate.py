"""What a random sample of points says of all points of a surface, free of assumptions."""

import math
from collections.abc import Sequence
from itertools import product
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binom

from fourfold.errors import InputError
from fourfold.evaluation.geometry import loss_metrics, loss_of
from fourfold.surfaces.points import surface_rows
from fourfold.surfaces.shapes import AXES

LEVEL = 0.95  # confidence
FRACTION = 0.01  # that a table certifies, where there are points enough: 299 for 95 %


class Certificate(NamedTuple):
    """With the confidence asked for, at most `fraction` of a surface is worse than `value`.

    Attributes:
        value: NaN if the networks give no numbers there; NaN is worse than every number.
        fraction: of the surface.
        rank: `value` is the rank-th worst of the sample, from 1.
    """

    value: float
    fraction: float
    rank: int


def certificate(
    values: Sequence[float] | pd.Series, fraction: float | None = None, level: float = LEVEL
) -> Certificate:
    """Bound what a part of a surface is worse than, by order statistics of a random sample.

    More than a fraction a of the surface is worse than the r-th worst of k independent uniform
    points only if fewer than r of them fell into its worst part of size a, which has the
    probability P(Binomial(k, a) < r), whatever the surface. For the worst, r = 1, that is
    (1 - a)^k, so that a = 1 - (1 - level)^(1 / k): 1 % for 95 % and 299 points.

    Args:
        values: a loss at each point; larger is worse.
        fraction: a, in (0, 1); the value is then the lowest that is certain enough. By default the
            value is the worst, and the fraction what is certain of that.
        level: confidence, in (0, 1).

    Raises:
        InputError: if there are no values, or too few for this fraction.
    """
    for name, share in (("level", level), ("fraction", fraction)):
        if share is not None and not (isinstance(share, Real) and 0 < share < 1):
            raise InputError(f"{name} is {share!r}; give a number between 0 and 1.")
    k, needed = len(values), points_needed(fraction, level)
    if k < needed:
        raise InputError(
            f"there are {k} points, but this bound takes {needed}; draw more random points, or "
            "certify a larger fraction."
        )
    rank = 1 if fraction is None else max(1, int(binom.ppf(1 - level, k, fraction)))
    worst_first = np.sort(np.nan_to_num(np.asarray(values, float), nan=np.inf))[::-1]
    value = float(worst_first[rank - 1])
    certified = 1 - (1 - level) ** (1 / k) if fraction is None else fraction
    return Certificate(math.nan if math.isinf(value) else value, certified, rank)


def points_needed(fraction: float | None, level: float = LEVEL) -> int:
    """Return how many random points certify a fraction, or any."""
    return 1 if fraction is None else math.ceil(math.log(1 - level) / math.log1p(-fraction))


def measure_certificates(grid: pd.DataFrame) -> pd.DataFrame:
    """Certify the surfaces of a `grid` table by their random points, in nll and in error.

    Only splits on the whole of which all random points were evaluated have certificates: points
    that a search picked are no random sample.

    Args:
        grid: rows of `grid` tables.

    Returns:
        Per surface, such split and metric (as in `measure_barriers`) a row of the worst point, and
        one of the fraction 1 % if there are points enough: surface, split, metric, points,
        confidence, value, fraction, rank.

    Raises:
        InputError: if a surface has a random point twice, or is of several experiments or
            replicates.
    """
    for column in {"experiment", "replicate"} & {*grid}:
        several = grid.groupby("surface", sort=False)[column].unique()
        for surface, values in several[several.map(len) > 1].items():
            raise InputError(
                f"surface {surface!r} has {column} {', '.join(map(str, values))}; a certificate is "
                "of one surface, so give the table of one experiment and replicate."
            )
    rows: list[dict[str, Any]] = []
    drawn = grid[grid["sample"] == "random"].drop_duplicates(["surface", *AXES])
    counts = drawn["surface"].value_counts()
    for (surface, split), every in grid.groupby(["surface", "split"], sort=False):
        whole = surface_rows(every)
        whole = whole[whole["sample"] == "random"]
        if whole.empty or len(whole) < counts[surface]:
            continue
        if len(whole) > counts[surface]:
            raise InputError(
                f"surface {surface!r} has {len(whole)} rows of random points in split {split!r}, "
                f"of {counts[surface]} places; points that repeat are not independent, so give the "
                "table of one experiment and replicate."
            )
        fractions = [f for f in (None, FRACTION) if len(whole) >= points_needed(f)]
        for metric, fraction in product(loss_metrics(grid), fractions):
            found = certificate(loss_of(whole, metric), fraction)
            rows.append(
                {"surface": surface, "split": split, "metric": metric, "points": len(whole)}
                | {"confidence": LEVEL, **found._asdict()}
            )
    columns = ["surface", "split", "metric", "points", "confidence", *Certificate._fields]
    return pd.DataFrame(rows, columns=columns)
