"""Merges: one network from several, by averaging weights or picking a point of a surface."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float16
from torch import Tensor

from fourfold.combination.baselines import (
    Described,
    Surfaces,
    check_surfaces,
    is_plain,
    reference_surfaces,
)
from fourfold.errors import InputError
from fourfold.files.reading import check_fields, reading
from fourfold.files.tensors import load_tensors, save_tensors
from fourfold.surfaces.layout import StateDict
from fourfold.surfaces.points import lattice_rows, own_corner_rows, rows_at, surface_rows
from fourfold.surfaces.shapes import SQUARE, Point, Shape, full_coordinates, shape_of
from fourfold.surfaces.surface import separate

_METRICS = ["statistics", "split", "n", "nll", "accuracy", "ece", "brier"]
_SOUPS_FORMAT = "fourfold-soups-1"

Logits = Mapping[str, Float16[Tensor, "_images _classes"]]  # of one network on each split
# Maps a network and names of splits to a row for each of these, and its logits.
Evaluate = Callable[[StateDict, Sequence[str]], tuple[pd.DataFrame, Logits]]


@dataclass(frozen=True)
class Soup:
    """The greedy soup of a corner set.

    Attributes:
        members: positions of its networks among the corners.
        logits: of each split; none of one network alone, whose logits are that corner's own.
    """

    members: Sequence[int]
    logits: Logits


def compare_merges(
    grid: pd.DataFrame,
    surfaces: Surfaces,
    corners_of: Callable[[str], Sequence[StateDict]],
    evaluate: Evaluate,
) -> tuple[list[dict[str, Any]], dict[str, Soup]]:
    """Evaluate single networks made from several: merges of corners, and points of the surfaces.

    For each set of corners: the best one (as trained), their uniform and their greedy soup. On each
    surface: the center (chosen in advance), the best point on val, and (marked `oracle`) the best
    point on test; corners are no candidates for these. A set has no points of its own.

    Args:
        grid: rows of the `grid` tables of these surfaces.
        surfaces: see `fourfold.combination.baselines`.
        corners_of: maps a surface to its corners as trained, in corner order.
        evaluate: maps a network and names of splits to a row for each of these, with the columns
            of the metrics, and its logits on each.

    Returns:
        Rows of the `merge` table, `surface` of a baseline being the one that it was taken from; and
        the greedy soup of each corner set.

    Raises:
        InputError: if the grid is not of exactly these surfaces.
    """
    check_surfaces(grid["surface"].unique(), surfaces, "the grid tables")
    grid = grid[grid["split"].isin(["val", "test"])]
    parts = {name: grid[grid["surface"] == name] for name in surfaces}
    references = reference_surfaces(surfaces)
    rows: list[dict[str, Any]] = []
    greedy: dict[str, Soup] = {}
    for name, surface in surfaces.items():
        of = {"surface": name, "corners": surface["corners"]}
        is_reference = references[surface["corners"]] == name
        shape = shape_of(surface)
        for merge, part, selected_on, at in _points(parts[name], surface, shape, is_reference):
            place = {axis: values[0] for axis, values in full_coordinates([at]).items()}
            found = rows_at(part, shape, at)
            rows += _rows({"merge": merge, **of, **place, "selected_on": selected_on}, found)
    for corners, name in references.items():
        of_soup = {"surface": name, "corners": corners, "u": None, "v": None, "w": None}
        shape, states = shape_of(surfaces[name]), corners_of(name)
        own = own_corner_rows(parts[name], shape)
        if not is_plain(surfaces[name]):
            found = evaluate(average_states(states), ["val", "test"])[0]
            uniform = {"merge": "uniform-soup", **of_soup, "selected_on": "none"}
            rows += _rows(uniform, found)
        found, greedy[corners] = _greedy_soup(states, own, shape, evaluate)
        rows += _rows({"merge": "greedy-soup", **of_soup, "selected_on": "val"}, found)
    return rows, greedy


def _points(
    grid: pd.DataFrame, surface: Described, shape: Shape, is_reference: bool
) -> Iterator[tuple[str, pd.DataFrame, str, Point]]:
    """Yield the merges that are points of one surface: name, rows, where selected, and the point.

    Without a fit the center is the mean of the corners.
    """
    points, corners = surface_rows(grid), own_corner_rows(grid, shape)
    points = points[points["sample"].isin(["grid", "center"])]
    if is_reference:
        yield "best-corner", corners, "val", _best(corners[corners["split"] == "val"], shape)
    if is_reference and is_plain(surface):
        yield "uniform-soup", points, "none", shape.center
    if shape.is_discrete:
        return
    yield "center", points, "none", shape.center
    yield "best-point", points, "val", best_point(grid, "val", shape)
    yield "oracle", points, "test", best_point(grid, "test", shape)


def _greedy_soup(
    corners: Sequence[StateDict], own: pd.DataFrame, shape: Shape, evaluate: Evaluate
) -> tuple[pd.DataFrame, Soup]:
    """Return the rows of the greedy soup, those of the corner if it is of one, and what it is."""

    def of_corner(member: int) -> pd.DataFrame:
        return rows_at(own, shape, shape.corner_coordinates[member])

    def average(members: Sequence[int], splits: Sequence[str]) -> tuple[pd.DataFrame, Logits]:
        return evaluate(average_states([corners[member] for member in members]), splits)

    def accuracy(found: pd.DataFrame) -> float:
        return float(found.loc[found["split"] == "val", "accuracy"].iloc[0])

    members, _ = greedy_soup(
        [accuracy(of_corner(k)) for k in range(len(corners))],
        lambda candidates: accuracy(average(candidates, ["val"])[0]),
    )
    if len(members) == 1:
        return of_corner(members[0]), Soup(members, {})
    found, logits = average(members, ["val", "test"])
    return found, Soup(members, logits)


def save_soups(soups: Mapping[str, Soup], path: str | Path, metadata: Mapping[str, Any]) -> None:
    """Write the soup of each corner set to a safetensors file, completely or not at all."""
    tensors = {
        f"{corners}/{split}": logits
        for corners, soup in soups.items()
        for split, logits in soup.logits.items()
    }
    members = {corners: list(soup.members) for corners, soup in soups.items()}
    save_tensors(tensors, path, {**metadata, "format": _SOUPS_FORMAT, "members": members})


def load_soups(path: str | Path) -> dict[str, Soup]:
    """Read what `save_soups` wrote."""
    tensors, header = load_tensors(path)
    with reading(path, "soups"):
        check_fields(header, {"format": str, "members": dict[str, list[int]]}, "the header")
        if header["format"] != _SOUPS_FORMAT:
            raise InputError(f"its format is {header['format']!r:.40}, expected {_SOUPS_FORMAT!r}.")
        of: dict[str, dict[str, Tensor]] = {corners: {} for corners in header["members"]}
        for name, logits in tensors.items():
            corners, _, split = name.rpartition("/")
            of[corners][split] = logits
        return {corners: Soup(header["members"][corners], of[corners]) for corners in of}


def _rows(of: Mapping[str, Any], found: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for _, row in found.iterrows():
        yield {**of, **row[_METRICS]}


def average_states(
    states: Sequence[StateDict], *, buffers: Mapping[str, str] | None = None
) -> dict[str, Tensor]:
    """Average the parameters of networks of one architecture (a uniform soup).

    BatchNorm statistics are averaged too, which is only a start: re-estimate them before the
    average is used. What is equal in all networks stays as it is; the vectors of spectral norm are
    those of the average.

    Args:
        states: state dicts.
        buffers: what other buffers that differ become, see `Surface.from_corners`.

    Raises:
        InputError: if there are no networks, or as `Surface.from_corners`.

    Reference: Wortsman et al., "Model soups", ICML 2022.
    """
    if not states:
        raise InputError("an average needs at least one network, got none.")
    layout, others = separate(states, [f"network {i}" for i in range(len(states))], buffers)
    mean = layout.rows(states).mean(dim=0)
    shares = torch.full((len(states),), 1 / len(states), dtype=torch.float64)
    at_mean = others.at(shares, layout.views(mean), layout.tied, is_network=len(states) == 1)
    return layout.state_dict(mean, at_mean)


def greedy_soup(
    accuracies: Sequence[float], evaluate: Callable[[list[int]], float]
) -> tuple[list[int], float]:
    """Choose the networks of a greedy soup.

    In order of falling accuracy each network joins the soup if the soup's accuracy does not fall.

    Args:
        accuracies: of the single networks on val.
        evaluate: maps indices of networks to the accuracy of their average on val.

    Returns:
        The indices in the order they joined, and the soup's accuracy.

    Reference: Wortsman et al., "Model soups", ICML 2022, recipe 1.
    """
    if not accuracies:
        raise InputError("a soup needs at least one network, got no accuracies.")
    known = [-math.inf if math.isnan(accuracy) else accuracy for accuracy in accuracies]
    order = sorted(range(len(known)), key=lambda i: (-known[i], i))
    soup, best = [order[0]], accuracies[order[0]]
    for candidate in order[1:]:
        accuracy = evaluate([*soup, candidate])
        if accuracy >= best:
            soup, best = [*soup, candidate], accuracy
    return soup, best


def best_point(grid: pd.DataFrame, split: str, shape: Shape = SQUARE) -> Point:
    """Return the grid point of one surface with the highest accuracy on `split`.

    Corners are no candidates: they are what a merge is compared with.
    """
    rows = lattice_rows(grid[grid["split"] == split])
    return _best(rows[~shape.is_corner(rows)], shape)


def _best(rows: pd.DataFrame, shape: Shape) -> Point:
    """Return the most accurate point; among equals the one with the lowest nll, then the first."""
    best = rows.sort_values(["accuracy", "nll"], ascending=[False, True], kind="stable").iloc[0]
    return tuple(float(best[axis]) for axis in shape.axes)
