"""Gather the tables of single jobs, as parquet files and as CSV."""

import argparse
from pathlib import Path

from fourfold.files.table import GATHERED, common_metadata, read_table, write_csv, write_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    for name in GATHERED:
        parser.add_argument(
            f"--{name}", required=True, nargs="+", type=Path, help=f"{name} tables of the jobs"
        )
    parser.add_argument("--output", required=True, type=Path, help="folder of the tables")


def run(arguments: argparse.Namespace) -> None:
    """Write the gathered tables, and each as CSV."""
    for name in GATHERED:
        parts = getattr(arguments, name)
        path = arguments.output / f"{name}.parquet"
        write_table(name, read_table(name, *parts), path, common_metadata(*parts))
        write_csv(name, path)
