"""Print every value of an experiment, and which part of params.yaml states it."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from fourfold.errors import printable
from fourfold.pipeline.params import Stated, read_params, stated_values

_WIDEST = 60  # a longer value pushes its origin to the right, not that of all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("experiment", help="its name in params.yaml")
    parser.add_argument(
        "--file", type=Path, default=Path("params.yaml"), help="(default: params.yaml)"
    )
    parser.add_argument(
        "--all", action="store_true", help="also fits and trainings that the experiment doesn't use"
    )


def run(arguments: argparse.Namespace) -> None:
    """Print a line for each value: dotted key, value, origin; further recipes only if used."""
    rows = stated_values(read_params(arguments.file), arguments.experiment)
    shown = {key: json.dumps(row.value, ensure_ascii=False) for key, row in rows.items()}
    if not arguments.all:
        shown = {key: value for key, value in shown.items() if _is_used(key, rows)}
    widths = max(map(len, shown)), min(_WIDEST, max(map(len, shown.values())))
    for key, value in shown.items():
        note = "" if _is_used(key, rows) else ", which it doesn't use"
        where = f"{rows[key].where}{note}"
        print(printable(f"{key:{widths[0]}}  {value:{widths[1]}}  {where}"))
    if len(shown) < len(rows):
        hidden = len(rows) - len(shown)
        print(f"and {hidden} of fits and trainings that {arguments.experiment} doesn't use: --all")


def _is_used(key: str, rows: Mapping[str, Stated]) -> bool:
    """Return whether anything of the experiment uses a value: many recipes have more to offer."""
    group, *rest = key.split(".")
    if group not in ("fits", "trainings") or not rest:  # such a section may be null
        return True
    named = ("surfaces", {"fit"}) if group == "fits" else ("corners", {"training", "then"})
    return any(
        other.startswith(f"{named[0]}.")
        and other.rpartition(".")[2] in named[1]
        and row.value == rest[0]
        for other, row in rows.items()
    )
