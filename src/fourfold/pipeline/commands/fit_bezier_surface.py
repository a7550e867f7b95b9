"""Span a Bezier surface by four trained networks and fit its free control points."""

import argparse
from pathlib import Path

from fourfold.files.tensors import state_hash
from fourfold.pipeline.commands._job import (
    Job,
    add_job_arguments,
    add_state_arguments,
    corner_seeds,
)
from fourfold.pipeline.commands._settings import check_keys
from fourfold.pipeline.commands.build_linear_surface import add_corners_argument
from fourfold.pipeline.progress import Progress
from fourfold.surfaces.checkpoint import load_checkpoint
from fourfold.surfaces.surface import BezierSurface
from fourfold.training.fit import fit

_SUPPLIED = (
    *("surface", "model", "train_images", "train_labels", "seed", "augment", "preprocess"),
    *("loss_function", "device", "snapshots", "on_step"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_job_arguments(parser)
    add_state_arguments(parser)
    add_corners_argument(parser)
    parser.add_argument("--seed", required=True, type=int, help="seed of order and points")
    parser.add_argument("--output", required=True, type=Path, help="surface to write")
    parser.add_argument("--training", required=True, type=Path, help="training table to write")


def run(arguments: argparse.Namespace) -> None:
    """Write the surface and the training table."""
    job = Job(arguments, "model", "augment", "bezier")
    job.seeds = {"bezier": {"corners": corner_seeds(arguments.corners), "fit": arguments.seed}}
    settings = dict(job.settings["bezier"])
    degree = settings.pop("degree")
    check_keys("bezier", settings, fit, _SUPPLIED)
    corners = [load_checkpoint(path) for path in arguments.corners]
    surface = BezierSurface.from_corners(corners, degree=degree, name="bezier")
    snapshots = job.snapshots(
        seed=arguments.seed, corners=[state_hash(corner) for corner in corners]
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
        on_step=Progress(f"{arguments.experiment} bezier").on_step,
    )
    job.cost.seconds_before = snapshots.seconds_before
    if len(history):
        job.cost.trained(int(history["images_seen"].iloc[-1]))
    surface.save(arguments.output, job.metadata() | {"seed": arguments.seed})
    job.write("training", history.assign(stage="fit", item="bezier"), arguments.training)
    job.write_cost("fit_bezier_surface", "bezier", model)
    snapshots.remove()
