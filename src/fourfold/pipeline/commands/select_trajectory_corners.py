"""Choose some of the networks that one training run kept as corners: nothing is trained."""

import argparse
import json

from fourfold.combination.costs import ON_VAL
from fourfold.combination.selection import select_corners
from fourfold.evaluation.grid import batchnorm_mode
from fourfold.files.atomic import write_text
from fourfold.files.tensors import read_header
from fourfold.pipeline.commands._network_job import NetworkJob, add_network_job_arguments
from fourfold.pipeline.commands._settings import add_paths
from fourfold.pipeline.progress import Progress
from fourfold.surfaces.checkpoint import load_trajectory
from fourfold.surfaces.shapes import SQUARE, Box, PointSet, Shape, Simplex
from fourfold.training.schedule import kept_epochs

# By number of networks, what a candidate is judged by; of others by themselves and their mean.
_SHAPES: dict[int, Shape] = {
    len(shape.corner_rows): shape for shape in (Box((1,)), Simplex(3), SQUARE, Box((1, 1, 1)))
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_network_job_arguments(parser)
    parser.add_argument("--name", required=True, help="name of the corner set")
    add_paths(
        parser,
        trajectory="networks that one run kept",
        output="list of the chosen networks to write",
        selection="table of candidates to write",
    )


def run(arguments: argparse.Namespace) -> None:
    """Write the list of the chosen networks and the table of candidates."""
    job = NetworkJob(arguments)
    choose, epochs = job.settings["corners"]["choose"], job.settings["training"]["epochs"]
    checkpoints = load_trajectory(arguments.trajectory)
    candidates = None
    if choose == ON_VAL:  # where the average of the run is no candidate
        checkpoints.pop("ema", None)
    else:
        candidates = [[x if x == "ema" else kept_epochs(epochs, [x])[0] for x in choose]]
    model, val, evaluation = job.build_model(), job.dataset.splits["val"], job.evaluation()
    progress = Progress(f"{arguments.experiment} {arguments.name}", unit="network")
    is_reestimated = batchnorm_mode(model, evaluation["batchnorm"]) == "reestimated"
    images = len(val) + is_reestimated * len(evaluation["batchnorm_images"])

    def on_network(done: int, networks: int) -> None:
        job.cost.images_forward = done * images
        progress.on_item(done, networks)

    table = select_corners(
        checkpoints,
        model,
        val.images,
        val.labels,
        shape=SQUARE if candidates is None else _SHAPES.get(len(choose)) or PointSet(len(choose)),
        candidates=candidates,
        **evaluation,
        on_network=on_network,
    )
    seed = read_header(arguments.trajectory).get("seed")
    names = {str(kept): kept for kept in checkpoints}
    chosen = [names[name] for name in table["corners"].iloc[0].split(";")]
    job.seeds = {arguments.name: {"corners": [seed] * len(chosen)}}
    chosen_on = "val" if choose == ON_VAL else "none"
    listed = {"corners": arguments.name, "kind": "run", "chosen_on": chosen_on, "epochs": chosen}
    write_text(arguments.output, json.dumps(listed, indent=2) + "\n")
    job.write("selection", table, arguments.selection)
    job.write_network_cost(arguments.name, model)
