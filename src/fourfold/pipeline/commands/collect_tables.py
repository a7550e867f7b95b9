"""Gather the tables of single jobs, as parquet files and as CSV."""

import argparse

from fourfold.files.table import GATHERED, common_metadata, read_table, write_csv, write_table
from fourfold.pipeline.commands._settings import add_paths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_paths(parser, nargs="+", **{name: f"{name} tables of the jobs" for name in GATHERED})
    add_paths(parser, output="folder of the tables")


def run(arguments: argparse.Namespace) -> None:
    """Write the gathered tables, and each as CSV."""
    for name in GATHERED:
        parts = getattr(arguments, name)
        path = arguments.output / f"{name}.parquet"
        write_table(name, read_table(name, *parts), path, common_metadata(*parts))
        write_csv(name, path)
