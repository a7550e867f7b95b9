"""What the commands of a replicate have in common: metadata, tables and cost."""

import argparse
import importlib.metadata
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from fourfold.errors import InputError
from fourfold.files.table import GATHERED, make_table, read_metadata, write_csv, write_table
from fourfold.files.tensors import read_header
from fourfold.pipeline.commands._settings import read_settings
from fourfold.pipeline.cost import CostMeter
from fourfold.pipeline.provenance import git_state, hardware

_DESCRIBED = (".parquet", ".safetensors")  # files that say what made them
# What a job that runs no network takes over from what its inputs say of themselves.
_TAKEN_OVER = ("data_sha256", "device", "threads")


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every command of a replicate."""
    parser.add_argument("--experiment", required=True, help="name of the experiment")
    parser.add_argument("--replicate", required=True, type=int, help="number of the replicate")
    parser.add_argument("--cost", required=True, type=Path, help="table of the job's cost to write")


class Job:
    """One run of a command that passes no image: what made its files, and its cost.

    Attributes:
        settings: the sections that were asked for.
        seeds: that the results depend on, beside the split's; those of the inputs, until set.
        facts: what the inputs agree in: `data_sha256`, `device` and `threads` behind the numbers.
    """

    def __init__(
        self, arguments: argparse.Namespace, *sections: str, inputs: Sequence[Path] = ()
    ) -> None:
        """Read the settings, if there are sections of them, and what made the inputs."""
        self.arguments = arguments
        self.settings = read_settings(arguments.settings, *sections) if sections else {}
        torch.set_num_threads(1)  # results don't depend on how many there are
        self.cost = CostMeter(torch.device("cpu"))
        made_by = [_made_by(path) for path in inputs if path.suffix in _DESCRIBED]
        self.seeds: dict[str, Any] = _seeds(made_by)
        self.facts = {key: made_by[0][key] for key in _TAKEN_OVER if _agree(made_by, key)}

    def metadata(self) -> dict[str, Any]:
        """Return what made a file: settings, seeds, data, versions, device, machine, commit."""
        return {
            "experiment": self.arguments.experiment,
            "replicate": self.arguments.replicate,
            "settings": self.settings,
            "seeds": self.seeds,
            **self.facts,
            "hardware": hardware(),
            "git": git_state(),
            "versions": {
                "python": platform.python_version(),
                **{
                    name: importlib.metadata.version(name)
                    for name in ("fourfold", "torch", "torchvision", "numpy", "pandas")
                },
            },
        }

    def write(self, name: str, rows: Any, path: Path, **made_by: Any) -> None:
        """Write rows as table `name`, with experiment, replicate, metadata and `made_by`.

        A whole table is written as CSV as well, a part of a gathered one is not.
        """
        table = make_table(
            name,
            rows,
            experiment=self.arguments.experiment,
            replicate=self.arguments.replicate,
        )
        write_table(name, table, path, self.metadata() | made_by)
        if name not in GATHERED:
            write_csv(name, path)

    def write_cost(self, stage: str, item: str, flop_per_image: int = 0) -> None:
        """Write the job's row of the cost table; call it last."""
        self.write("cost", [self.cost.row(stage, item, flop_per_image)], self.arguments.cost)


def surface_seeds(paths: Iterable[Path]) -> dict[str, Any]:
    """Return surface -> seeds, from what jobs wrote into surfaces, logits or tables."""
    return _seeds(_made_by(path) for path in paths)


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


def _agree(made_by: Sequence[dict[str, Any]], key: str) -> bool:
    return bool(made_by) and all(key in one and one[key] == made_by[0][key] for one in made_by)


def _made_by(path: Path) -> dict[str, Any]:
    return (read_metadata if path.suffix == ".parquet" else read_header)(path)


def _seeds(made_by: Iterable[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in made_by:
        found |= one.get("seeds", {})
    return found
