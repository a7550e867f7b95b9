"""What the commands that run networks have in common."""

import argparse
import hashlib
import importlib.metadata
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

import fourfold
from fourfold.data.augment import RandomShiftFlip
from fourfold.data.dataset import Dataset
from fourfold.errors import InputError
from fourfold.files.table import make_table, read_metadata, write_table
from fourfold.files.tensors import read_header
from fourfold.networks import build_model
from fourfold.pipeline.commands._settings import add_settings_argument, check_keys, read_settings
from fourfold.pipeline.cost import CostMeter, flop_per_image
from fourfold.pipeline.provenance import git_state, hardware
from fourfold.training.snapshots import Snapshots

_MOST_THREADS = 1024  # PyTorch ends the process at a million

# What tells one network of an evaluation from another.
_NETWORK = ("network", "surface", "sample", "u", "v", "statistics")


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every command that runs networks."""
    add_settings_argument(parser)
    parser.add_argument("--experiment", required=True, help="name of the experiment")
    parser.add_argument("--replicate", required=True, type=int, help="number of the replicate")
    parser.add_argument("--data", required=True, type=Path, help="folder of prepare-data")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--cost", required=True, type=Path, help="table of the job's cost to write")


def add_state_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a command that a kill does not set back to its start."""
    parser.add_argument(
        "--state",
        required=True,
        type=Path,
        help="folder for the state of an unfinished run, which a later run continues; removed at "
        "the end",
    )
    parser.add_argument(
        "--state-interval",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="time between two states (default: 60)",
    )


class Job:
    """One run of a command: its settings, data, device and cost."""

    def __init__(self, arguments: argparse.Namespace, *sections: str) -> None:
        """Read settings and data, choose the device, start counting the cost."""
        self.arguments = arguments
        self.settings = read_settings(arguments.settings, *sections)
        if not 1 <= arguments.threads <= _MOST_THREADS:
            raise InputError(
                f"--threads is {arguments.threads}; it must be from 1 to {_MOST_THREADS}."
            )
        torch.set_num_threads(arguments.threads)
        self.device = choose_device(arguments.device)
        self.cost = CostMeter(self.device)
        self.seeds: dict[str, Any] = {}  # that the results depend on, beside the split's
        stored = Dataset.load(arguments.data)
        self.data_sha256 = stored.sha256()
        self.dataset = stored.to(self.device)

    def build_model(self) -> nn.Module:
        """Build the experiment's network on the job's device."""
        channels, height, width = self.dataset.image_shape
        if height != width:
            raise InputError(
                f"the images are {height} x {width} pixels; the networks need squares."
            )
        model = build_model(
            **self.settings["model"],
            channels=channels,
            image_size=height,
            classes=len(self.dataset.classes),
        )
        return model.to(self.device, memory_format=torch.channels_last)

    def augment(self) -> RandomShiftFlip:
        """Build the experiment's augmentation."""
        check_keys("augment", self.settings["augment"], RandomShiftFlip)
        return RandomShiftFlip(**self.settings["augment"])

    def evaluation(self) -> dict[str, Any]:
        """Return how any network of the experiment is evaluated, from the section `grid`."""
        grid = self.settings["grid"]
        return {
            "batchnorm": grid["batchnorm"],
            # The rows of a split are in random order: the first ones are a fixed random subset.
            "batchnorm_images": self.dataset.splits["train"].images[: grid["batchnorm_images"]],
            "augment": self.augment(),
            "seed": grid["seed"],
            "batch_size": grid["batch_size"],
            "precision": grid["precision"],
            "preprocess": self.dataset.normalize,
        }

    def count_evaluated(self, table: pd.DataFrame) -> None:
        """Count the images behind the rows of an evaluation: one row is one network and split."""
        networks = table.drop_duplicates([column for column in _NETWORK if column in table])
        self.cost.evaluated(int(table["n"].sum() + networks["statistics_images"].sum()))

    def snapshots(self, **computation: Any) -> Snapshots:
        """Return the snapshots of a computation: this job's settings, data, code, and the rest."""
        if not (interval := self.arguments.state_interval) >= 0:
            raise InputError(f"--state-interval is {interval}; it must be 0 or more seconds.")
        made_by = {k: v for k, v in self.metadata().items() if k not in ("git", "hardware")}
        key = {**made_by, **computation, "code": _code_sha256()}
        return Snapshots(self.arguments.state, key, interval)

    def metadata(self) -> dict[str, Any]:
        """Return what made a file: settings, seeds, data, versions, device, machine, commit."""
        return {
            "experiment": self.arguments.experiment,
            "replicate": self.arguments.replicate,
            "settings": self.settings,
            "seeds": self.seeds,
            "data_sha256": self.data_sha256,
            "device": self.device.type,
            "threads": self.arguments.threads,
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
        """Write rows as table `name`, with experiment, replicate, metadata and `made_by`."""
        table = make_table(
            name,
            rows,
            experiment=self.arguments.experiment,
            replicate=self.arguments.replicate,
        )
        write_table(name, table, path, self.metadata() | made_by)

    def write_cost(self, stage: str, item: str, model: nn.Module) -> None:
        """Write the job's row of the cost table; call it last."""
        flop = flop_per_image(model, self.dataset.image_shape)
        self.write("cost", [self.cost.row(stage, item, flop)], self.arguments.cost)


def corner_seeds(paths: Iterable[Path]) -> list[int | None]:
    """Return the seeds of training runs from their checkpoints, None where none is recorded."""
    return [read_header(path).get("seed") for path in paths]


def surface_seeds(paths: Iterable[Path]) -> dict[str, Any]:
    """Return surface -> seeds, from what jobs wrote into surfaces, logits or tables."""
    found: dict[str, Any] = {}
    for path in paths:
        read = read_metadata if path.suffix == ".parquet" else read_header
        found |= read(path).get("seeds", {})
    return found


def _code_sha256() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(fourfold.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def choose_device(name: str) -> torch.device:
    """Return the device for `auto` (a GPU if there is one), `cpu` or `cuda`.

    Raises:
        InputError: if the name is unknown, or `cuda` is asked for and there is none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"device is {name!r}; choose auto, cpu or cuda.")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device is 'cuda', but PyTorch sees no GPU here; choose auto or cpu.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
