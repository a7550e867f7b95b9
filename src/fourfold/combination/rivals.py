"""Rivals at equal cost: every way to one prediction, beside what it cost and how good it is."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from fourfold.combination import costs
from fourfold.combination.baselines import (
    NOBODYS,
    Described,
    Surfaces,
    check_surfaces,
    is_plain,
    reference_surfaces,
)
from fourfold.combination.ensemble import FEW, greedy_points
from fourfold.combination.merge import Soup
from fourfold.errors import InputError
from fourfold.evaluation.bootstrap import bootstrap_means, interval
from fourfold.evaluation.logits import SurfaceLogits
from fourfold.evaluation.metrics import (
    average_predictions,
    best_network,
    classification_metrics,
    mean_disagreement,
    per_image,
)
from fourfold.evaluation.temperature import apply_temperature, fit_temperature
from fourfold.surfaces.shapes import Shape

SIZES = (1, 4, 9, 25)  # of ensembles, beside that of all networks
METRICS = ("accuracy", "nll", "nll_scaled")  # of differences
SAME = 1e-4  # nats that rounding may change: up to 5e-5 was measured, in bfloat16


class _Method(NamedTuple):
    name: str
    surface: str  # whose logits and grid it is taken from
    corners: str
    images_backward: int
    images_chosen: int  # passed forward beside those
    logits: Mapping[str, Tensor]  # of each split: (networks, n, classes)
    members: Sequence[int]


class _Scored(NamedTuple):
    row: dict[str, float]
    images: NDArray[np.float64]  # (METRICS, n)


def compare_rivals(
    logits: Mapping[str, SurfaceLogits],
    surfaces: Surfaces,
    grid: pd.DataFrame,
    cost: pd.DataFrame,
    soups: Mapping[str, Soup],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Evaluate all methods of an experiment that end in one prediction, with their cost.

    Of each corner set whose networks were trained alone:

    - `<corners>/network`: the best one on val;
    - `<corners>/mean`: of their weights, where a surface without a fit has it on its grid;
    - `<corners>/greedy-soup`: the mean of those that don't lower its accuracy on val;
    - `<corners>/ensemble-<k>`: the first k of them, k = 1, 4, 9, 25 and all.

    Of each surface with points beside these:

    - `<surface>/center`, where it is on the grid, and `<surface>/best-point`, the best one on val;
    - `<surface>/greedy-<k>`: k = 1, 4, 9, 25 points chosen greedily on val;
    - `<surface>/inner`: points chosen in advance; `<surface>/all`: all but the corners.

    Differences are on test, to the network of the first set of kind `seeds` that has one alone,
    else to the best one of the first set of that kind, else of the first set; there are none
    without.

    Args:
        logits: of each surface.
        surfaces: see `fourfold.combination.baselines`.
        grid: rows of the `grid` tables of these surfaces.
        cost: rows of the `cost` table of what trained and chose the corners and fitted the
            surfaces.
        soups: the greedy soup of each corner set.

    Returns:
        Rows of the tables `rival` and `rival_difference`.

    Raises:
        InputError: if there are not logits and grids of exactly these surfaces, or the logits are
            of different images, or there is no soup of a corner set.
    """
    check_surfaces(logits, surfaces, "the logits")
    check_surfaces(grid["surface"].unique(), surfaces, "the grid tables")
    labels = next(iter(logits.values())).labels
    for name, of in logits.items():
        if any(not torch.equal(of.labels[split], labels[split]) for split in labels):
            raise InputError(f"the logits of {name} have other labels than those of the others.")
    if missing := sorted({of["corners"] for of in surfaces.values()} - set(soups)):
        raise InputError(f"there is no greedy soup of the corners {missing}; give one of each set.")
    methods = list(_methods(logits, surfaces, grid, cost, soups))
    scored = {method.name: _score(method, labels) for method in methods}
    curve = _ensemble_curve(logits, surfaces, labels)
    draws = {
        split: bootstrap_means(np.concatenate([of[split].images for of in scored.values()]))
        for split in labels
    }
    rows = []
    for k, method in enumerate(methods):
        of_method = {
            **{"method": method.name, "surface": method.surface, "corners": method.corners},
            "images_backward": method.images_backward,
            "images_forward": method.images_backward + method.images_chosen,
            "forward_passes": len(method.members),
        }
        for split in labels:
            scores = scored[method.name][split].row
            row: dict[str, Any] = {**of_method, "split": split, **scores}
            row["equivalents"] = equivalents(curve[split], scores["nll_scaled"])
            for place, metric in enumerate(METRICS[:2]):
                ends = interval(draws[split][len(METRICS) * k + place])
                row |= dict(zip((f"{metric}_low", f"{metric}_high"), ends, strict=True))
            rows.append(row)
    return rows, list(_differences(scored, draws["test"], _reference(surfaces)))


