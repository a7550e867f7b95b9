"""Evaluate merged networks: one forward pass, no matter how many networks went into them.

Best corner (as trained), uniform and greedy soup of the corners, and on each surface the center
(chosen in advance), the best point on val, and (marked `oracle`) the best point on test. Corners
are no candidates for a best point.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor, nn

from fourfold.combination.merge import average_states, best_point, greedy_soup
from fourfold.evaluation.grid import evaluate_networks
from fourfold.files.table import read_table
from fourfold.pipeline.commands._job import Job, add_job_arguments, surface_seeds
from fourfold.surfaces.layout import StateDict
from fourfold.surfaces.points import (
    CENTER,
    CORNER_COORDINATES,
    Point,
    lattice_rows,
    own_corner_rows,
)
from fourfold.surfaces.surface import BezierSurface

_METRICS = ["statistics", "split", "n", "nll", "accuracy", "ece", "brier"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_job_arguments(parser)
    parser.add_argument("--grids", required=True, nargs="+", type=Path, help="grid tables")
    parser.add_argument(
        "--surfaces",
        required=True,
        nargs="+",
        type=Path,
        help="linear surfaces whose corners are merged into soups",
    )
    parser.add_argument("--output", required=True, type=Path, help="merge table to write")


def run(arguments: argparse.Namespace) -> None:
    """Write the merge table."""
    job = Job(arguments, "model", "augment", "grid")
    job.seeds = surface_seeds(arguments.grids)
    model = job.build_model()
    grid = read_table("grid", *arguments.grids)
    grid = grid[grid["split"].isin(["val", "test"])]
    rows = [
        row for name, part in grid.groupby("surface", sort=False) for row in _points(name, part)
    ]
    for path in arguments.surfaces:
        surface = BezierSurface.load(path)
        rows += _soups(job, model, surface, grid[grid["surface"] == surface.name])
    job.write("merge", rows, arguments.output)
    job.write_cost("compare_merges", "merge", model)


def _points(surface: str, grid: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the merges that are points of one surface, and its best corner."""
    points, corners = lattice_rows(grid), own_corner_rows(grid)
    merges = [
        (points, "center", "none", CENTER),
        (points, "best-point", "val", best_point(grid, "val")),
        (points, "oracle", "test", best_point(grid, "test")),
    ]
    if surface != "bezier":  # its corners are those of the linear surface
        best = _best_corner(corners)
        merges = [
            (corners, "best-corner", "val", best),
            (points, "uniform-soup", "none", CENTER),
            *merges,
        ]
    for rows, merge, selected_on, (u, v) in merges:
        for _, row in rows[(rows["u"] == u) & (rows["v"] == v)].iterrows():
            yield {
                "merge": merge,
                "surface": surface,
                "u": u,
                "v": v,
                "selected_on": selected_on,
                **row[_METRICS],
            }


def _best_corner(corners: pd.DataFrame) -> Point:
    """Return the corner that is best on val, as trained."""
    val = corners[corners["split"] == "val"]
    best = val.sort_values(["accuracy", "nll"], ascending=[False, True], kind="stable").iloc[0]
    return float(best["u"]), float(best["v"])


def _soups(
    job: Job, model: nn.Module, surface: BezierSurface, grid: pd.DataFrame
) -> list[dict[str, Any]]:
    """Return the greedy soup of the corners of a linear surface; of one it is that corner."""
    splits, own = job.dataset.splits, own_corner_rows(grid)
    corners: list[StateDict] = [surface.state_dict(u, v) for u, v in CORNER_COORDINATES]

    def measure(members: list[int], names: tuple[str, ...]) -> pd.DataFrame:
        if len(members) == 1:
            u, v = CORNER_COORDINATES[members[0]]
            return own[(own["u"] == u) & (own["v"] == v) & own["split"].isin(names)]
        chosen: dict[str, tuple[Tensor, Tensor]] = {
            name: (splits[name].images, splits[name].labels) for name in names
        }
        table = evaluate_networks(
            model,
            [average_states([corners[member] for member in members])],
            chosen,
            keep_logits=(),
            **job.evaluation(),
        ).table
        job.count_evaluated(table)
        return table

    def accuracy(members: list[int]) -> float:
        return float(measure(members, ("val",))["accuracy"].iloc[0])

    soup, _ = greedy_soup([accuracy([i]) for i in range(len(corners))], accuracy)
    return [
        {"merge": "greedy-soup", "surface": surface.name, "u": None, "v": None}
        | {"selected_on": "val", **row[_METRICS]}
        for _, row in measure(soup, ("val", "test")).iterrows()
    ]
