"""Measure distances between control points and barriers of surfaces."""

import argparse
from pathlib import Path

import pandas as pd

from fourfold.evaluation.geometry import measure_barriers, measure_distances
from fourfold.evaluation.logits import SurfaceLogits
from fourfold.files.table import read_table
from fourfold.pipeline.commands._job import Job, add_job_arguments, surface_files
from fourfold.surfaces.surface import CORNERS, BezierSurface


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_job_arguments(parser)
    parser.add_argument("--surfaces", required=True, nargs="+", type=Path, help="surfaces")
    parser.add_argument("--logits", required=True, nargs="+", type=Path, help="their logits")
    parser.add_argument("--grids", required=True, nargs="+", type=Path, help="their grid tables")
    parser.add_argument("--geometry", required=True, type=Path, help="geometry table to write")
    parser.add_argument("--barrier", required=True, type=Path, help="barrier table to write")


def run(arguments: argparse.Namespace) -> None:
    """Write the geometry and barrier tables."""
    job = Job(arguments, inputs=arguments.logits)
    files = surface_files(surfaces=arguments.surfaces, logits=arguments.logits)
    distances = []
    for surface_path, logits_path in files.values():
        cached = SurfaceLogits.load(logits_path)
        own = dict(zip(CORNERS, cached.own["test"], strict=True))
        again = dict(zip(CORNERS, cached.logits["test"][cached.corners], strict=True))
        distances.append(measure_distances(BezierSurface.load(surface_path), own, again))
    job.write("geometry", pd.concat(distances, ignore_index=True), arguments.geometry)
    grid = read_table("grid", *arguments.grids)
    job.write("barrier", measure_barriers(grid), arguments.barrier)
    job.write_cost("measure_geometry", "geometry")
