"""Draw the figures of one replicate from its tables; no network and no torch is needed."""

import argparse
from pathlib import Path

from fourfold import plot
from fourfold.table import read_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--tables", required=True, type=Path, help="folder of the tables")
    parser.add_argument(
        "--surfaces", required=True, nargs="+", help="surfaces to show, from left to right"
    )
    parser.add_argument("--output", required=True, type=Path, help="folder of the figures")


def run(arguments: argparse.Namespace) -> None:
    """Write each figure as PNG and SVG."""
    folder = arguments.tables
    grid = read_table("grid", *(folder / f"grid-{name}.parquet" for name in arguments.surfaces))
    table = {
        name: read_table(name, folder / f"{name}.parquet")
        for name in ("merge", "ensemble", "training", "geometry")
    }
    # One after another: an open figure holds memory until it is saved.
    draw = {
        "surfaces": lambda: plot.plot_surfaces(grid, table["merge"]),
        "surfaces_3d": lambda: plot.plot_surfaces_3d(grid),
        "profiles": lambda: plot.plot_profiles(grid),
        "ensembles": lambda: plot.plot_ensembles(table["ensemble"]),
        "merges": lambda: plot.plot_merges(table["merge"]),
        "training": lambda: plot.plot_training(table["training"]),
        "geometry": lambda: plot.plot_geometry(table["geometry"]),
    }
    for name, figure in draw.items():
        plot.save_figure(figure(), arguments.output / name)
