"""The differences that the claims are about, each with its paired bootstrap over images.

Positive is good for the surface in every one of them, whatever the metric.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fourfold.combination.ensemble import greedy_points
from fourfold.evaluation.bootstrap import bootstrap_means, interval
from fourfold.evaluation.logits import Examples, SurfaceLogits
from fourfold.evaluation.metrics import average_predictions, best_network, per_image

METRICS = ("accuracy", "nll")


def measure_differences(
    logits: SurfaceLogits, examples: Examples, kept: float
) -> list[dict[str, Any]]:
    """Hold one surface against its corners as they were trained.

    - `low-loss`, on each split: the worst point against the level that keeps the share `kept` of
      what the corners, in the mean, have above guessing. Guessing is the most frequent class for
      accuracy, and the classes' shares for nll; it is the level itself if the corners are no
      better. The interval is that of the point that was found worst; finding it among hundreds
      makes it look worse than it is, never better.
    - `merge`, on test: the grid point that is best on val against the corner that is best on val.
    - `ensemble`, on test: grid points chosen greedily on val, as many as there are corners, against
      the corners.

    A set, between whose networks nothing lies, has none of them.

    Args:
        logits: of the surface's grid and corners.
        examples: of all its points.
        kept: a fraction.

    Returns:
        Rows of the `difference` table.
    """
    rows: list[dict[str, Any]] = []
    if logits.shape.is_discrete:
        return rows
    for comparison, split, metric, value, reference in (
        *_low_loss(examples, kept),
        *_picked(logits),
    ):
        better = value - reference if metric == "accuracy" else reference - value
        draws = bootstrap_means(better)[0]
        low, high = interval(draws)
        rows.append(
            {"comparison": comparison, "surface": logits.surface, "split": split}
            | {"n": len(better)}
            | {"metric": metric, "value": value.mean(), "reference": reference.mean()}
            | {"difference": better.mean(), "low": low, "high": high, "draws": draws}
        )
    return rows


# comparison, split, metric, and for each image the surface's value and what it is held against
_Difference = tuple[str, str, str, NDArray[np.float64], NDArray[np.float64]]


def _low_loss(examples: Examples, kept: float) -> Iterator[_Difference]:
    is_own = torch.tensor([sample == "own" for sample in examples.samples])
    for split, labels in examples.labels.items():
        shares = np.bincount(labels.numpy()) / len(labels)
        shares = shares[shares > 0]
        for metric, values, guessing, sign in (
            ("accuracy", examples.correct[split], shares.max(), 1),
            ("nll", examples.nll[split], -(shares * np.log(shares)).sum(), -1),
        ):
            corners, points = values[is_own].double().mean(dim=0), values[~is_own].double()
            worst = points[(sign * points.mean(dim=1)).argmin()]
            guess = np.full(len(labels), guessing)
            level = kept * corners.numpy() + (1 - kept) * guess
            if sign * (corners.mean() - guessing) <= 0:
                level = guess  # corners no better than guessing leave nothing to keep
            yield "low-loss", split, metric, worst.numpy(), level


def _picked(logits: SurfaceLogits) -> Iterator[_Difference]:
    candidates, own, count = logits.candidates, logits.own, len(logits.corners)
    val, labels = logits.logits["val"][candidates], logits.labels["val"]
    picks = {
        "merge": ([candidates[best_network(val, labels)]], [best_network(own["val"], labels)]),
        "ensemble": (greedy_points(logits, "val", count), [*range(count)]),
    }
    for comparison, (points, corners) in picks.items():
        members = logits.logits["test"][points], own["test"][corners]
        scores = (_of_images(networks, logits.labels["test"]) for networks in members)
        for metric, value, reference in zip(METRICS, *scores, strict=True):
            yield comparison, "test", metric, value, reference


def _of_images(members: Tensor, labels: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return whether the members' average is right, and its nll, for each image."""
    nll, correct = per_image(average_predictions(members), labels)
    return correct.double().numpy(), nll.double().numpy()
