"""Print every value of an experiment, and which part of params.yaml states it."""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fourfold.errors import printable
from fourfold.pipeline.params import origins, read_params, resolve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("experiment", help="its name in params.yaml")
    parser.add_argument(
        "--file", type=Path, default=Path("params.yaml"), help="(default: params.yaml)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Print a line for each value: dotted key, value, origin; fits that nothing uses are marked."""
    params = read_params(arguments.file)
    stated = origins(params, arguments.experiment)
    experiment = resolve(params)[arguments.experiment]
    used = {f"fits.{surface.get('fit')}." for surface in experiment["surfaces"].values()}
    rows = []
    for key, value in _values(experiment):
        is_idle = key.startswith("fits.") and not key.startswith(tuple(used))
        note = ", which no surface of it uses" if is_idle else ""
        rows.append(
            (key, json.dumps(value, ensure_ascii=False), stated.get(key, "not stated") + note)
        )
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    for key, value, origin in rows:
        print(printable(f"{key:{widths[0]}}  {value:{widths[1]}}  {origin}".rstrip()))


def _values(section: Mapping[str, Any], start: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted key and value, in order."""
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _values(value, f"{start}{key}.")
        else:
            yield f"{start}{key}", value
