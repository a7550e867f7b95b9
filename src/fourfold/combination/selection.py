"""Select four checkpoints of one training run as the corners of a training-free linear surface."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor, nn

from fourfold.combination.merge import average_states
from fourfold.errors import InputError
from fourfold.evaluation.grid import evaluate_networks
from fourfold.surfaces.layout import StateDict
from fourfold.surfaces.surface import CORNERS

# Four networks can be placed on the corners of a square in three ways up to its symmetries: only
# which pairs share an edge and which lie across a diagonal matters. Positions are corner 00, 01,
# 10, 11; the pairs across are (first, last) and (second, third).
_PLACINGS = ((0, 1, 2, 3), (0, 1, 3, 2), (0, 2, 3, 1))


def select_corners(
    checkpoints: Mapping[int, StateDict],
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    candidates: Sequence[Sequence[int]] | None = None,
    on_network: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """Rank choices of four checkpoints and their placings on the corners, on val alone.

    A candidate is judged by the nine points of its linear surface with u and v in {0, 1/2, 1}: the
    corners, the midpoints of the edges and the center. These are the checkpoints, the means of two
    and the mean of four, so that all candidates together need few evaluations: 6 checkpoints make
    45 candidates and 36 networks. The candidate with the lowest mean nll over the nine is selected.

    Args:
        checkpoints: epoch -> state dict of one run, at least four.
        model: a module of their architecture.
        images: the val images.
        labels: the val labels.
        candidates: epochs at corner 00, 01, 10 and 11 of each candidate; by default all choices of
            four checkpoints in all three placings that differ.
        on_network: progress report, called with (networks evaluated, networks).
        **settings: as for `evaluate_points`: `batchnorm`, `batchnorm_images` (needed if the model
            has BatchNorm), `augment`, `seed`, `batch_size`, `precision`, `preprocess`, `device`.

    Returns:
        One row per candidate, best first: candidate, corner_00 .. corner_11 (epochs), split `val`,
        n, nll_mean, nll_max, accuracy_mean, accuracy_min, selected (true for the first).

    Raises:
        InputError: if there are fewer than four checkpoints, a candidate names one that is missing
            or twice, or they differ in architecture.
    """
    if len(checkpoints) < 4:
        raise InputError(
            "selecting corners needs at least 4 checkpoints of a run, got epochs "
            f"{sorted(checkpoints)}."
        )
    if candidates is None:
        candidates = [
            [four[i] for i in placing]
            for four in combinations(sorted(checkpoints), 4)
            for placing in _PLACINGS
        ]
    if not candidates:
        raise InputError("candidates is empty; give at least one choice of four epochs.")
    for candidate in candidates:
        if len(set(candidate)) != 4 or not set(candidate) <= set(checkpoints):
            raise InputError(
                f"the corners' epochs are {list(candidate)}; give four different ones of the "
                f"saved checkpoints {sorted(checkpoints)}."
            )
    judged_by = [_networks(candidate) for candidate in candidates]
    subsets = sorted({network for networks in judged_by for network in networks})
    table = evaluate_networks(
        model,
        (average_states([checkpoints[epoch] for epoch in subset]) for subset in subsets),
        {"val": (images, labels)},
        keep_logits=(),
        on_network=None if on_network is None else lambda done: on_network(done, len(subsets)),
        **settings,
    ).table
    measured = dict(zip(subsets, zip(table["nll"], table["accuracy"], strict=True), strict=True))
    rows = []
    for candidate, networks in zip(candidates, judged_by, strict=True):
        nll, accuracy = zip(*(measured[network] for network in networks), strict=True)
        corners = dict(zip(CORNERS, candidate, strict=True))
        rows.append(
            corners
            | {"split": "val", "n": len(labels)}
            | {"nll_mean": sum(nll) / 9, "nll_max": float(np.max(nll))}
            | {"accuracy_mean": sum(accuracy) / 9, "accuracy_min": float(np.min(accuracy))}
        )
    ranked = pd.DataFrame(rows).sort_values("nll_mean", kind="stable", ignore_index=True)
    ranked.insert(0, "candidate", range(1, len(ranked) + 1))
    return ranked.assign(selected=ranked["candidate"] == 1)


def _networks(candidate: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the checkpoints whose means are the nine networks that judge a candidate."""
    c00, c01, c10, c11 = candidate
    edges = ((c00, c01), (c00, c10), (c01, c11), (c10, c11))
    return [(c,) for c in candidate] + [tuple(sorted(m)) for m in (*edges, candidate)]
