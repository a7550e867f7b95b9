"""Span a surface by its corners and fit its free control points."""

import argparse
from pathlib import Path

from fourfold.files.tensors import state_hash
from fourfold.pipeline.commands._corners import read_corners
from fourfold.pipeline.commands._network_job import (
    NetworkJob,
    add_network_job_arguments,
    add_state_arguments,
)
from fourfold.pipeline.commands._training import training_arguments
from fourfold.pipeline.commands.build_linear_surface import add_surface_arguments
from fourfold.pipeline.progress import Progress
from fourfold.surfaces.surface import BezierSurface
from fourfold.training.fit import fit

_SUPPLIED = (
    *("surface", "model", "train_images", "train_labels", "seed", "augment", "preprocess"),
    *("loss_function", "device", "snapshots", "on_step"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_network_job_arguments(parser)
    add_state_arguments(parser)
    add_surface_arguments(parser)
    parser.add_argument("--seed", required=True, type=int, help="seed of order and points")
    parser.add_argument("--training", required=True, type=Path, help="training table to write")


def run(arguments: argparse.Namespace) -> None:
    """Write the surface and the training table."""
    job = NetworkJob(arguments, "network", "augment", "fit")
    name, corners = arguments.name, read_corners(arguments.corners)
    job.seeds = {name: {"corners": corners.seeds, "fit": arguments.seed}}
    settings = training_arguments("fit", job.settings["fit"], fit, _SUPPLIED)
    surface = BezierSurface.from_corners(corners.states, degree=tuple(arguments.degree), name=name)
    snapshots = job.snapshots(
        name=name,
        degree=arguments.degree,
        seed=arguments.seed,
        corners=[state_hash(corner) for corner in corners.states],
    )
    model = job.build_model()
    train = job.dataset.splits["train"]
    history = fit(
        surface,
        model,
        train.images,
        train.labels,
        **settings,
        seed=arguments.seed,
        augment=job.augment(),
        preprocess=job.dataset.normalize,
        snapshots=snapshots,
        on_step=Progress(f"{arguments.experiment} {name}").on_step,
    )
    job.cost.seconds_before = snapshots.seconds_before
    if len(history):
        job.cost.trained(int(history["images_seen"].iloc[-1]))
    surface.save(arguments.output, job.metadata() | {"seed": arguments.seed})
    job.write("training", history.assign(stage="fit", item=name), arguments.training)
    job.write_network_cost("fit_bezier_surface", name, model)
    snapshots.remove()
