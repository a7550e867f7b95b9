"""Evaluate ensembles, rivals at equal cost, and picks on val, from cached logits alone."""

import argparse

from fourfold.combination.ensemble import compare_ensembles
from fourfold.combination.merge import load_soups
from fourfold.combination.picks import measure_picks
from fourfold.combination.rivals import compare_rivals
from fourfold.evaluation.logits import SurfaceLogits
from fourfold.files.table import read_table
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
    costs = "cost tables of what trained and chose corners, and made surfaces"
    add_paths(parser, nargs="+", logits="logits of the surfaces", grids="grid tables", costs=costs)
    add_paths(parser, soups="logits of greedy soups")
    tables = ("ensemble", "rival", "rival-difference", "pick")
    add_paths(parser, **{name: f"{name.replace('-', '_')} table to write" for name in tables})


def run(arguments: argparse.Namespace) -> None:
    """Write the tables `ensemble`, `rival`, `rival_difference` and `pick`."""
    surfaces = read_surfaces(arguments.surfaces)
    job = Job(arguments, inputs=arguments.logits)
    files = surface_files(logits=arguments.logits)
    logits = {name: SurfaceLogits.load(path) for name, (path,) in files.items()}
    table = compare_ensembles(logits, surfaces, **job.settings["ensembles"])
    job.write("ensemble", table, arguments.ensemble)
    grid, cost = read_table("grid", *arguments.grids), read_table("cost", *arguments.costs)
    soups = load_soups(arguments.soups)
    rivals, differences = compare_rivals(logits, surfaces, grid, cost, soups)
    job.write("rival", rivals, arguments.rival)
    job.write("rival_difference", differences, arguments.rival_difference)
    job.write("pick", measure_picks(logits, surfaces), arguments.pick)
    job.write_cost("ensemble")
