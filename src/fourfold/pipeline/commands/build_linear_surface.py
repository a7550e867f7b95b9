"""Span a surface by its corners, as it lies between them: nothing is fitted."""

import argparse
from pathlib import Path

from fourfold.pipeline.commands._corners import read_corners
from fourfold.pipeline.commands._job import Job, add_job_arguments
from fourfold.surfaces.surface import BezierSurface


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_job_arguments(parser)
    add_surface_arguments(parser)


def add_surface_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every command that makes a surface takes."""
    parser.add_argument("--name", required=True, help="what tables call the surface")
    parser.add_argument(
        "--degree", required=True, nargs=2, type=int, metavar=("N", "M"), help="along u and v"
    )
    parser.add_argument(
        "--corners",
        required=True,
        nargs="+",
        type=Path,
        help="the four networks at (u, v) = (0,0), (0,1), (1,0), (1,1); or a list of chosen ones "
        "and the networks of the run that it names",
    )
    parser.add_argument("--output", required=True, type=Path, help="surface to write")


def run(arguments: argparse.Namespace) -> None:
    """Write the surface."""
    job = Job(arguments, inputs=arguments.corners)
    corners = read_corners(arguments.corners)
    job.seeds = {arguments.name: {"corners": corners.seeds}}
    surface = BezierSurface.from_corners(
        corners.states, degree=tuple(arguments.degree), name=arguments.name
    )
    surface.save(arguments.output, job.metadata())
    job.write_cost("build_linear_surface", arguments.name)
