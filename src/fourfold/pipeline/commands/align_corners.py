"""Permute and rotate the hidden units of networks so that they lie close to one another."""

import argparse
from pathlib import Path

from fourfold.combination.alignment import align, choose_method
from fourfold.pipeline.commands._job import read_corners
from fourfold.pipeline.commands._network_job import NetworkJob, add_network_job_arguments
from fourfold.pipeline.commands._settings import add_paths
from fourfold.surfaces.checkpoint import save_trajectory

_IMAGES = 500  # of train, whose activations are compared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_network_job_arguments(parser)
    add_derived_arguments(parser)


def add_derived_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every command takes that makes a corner set from another one."""
    parser.add_argument("--name", required=True, help="name of the corner set")
    parser.add_argument(
        "--corners", required=True, nargs="+", type=Path, help="files of the set it is made from"
    )
    add_paths(parser, output="networks to write")


def run(arguments: argparse.Namespace) -> None:
    """Write the networks."""
    job, of = NetworkJob(arguments), arguments.corners
    networks, seeds = read_corners(of)
    job.seeds = {arguments.name: {"corners": seeds}}
    stated, model = job.settings["corners"], job.build_model()
    images = job.dataset.splits["train"].images[:_IMAGES].cpu()
    known = {"rotations": stated.get("rotations", True), "preprocess": job.normalize}
    method = stated["method"]
    if method == "auto":
        method = choose_method(model, images, **known)
    reference = stated.get("reference", "mean")
    aligned = align(networks, model, images, method=method, reference=reference, **known)
    if method == "activations":
        job.cost.images_forward = 2 * len(networks) * len(images)  # for scales, then for products
    save_trajectory(
        dict(enumerate(aligned)),
        arguments.output,
        job.metadata() | {"seed": seeds, "method": method},
    )
    job.write_network_cost(arguments.name, model)
