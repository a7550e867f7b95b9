"""Paired bootstrap over images, and intervals from its draws. Needs no torch."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike

from fourfold.errors import InputError

DRAWS = 1000
LEVEL = 0.95
_AT_A_TIME = 100  # draws; their counts are a matrix of draws x images


def bootstrap_means(
    values: ArrayLike, *, draws: int = DRAWS, seed: int = 0
) -> Float64[np.ndarray, "rows {draws}"]:
    """Return the means of (rows, n) values over n images drawn with replacement.

    A draw takes the same images for all rows, and for every call with the same n and seed: means
    of several surfaces or replicates are paired.

    Reference: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993.
    """
    values = np.atleast_2d(np.asarray(values, dtype=np.float64))
    n = values.shape[1]
    if n == 0:
        raise InputError("a bootstrap needs at least one image, got none.")
    generator = np.random.default_rng(seed)
    means = np.empty((len(values), draws))
    for start in range(0, draws, _AT_A_TIME):
        size = min(_AT_A_TIME, draws - start)
        counts = generator.multinomial(n, np.full(n, 1 / n), size=size)
        means[:, start : start + size] = values @ counts.T / n
    return means


def interval(draws: ArrayLike, level: float = LEVEL) -> tuple[float, float]:
    """Return the percentile interval of bootstrap draws."""
    tail = 50 * (1 - level)
    low, high = np.percentile(np.asarray(draws, dtype=np.float64), [tail, 100 - tail])
    return float(low), float(high)


def interval_over_replicates(
    differences: Sequence[float], draws: Sequence[ArrayLike], *, seed: int = 0
) -> tuple[float, float]:
    """Return an interval of the mean difference over images and replicates.

    With one replicate that of `interval`. With more, each draw takes the replicates with
    replacement too, and the interval is widened to that of Student's t over the replicates where it
    is narrower: a bootstrap over two or three values alone is too sure of itself.
    """
    if len(differences) == 1:
        return interval(draws[0])
    stacked = np.stack([np.asarray(one, dtype=np.float64) for one in draws])
    count, length = stacked.shape
    chosen = np.random.default_rng(seed).integers(count, size=(count, length))
    low, high = interval(np.take_along_axis(stacked, chosen, axis=0).mean(axis=0))
    t_low, t_high = student_interval(differences)
    return min(low, t_low), max(high, t_high)


def student_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """Return the interval of the mean of two or more values by Student's t."""
    from scipy.stats import t

    given = np.asarray(values, dtype=np.float64)
    half = t.ppf((1 + level) / 2, len(given) - 1) * given.std(ddof=1) / len(given) ** 0.5
    return float(given.mean() - half), float(given.mean() + half)
