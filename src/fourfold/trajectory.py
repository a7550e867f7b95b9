"""Select four checkpoints of one training run as the corners of a training-free linear surface."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import pandas as pd
from torch import Tensor, nn

from fourfold.data.batches import to_float
from fourfold.errors import InputError
from fourfold.grid import evaluate_points
from fourfold.layout import StateDict
from fourfold.surface import BezierSurface

# Four networks can be placed on the corners of a square in three ways up to its symmetries: only
# which pairs share an edge and which lie across a diagonal matters. Positions are corner 00, 01, 10,
# 11; the pairs across are (first, last) and (second, third).
_PLACINGS = ((0, 1, 2, 3), (0, 1, 3, 2), (0, 2, 3, 1))


def select_corners(
    checkpoints: Mapping[int, StateDict],
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    batchnorm_images: Tensor | None = None,
    batch_size: int = 512,
    preprocess: Callable[[Tensor], Tensor] = to_float,
    on_point: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Rank all choices of four checkpoints and all their placings on the corners, on val alone.

    A candidate is judged by the nine points of its linear surface with u and v in {0, 1/2, 1}: the
    corners, the midpoints of the edges and the center. These are the checkpoints, the means of two
    and the means of four, so that all candidates together need few evaluations: 6 checkpoints make
    45 candidates and 36 networks. The candidate with the lowest mean nll over the nine is selected.

    Args:
        checkpoints: epoch -> state dict of one run, at least four.
        model: a module of their architecture.
        images: the val images.
        labels: the val labels.
        batchnorm_images: training images to re-estimate BatchNorm on; needed if the model has any.
        batch_size: images per forward pass.
        preprocess: maps a batch of images to the model's input.
        on_point: progress report, called with (networks evaluated, networks).

    Returns:
        One row per candidate, best first: candidate, corner_00 .. corner_11 (epochs), split `val`,
        n, nll_mean, nll_max, accuracy_mean, accuracy_min, selected (true for the first).

    Raises:
        InputError: if there are fewer than four checkpoints or they differ in architecture.
    """
    epochs = sorted(checkpoints)
    if len(epochs) < 4:
        raise InputError(
            f"selecting corners needs at least 4 checkpoints of a run, got epochs {epochs}."
        )
    subsets = [
        subset for size in (1, 2, 4) for subset in combinations(epochs, size)
    ]
    measured: dict[tuple[int, ...], tuple[float, float]] = {}
    for done, subset in enumerate(subsets, start=1):
        # The mean of one, two or four checkpoints is the center of the surface through them.
        corners = [checkpoints[epoch] for epoch in subset for _ in range(4 // len(subset))]
        result = evaluate_points(
            BezierSurface.from_corners(corners, degree=(1, 1)),
            model,
            {"val": (images, labels)},
            [(0.5, 0.5)],
            batchnorm_images=batchnorm_images,
            batch_size=batch_size,
            preprocess=preprocess,
        ).table.iloc[0]
        measured[subset] = (result["nll"], result["accuracy"])
        if on_point is not None:
            on_point(done, len(subsets))
    rows = [
        _candidate([four[i] for i in placing], measured, len(labels))
        for four in combinations(epochs, 4)
        for placing in _PLACINGS
    ]
    table = pd.DataFrame(rows).sort_values("nll_mean", kind="stable", ignore_index=True)
    return table.assign(candidate=range(1, len(table) + 1), selected=[True] + [False] * (len(table) - 1))


def _candidate(
    corners: Sequence[int], measured: Mapping[tuple[int, ...], tuple[float, float]], n: int
) -> dict:
    c00, c01, c10, c11 = corners
    edges = ((c00, c01), (c00, c10), (c01, c11), (c10, c11))
    networks = [(c,) for c in corners] + [tuple(sorted(e)) for e in edges]
    networks.append(tuple(sorted(corners)))
    nll, accuracy = zip(*(measured[network] for network in networks), strict=True)
    return {
        "corner_00": c00,
        "corner_01": c01,
        "corner_10": c10,
        "corner_11": c11,
        "split": "val",
        "n": n,
        "nll_mean": sum(nll) / len(nll),
        "nll_max": max(nll),
        "accuracy_mean": sum(accuracy) / len(accuracy),
        "accuracy_min": min(accuracy),
    }
