"""Evaluate merged networks: one forward pass, no matter how many networks went into them.

Best corner, uniform and greedy soup of the corners, and on each surface the center (chosen in
advance), the best point on val, and (marked `oracle`) the best point on test.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor, nn

from fourfold.commands._job import Job, add_job_arguments, surface_seeds
from fourfold.grid import batchnorm_mode, evaluate_networks
from fourfold.layout import StateDict
from fourfold.merge import average_states, best_point, greedy_soup
from fourfold.surface import CORNER_COORDINATES, BezierSurface
from fourfold.table import read_table

_METRICS = ["split", "n", "nll", "accuracy", "ece", "brier"]


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
    job = Job(arguments, "model", "grid")
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
    """Yield the merges that are points of one surface."""
    corners = grid[
        [point in CORNER_COORDINATES for point in zip(grid["u"], grid["v"], strict=True)]
    ]
    merges = [
        ("center", "none", (0.5, 0.5)),
        ("best-point", "val", best_point(grid, "val")),
        ("oracle", "test", best_point(grid, "test")),
    ]
    if surface != "bezier":  # its corners are those of the linear surface
        merges.insert(0, ("best-corner", "val", best_point(corners, "val")))
    if surface != "bezier":
        merges.insert(1, ("uniform-soup", "none", (0.5, 0.5)))
    for merge, selected_on, (u, v) in merges:
        for _, row in grid[(grid["u"] == u) & (grid["v"] == v)].iterrows():
            yield {
                "merge": merge,
                "surface": surface,
                "u": u,
                "v": v,
                "selected_on": selected_on,
                **row[_METRICS],
            }


def _soups(
    job: Job, model: nn.Module, surface: BezierSurface, grid: pd.DataFrame
) -> list[dict[str, Any]]:
    """Return the greedy soup of the corners of a linear surface."""
    splits, settings = job.dataset.splits, job.settings["grid"]
    batchnorm = splits["train"].first(settings["batchnorm_images"])
    corners: list[StateDict] = [surface.state_dict(u, v) for u, v in CORNER_COORDINATES]

    def measure(members: list[int], names: tuple[str, ...]) -> pd.DataFrame:
        chosen: dict[str, tuple[Tensor, Tensor]] = {
            name: (splits[name].images, splits[name].labels) for name in names
        }
        reestimated = batchnorm_mode(model, settings["batchnorm"]) == "reestimated"
        job.cost.evaluated(reestimated * len(batchnorm) + sum(len(splits[name]) for name in names))
        return evaluate_networks(
            model,
            [average_states([corners[member] for member in members])],
            chosen,
            batchnorm=settings["batchnorm"],
            batchnorm_images=batchnorm.images,
            batch_size=settings["batch_size"],
            precision=settings["precision"],
            preprocess=job.dataset.normalize,
        ).table

    val = grid[grid["split"] == "val"].set_index(["u", "v"])["accuracy"]
    soup, _ = greedy_soup(
        [float(val[corner]) for corner in CORNER_COORDINATES],
        lambda members: float(measure(members, ("val",))["accuracy"].iloc[0]),
    )
    return [
        {"merge": "greedy-soup", "surface": surface.name, "u": None, "v": None}
        | {"selected_on": "val", **row[_METRICS]}
        for _, row in measure(soup, ("val", "test")).iterrows()
    ]
