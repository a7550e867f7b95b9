"""Print every value of an experiment, and which part of params.yaml states it."""

import argparse
import json
from pathlib import Path

from fourfold.errors import printable
from fourfold.pipeline.params import read_params, stated_values


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("experiment", help="its name in params.yaml")
    parser.add_argument(
        "--file", type=Path, default=Path("params.yaml"), help="(default: params.yaml)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Print a line for each value: dotted key, value, origin; fits that nothing uses are marked."""
    rows = stated_values(read_params(arguments.file), arguments.experiment)
    of_surfaces = [key for key in rows if key.startswith("surfaces.") and key.endswith(".fit")]
    used = tuple(f"fits.{rows[key].value}." for key in of_surfaces)
    values = {key: json.dumps(row.value, ensure_ascii=False) for key, row in rows.items()}
    widths = max(map(len, rows)), max(map(len, values.values()))
    for key, row in rows.items():
        is_idle = key.startswith("fits.") and not key.startswith(used)
        note = ", which no surface of it uses" if is_idle else ""
        print(printable(f"{key:{widths[0]}}  {values[key]:{widths[1]}}  {row.where}{note}"))
