"""Train a network on from one that another run has kept, with a random order of its own.

The learning rate goes on where that run was; the optimizer's state, which isn't kept, starts anew.
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
from fourfold.training.schedule import kept_epochs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_training_arguments(parser)
    parser.add_argument("--name", required=True, help="what tables call the network")
    parser.add_argument("--seed", required=True, type=int, help="seed of order and augmentation")
    add_paths(parser, trajectory="networks that the run of the ancestor kept")


def run(arguments: argparse.Namespace) -> None:
    """Write the network, and the training and endpoints tables."""
    job, seed, label = NetworkJob(arguments), arguments.seed, arguments.name
    job.seeds = {label: seed}
    epochs, at = job.settings["training"]["epochs"], job.settings["corners"]["at"]
    (before,) = kept_epochs(epochs, [at])
    kept = load_trajectory(arguments.trajectory)
    if before not in kept or before >= epochs:
        raise InputError(
            f"corners.at is {at}, epoch {before} of {epochs}, but {arguments.trajectory} has the "
            f"epochs {list(kept)}; choose one of those before the last."
        )
    model = job.build_model()
    load_state(model, kept[before])
    run_training(
        job,
        model,
        label,
        seed=seed,
        stream=derive_seed(seed, "fork"),  # not the order of a run from the start with this seed
        snapshots=job.snapshots(seed=seed, ancestor=state_hash(kept[before])),
        before=before,
    )