# --- methods --------------------------------------------------------------------------------------


def _methods(
    logits: Mapping[str, SurfaceLogits],
    surfaces: Surfaces,
    grid: pd.DataFrame,
    cost: pd.DataFrame,
    soups: Mapping[str, Soup],
) -> Iterator[_Method]:
    references = reference_surfaces(surfaces)
    for name, of in surfaces.items():
        shape, rows = logits[name].shape, grid[grid["surface"] == name]
        if references[of["corners"]] == name and of["kind"] not in NOBODYS:
            soup = soups[of["corners"]]
            yield from _of_corners(logits[name], of, shape, rows, cost, soup)
        if not shape.is_discrete:
            yield from _of_points(logits[name], of, shape, rows, cost)


def _of_corners(
    surface: SurfaceLogits,
    of: Described,
    shape: Shape,
    grid: pd.DataFrame,
    cost: pd.DataFrame,
    soup: Soup,
) -> Iterator[_Method]:
    corners, count, selected = of["corners"], of["count"], costs.selection_images(cost, of)
    every, own = costs.corner_images(cost, of), surface.own
    val = surface.labels["val"]
    where = (surface.surface, corners)
    looked = count * len(val) if count > 1 else 0
    best = [best_network(own["val"], val)]
    yield _Method(f"{corners}/network", *where, every, selected + looked, own, best)
    if is_plain(of) and shape.center in surface.points:
        mean = [surface.position(shape.center)]
        chosen = selected + _statistics_images(grid)
        yield _Method(f"{corners}/mean", *where, every, chosen, surface.logits, mean)
    if count > 1:
        tried = (count - 1) * (len(val) + _statistics_images(grid))
        logits = {split: networks[None] for split, networks in soup.logits.items()}
        member = 0 if logits else soup.members[0]
        chosen = selected + looked + tried
        yield _Method(f"{corners}/greedy-soup", *where, every, chosen, logits or own, [member])
    for size in (*(size for size in SIZES if size < count), count):
        trained = costs.corner_images(cost, of, size)
        yield _Method(f"{corners}/ensemble-{size}", *where, trained, selected, own, range(size))


def _of_points(
    surface: SurfaceLogits, of: Described, shape: Shape, grid: pd.DataFrame, cost: pd.DataFrame
) -> Iterator[_Method]:
    name, candidates, logits = surface.surface, surface.candidates, surface.logits
    val, labels = logits["val"][candidates], surface.labels["val"]
    trained = costs.corner_images(cost, of) + costs.fit_images(cost, name)
    selected, again = costs.selection_images(cost, of), _statistics_images(grid)
    greedy = greedy_points(surface, "val", max(SIZES))
    fixed = {"inner": surface.inner, "all": candidates}
    if shape.center in surface.points:
        fixed = {"center": [surface.position(shape.center)], **fixed}
    picked = {"best-point": [candidates[best_network(val, labels)]]}
    picked |= {f"greedy-{size}": greedy[:size] for size in SIZES if size <= len(greedy)}
    for method, members in fixed.items():
        chosen = selected + again * len(members)
        yield _Method(f"{name}/{method}", name, of["corners"], trained, chosen, logits, members)
    chosen = selected + costs.picking_images(grid, shape)
    for method, members in picked.items():
        yield _Method(f"{name}/{method}", name, of["corners"], trained, chosen, logits, members)


def _statistics_images(grid: pd.DataFrame) -> int:
    """Return the images that a point's BatchNorm statistics are re-estimated on."""
    return int(grid["statistics_images"].max())


def _reference(surfaces: Surfaces) -> str | None:
    """Return the method that the others are held against."""
    sets = [of for of in surfaces.values() if of["kind"] not in NOBODYS]
    of_runs = [of for of in sets if of["kind"] == "seeds"]
    alone = [of for of in of_runs if of["count"] == 1]
    return next((f"{of['corners']}/network" for of in (*alone, *of_runs, *sets)), None)


# --- scores ---------------------------------------------------------------------------------------


