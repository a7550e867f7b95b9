"""Gather the tables of single jobs, and write every table as CSV beside its parquet file."""

import argparse
from pathlib import Path

import pyarrow as pa

from fourfold.files.atomic import atomic_path
from fourfold.files.table import SCHEMAS, common_metadata, read_table, write_table

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
        parts = getattr(arguments, name)
        frames[name] = read_table(name, *parts)
        path = arguments.output / f"{name}.parquet"
        write_table(name, frames[name], path, common_metadata(*parts))
    for stem, frame in frames.items():
        schema = SCHEMAS[stem.partition("-")[0]]
        lists = [field.name for field in schema if pa.types.is_list(field.type)]  # no cell of a CSV
        with atomic_path(arguments.output / "csv" / f"{stem}.csv") as path:
            frame.drop(columns=lists).to_csv(path, index=False, float_format="%.6g")
