"""Take over a network that was trained elsewhere: one of the corners of a set."""

import argparse
import sys

from fourfold.files.reading import file_sha256
from fourfold.pipeline.commands._network_job import NetworkJob, add_network_job_arguments
from fourfold.pipeline.commands._settings import add_data_folder_argument, add_paths
from fourfold.surfaces.checkpoint import load_into, save_checkpoint

_SPLITS = ("val", "test")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_network_job_arguments(parser)
    parser.add_argument("--name", required=True, help="what tables call the network")
    parser.add_argument(
        "--stated",
        required=True,
        help="what params.yaml calls the checkpoint of safetensors or torch.save to read: absolute "
        "or below --folder",
    )
    add_data_folder_argument(parser, "relative paths start")
    add_paths(
        parser,
        checkpoint="network to write",
        endpoints="endpoints table to write",
    )


def run(arguments: argparse.Namespace) -> None:
    """Write the network with the names of the experiment's, and its rows of the endpoints table."""
    job, path = NetworkJob(arguments), arguments.folder.expanduser() / arguments.stated
    job.seeds = {arguments.name: None}
    model = job.build_model()
    removed = load_into(model, path, job.settings["corners"].get("key"))
    if removed:
        print(f"note: {path}: all names began with {removed!r}, which was removed", file=sys.stderr)
    sha256 = file_sha256(path, "checkpoint")
    made_by = job.metadata() | {"file": arguments.stated, "file_sha256": sha256}
    save_checkpoint(model.state_dict(), arguments.checkpoint, made_by)
    of = {"seed": None, "epoch": None, "checkpoint": f"endpoints/{arguments.name}.safetensors"}
    rows = job.endpoint_rows(model, _SPLITS, job.settings["grid"], **of)
    job.write("endpoints", rows, arguments.endpoints, file_sha256=sha256)
    job.cost.images_forward += sum(row["n"] for row in rows)
    job.write_network_cost(arguments.name, model)
