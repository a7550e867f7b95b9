"""Choose four of the networks that one training run kept as corners: nothing is trained."""

import argparse
from pathlib import Path

from fourfold.combination.selection import select_corners
from fourfold.evaluation.grid import batchnorm_mode
from fourfold.files.tensors import read_header
from fourfold.pipeline.commands._corners import write_choice
from fourfold.pipeline.commands._network_job import NetworkJob, add_network_job_arguments
from fourfold.pipeline.progress import Progress
from fourfold.surfaces.checkpoint import load_trajectory
from fourfold.surfaces.surface import CORNERS
from fourfold.training.schedule import kept_epochs

_ON_VAL = "validation"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_network_job_arguments(parser)
    parser.add_argument("--name", required=True, help="name of the corner set")
    parser.add_argument("--trajectory", required=True, type=Path, help="networks that one run kept")
    parser.add_argument(
        "--output", required=True, type=Path, help="list of the chosen networks to write"
    )
    parser.add_argument(
        "--selection", required=True, type=Path, help="table of candidates to write"
    )


def run(arguments: argparse.Namespace) -> None:
    """Write the list of the chosen networks and the table of candidates."""
    job = NetworkJob(arguments, "network", "augment", "training", "corners", "grid")
    choose, epochs = job.settings["corners"]["choose"], job.settings["training"]["epochs"]
    candidates = None if choose == _ON_VAL else [kept_epochs(epochs, choose)]
    checkpoints = load_trajectory(arguments.trajectory)
    model, val, evaluation = job.build_model(), job.dataset.splits["val"], job.evaluation()
    evaluated = 0

    def on_network(done: int, networks: int) -> None:
        nonlocal evaluated
        evaluated = done
        progress.on_item(done, networks)

    progress = Progress(f"{arguments.experiment} {arguments.name}", unit="network")
    table = select_corners(
        checkpoints,
        model,
        val.images,
        val.labels,
        candidates=candidates,
        **evaluation,
        on_network=on_network,
    )
    is_reestimated = batchnorm_mode(model, evaluation["batchnorm"]) == "reestimated"
    images = len(val) + is_reestimated * len(evaluation["batchnorm_images"])
    job.cost.evaluated(evaluated * images)
    seed = read_header(arguments.trajectory).get("seed")
    job.seeds = {arguments.name: {"corners": [seed] * len(CORNERS)}}
    chosen = [int(table.iloc[0][corner]) for corner in CORNERS]
    chosen_on = "val" if choose == _ON_VAL else "none"
    write_choice(arguments.output, arguments.name, chosen_on, chosen)
    job.write("selection", table, arguments.selection)
    job.write_network_cost("select_trajectory_corners", arguments.name, model)
