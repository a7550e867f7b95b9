"""The networks at the corners of a surface, from the files that a rule names."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fourfold.errors import InputError
from fourfold.files.atomic import atomic_path
from fourfold.files.reading import check_fields, parse_object, require_file
from fourfold.files.tensors import read_header
from fourfold.surfaces.checkpoint import load_checkpoint, load_trajectory
from fourfold.surfaces.layout import StateDict

_KINDS = {"corners": str, "kind": str, "chosen_on": str, "epochs": list[int]}


@dataclass(frozen=True)
class Corners:
    """Networks in corner order, and the seeds of the runs that they are from."""

    states: list[StateDict]
    seeds: list[int | None]


def read_corners(paths: Sequence[Path]) -> Corners:
    """Read the corners of a surface.

    Args:
        paths: checkpoints in corner order; or the list of chosen networks that
            `select-trajectory-corners` wrote, and the networks that the run kept.

    Raises:
        InputError: if a file is missing or damaged, or the list names a network that isn't there.
    """
    if paths[0].suffix != ".json":
        return Corners(
            [load_checkpoint(path) for path in paths],
            [read_header(path).get("seed") for path in paths],
        )
    if len(paths) != 2:
        raise InputError(f"a list of corners, {paths[0]}, needs the file of one run beside it.")
    chosen, run = paths
    require_file(chosen)
    listed = parse_object(chosen.read_text(encoding="utf-8"), str(chosen))
    check_fields(listed, _KINDS, str(chosen))
    kept = load_trajectory(run)
    if absent := sorted(set(listed["epochs"]) - kept.keys()):
        raise InputError(
            f"{chosen} names the epochs {absent}, which {run} doesn't hold; it has {list(kept)}."
        )
    seed = read_header(run).get("seed")
    return Corners([kept[epoch] for epoch in listed["epochs"]], [seed] * len(listed["epochs"]))


def write_choice(path: Path, corners: str, chosen_on: str, epochs: Sequence[int]) -> None:
    """Write which networks of a run are the corners, in corner order."""
    listed = {"corners": corners, "kind": "run", "chosen_on": chosen_on, "epochs": list(epochs)}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(listed, indent=2) + "\n", encoding="utf-8")
