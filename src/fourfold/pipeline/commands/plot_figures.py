"""Draw figures of one replicate, or over several, from tables; no torch is needed."""

import argparse
from functools import partial

import pandas as pd

from fourfold.errors import InputError
from fourfold.files.table import read_table
from fourfold.pipeline.commands._settings import add_paths, add_surfaces_argument, read_surfaces
from fourfold.report import figures as plot

_TABLES = (
    *("merge", "ensemble", "difference", "rival", "training", "geometry", "endpoints"),
    *("barrier", "cost"),
)
_OVER_REPLICATES = ("barriers", "convergence")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_paths(parser, nargs="+", tables="folder of the tables of each replicate to draw")
    add_paths(parser, output="folder of the figures")
    parser.add_argument("--figures", nargs="+", metavar="NAME", help="those to draw, else all")
    add_surfaces_argument(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write each figure as PNG and SVG."""
    folders, surfaces = arguments.tables, read_surfaces(arguments.surfaces)

    def read(table: str, *names: str) -> pd.DataFrame:
        return read_table(table, *(of / f"{name}.parquet" for of in folders for name in names))

    grid = read("grid", *(f"grid-{name}" for name in surfaces))
    table = {name: read(name, name) for name in _TABLES}
    is_one = _is_one_replicate(table["cost"])
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
    known = draw.keys() if is_one else _OVER_REPLICATES
    chosen = known if arguments.figures is None else arguments.figures
    if unknown := set(chosen) - set(known):
        raise InputError(
            f"--figures has {', '.join(sorted(unknown))}, but figures of these tables are "
            f"{', '.join(known)}; leave it out for all."
        )
    for name, figure in draw.items():
        if name not in chosen:
            continue
        plot.save_figure(
            figure(surfaces=surfaces, seeds=seeds if is_one else ()), arguments.output / name
        )


def _is_one_replicate(cost: pd.DataFrame) -> bool:
    """Return whether tables are of one replicate; refuse those of several experiments."""
    if (experiments := cost["experiment"].unique()).size > 1:
        raise InputError(
            f"--tables has those of {', '.join(experiments)}; give replicates of one experiment."
        )
    if (twice := cost[cost.duplicated(["replicate", "stage", "item"])]).size:
        raise InputError(
            f"--tables has replicate {twice['replicate'].iloc[0]} twice; give each one once."
        )
    return len(cost["replicate"].unique()) == 1
