"""Evaluate ensembles of corners and of points of the surfaces, from their cached logits alone."""

import argparse

from fourfold.combination.ensemble import compare_ensembles
from fourfold.evaluation.logits import SurfaceLogits
from fourfold.pipeline.commands._job import Job, add_job_arguments, surface_files
from fourfold.pipeline.commands._settings import (
    add_paths,
    add_settings_argument,
    add_surfaces_argument,
    read_surfaces,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_job_arguments(parser)
    add_settings_argument(parser)
    add_surfaces_argument(parser)
    add_paths(parser, nargs="+", logits="logits of the surfaces")
    add_paths(parser, output="ensemble table to write")


def run(arguments: argparse.Namespace) -> None:
    """Write the ensemble table."""
    surfaces = read_surfaces(arguments.surfaces)
    job = Job(arguments, inputs=arguments.logits)
    files = surface_files(logits=arguments.logits)
    logits = {name: SurfaceLogits.load(path) for name, (path,) in files.items()}
    table = compare_ensembles(logits, surfaces, **job.settings["ensembles"])
    job.write("ensemble", table, arguments.output)
    job.write_cost("ensemble")
