"""Evaluate a surface on a grid of points: metrics on all splits, logits on val and test."""

import argparse
from pathlib import Path

from fourfold.commands._job import Job, add_job_arguments, surface_seeds
from fourfold.grid import evaluate_points, grid_points
from fourfold.logits import SurfaceLogits
from fourfold.progress import Progress
from fourfold.surface import BezierSurface


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_job_arguments(parser)
    parser.add_argument("--surface", required=True, type=Path, help="surface to evaluate")
    parser.add_argument("--output", required=True, type=Path, help="grid table to write")
    parser.add_argument("--logits", required=True, type=Path, help="logits to write (float16)")


def run(arguments: argparse.Namespace) -> None:
    """Write the grid table and the logits."""
    job = Job(arguments, "model", "grid")
    job.seeds = surface_seeds([arguments.surface])
    grid, splits = job.settings["grid"], job.dataset.splits
    surface = BezierSurface.load(arguments.surface)
    model = job.build_model()
    points = grid_points(grid["points"])
    # The rows of a split are in random order: the first ones are a fixed random subset.
    batchnorm_images = splits["train"].first(grid["batchnorm_images"]).images
    evaluated = {**splits, "train": splits["train"].first(grid["train_images"])}
    evaluation = evaluate_points(
        surface,
        model,
        {name: (split.images, split.labels) for name, split in evaluated.items()},
        points,
        batchnorm=grid["batchnorm"],
        batchnorm_images=batchnorm_images,
        batch_size=grid["batch_size"],
        precision=grid["precision"],
        preprocess=job.dataset.normalize,
        on_point=Progress(f"{arguments.experiment} {surface.name}", unit="point").on_item,
    )
    images_per_point = sum(map(len, evaluated.values()))
    if evaluation.table["batchnorm"].iloc[0] == "reestimated":
        images_per_point += len(batchnorm_images)
    job.cost.evaluated(len(points) * images_per_point)
    SurfaceLogits(
        surface=surface.name,
        points=points,
        logits={name: evaluation.logits[name] for name in ("val", "test")},
        labels={name: splits[name].labels.cpu() for name in ("val", "test")},
    ).save(arguments.logits, job.metadata())
    job.write("grid", evaluation.table, arguments.output)
    job.write_cost("evaluate_grid", surface.name, model)
