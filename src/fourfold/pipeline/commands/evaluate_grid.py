"""Evaluate a surface: on a grid, along its edges and at random points, on all splits.

The grid is what figures, merges and ensembles are made of. The other points are searched for the
worst one, which often lies at an edge, between the points of the grid.
"""

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from fourfold.errors import InputError
from fourfold.evaluation.grid import Evaluation, Images, evaluate_points, further_points
from fourfold.evaluation.logits import Examples, SurfaceLogits
from fourfold.pipeline.commands._job import surface_seeds
from fourfold.pipeline.commands._network_job import NetworkJob, add_network_job_arguments
from fourfold.pipeline.progress import Progress
from fourfold.surfaces.points import CORNER_COORDINATES, Point, grid_points
from fourfold.surfaces.surface import BezierSurface

_KEPT = ("val", "test")  # splits whose logits are cached


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_network_job_arguments(parser)
    parser.add_argument("--surface", required=True, type=Path, help="surface to evaluate")
    parser.add_argument("--output", required=True, type=Path, help="grid table to write")
    parser.add_argument("--logits", required=True, type=Path, help="logits to write (float16)")
    parser.add_argument(
        "--examples", required=True, type=Path, help="nll of each image at each point to write"
    )


def run(arguments: argparse.Namespace) -> None:
    """Write the grid table, the logits and the examples."""
    job = NetworkJob(arguments, "network", "augment", "grid")
    job.seeds = surface_seeds([arguments.surface])
    grid, splits = job.settings["grid"], job.dataset.splits
    for key in ("points", "edge_points", "random_points", "search_images", "train_images"):
        if key not in grid:
            raise InputError(f"grid lacks the setting {key!r}.")
    surface, model = BezierSurface.load(arguments.surface), job.build_model()
    evaluated = {**splits, "train": splits["train"].first(grid["train_images"])}
    images = {name: (split.images, split.labels) for name, split in evaluated.items()}
    lattice = grid_points(grid["points"])
    further = further_points(lattice, grid["edge_points"], grid["random_points"], grid["seed"])
    search = _Search(job, surface, model, images, grid["search_images"])

    main = search.evaluate("grid", lattice, images, keep_logits=_KEPT)
    corners = [lattice.index(corner) for corner in CORNER_COORDINATES]
    own = main.own or _pick(main, corners)  # without BatchNorm a corner is one network
    parts = [("grid", lattice, main), ("own", list(CORNER_COORDINATES), own)]
    tables = [main.table]
    for sample, points in further.items():
        for found, evaluation in search(sample, points):
            tables.append(evaluation.table)
            parts.append((sample, found, evaluation))
    table = _drop_repeated(pd.concat(tables, ignore_index=True))

    labels = {name: of_split.cpu() for name, (_, of_split) in images.items()}
    whole = [
        (sample, points, evaluation)
        for sample, points, evaluation in parts
        if all(evaluation.nll[name].shape[1] == len(labels[name]) for name in labels)
    ]
    Examples(
        surface=surface.name,
        points=[point for _, points, _ in whole for point in points],
        samples=[sample for sample, points, _ in whole for _ in points],
        nll={name: torch.cat([e.nll[name] for _, _, e in whole]) for name in labels},
        correct={name: torch.cat([e.correct[name] for _, _, e in whole]) for name in labels},
        labels=labels,
    ).save(arguments.examples, job.metadata())
    SurfaceLogits(
        surface=surface.name,
        statistics=main.table["statistics"].iloc[0],
        points=lattice,
        logits={name: main.logits[name] for name in _KEPT},
        own={name: own.logits[name] for name in _KEPT},
        labels={name: labels[name] for name in _KEPT},
    ).save(arguments.logits, job.metadata())
    job.write("grid", table, arguments.output)
    job.write_network_cost("evaluate_grid", surface.name, model)


class _Search:
    """Evaluations of one surface, with their progress and cost."""

    def __init__(
        self,
        job: NetworkJob,
        surface: BezierSurface,
        model: nn.Module,
        images: dict[str, Images],
        search_images: int | None,
    ) -> None:
        self.job, self.surface, self.model, self.images = job, surface, model, images
        self.screen = {
            name: (x[:search_images], y[:search_images]) for name, (x, y) in images.items()
        }
        self.is_whole = all(len(y) == len(self.screen[name][1]) for name, (_, y) in images.items())

    def __call__(self, sample: str, points: list[Point]) -> list[tuple[list[Point], Evaluation]]:
        """Evaluate further points: all on the search's images, the worst ones on all images."""
        if not points:
            return []
        first = self.evaluate(sample, points, self.screen, keep_logits=())
        if self.is_whole:
            return [(points, first)]
        worst: list[Point] = []
        for _, rows in first.table.groupby("split", sort=False):
            # A network that gives no numbers (NaN) is the worst there is.
            nll, accuracy = rows["nll"].fillna(math.inf), rows["accuracy"].fillna(-1)
            for index in (nll.idxmax(), accuracy.idxmin()):
                point = (float(rows["u"][index]), float(rows["v"][index]))
                if point not in worst:
                    worst.append(point)
        whole = self.evaluate(sample, worst, self.images, keep_logits=())
        # A split with no more images than the search takes is left to the points that are evaluated
        # on all splits, so that every table has the same points over whole splits.
        table = first.table
        is_part = table["n"] < table["split"].map({k: len(y) for k, (_, y) in self.images.items()})
        return [(points, replace(first, table=table[is_part])), (worst, whole)]

    def evaluate(
        self, sample: str, points: list[Point], images: dict[str, Images], **settings: Any
    ) -> Evaluation:
        experiment, name = self.job.arguments.experiment, self.surface.name
        evaluation = evaluate_points(
            self.surface,
            self.model,
            images,
            points,
            sample=sample,
            **self.job.evaluation(),
            **settings,
            on_point=Progress(f"{experiment} {name} {sample}", unit="point").on_item,
        )
        self.job.count_evaluated(evaluation.table)
        return evaluation


def _pick(evaluation: Evaluation, positions: list[int]) -> Evaluation:
    """Return the evaluation of some of the networks."""
    logits, nll, correct = (
        {name: values[positions] for name, values in part.items()}
        for part in (evaluation.logits, evaluation.nll, evaluation.correct)
    )
    return Evaluation(evaluation.table, logits, nll, correct)


def _drop_repeated(table: pd.DataFrame) -> pd.DataFrame:
    """Of points evaluated on few images and then on all, keep the rows over all."""
    largest = table.groupby(["sample", "u", "v", "split", "statistics"])["n"].transform("max")
    return table[table["n"] == largest].reset_index(drop=True)