def _score(method: _Method, labels: Mapping[str, Tensor]) -> dict[str, _Scored]:
    networks = {split: method.logits[split][list(method.members)] for split in labels}
    predicted = {split: average_predictions(chosen) for split, chosen in networks.items()}
    scaled, temperature = _scale(predicted, labels)
    found = {}
    for split, of in labels.items():
        metrics = classification_metrics(predicted[split], of)
        nll, correct = per_image(predicted[split], of)
        images = np.stack([correct.double().numpy(), nll.double().numpy(), scaled[split]])
        if math.isnan(metrics["nll"]):
            images[:] = math.nan
        row = {"n": len(of), **metrics, "disagreement": mean_disagreement(networks[split])}
        row |= {"temperature": temperature, "nll_scaled": float(scaled[split].mean())}
        found[split] = _Scored(row, images)
    return found


def _scale(
    predicted: Mapping[str, Tensor], labels: Mapping[str, Tensor]
) -> tuple[dict[str, NDArray[np.float64]], float]:
    """Return of each split the nll of each image at the temperature fitted on val, and that."""
    temperature = fit_temperature(predicted["val"], labels["val"])
    scaled = {
        split: per_image(apply_temperature(predicted[split], temperature), of)[0].numpy()
        for split, of in labels.items()
    }
    return scaled, temperature


def _ensemble_curve(
    logits: Mapping[str, SurfaceLogits], surfaces: Surfaces, labels: Mapping[str, Tensor]
) -> dict[str, list[float]]:
    """Return of each split the scaled nll of 1, 2, ... independent networks, empty without two.

    It is the mean over all choices of so many from the largest set of kind `seeds` with the
    default training; of more networks than `FEW` that over `FEW` choices of consecutive ones.
    """
    sets = {
        of["corners"]: of["count"]
        for of in surfaces.values()
        if of["kind"] == "seeds" and of.get("training") is None
    }
    largest = max(sets, key=sets.__getitem__, default=None)
    curve: dict[str, list[float]] = {split: [] for split in labels}
    if largest is None or sets[largest] < 2:
        return curve
    own, count = logits[reference_surfaces(surfaces)[largest]].own, sets[largest]
    for size in range(1, count + 1):
        choices = [list(choice) for choice in _choices(count, size)]
        found = [
            _scale({split: average_predictions(own[split][choice]) for split in labels}, labels)[0]
            for choice in choices
        ]
        for split in labels:
            curve[split].append(float(np.mean([of[split].mean() for of in found])))
    return curve


def _choices(count: int, size: int) -> Iterator[Sequence[int]]:
    if count <= FEW or size == count:
        yield from combinations(range(count), size)
        return
    for start in np.linspace(0, count, FEW, endpoint=False).astype(int).tolist():
        yield [(start + k) % count for k in range(size)]


def equivalents(curve: Sequence[float], nll: float) -> float:
    """Return how many independent networks, averaged, have this nll: deep ensemble equivalents.

    The least real number k, from 1 on, at which the curve is not above the nll: 1 for what is no
    better than a single network, and infinity for what is better than all of them, by more than the
    rounding (`SAME`) of networks that compute the same, as aligned ones do.

    Args:
        curve: nll of 1, 2, ... networks, linear between these.
        nll: of the method; both at their best temperatures.

    Returns:
        The number; NaN without a curve or an nll, or if one of them is NaN.

    Reference: Ashukha et al., "Pitfalls of In-Domain Uncertainty Estimation and Ensembling in Deep
    Learning", ICLR 2020.
    """
    if not curve or any(map(math.isnan, (nll, *curve))):
        return math.nan
    for size, reached in enumerate(curve, start=1):
        if reached <= nll + SAME:
            before = curve[size - 2] if size > 1 else reached
            beyond = max(nll - reached, 0)
            return float(size if before == reached else size - beyond / (before - reached))
    return math.inf


def _differences(
    scored: Mapping[str, Mapping[str, _Scored]], draws: NDArray[np.float64], reference: str | None
) -> Iterator[dict[str, Any]]:
    """Yield the rows of `rival_difference`, positive where a method is better."""
    if reference is None:
        return
    names = list(scored)
    at = names.index(reference) * len(METRICS)
    for k, name in enumerate(names):
        if name == reference:
            continue
        for place, metric in enumerate(METRICS):
            sign = 1 if metric == "accuracy" else -1
            values = [float(scored[of]["test"].images[place].mean()) for of in (name, reference)]
            better = sign * (draws[len(METRICS) * k + place] - draws[at + place])
            low, high = interval(better)
            yield {
                **{"method": name, "against": reference, "split": "test", "metric": metric},
                **{"n": scored[name]["test"].row["n"], "value": values[0], "reference": values[1]},
                **{"difference": sign * (values[0] - values[1]), "low": low, "high": high},
                "draws": better,
            }
