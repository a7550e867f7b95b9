"""Gather the tables of single jobs, and write every table as CSV beside its parquet file."""

import argparse
from pathlib import Path

from fourfold.atomic import atomic_path
from fourfold.table import read_table, write_table

_GATHERED = ("training", "endpoints", "cost")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    for name in _GATHERED:
        parser.add_argument(
            f"--{name}", required=True, nargs="+", type=Path, help=f"{name} tables of the jobs"
        )
    parser.add_argument(
        "--tables", required=True, nargs="+", type=Path, help="tables that are complete already"
    )
    parser.add_argument("--output", required=True, type=Path, help="folder of the tables")


def run(arguments: argparse.Namespace) -> None:
    """Write the gathered tables, and all of them as CSV."""
    frames = {path.stem: read_table(path.stem.partition("-")[0], path) for path in arguments.tables}
    for name in _GATHERED:
        frames[name] = read_table(name, *getattr(arguments, name))
        write_table(name, frames[name], arguments.output / f"{name}.parquet")
    for stem, frame in frames.items():
        with atomic_path(arguments.output / "csv" / f"{stem}.csv") as path:
            frame.to_csv(path, index=False, float_format="%.6g")
