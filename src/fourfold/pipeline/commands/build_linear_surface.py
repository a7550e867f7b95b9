"""Span the bilinear surface (degree (1, 1), nothing to fit) by four trained networks."""

import argparse
from pathlib import Path

from fourfold.pipeline.commands._job import Job, add_job_arguments, corner_seeds
from fourfold.surfaces.checkpoint import load_checkpoint
from fourfold.surfaces.surface import BezierSurface


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_job_arguments(parser)
    add_corners_argument(parser)
    parser.add_argument("--output", required=True, type=Path, help="surface to write")


def add_corners_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--corners`."""
    parser.add_argument(
        "--corners",
        required=True,
        nargs="+",
        type=Path,
        help="the four networks at (u, v) = (0,0), (0,1), (1,0), (1,1)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Write the surface."""
    job = Job(arguments, "model")
    job.seeds = {"linear": {"corners": corner_seeds(arguments.corners)}}
    corners = [load_checkpoint(path) for path in arguments.corners]
    surface = BezierSurface.from_corners(corners, degree=(1, 1), name="linear")
    surface.save(arguments.output, job.metadata())
    job.write_cost("build_linear_surface", "linear", job.build_model())
