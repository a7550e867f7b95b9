"""What the commands that run networks have in common, beside what all commands have."""

import argparse
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from fourfold.data.augment import RandomShiftFlip
from fourfold.data.batches import Normalize
from fourfold.data.dataset import Dataset
from fourfold.errors import InputError
from fourfold.evaluation.grid import predict
from fourfold.evaluation.logits import to_half
from fourfold.evaluation.metrics import classification_metrics
from fourfold.files.tensors import state_hash
from fourfold.networks import build_model, place
from fourfold.pipeline.code import code_hash
from fourfold.pipeline.commands._job import Job, add_job_arguments
from fourfold.pipeline.commands._settings import add_paths, add_settings_argument
from fourfold.pipeline.cost import flop_per_image
from fourfold.pipeline.devices import choose_device
from fourfold.seeds import derive_seed
from fourfold.surfaces.shapes import AXES
from fourfold.training.snapshots import Snapshots

_MOST_THREADS = 1024  # PyTorch ends the process at a million

# What tells one network of an evaluation from another.
_NETWORK = ("network", "surface", "sample", *AXES, "x", "y", "statistics")


def add_network_job_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every command that runs networks."""
    add_job_arguments(parser)
    add_settings_argument(parser)
    add_paths(parser, data="folder of prepare-data")
    parser.add_argument(
        "--device",
        default=os.environ.get("FOURFOLD_DEVICE", "auto"),
        help="auto, cpu, cuda (of several GPUs the one that fewest jobs use) or one such as cuda:1 "
        "(default: the environment variable FOURFOLD_DEVICE, else auto)",
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")


def add_state_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a command that a kill does not set back to its start."""
    add_paths(
        parser,
        state="folder for the state of an unfinished run, which a later run continues; removed at "
        "the end",
    )
    parser.add_argument(
        "--state-interval",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="time between two states (default: 60)",
    )


class NetworkJob(Job):
    """One run of a command that runs networks: its data and device as well."""

    def __init__(self, arguments: argparse.Namespace, inputs: Sequence[Path] = ()) -> None:
        """Read settings and data, choose the device, start counting the cost."""
        super().__init__(arguments, inputs)
        if not 1 <= arguments.threads <= _MOST_THREADS:
            raise InputError(
                f"--threads is {arguments.threads}; it must be from 1 to {_MOST_THREADS}."
            )
        torch.set_num_threads(arguments.threads)
        self.device = self.cost.device = choose_device(arguments.device)
        stored = Dataset.load(arguments.data)
        self.dataset = stored.to(self.device)
        self.facts = {
            "dataset": stored.name,
            "data_sha256": stored.sha256(),
            "device": self.device.type,  # which of several equal GPUs says nothing
            "threads": arguments.threads,
        }

    def build_model(self) -> nn.Module:
        """Build the experiment's network on the job's device."""
        channels, height, width = self.dataset.image_shape
        if height != width:
            raise InputError(
                f"the images are {height} x {width} pixels; the networks need squares."
            )
        settings = {k: v for k, v in self.settings["network"].items() if k != "normalize"}
        model = build_model(
            **settings,
            channels=channels,
            image_size=height,
            classes=len(self.dataset.classes),
        )
        return place(model, self.device)

    @cached_property
    def normalize(self) -> Normalize:
        """The map from uint8 images to the input of the networks."""
        stated, channels = self.settings["network"].get("normalize"), self.dataset.image_shape[0]
        if stated is None:
            return self.dataset.normalize
        if any(len(values) != channels for values in stated.values()):
            raise InputError(
                f"network.normalize is {stated}, but the images have {channels} channels; give a "
                "mean and a std for each."
            )
        return Normalize(**stated)

    def initial_model(self, seed: int) -> nn.Module:
        """Build it with the initialization of a seed."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(derive_seed(seed, "initialization"))
            return self.build_model()

    def measure(
        self, model: nn.Module, split: str, *, precision: str, batch_size: int
    ) -> dict[str, float]:
        """Return a network's metrics on a split, with its own BatchNorm statistics."""
        of = self.dataset.splits[split]
        outputs = predict(
            model,
            of.images,
            batch_size=batch_size,
            precision=precision,
            preprocess=self.normalize,
        )
        return classification_metrics(to_half(outputs).float().log_softmax(dim=1), of.labels)

    def endpoint_rows(
        self, model: nn.Module, splits: Iterable[str], passes: Mapping[str, Any], **of: Any
    ) -> list[dict[str, Any]]:
        """Return a network's rows of the `endpoints` table.

        Args:
            model: as it is saved.
            splits: names.
            passes: see `measure`.
            **of: seed, epoch and checkpoint.
        """
        of |= {"sha256": state_hash(model.state_dict())}
        return [
            of
            | {"split": name, "n": len(self.dataset.splits[name])}
            | self.measure(model, name, **passes)
            for name in splits
        ]

    def augment(self) -> RandomShiftFlip:
        """Build the experiment's augmentation."""
        return RandomShiftFlip(**self.settings["augment"])

    def evaluation(self) -> dict[str, Any]:
        """Return how any network of the experiment is evaluated, from the section `grid`."""
        grid = self.settings["grid"]
        return {
            **{key: grid[key] for key in ("batchnorm", "seed", "batch_size", "precision")},
            # The rows of a split are in random order: the first ones are a fixed random subset.
            "batchnorm_images": self.dataset.splits["train"].images[: grid["batchnorm_images"]],
            "augment": self.augment(),
            "preprocess": self.normalize,
        }

    def count_evaluated(self, table: pd.DataFrame) -> None:
        """Count the images behind the rows of an evaluation: one row is one network and split."""
        networks = table.drop_duplicates([column for column in _NETWORK if column in table])
        self.cost.images_forward += int(table["n"].sum() + networks["statistics_images"].sum())

    def snapshots(self, **computation: Any) -> Snapshots:
        """Return the snapshots of a computation: this job's settings, data, code, and the rest."""
        if not (interval := self.arguments.state_interval) >= 0:
            raise InputError(f"--state-interval is {interval}; it must be 0 or more seconds.")
        made_by = {k: v for k, v in self.metadata().items() if k not in ("git", "hardware")}
        code = code_hash(self.rule, self.settings["network"])
        return Snapshots(self.arguments.state, {**made_by, **computation, "code": code}, interval)

    def write_network_cost(self, item: str, model: nn.Module) -> None:
        """Write the job's row of the cost table, with the work of its network; call it last."""
        self.write_cost(item, flop_per_image(model, self.dataset.image_shape))


def training_arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `train` or `fit`: the optimizer's settings join the others."""
    optimizer = dict(settings["optimizer"])
    return {**settings, "optimizer": optimizer.pop("name"), **optimizer}
