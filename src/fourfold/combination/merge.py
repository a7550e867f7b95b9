"""Merges: one network from several, by averaging weights or picking a point of a surface."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from fourfold.combination.baselines import (
    Described,
    Surfaces,
    check_surfaces,
    is_plain,
    reference_surfaces,
)
from fourfold.errors import InputError
from fourfold.surfaces.layout import StateDict
from fourfold.surfaces.points import lattice_rows, own_corner_rows, rows_at, surface_rows
from fourfold.surfaces.shapes import SQUARE, Point, Shape, full_coordinates, shape_of
from fourfold.surfaces.surface import separate

_METRICS = ["statistics", "split", "n", "nll", "accuracy", "ece", "brier"]


def compare_merges(
    grid: pd.DataFrame,
    surfaces: Surfaces,
    corners_of: Callable[[str], Sequence[StateDict]],
    evaluate: Callable[[StateDict, Sequence[str]], pd.DataFrame],
) -> list[dict[str, Any]]:
    """Evaluate single networks made from several: merges of corners, and points of the surfaces.

    For each set of corners: the best one (as trained), their uniform and their greedy soup. On each
    surface: the center (chosen in advance), the best point on val, and (marked `oracle`) the best
    point on test; corners are no candidates for these. A set has no points of its own.

    Args:
        grid: rows of the `grid` tables of these surfaces.
        surfaces: see `fourfold.combination.baselines`.
        corners_of: maps a surface to its corners as trained, in corner order.
        evaluate: maps a network and names of splits to a row for each of them, with the columns of
            the metrics.

    Returns:
        Rows of the `merge` table. `surface` of a baseline is the one that it was taken from.

    Raises:
        InputError: if the grid is not of exactly these surfaces.
    """
    check_surfaces(grid["surface"].unique(), surfaces, "the grid tables")
    grid = grid[grid["split"].isin(["val", "test"])]
    parts = {name: grid[grid["surface"] == name] for name in surfaces}
    references = reference_surfaces(surfaces)
    rows: list[dict[str, Any]] = []
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
        shape, uniform = shape_of(surfaces[name]), not is_plain(surfaces[name])
        for merge, selected_on, found in _soups(
            corners_of(name), parts[name], shape, evaluate, uniform=uniform
        ):
            rows += _rows({"merge": merge, **of_soup, "selected_on": selected_on}, found)
    return rows


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


def _soups(
    corners: Sequence[StateDict],
    grid: pd.DataFrame,
    shape: Shape,
    evaluate: Callable[[StateDict, Sequence[str]], pd.DataFrame],
    uniform: bool,
) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield the soups of the corners that are no point of a surface; of one it is that corner."""
    own = own_corner_rows(grid, shape)

    def measure(members: Sequence[int], splits: Sequence[str]) -> pd.DataFrame:
        if len(members) == 1:
            at = rows_at(own, shape, shape.corner_coordinates[members[0]])
            return at[at["split"].isin(splits)]
        return evaluate(average_states([corners[member] for member in members]), splits)

    def accuracy(members: list[int]) -> float:
        return float(measure(members, ["val"])["accuracy"].iloc[0])

    if uniform:
        yield "uniform-soup", "none", measure(range(len(corners)), ["val", "test"])
    soup, _ = greedy_soup([accuracy([i]) for i in range(len(corners))], accuracy)
    yield "greedy-soup", "val", measure(soup, ["val", "test"])


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
