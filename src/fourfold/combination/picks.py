"""Picks on val: how much picking on test would flatter them, and how sure of them val is."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fourfold.combination.baselines import Surfaces, check_surfaces
from fourfold.combination.ensemble import evaluate_ensemble, greedy_points
from fourfold.evaluation.bootstrap import DRAWS, bootstrap_means
from fourfold.evaluation.logits import SurfaceLogits
from fourfold.evaluation.metrics import best_network, per_image


def measure_picks(
    logits: Mapping[str, SurfaceLogits], surfaces: Surfaces, draws: int = DRAWS
) -> list[dict[str, Any]]:
    """Hold what is picked on val against the same pick on test, for each surface that has points.

    Picks are `merge`, the grid point with the highest accuracy (among equals the lowest nll), and
    `ensemble`, as many points as corners, greedily by nll.

    Args:
        logits: of each surface.
        surfaces: see `fourfold.combination.baselines`.
        draws: of val's images with replacement; `merge` is picked anew in each.

    Returns:
        Rows of the `pick` table.

    Raises:
        InputError: if there are not logits of exactly these surfaces.
    """
    check_surfaces(logits, surfaces, "the logits")
    rows = []
    for name, of in surfaces.items():
        surface = logits[name]
        if surface.shape.is_discrete:
            continue
        networks = {split: surface.logits[split][surface.candidates] for split in surface.labels}
        best = {split: best_network(networks[split], of) for split, of in surface.labels.items()}
        picks = {
            "merge": {split: [surface.candidates[point]] for split, point in best.items()},
            "ensemble": {
                split: greedy_points(surface, split, of["count"]) for split in surface.labels
            },
        }
        again = _repicks(networks["val"], surface.labels["val"], draws)
        stability: dict[str, dict[str, Any]] = {
            "merge": {
                "repicked": float((again == best["val"]).mean()),
                "distinct": len(np.unique(again)),
            },
            "ensemble": {"repicked": None, "distinct": None},
        }
        for pick, members in picks.items():
            value, oracle = (
                evaluate_ensemble(surface.logits["test"], members[split], surface.labels["test"])
                for split in ("val", "test")
            )
            for metric, sign in (("accuracy", 1), ("nll", -1)):
                rows.append(
                    {"surface": name, "pick": pick, "metric": metric, "split": "test"}
                    | {"n": value["n"], "value": value[metric], "oracle": oracle[metric]}
                    | {"gap": sign * (oracle[metric] - value[metric])}
                    | stability[pick]
                )
    return rows


def _repicks(networks: Tensor, labels: Tensor, draws: int) -> NDArray[np.int64]:
    """Return the index of the best network in each draw, as `best_network` finds it."""
    scores = [per_image(network.float().log_softmax(dim=1), labels) for network in networks]
    nll, correct = (torch.stack(of).double().numpy() for of in zip(*scores, strict=True))
    means = bootstrap_means(np.concatenate([correct, nll]), draws=draws)
    accuracy, nll = means[: len(networks)], means[len(networks) :]
    accuracy = np.where(np.isnan(nll), -np.inf, accuracy)
    best: NDArray[np.float64] = np.where(accuracy == accuracy.max(axis=0), nll, np.inf)
    picked: NDArray[np.int64] = best.argmin(axis=0)
    return picked
