"""Merges: one network from several, by averaging weights or picking a point of a surface."""

import math
from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor

from fourfold.errors import InputError
from fourfold.surfaces.layout import StateDict
from fourfold.surfaces.points import is_corner, lattice_rows
from fourfold.surfaces.surface import separate


def average_states(
    states: Sequence[StateDict], *, buffers: Mapping[str, str] | None = None
) -> dict[str, Tensor]:
    """Average the parameters of networks of one architecture (a uniform soup).

    BatchNorm statistics are averaged too, which is only a start: re-estimate them before the
    average is used. What is equal in all networks stays as it is; the vectors of spectral norm are
    those of the average.

    Args:
        states: state dicts.
        buffers: what other buffers that differ become, see `BezierSurface.from_corners`.

    Raises:
        InputError: if there are no networks, or as `BezierSurface.from_corners`.

    Reference: Wortsman et al., "Model soups", ICML 2022.
    """
    if not states:
        raise InputError("an average needs at least one network, got none.")
    layout, others = separate(states, [f"network {i}" for i in range(len(states))], buffers)
    rows = torch.empty(len(states), layout.dimension, dtype=layout.dtype)
    for state, row in zip(states, rows, strict=True):
        layout.flatten(state, out=row)
    mean = rows.mean(dim=0)
    shares = torch.full((len(states),), 1 / len(states), dtype=torch.float64)
    return layout.state_dict(mean, others.at(shares, layout.views(mean)))


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


def best_point(grid: pd.DataFrame, split: str) -> tuple[float, float]:
    """Return (u, v) of the grid point of one surface with the highest accuracy on `split`.

    Corners are no candidates: they are what a merge is compared with. Among equals the one with the
    lowest nll, then the first of the table.

    Raises:
        InputError: if the table has no such row of that split.
    """
    rows = lattice_rows(grid[grid["split"] == split])
    rows = rows[~is_corner(rows["u"], rows["v"])]
    if rows.empty:
        raise InputError(
            f"the grid has no rows of split {split!r} beside the corners; it has "
            f"{len(grid)} rows of {sorted(set(grid['split']))}."
        )
    best = rows.sort_values(["accuracy", "nll"], ascending=[False, True], kind="stable").iloc[0]
    return float(best["u"]), float(best["v"])
