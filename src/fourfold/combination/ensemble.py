"""Ensembles: networks whose predicted probabilities are averaged."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fourfold.combination.baselines import (
    Surfaces,
    check_surfaces,
    corner_ensembles,
    reference_surfaces,
)
from fourfold.data.inputs import as_tensor, class_labels, logits_of
from fourfold.errors import InputError, check_count
from fourfold.evaluation.logits import SurfaceLogits
from fourfold.evaluation.metrics import (
    average_predictions,
    classification_metrics,
    mean_disagreement,
)

FEW = 8  # networks, of which all choices are evaluated; of more there are too many


def compare_ensembles(
    logits: Mapping[str, SurfaceLogits], surfaces: Surfaces, max_members: int
) -> list[dict[str, Any]]:
    """Evaluate ensembles of the corners, once for each set of them, and of each surface's points.

    Members are fixed in advance, chosen greedily on val, or (marked `oracle`) chosen on test.
    Corners are the networks as trained; they are no candidates for an ensemble of points, which is
    compared with the ensemble of as many corners.

    Returns:
        Rows of the `ensemble` table.

    Raises:
        InputError: if there are not logits of exactly these surfaces.
    """
    check_surfaces(logits, surfaces, "the logits")
    references, names = reference_surfaces(surfaces), corner_ensembles(surfaces)
    rows: list[dict[str, Any]] = []
    for name, surface in surfaces.items():
        of = {"corners": surface["corners"], "statistics": logits[name].statistics}
        if references[surface["corners"]] == name:
            # Of corners that a fit moves there are no others than those of the points there.
            has_own = of["statistics"] != "none" and surface["kind"] != "free"
            own = {"ensemble": names[surface["corners"]]} | (
                {"statistics": "own"} if has_own else {}
            )
            rows += _corner_rows(logits[name], of | own)
        rows += _point_rows(logits[name], of | {"ensemble": name}, max_members)
    return rows


def _corner_rows(surface: SurfaceLogits, of: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Yield the ensembles of corners: all of them, and every choice of fewer, of many the first."""
    count = len(surface.own["val"])
    for size in range(1, count + 1):
        selection = "fixed" if size == count else "subset"
        for members in combinations(range(count), size) if count <= FEW else [range(size)]:
            yield from _rows(surface, of | {"selection": selection}, members, is_own=True)


def _point_rows(
    surface: SurfaceLogits, of: dict[str, str], max_members: int
) -> Iterator[dict[str, Any]]:
    """Yield the ensembles of a surface's points, of which a set has none."""
    candidates = surface.candidates
    if not candidates:
        return

    on_val = greedy_points(surface, "val", max_members)
    ensembles = [
        ("fixed", surface.inner),
        ("all", candidates),
        *(("validation", on_val[:size]) for size in range(1, len(on_val) + 1)),
        ("oracle", greedy_points(surface, "test", len(surface.corners))),
    ]
    for selection, members in ensembles:
        yield from _rows(surface, of | {"selection": selection}, members, is_own=False)


def _rows(
    surface: SurfaceLogits, of: dict[str, str], members: Sequence[int], *, is_own: bool
) -> Iterator[dict[str, Any]]:
    logits, points = surface.logits, surface.points
    if is_own:
        logits, points = surface.own, [*surface.shape.corner_coordinates]
    named = ";".join(",".join(f"{x:.6g}" for x in points[member]) for member in members)
    for split, labels in surface.labels.items():
        at = {"members": named, "split": split}
        yield of | at | evaluate_ensemble(logits[split], members, labels)


def evaluate_ensemble(
    logits: Tensor, members: Sequence[int] | Tensor, labels: Tensor
) -> dict[str, Any]:
    """Evaluate the average of some networks' predictions.

    Args:
        logits: (networks, n, classes) logits.
        members: indices of the networks to average, or a boolean for each network.
        labels: (n,) class indices.

    Returns:
        n, nll, accuracy, ece, brier, disagreement (mean over pairs of members), forward_passes
        (networks evaluated per prediction).
    """
    logits, labels = _checked(logits, labels)
    indices = _indices(members, len(logits))
    chosen = logits[indices]
    return {
        "n": len(labels),
        **classification_metrics(average_predictions(chosen), labels),
        "disagreement": mean_disagreement(chosen),
        "forward_passes": len(indices),
    }


