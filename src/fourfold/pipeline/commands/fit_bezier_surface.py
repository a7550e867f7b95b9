"""Span a surface by its corners and fit its free control points."""

import argparse

from fourfold.files.tensors import state_hash
from fourfold.pipeline.commands._job import add_surface_arguments, read_corners
from fourfold.pipeline.commands._network_job import (
    NetworkJob,
    add_network_job_arguments,
    add_state_arguments,
    training_arguments,
)
from fourfold.pipeline.commands._settings import add_paths, read_shape
from fourfold.pipeline.progress import Progress
from fourfold.surfaces.layout import StateDict
from fourfold.surfaces.surface import Surface
from fourfold.training.fit import fit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_network_job_arguments(parser)
    add_state_arguments(parser)
    start = add_surface_arguments(parser)
    parser.add_argument("--seed", required=True, type=int, help="seed of order and points")
    for kind, moved in (("free", "it moves the corners too"), ("untrained", "corners stay there")):
        start.add_argument(
            f"--{kind}",
            nargs="+",
            type=int,
            metavar="SEED",
            help="in place of --corners: seeds of networks whose initializations the fit starts "
            f"from; {moved}",
        )
    add_paths(parser, training="training table to write")


def run(arguments: argparse.Namespace) -> None:
    """Write the surface and the training table."""
    job, name = NetworkJob(arguments), arguments.name
    corners, seeds = _start(job)
    job.seeds = {name: {"corners": seeds, "fit": arguments.seed}}
    surface = Surface.from_corners(
        corners,
        name=name,
        shape=read_shape(arguments.shape, len(corners)),
        train_corners=bool(arguments.free),
    )
    snapshots = job.snapshots(
        name=name,
        shape=arguments.shape,
        seed=arguments.seed,
        corners=[state_hash(corner) for corner in corners],
    )
    model, train = job.build_model(), job.dataset.splits["train"]
    settings = job.settings["fit"]
    epochs = sum(phase["epochs"] for phase in (*(settings["phases"] or ()), settings))
    epochs += settings["boundary_epochs"]
    history = fit(
        surface,
        model,
        train.images,
        train.labels,
        **training_arguments(settings),
        seed=arguments.seed,
        augment=job.augment(),
        preprocess=job.normalize,
        snapshots=snapshots,
        on_step=Progress(f"{arguments.experiment} {name}", epochs=epochs).on_step,
    )
    job.cost.seconds_before = snapshots.seconds_before
    if len(history):
        job.cost.trained(int(history["images_seen"].iloc[-1]))
    surface.save(arguments.output, job.metadata() | {"seed": arguments.seed})
    job.write("training", history.assign(stage="fit", item=name), arguments.training)
    job.write_network_cost(name, model)
    snapshots.remove()


def _start(job: NetworkJob) -> tuple[list[StateDict], list[int | None]]:
    """Return the networks at the corners, and their seeds."""
    initial: list[int] = job.arguments.free or job.arguments.untrained
    if not initial:
        return read_corners(job.arguments.corners)
    return [job.initial_model(seed).state_dict() for seed in initial], [*initial]
