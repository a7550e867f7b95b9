"""Draw figures of one replicate from its tables; no network and no torch is needed."""

import argparse
from functools import partial

from fourfold.errors import InputError
from fourfold.files.table import read_table
from fourfold.pipeline.commands._settings import add_paths, add_surfaces_argument, read_surfaces
from fourfold.report import figures as plot

_TABLES = (
    *("merge", "ensemble", "difference", "rival", "training", "geometry", "endpoints"),
    *("barrier", "cost"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_paths(parser, tables="folder of the tables", output="folder of the figures")
    parser.add_argument("--figures", nargs="+", metavar="NAME", help="those to draw, else all")
    add_surfaces_argument(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write each figure as PNG and SVG."""
    folder, surfaces = arguments.tables, read_surfaces(arguments.surfaces)
    grid = read_table("grid", *(folder / f"grid-{name}.parquet" for name in surfaces))
    table = {name: read_table(name, folder / f"{name}.parquet") for name in _TABLES}
    seeds = sorted(table["endpoints"]["seed"].dropna().astype(int).unique().tolist())
    # One after another: an open figure holds memory until it is saved.
    draw = {
        "surfaces": partial(plot.plot_surfaces, grid, table["merge"]),
        "surfaces_3d": partial(plot.plot_surfaces_3d, grid),
        "profiles": partial(plot.plot_profiles, grid),
        "ensembles": partial(plot.plot_ensembles, table["ensemble"]),
        "merges": partial(plot.plot_merges, table["merge"]),
        "differences": partial(plot.plot_differences, table["difference"]),
        "rivals": partial(plot.plot_rivals, table["rival"]),
        "training": partial(plot.plot_training, table["training"]),
        "geometry": partial(plot.plot_geometry, table["geometry"]),
        "barriers": partial(plot.plot_barriers, table["barrier"], grid),
        "convergence": partial(plot.plot_convergence, table["barrier"], table["cost"]),
        "careful": partial(plot.plot_careful, table["barrier"], table["geometry"]),
    }
    chosen = draw.keys() if arguments.figures is None else arguments.figures
    if unknown := set(chosen) - draw.keys():
        raise InputError(
            f"--figures has {', '.join(sorted(unknown))}, but figures are {', '.join(draw)}; leave "
            "it out for all."
        )
    for name, figure in draw.items():
        if name not in chosen:
            continue
        plot.save_figure(figure(surfaces=surfaces, seeds=seeds), arguments.output / name)
