"""Merges: one network from several, by averaging weights or picking a point of a surface."""

from collections.abc import Callable, Sequence

import pandas as pd
import torch
from torch import Tensor

from fourfold.errors import InputError
from fourfold.layout import ParameterLayout, StateDict, check_same_architecture
from fourfold.points import is_corner, lattice_rows


def average_states(states: Sequence[StateDict]) -> dict[str, Tensor]:
    """Average the parameters of networks of one architecture (a uniform soup).

    Floating buffers (BatchNorm statistics) are averaged too, which is only a start: re-estimate
    them before the average is used. Integer buffers are the first network's.

    Raises:
        InputError: if there are no networks or they differ in architecture.

    Reference: Wortsman et al., "Model soups", ICML 2022.
    """
    if not states:
        raise InputError("an average needs at least one network, got none.")
    check_same_architecture(states, [f"network {i}" for i in range(len(states))])
    layout = ParameterLayout.from_state_dict(states[0])
    rows = torch.empty(len(states), layout.dimension)
    for state, row in zip(states, rows, strict=True):
        layout.flatten(state, out=row)
    buffers = {
        name: torch.stack([state[name] for state in states]).mean(dim=0)
        if states[0][name].is_floating_point()
        else states[0][name]
        for name in layout.buffers
    }
    return layout.state_dict(rows.mean(dim=0), buffers)


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
    order = sorted(range(len(accuracies)), key=lambda i: (-accuracies[i], i))
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
