"""Select checkpoints of one training run as the corners of a training-free linear surface."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from math import fsum
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from fourfold.combination.merge import average_states
from fourfold.data.batches import is_loader
from fourfold.errors import InputError
from fourfold.evaluation.grid import evaluate_networks
from fourfold.surfaces.layout import StateDict
from fourfold.surfaces.shapes import SQUARE, Shape

# Four networks can be placed on the corners of a square in three ways up to its symmetries: only
# which pairs share an edge and which lie across a diagonal matters. Positions are corner 00, 01,
# 10, 11; the pairs across are (first, last) and (second, third). Of shapes whose corners all share
# edges every placing is the same.
_SQUARE_PLACINGS = ((0, 1, 2, 3), (0, 1, 3, 2), (0, 2, 3, 1))


def select_corners(
    checkpoints: Mapping[int, StateDict],
    model: nn.Module,
    images: Any,
    labels: Any = None,
    *,
    shape: Shape = SQUARE,
    candidates: Sequence[Sequence[int]] | None = None,
    on_network: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """Rank choices of checkpoints and their placings on the corners, on val alone.

    A candidate is judged by points of its linear surface: the corners, the midpoints of the edges
    and the center; of a square the nine with u and v in {0, 1/2, 1}. These are the checkpoints, the
    means of two and the mean of all, so that all candidates together need few evaluations: for a
    square 6 checkpoints make 45 candidates and 36 networks. The candidate with the lowest mean nll
    over its points is selected.

    Args:
        checkpoints: epoch -> state dict of one run, at least as many as the shape has corners.
        model: a module of their architecture.
        images: the val images, or batches, as in `train`.
        labels: the val labels, None beside batches.
        shape: which has the corners; without added vertices.
        candidates: epochs at the corners of each candidate, in corner order; by default all choices
            of as many checkpoints, for a square in all three placings that differ, for a cube in
            the order of the epochs alone.
        on_network: progress report, called with (networks evaluated, networks).
        **settings: as for `evaluate_points`: `batchnorm`, `batchnorm_images` (needed if the model
            has BatchNorm), `augment`, `seed`, `batch_size`, `precision`, `preprocess`, `device`.

    Returns:
        One row per candidate, best first: candidate, corners (epochs joined by `;`, in corner
        order), split `val`, n, nll_mean, nll_max, accuracy_mean, accuracy_min, selected (true for
        the first).

    Raises:
        InputError: if there are too few checkpoints, a candidate names one that is missing or
            twice, or they differ in architecture.
    """
    count = len(shape.corner_rows)
    if len(checkpoints) < count:
        raise InputError(
            f"selecting the corners of a {shape.kind} needs at least {count} checkpoints of a run, "
            f"got epochs {sorted(checkpoints)}."
        )
    if candidates is None:
        placings = _SQUARE_PLACINGS if shape.kind == "square" else (tuple(range(count)),)
        candidates = [
            [chosen[i] for i in placing]
            for chosen in combinations(sorted(checkpoints), count)
            for placing in placings
        ]
    if not candidates:
        raise InputError(f"candidates is empty; give at least one choice of {count} epochs.")
    for candidate in candidates:
        if len(set(candidate)) != len(candidate) or len(candidate) != count:
            raise InputError(
                f"the corners' epochs are {list(candidate)}; give {count} different ones."
            )
        if not set(candidate) <= set(checkpoints):
            raise InputError(
                f"the corners' epochs are {list(candidate)}; the saved checkpoints are "
                f"{sorted(checkpoints)}."
            )
    judged_by = [_networks(candidate, shape) for candidate in candidates]
    subsets = sorted({network for networks in judged_by for network in networks})
    table = evaluate_networks(
        model,
        (average_states([checkpoints[epoch] for epoch in subset]) for subset in subsets),
        {"val": images if labels is None and is_loader(images) else (images, labels)},
        keep_logits=(),
        on_network=None if on_network is None else lambda done: on_network(done, len(subsets)),
        **settings,
    ).table
    if "nll" not in table:
        raise InputError("corners are ranked by nll, but the val split has no class labels.")
    measured = dict(zip(subsets, zip(table["nll"], table["accuracy"], strict=True), strict=True))
    rows = []
    for candidate, networks in zip(candidates, judged_by, strict=True):
        nll, accuracy = zip(*(measured[network] for network in networks), strict=True)
        rows.append(
            {"corners": ";".join(map(str, candidate)), "split": "val", "n": int(table["n"].iloc[0])}
            | {"nll_mean": fsum(nll) / len(nll), "nll_max": float(np.max(nll))}
            | {"accuracy_mean": fsum(accuracy) / len(accuracy)}
            | {"accuracy_min": float(np.min(accuracy))}
        )
    ranked = pd.DataFrame(rows).sort_values("nll_mean", kind="stable", ignore_index=True)
    ranked.insert(0, "candidate", range(1, len(ranked) + 1))
    return ranked.assign(selected=ranked["candidate"] == 1)


def _networks(candidate: Sequence[int], shape: Shape) -> list[tuple[int, ...]]:
    """Return the checkpoints whose means are the networks that judge a candidate."""
    at = dict(zip(shape.corner_coordinates, candidate, strict=True))
    edges = [(at[start], at[end]) for start, end in shape.edges]
    means = dict.fromkeys(tuple(sorted(members)) for members in (*edges, candidate))
    return [*((epoch,) for epoch in candidate), *means]
