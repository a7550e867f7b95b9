"""Draw the figures of one replicate from its tables; no network and no torch is needed."""

import argparse
from functools import partial

from fourfold.files.table import read_table
from fourfold.pipeline.commands._settings import add_paths, add_surfaces_argument, read_surfaces
from fourfold.report import figures as plot


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_paths(parser, tables="folder of the tables", output="folder of the figures")
    add_surfaces_argument(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write each figure as PNG and SVG."""
    folder, surfaces = arguments.tables, read_surfaces(arguments.surfaces)
    grid = read_table("grid", *(folder / f"grid-{name}.parquet" for name in surfaces))
    table = {
        name: read_table(name, folder / f"{name}.parquet")
        for name in ("merge", "ensemble", "difference", "training", "geometry", "endpoints")
    }
    seeds = sorted(table["endpoints"]["seed"].dropna().astype(int).unique().tolist())
    # One after another: an open figure holds memory until it is saved.
    draw = {
        "surfaces": partial(plot.plot_surfaces, grid, table["merge"]),
        "surfaces_3d": partial(plot.plot_surfaces_3d, grid),
        "profiles": partial(plot.plot_profiles, grid),
        "ensembles": partial(plot.plot_ensembles, table["ensemble"]),
        "merges": partial(plot.plot_merges, table["merge"]),
        "differences": partial(plot.plot_differences, table["difference"]),
        "training": partial(plot.plot_training, table["training"]),
        "geometry": partial(plot.plot_geometry, table["geometry"]),
    }
    for name, figure in draw.items():
        plot.save_figure(figure(surfaces=surfaces, seeds=seeds), arguments.output / name)
