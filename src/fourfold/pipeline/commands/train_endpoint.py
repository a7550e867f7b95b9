"""Train one network, and keep it at some points of its run."""

import argparse

from fourfold.pipeline.commands._network_job import NetworkJob
from fourfold.pipeline.commands._settings import add_paths
from fourfold.pipeline.commands._training_job import add_training_arguments, run_training
from fourfold.training.schedule import kept_epochs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_training_arguments(parser)
    parser.add_argument("--name", required=True, help="what tables call the network")
    parser.add_argument("--seed", required=True, type=int, help="seed of initialization and order")
    add_paths(parser, trajectory="networks along the run to write")


def run(arguments: argparse.Namespace) -> None:
    """Write the network, those along its run, and the training and endpoints tables."""
    job, seed, label = NetworkJob(arguments), arguments.seed, arguments.name
    job.seeds = {label: seed}
    training = job.settings["training"]
    run_training(
        job,
        job.initial_model(seed),
        label,
        seed=seed,
        stream=seed,
        snapshots=job.snapshots(seed=seed),
        kept=kept_epochs(training["epochs"], training["keep"]),
        trajectory=arguments.trajectory,
    )
