"""What the commands of a replicate have in common: metadata, tables, cost, files of surfaces."""

import argparse
import importlib.metadata
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from fourfold import __version__
from fourfold.errors import InputError
from fourfold.files.reading import check_fields, parse_object, require_file
from fourfold.files.table import GATHERED, make_table, read_metadata, write_csv, write_table
from fourfold.files.tensors import read_header
from fourfold.pipeline.commands._settings import add_paths, add_shape_argument, read_settings
from fourfold.pipeline.cost import CostMeter
from fourfold.pipeline.provenance import git_state, hardware
from fourfold.pipeline.reads import BESIDE, READS
from fourfold.surfaces.checkpoint import load_checkpoint, load_trajectory
from fourfold.surfaces.layout import StateDict

_DESCRIBED = (".parquet", ".safetensors")  # files that say what made them
# What a job that runs no network takes over from what its inputs say of themselves.
_TAKEN_OVER = ("dataset", "data_sha256", "device", "threads")
_PACKAGES = ("torch", "torchvision", "numpy", "pandas")
_CHOICE = {"corners": str, "kind": str, "chosen_on": str, "epochs": list[int | str]}


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every command of a replicate."""
    parser.add_argument("--experiment", required=True, help="name of the experiment")
    parser.add_argument("--replicate", required=True, type=int, help="number of the replicate")
    add_paths(parser, cost="table of the job's cost to write")


class Job:
    """One run of a command that passes no image: what made its files, and its cost.

    Attributes:
        settings: the sections that the command's rule reads.
        seeds: that the results depend on, beside the split's; those of the inputs, until set.
        facts: what the inputs agree in: name of the data set, `data_sha256`, `device` and `threads`
            behind the numbers.
    """

    def __init__(self, arguments: argparse.Namespace, inputs: Sequence[Path] = ()) -> None:
        """Read the settings, if there are any, and what made the inputs."""
        self.arguments = arguments
        self.rule = arguments.command.replace("-", "_")
        parts = [part for part in READS[self.rule] if part not in BESIDE]
        self.settings = read_settings(arguments.settings, *parts) if parts else {}
        torch.set_num_threads(1)  # results don't depend on how many there are
        self.cost = CostMeter(torch.device("cpu"))
        made_by = [_made_by(path) for path in inputs if path.suffix in _DESCRIBED]
        self.seeds = _seeds(made_by)
        self.facts = {
            key: made_by[0][key]
            for key in _TAKEN_OVER
            if made_by and all(key in one and one[key] == made_by[0][key] for one in made_by)
        }

    def metadata(self) -> dict[str, Any]:
        """Return what made a file: settings, seeds, data, versions, device, machine, commit."""
        # A source tree on PYTHONPATH, which nobody has installed, has no metadata.
        versions = {"fourfold": __version__}
        versions |= {name: importlib.metadata.version(name) for name in _PACKAGES}
        return {
            "experiment": self.arguments.experiment,
            "replicate": self.arguments.replicate,
            "settings": self.settings,
            "seeds": self.seeds,
            **self.facts,
            "hardware": hardware(),
            "git": git_state(),
            "versions": {"python": platform.python_version(), **versions},
        }

    def write(self, name: str, rows: Any, path: Path, **made_by: Any) -> None:
        """Write rows as table `name`, with experiment, replicate, metadata and `made_by`.

        A whole table is written as CSV as well, a part of a gathered one is not.
        """
        of = {"experiment": self.arguments.experiment, "replicate": self.arguments.replicate}
        write_table(name, make_table(name, rows, **of), path, self.metadata() | made_by)
        if name not in GATHERED:
            write_csv(name, path)

    def write_cost(self, item: str, flop_per_image: int = 0) -> None:
        """Write the job's row of the cost table; call it last."""
        self.write("cost", [self.cost.row(self.rule, item, flop_per_image)], self.arguments.cost)


# --- surfaces and their files ---------------------------------------------------------------------


def add_surface_arguments(parser: argparse.ArgumentParser) -> Any:
    """Add what every command that makes a surface takes; return where its corners are named."""
    parser.add_argument("--name", required=True, help="what tables call the surface")
    add_shape_argument(parser)
    add_paths(parser, output="surface to write")
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument(
        "--corners",
        nargs="+",
        type=Path,
        help="the networks at its corners, of a square at (u, v) = (0,0), (0,1), (1,0), (1,1); or "
        "a list of chosen ones and the networks of the run that it names; or one file of them all",
    )
    return start


def read_corners(paths: Sequence[Path]) -> tuple[list[StateDict], list[int | None]]:
    """Return the networks at the corners of a surface, and the seeds of their runs.

    Args:
        paths: checkpoints in corner order; or the list of chosen networks that
            `select-trajectory-corners` wrote, and the networks that the run kept; or the one file
            of a set that was made from another.

    Raises:
        InputError: if a file is missing or damaged, or the list names a network that isn't there.
    """
    header = {} if paths[0].suffix == ".json" else read_header(paths[0])
    if len(paths) == 1 and "epochs" in header:
        check_fields(header, {"seed": list[int | None]}, f"{paths[0]}: the header")
        return [*load_trajectory(paths[0]).values()], [*header["seed"]]
    if header:
        seeds = [read_header(path).get("seed") for path in paths]
        return [load_checkpoint(path) for path in paths], seeds
    if len(paths) != 2:
        raise InputError(f"a list of corners, {paths[0]}, needs the file of one run beside it.")
    chosen, run = paths
    require_file(chosen)
    listed = parse_object(chosen.read_text(encoding="utf-8"), str(chosen))
    check_fields(listed, _CHOICE, str(chosen))
    kept, epochs = load_trajectory(run), listed["epochs"]
    if absent := sorted(set(epochs) - kept.keys()):
        raise InputError(
            f"{chosen} names the epochs {absent}, which {run} doesn't hold; it has {list(kept)}."
        )
    return [kept[epoch] for epoch in epochs], [read_header(run).get("seed")] * len(epochs)


def surface_files(**given: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
    """Return name of a surface -> its files, one of each kind, in the order of the first kind.

    Args:
        **given: argument of the command -> files that it names.

    Raises:
        InputError: if a file is of no surface, or two kinds are not of the same surfaces.
    """
    named = [{_surface_of(path): path for path in paths} for paths in given.values()]
    for argument, paths, names in zip(given, given.values(), named, strict=True):
        if names.keys() != named[0].keys() or len(names) < len(paths):
            raise InputError(
                f"--{argument} names {len(paths)} files, of the surfaces {list(names)}; expected "
                f"one file of each of the surfaces {list(named[0])}."
            )
    return {name: tuple(names[name] for names in named) for name in named[0]}


def _surface_of(path: Path) -> str:
    header = read_header(path)
    name = header.get("surface", header.get("name"))
    if not isinstance(name, str):
        raise InputError(f"{path} is no file of a surface: its header names none.")
    return name


def _made_by(path: Path) -> dict[str, Any]:
    return (read_metadata if path.suffix == ".parquet" else read_header)(path)


def _seeds(made_by: Iterable[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in made_by:
        found |= one.get("seeds", {})
    return found