def greedy_ensemble(
    logits: Tensor, labels: Tensor, max_members: int, *, stop_early: bool = True
) -> list[int]:
    """Choose networks one by one, each the one that lowers the ensemble's nll most.

    It stops when no further network lowers the nll, or at `max_members`. A network is taken once;
    one with a NaN or an infinity among its logits never. The first k members are what a choice of
    at most k would have been.

    Args:
        logits: (networks, n, classes) logits on the split to choose on: val, or test for an oracle.
        labels: (n,) class indices.
        max_members: largest number of networks, at least 1.
        stop_early: whether to stop when the nll no longer falls; else there are `max_members`, for
            comparison with an ensemble of as many.

    Returns:
        Indices in the order of their choice.

    Raises:
        InputError: if `max_members` is below 1, or no network has finite logits.

    Reference: Caruana et al., "Ensemble Selection from Libraries of Models", ICML 2004 (here
    without replacement).
    """
    check_count("max_members", max_members, 1)
    logits, labels = _checked(logits, labels)
    if len(logits) == 0:
        raise InputError("there are no networks to choose from; logits hold at least one.")
    broken = ~logits.isfinite().flatten(1).all(dim=1)
    if bool(broken.all()):
        raise InputError(
            f"each of the {len(logits)} networks has a NaN or an infinity in its logits."
        )
    # Only the probability of the true class enters the nll of an average; its logarithm, because a
    # confident mistake has a probability that single precision rounds to 0.
    of_label = logits.float().log_softmax(dim=2)[:, torch.arange(len(labels)), labels].double()
    total = torch.full_like(of_label[0], -math.inf)
    chosen: list[int] = []
    best = math.inf
    for _ in range(min(max_members, int((~broken).sum()))):
        nll = math.log(len(chosen) + 1) - torch.logaddexp(total, of_label).mean(dim=1)
        nll[broken] = nll[chosen] = math.inf
        candidate = int(nll.argmin())
        if stop_early and not nll[candidate] < best:
            break
        best = float(nll[candidate])
        chosen.append(candidate)
        total = torch.logaddexp(total, of_label[candidate])
    return chosen


def greedy_points(surface: SurfaceLogits, split: str, members: int) -> list[int]:
    """Return positions of `members` candidates of a surface, as `greedy_ensemble` takes them."""
    candidates = surface.candidates
    logits, labels = surface.logits[split][candidates], surface.labels[split]
    try:
        chosen = greedy_ensemble(logits, labels, members, stop_early=False)
    except InputError as error:
        raise InputError(
            f"surface {surface.surface!r}, {split}: {error} Take it out of the experiment."
        ) from error
    return [candidates[i] for i in chosen]


def _indices(members: Any, count: int) -> list[int]:
    """Return the indices of the chosen ones of `count` networks."""
    given = as_tensor(members if isinstance(members, Tensor) else np.asarray(members), "members")
    if given.dtype == torch.bool and given.shape == (count,):
        given = given.nonzero()[:, 0]
    indices: list[int] = given.flatten().tolist()
    is_index = given.ndim == 1 and given.dtype != torch.bool and not given.is_floating_point()
    if not indices or not is_index or not all(-count <= i < count for i in indices):
        raise InputError(
            f"members is {members!r:.80}; give at least one index of a network, from 0 to "
            f"{count - 1}, or {count} booleans."
        )
    return indices


def _checked(logits: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """Return (networks, n, classes) logits and (n,) class indices; each label has a column."""
    logits = as_tensor(logits, "logits")
    if logits.ndim != 3:
        raise InputError(
            f"logits have the shape {tuple(logits.shape)}; give (networks, n, classes)."
        )
    labels = class_labels(labels, logits.shape[1])
    if len(logits):
        logits_of(logits[0], len(labels), int(labels.max()) if len(labels) else 0)
    return logits, labels
