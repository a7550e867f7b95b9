"""Compare the tables of two runs: `python tests/compare_results.py results other/results`.

Every column of every table must be equal to the last bit, but those that are measured (time and
memory). Prints how many tables are equal and names the others; exit status 1 if there are any.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from fourfold.files.table import MEASURED_COLUMNS


def read(path: Path) -> pd.DataFrame:
    """Read a table without its measured columns."""
    frame = pq.read_table(path).to_pandas()
    return frame.drop(columns=[column for column in frame if column in MEASURED_COLUMNS])


def difference(first: Path, second: Path) -> str | None:
    """Say how two tables differ, or None if they don't."""
    for path in (first, second):
        if not path.is_file():
            return f"there is no {path}"
    a, b = read(first), read(second)
    if list(a) != list(b):
        return f"columns are {list(a)} and {list(b)}"
    if len(a) != len(b):
        return f"{len(a)} and {len(b)} rows"
    columns = [column for column in a if not a[column].equals(b[column])]
    return f"values of {', '.join(columns)}" if columns else None


def differences(first: Path, second: Path) -> dict[str, str | None]:
    """Compare all tables below two folders, by their path in it."""
    names = {
        path.relative_to(folder) for folder in (first, second) for path in folder.rglob("*.parquet")
    }
    return {str(name): difference(first / name, second / name) for name in sorted(names)}


def main() -> int:
    """Compare two folders and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("first", type=Path, help="a results folder, or a part of one")
    parser.add_argument("second", type=Path, help="the other")
    arguments = parser.parse_args()
    for folder in (arguments.first, arguments.second):
        if not folder.is_dir():
            parser.error(f"there is no folder {folder}")
    found = differences(arguments.first, arguments.second)
    if not found:
        parser.error(f"neither {arguments.first} nor {arguments.second} has a table")
    different = {name: what for name, what in found.items() if what is not None}
    for name, what in different.items():
        print(f"differs: {name}: {what}")
    print(f"{len(found) - len(different)} of {len(found)} tables are equal")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
