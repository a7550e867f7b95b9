"""Train a network on from one that another run has kept, with a random order of its own.

The learning rate goes on where that run was, or follows another training from its start; the
optimizer's state, which isn't kept, starts anew.
"""

import argparse

from fourfold.errors import InputError
from fourfold.files.tensors import state_hash
from fourfold.pipeline.commands._network_job import NetworkJob
from fourfold.pipeline.commands._settings import add_paths
from fourfold.pipeline.commands._training_job import add_training_arguments, run_training
from fourfold.seeds import derive_seed
from fourfold.surfaces.checkpoint import load_trajectory
from fourfold.surfaces.modules import load_state


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_training_arguments(parser)
    parser.add_argument("--name", required=True, help="what tables call the network")
    parser.add_argument("--seed", required=True, type=int, help="seed of order and augmentation")
    parser.add_argument("--epoch", required=True, type=int, help="of that run, at its end")
    parser.add_argument(
        "--anew",
        action="store_true",
        help="follow the schedule of the settings from its start, not from that epoch on",
    )
    add_paths(parser, trajectory="networks that the run of the ancestor kept")


def run(arguments: argparse.Namespace) -> None:
    """Write the network, and the training and endpoints tables."""
    job, seed, label = NetworkJob(arguments), arguments.seed, arguments.name
    job.seeds = {label: seed}
    epoch, before = arguments.epoch, 0 if arguments.anew else arguments.epoch
    kept, epochs = load_trajectory(arguments.trajectory), job.settings["training"]["epochs"]
    if epoch not in kept or before >= epochs:
        raise InputError(
            f"--epoch is {epoch}, but {arguments.trajectory} has the epochs {list(kept)} and the "
            f"run goes to {epochs}; choose one of those before its end, or --anew."
        )
    job.facts["ancestor"] = {"epoch": epoch, "sha256": state_hash(kept[epoch])}
    model = job.build_model()
    load_state(model, kept[epoch])
    run_training(
        job,
        model,
        label,
        seed=seed,
        stream=derive_seed(seed, "fork"),  # not the order of a run from the start with this seed
        snapshots=job.snapshots(seed=seed),
        before=before,
    )
