"""Span a surface by its corners, as it lies between them: nothing is fitted."""

import argparse

from fourfold.pipeline.commands._job import (
    Job,
    add_job_arguments,
    add_surface_arguments,
    read_corners,
)
from fourfold.surfaces.surface import BezierSurface


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_job_arguments(parser)
    add_surface_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write the surface."""
    job, name = Job(arguments, inputs=arguments.corners), arguments.name
    corners, seeds = read_corners(arguments.corners)
    job.seeds = {name: {"corners": seeds}}
    surface = BezierSurface.from_corners(corners, degree=tuple(arguments.degree), name=name)
    surface.save(arguments.output, job.metadata())
    job.write_cost(name)
