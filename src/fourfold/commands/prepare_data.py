"""Decode a data set once, split it, and store the splits as uint8 tensors."""

import argparse
from pathlib import Path

from fourfold.commands._settings import add_settings_argument, check_keys, read_settings
from fourfold.data.sources import load_source, split_source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_settings_argument(parser)
    parser.add_argument("--name", required=True, help="name of the data set in params.yaml")
    parser.add_argument("--output", required=True, type=Path, help="folder for the three splits")


def run(arguments: argparse.Namespace) -> None:
    """Write train, val and test."""
    settings = read_settings(arguments.settings, "source", "split")
    check_keys("split", settings["split"], split_source, supplied=("source", "name"))
    source = load_source(settings["source"])
    dataset = split_source(source, arguments.name, **settings["split"])
    dataset.save(arguments.output)
    for name, split in dataset.splits.items():
        print(f"{name}: {len(split)} images of shape {dataset.image_shape}, {split.sha256()[:12]}")
