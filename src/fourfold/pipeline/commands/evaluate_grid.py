"""Evaluate a surface: on a grid, along its edges and at random points, on all splits.

The grid is what figures, merges and ensembles are made of. The other points are searched for the
worst one, which often lies at an edge, between the points of the grid. Random points are evaluated
on all of val, where they say how much of the surface can be worse (table `certificate`).
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import torch

from fourfold.evaluation.grid import Evaluation, Images, choose_points, evaluate_points
from fourfold.evaluation.logits import Examples, SurfaceLogits
from fourfold.pipeline.commands._network_job import NetworkJob, add_network_job_arguments
from fourfold.pipeline.commands._settings import add_paths
from fourfold.pipeline.progress import Progress
from fourfold.surfaces.shapes import AXES, Point, Shape
from fourfold.surfaces.surface import Surface

_KEPT = ("val", "test")  # splits whose logits are cached
_CERTIFIED = {"random": "val"}  # sample -> split on the whole of which it is evaluated


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_network_job_arguments(parser)
    add_paths(
        parser,
        surface="surface to evaluate",
        output="grid table to write",
        logits="logits to write (float16)",
        examples="nll of each image at each point to write",
    )


def run(arguments: argparse.Namespace) -> None:
    """Write the grid table, the logits and the examples."""
    job = NetworkJob(arguments, inputs=[arguments.surface])
    grid, splits = job.settings["grid"], job.dataset.splits
    surface, model = Surface.load(arguments.surface), job.build_model()
    evaluated = {**splits, "train": splits["train"].first(grid["train_images"])}
    images = {name: (split.images, split.labels) for name, split in evaluated.items()}
    n = grid["search_images"]
    few = {name: (x[:n], y[:n]) for name, (x, y) in images.items()}
    shape = surface.shape
    chosen = [grid[key] for key in ("points", "edge_points", "random_points", "seed")]
    further = choose_points(shape, *chosen)
    lattice = further.pop("grid")
    progress = Progress(f"{arguments.experiment} {surface.name}", unit="point")
    of_random = {sample: few | {name: images[name]} for sample, name in _CERTIFIED.items()}
    sampled = {"grid": images, "center": images, **of_random}  # the others are searched
    for sample, points in {"grid": lattice, **further}.items():
        progress.expect(len(points), _images(sampled.get(sample, few), grid))

    def evaluate(
        sample: str, points: list[Point], of: dict[str, Images], keep_logits: Sequence[str] = ()
    ) -> Evaluation:
        evaluation = evaluate_points(
            surface,
            model,
            of,
            points,
            sample=sample,
            **job.evaluation(),
            keep_logits=keep_logits,
            on_point=progress.on_item,
        )
        job.count_evaluated(evaluation.table)
        if (evaluation.table["statistics"] == "repaired").any():  # measured at the corners first
            seen = int(evaluation.table["statistics_images"].max())
            job.cost.images_forward += len(shape.corner_rows) * seen
        return evaluation

    main = evaluate("grid", lattice, images, keep_logits=_KEPT)
    corners = [lattice.index(corner) for corner in shape.corner_coordinates]
    own = main.own or _pick(main, corners)  # without BatchNorm a corner is one network
    parts = [("grid", lattice, main), ("own", list(shape.corner_coordinates), own)]
    labels = {name: of_split.cpu() for name, (_, of_split) in images.items()}
    sizes = {name: len(of_split) for name, of_split in labels.items()}
    for sample, points in further.items():
        if not points:
            continue
        if sample == "center":  # a merge, which is no candidate for the worst point alone
            parts.append((sample, points, evaluate(sample, points, images)))
            continue
        certified, searched = _CERTIFIED.get(sample), sampled.get(sample, few)
        first = evaluate(sample, points, searched)
        if all(len(y) == sizes[name] for name, (_, y) in searched.items()):
            parts.append((sample, points, first))
            continue
        # A split with no more images than the search takes is left to the points that are evaluated
        # on all splits, so that every table has the same points over whole splits; but for what is
        # certified.
        of_split = first.table["split"]
        is_kept = (first.table["n"] < of_split.map(sizes)) | (of_split == certified)
        worst = _worst_points(first.table, shape)
        parts.append((sample, points, replace(first, table=first.table[is_kept])))
        progress.expect(len(worst), _images(images, grid))
        parts.append((sample, worst, evaluate(sample, worst, images)))

    tables = [evaluation.table for sample, _, evaluation in parts if sample != "own"]
    whole = [
        part for part in parts if all(part[2].nll[k].shape[1] == size for k, size in sizes.items())
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
        shape=shape,
        statistics=main.table["statistics"].iloc[0],
        points=lattice,
        logits={name: main.logits[name] for name in _KEPT},
        own={name: own.logits[name] for name in _KEPT},
        labels={name: labels[name] for name in _KEPT},
    ).save(arguments.logits, job.metadata())
    job.write("grid", _drop_repeated(pd.concat(tables, ignore_index=True)), arguments.output)
    job.write_network_cost(surface.name, model)


def _images(splits: dict[str, Images], grid: dict[str, Any]) -> int:
    """Return about how many images pass through a network to evaluate it on some splits."""
    return (grid["batchnorm_images"] or 0) + sum(len(labels) for _, labels in splits.values())


def _worst_points(table: pd.DataFrame, shape: Shape) -> list[Point]:
    """Return the points with the worst nll and the worst accuracy of each split."""
    worst: list[Point] = []
    for _, rows in table.groupby("split", sort=False):
        # A network that gives no numbers (NaN) is the worst there is.
        nll, accuracy = rows["nll"].fillna(math.inf), rows["accuracy"].fillna(-1)
        for index in (nll.idxmax(), accuracy.idxmin()):
            worst.append(tuple(float(rows[axis][index]) for axis in shape.axes))
    return list(dict.fromkeys(worst))


def _pick(evaluation: Evaluation, positions: list[int]) -> Evaluation:
    """Return the evaluation of some of the networks."""
    logits, nll, correct = (
        {name: values[positions] for name, values in part.items()}
        for part in (evaluation.logits, evaluation.nll, evaluation.correct)
    )
    return replace(evaluation, logits=logits, nll=nll, correct=correct)


def _drop_repeated(table: pd.DataFrame) -> pd.DataFrame:
    """Of points evaluated on few images and then on all, keep the rows over all, each once."""
    keys = ["sample", *AXES, "split", "statistics"]
    largest = table.groupby(keys, dropna=False)["n"].transform("max")
    return table[table["n"] == largest].drop_duplicates(keys, ignore_index=True)
