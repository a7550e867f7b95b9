"""Turn the differences between networks into random directions: a null model of a corner set."""

import argparse

from fourfold.combination.nulls import randomize
from fourfold.evaluation.batchnorm import reestimate_batchnorm
from fourfold.evaluation.grid import batchnorm_mode
from fourfold.pipeline.commands._job import read_corners
from fourfold.pipeline.commands._network_job import NetworkJob, add_network_job_arguments
from fourfold.pipeline.commands.align_corners import add_derived_arguments
from fourfold.surfaces.checkpoint import save_trajectory
from fourfold.surfaces.modules import load_state


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_network_job_arguments(parser)
    add_derived_arguments(parser)
    parser.add_argument("--seed", required=True, type=int, help="seed of the directions")


def run(arguments: argparse.Namespace) -> None:
    """Write the networks, with BatchNorm statistics of their own."""
    job = NetworkJob(arguments)
    networks, seeds = read_corners(arguments.corners)
    job.seeds = {arguments.name: {"corners": seeds, "directions": arguments.seed}}
    model, evaluation, made = job.build_model(), job.evaluation(), {}
    images = evaluation["batchnorm_images"]
    for k, state in enumerate(randomize(networks, arguments.seed)):
        load_state(model, state)
        if batchnorm_mode(model, None) == "reestimated":
            of = ("augment", "seed", "batch_size", "precision", "preprocess")
            reestimate_batchnorm(model, images, **{key: evaluation[key] for key in of})
            job.cost.images_forward += len(images)
        made[k] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_trajectory(made, arguments.output, job.metadata() | {"seed": seeds})
    job.write_network_cost(arguments.name, model)
