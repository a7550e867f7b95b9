"""Evaluate merged networks: one forward pass, no matter how many networks went into them."""

import argparse
from collections.abc import Sequence

import pandas as pd

from fourfold.combination.baselines import check_surfaces
from fourfold.combination.merge import Logits, compare_merges, save_soups
from fourfold.evaluation.grid import Images, evaluate_networks
from fourfold.files.table import read_table
from fourfold.pipeline.commands._job import surface_files
from fourfold.pipeline.commands._network_job import NetworkJob, add_network_job_arguments
from fourfold.pipeline.commands._settings import add_paths, add_surfaces_argument, read_surfaces
from fourfold.surfaces.layout import StateDict
from fourfold.surfaces.surface import Surface


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_network_job_arguments(parser)
    add_surfaces_argument(parser)
    add_paths(parser, nargs="+", grids="grid tables", files="the surfaces")
    add_paths(parser, output="merge table to write", soups="logits of greedy soups to write")


def run(arguments: argparse.Namespace) -> None:
    """Write the merge table, and the logits of the greedy soups."""
    surfaces = read_surfaces(arguments.surfaces)
    job = NetworkJob(arguments, inputs=arguments.grids)
    files = surface_files(files=arguments.files)
    check_surfaces(files, surfaces, "--files")
    model, splits = job.build_model(), job.dataset.splits

    def corners_of(surface: str) -> list[StateDict]:
        loaded = Surface.load(*files[surface])
        return [loaded.corner(k) for k in range(len(loaded.shape.corner_rows))]

    def evaluate(network: StateDict, names: Sequence[str]) -> tuple[pd.DataFrame, Logits]:
        images: dict[str, Images] = {
            name: (splits[name].images, splits[name].labels) for name in names
        }
        found = evaluate_networks(model, [network], images, **job.evaluation())
        job.count_evaluated(found.table)
        return found.table, {split: logits[0] for split, logits in found.logits.items()}

    grid = read_table("grid", *arguments.grids)
    rows, soups = compare_merges(grid, surfaces, corners_of, evaluate)
    save_soups(soups, arguments.soups, job.metadata())
    job.write("merge", rows, arguments.output)
    job.write_network_cost("merge", model)
