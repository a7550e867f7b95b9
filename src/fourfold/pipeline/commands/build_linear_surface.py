"""Span a surface by its corners, as it lies between them: nothing is fitted."""

import argparse

from fourfold.pipeline.commands._job import (
    Job,
    add_job_arguments,
    add_surface_arguments,
    read_corners,
)
from fourfold.pipeline.commands._settings import read_shape
from fourfold.surfaces.surface import Surface


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_job_arguments(parser)
    add_surface_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write the surface."""
    job, name = Job(arguments, inputs=arguments.corners), arguments.name
    corners, seeds = read_corners(arguments.corners)
    job.seeds = {name: {"corners": seeds}}
    shape = read_shape(arguments.shape, len(corners))
    surface = Surface.from_corners(corners, name=name, shape=shape)
    surface.save(arguments.output, job.metadata())
    job.write_cost(name)
