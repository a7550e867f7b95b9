"""Measure distances between control points, barriers of surfaces, and certify their losses."""

import argparse

import pandas as pd

from fourfold.evaluation.certificate import measure_certificates
from fourfold.evaluation.geometry import measure_barriers, measure_distances
from fourfold.evaluation.logits import SurfaceLogits
from fourfold.files.table import read_table
from fourfold.pipeline.commands._job import Job, add_job_arguments, surface_files
from fourfold.pipeline.commands._settings import add_paths
from fourfold.surfaces.surface import Surface


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_job_arguments(parser)
    add_paths(
        parser, nargs="+", surfaces="surfaces", logits="their logits", grids="their grid tables"
    )
    tables = {name: f"{name} table to write" for name in ("geometry", "barrier", "certificate")}
    add_paths(parser, **tables)


def run(arguments: argparse.Namespace) -> None:
    """Write the geometry, barrier and certificate tables."""
    job = Job(arguments, inputs=arguments.logits)
    files = surface_files(surfaces=arguments.surfaces, logits=arguments.logits)
    distances, shapes = [], {}
    for name, (surface_path, logits_path) in files.items():
        cached = SurfaceLogits.load(logits_path)
        shapes[name] = cached.shape
        corners = cached.shape.corner_names
        own = dict(zip(corners, cached.own["test"], strict=True))
        again = dict(zip(corners, cached.logits["test"][cached.corners], strict=True))
        distances.append(measure_distances(Surface.load(surface_path), own, again))
    job.write("geometry", pd.concat(distances, ignore_index=True), arguments.geometry)
    grid = read_table("grid", *arguments.grids)
    job.write("barrier", measure_barriers(grid, shapes), arguments.barrier)
    job.write("certificate", measure_certificates(grid), arguments.certificate)
    job.write_cost("geometry")
