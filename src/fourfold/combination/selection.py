"""Select checkpoints of one training run as the corners of a training-free linear surface."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, combinations
from math import fsum, isnan, nan
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor, nn

from fourfold.combination.merge import average_states
from fourfold.data.batches import is_loader
from fourfold.errors import InputError
from fourfold.evaluation.geometry import pair_rows
from fourfold.evaluation.grid import Evaluation, evaluate_networks
from fourfold.surfaces.layout import ParameterLayout, StateDict
from fourfold.surfaces.modules import check_buffers, module_of
from fourfold.surfaces.shapes import SQUARE, Shape
from fourfold.surfaces.surface import separate

Epoch = int | str

_METRICS = ("nll", "accuracy")

# Four networks can be placed on the corners of a square in three ways up to its symmetries: only
# which pairs share an edge and which lie across a diagonal matters. Positions are corner 00, 01,
# 10, 11; the pairs across are (first, last) and (second, third). Of shapes whose corners all share
# edges every placing is the same.
_SQUARE_PLACINGS = ((0, 1, 2, 3), (0, 1, 3, 2), (0, 2, 3, 1))


def select_corners(
    checkpoints: Mapping[Any, StateDict],
    model: nn.Module,
    images: Any,
    labels: Any = None,
    *,
    shape: Shape = SQUARE,
    candidates: Sequence[Sequence[Epoch]] | None = None,
    buffers: Mapping[str, str] | None = None,
    on_network: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """Rank choices of checkpoints and their placings on the corners, on val alone.

    A candidate is judged by points of its linear surface: the corners, the midpoints of the edges
    and the center; of a square the nine with u and v in {0, 1/2, 1}. These are the checkpoints, the
    means of two and the mean of all, so that all candidates together need few evaluations: for a
    square 6 checkpoints make 45 candidates and 36 networks.

    The candidate with the highest gain is selected: the nll of the best checkpoint of all
    candidates less the mean nll over the points that are no corners. The mean over all points would
    prefer corners that nearly coincide with the best checkpoint, which gain nothing; a gain over
    the candidate's own corners would prefer bad ones, to which an average helps most.

    Args:
        checkpoints: epoch (or a name) -> state dict of one run, at least as many as the shape has
            corners.
        model: a module of their architecture.
        images: the val images, or batches, as in `train`.
        labels: the val labels, None beside batches.
        shape: which has the corners; without added vertices.
        candidates: epochs at the corners of each candidate, in corner order; by default all choices
            of as many checkpoints, for a square in all three placings that differ, for a cube in
            the order of the epochs alone.
        buffers: what buffers that differ between the checkpoints become, see
            `Surface.from_corners`.
        on_network: progress report, called with (networks evaluated, networks).
        **settings: as for `evaluate_points`: `batchnorm`, `batchnorm_images` (needed if the model
            has BatchNorm), `augment`, `seed`, `batch_size`, `precision`, `preprocess`, `device`.

    Returns:
        One row per candidate, best first, among equal gains the lower mean nll: candidate, corners
        (epochs joined by `;`, in corner order), split `val`, n, gain, nll_mean, nll_max,
        accuracy_mean, accuracy_min, of the corners' pairs the mean distance (`relative_l2` of
        `measure_distances`) and disagreement, selected (true for the first).

    Raises:
        InputError: if there are too few checkpoints, a candidate names one that is missing or
            twice, or they differ in architecture.
    """
    count = len(shape.corner_rows)
    if not {*chain.from_iterable(shape.edges)} <= {*shape.corner_coordinates}:
        raise InputError(
            f"shape is {shape!r}, whose edges have ends that are no corners, so that nothing says "
            "what lies between these; choose a curve, a triangle, a square, a cube or a PointSet."
        )
    if len(checkpoints) < count:
        raise InputError(
            f"selecting the corners of a {shape.kind} needs at least {count} checkpoints of a run, "
            f"got epochs {_in_order(checkpoints)}."
        )
    if candidates is None:
        placings = _SQUARE_PLACINGS if shape.kind == "square" else (tuple(range(count)),)
        candidates = [
            [chosen[i] for i in placing]
            for chosen in combinations(_in_order(checkpoints), count)
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
                f"{_in_order(checkpoints)}."
            )
    known = [*checkpoints.values()]
    layout, _ = separate(known, [f"epoch {epoch}" for epoch in checkpoints], buffers)
    check_buffers(module_of(model, known[0]), layout.names)
    between = [_between(candidate, shape) for candidate in candidates]
    alone = [(epoch,) for epoch in _in_order({epoch for one in candidates for epoch in one})]
    found = dict.fromkeys(subset for subsets in between for subset in subsets)
    means = [subset for subset in found if subset not in alone]
    val = {"val": images if labels is None and is_loader(images) else (images, labels)}

    def measure(subsets: Sequence[tuple[Epoch, ...]], done: int, keep: Sequence[str]) -> Evaluation:
        return evaluate_networks(
            model,
            (
                average_states([checkpoints[epoch] for epoch in subset], buffers=buffers)
                for subset in subsets
            ),
            val,
            keep_logits=keep,
            on_network=None
            if on_network is None
            else lambda more: on_network(done + more, len(alone) + len(means)),
            **settings,
        )

    networks = measure(alone, 0, ["val"])
    if "nll" not in networks.table:
        raise InputError("corners are ranked by nll, but the val split has no class labels.")
    tables = [networks.table, *([measure(means, len(alone), ()).table] if means else [])]
    table = pd.concat(tables, ignore_index=True)
    nll, accuracy = (dict(zip([*alone, *means], table[k], strict=True)) for k in _METRICS)
    best = min((nll[one] for one in alone if not isnan(nll[one])), default=nan)
    gaps = _gaps(layout, {epoch: checkpoints[epoch] for (epoch,) in alone}, networks.logits["val"])
    rows = []
    for candidate, inner in zip(candidates, between, strict=True):
        points = dict.fromkeys([*((epoch,) for epoch in candidate), *inner])
        losses, hits = [nll[point] for point in points], [accuracy[point] for point in points]
        pairs = [gaps[frozenset(pair)] for pair in combinations(candidate, 2)]
        rows.append(
            {"corners": ";".join(map(str, candidate)), "split": "val", "n": int(table["n"].iloc[0])}
            | {"gain": best - _mean([nll[point] for point in inner])}
            | {"nll_mean": _mean(losses), "nll_max": float(np.max(losses))}
            | {"accuracy_mean": _mean(hits), "accuracy_min": float(np.min(hits))}
            | {"distance": _mean([gap for gap, _ in pairs])}
            | {"disagreement": _mean([gap for _, gap in pairs])}
        )
    ranked = pd.DataFrame(rows).sort_values(
        ["gain", "nll_mean"], ascending=[False, True], kind="stable", ignore_index=True
    )
    ranked.insert(0, "candidate", range(1, len(ranked) + 1))
    return ranked.assign(selected=ranked["candidate"] == 1)


def _in_order(epochs: Iterable[Epoch]) -> list[Epoch]:
    """Return epochs in their order, names behind them."""
    return sorted(epochs, key=lambda epoch: (isinstance(epoch, str), epoch))


def _between(candidate: Sequence[Epoch], shape: Shape) -> list[tuple[Epoch, ...]]:
    """Return the checkpoints whose means are the points of a candidate that are no corners."""
    at = dict(zip(shape.corner_coordinates, candidate, strict=True))
    edges = [(at[start], at[end]) for start, end in shape.edges]
    return list(dict.fromkeys(tuple(_in_order(members)) for members in (*edges, candidate)))


def _gaps(
    layout: ParameterLayout, checkpoints: Mapping[Epoch, StateDict], logits: Tensor
) -> dict[frozenset[Epoch], tuple[float, float]]:
    """Return pair of checkpoints -> their distance and the disagreement of their predictions."""
    epochs, rows = [*checkpoints], layout.rows([*checkpoints.values()])
    return {
        frozenset((row["a"], row["b"])): (row["relative_l2"], row["disagreement"])
        for row in pair_rows(rows, epochs, dict(zip(epochs, logits, strict=True)))
    }


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values) if values else nan
