"""Evaluate ensembles of corners and of points of the surfaces, from their cached logits alone."""

import argparse
from pathlib import Path

from fourfold.combination.ensemble import compare_ensembles, greedy_ensemble
from fourfold.evaluation.logits import SurfaceLogits
from fourfold.pipeline.commands._job import Job, add_job_arguments, surface_files
from fourfold.pipeline.commands._settings import add_settings_argument, check_keys
from fourfold.pipeline.commands._surfaces import add_surfaces_argument, read_surfaces


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_job_arguments(parser)
    add_settings_argument(parser)
    add_surfaces_argument(parser)
    parser.add_argument(
        "--logits", required=True, nargs="+", type=Path, help="logits of the surfaces"
    )
    parser.add_argument("--output", required=True, type=Path, help="ensemble table to write")


def run(arguments: argparse.Namespace) -> None:
    """Write the ensemble table."""
    surfaces = read_surfaces(arguments.surfaces)
    job = Job(arguments, "ensembles", inputs=arguments.logits)
    settings = job.settings["ensembles"]
    check_keys("ensembles", settings, greedy_ensemble, ("logits", "labels", "stop_early"))
    files = surface_files(logits=arguments.logits)
    logits = {name: SurfaceLogits.load(path) for name, (path,) in files.items()}
    job.write("ensemble", compare_ensembles(logits, surfaces, **settings), arguments.output)
    job.write_cost("compare_ensembles", "ensemble")
