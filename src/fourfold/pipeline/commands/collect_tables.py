"""Gather the tables of single jobs, as parquet files and as CSV."""

import argparse

import pandas as pd

from fourfold.files.table import (
    GATHERED,
    SCHEMAS,
    common_metadata,
    read_table,
    write_csv,
    write_table,
)
from fourfold.pipeline.commands._settings import add_paths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_paths(parser, nargs="*", **{name: f"{name} tables of the jobs" for name in GATHERED})
    add_paths(parser, output="folder of the tables")


def run(arguments: argparse.Namespace) -> None:
    """Write the gathered tables, and each as CSV."""
    for name in GATHERED:
        parts = getattr(arguments, name)
        path = arguments.output / f"{name}.parquet"
        # Where nothing was trained, there is nothing to gather.
        empty = pd.DataFrame(columns=SCHEMAS[name].names)
        table = read_table(name, *parts) if parts else empty
        write_table(name, table, path, common_metadata(*parts) if parts else {})
        write_csv(name, path)
