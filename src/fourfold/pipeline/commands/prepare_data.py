"""Decode a data set once, split it, and store the splits as uint8 tensors."""

import argparse
import sys

from fourfold.data.sources import load_source
from fourfold.data.splitting import shared_images, split_source
from fourfold.pipeline.commands._settings import (
    add_data_folder_argument,
    add_paths,
    add_settings_argument,
    read_settings,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_settings_argument(parser)
    parser.add_argument("--name", required=True, help="name of the data set in params.yaml")
    add_paths(parser, output="folder for the three splits")
    add_data_folder_argument(parser, "the source's files are looked up and downloaded to")
    parser.add_argument("--threads", type=int, default=1, help="decode images (default: 1)")


def run(arguments: argparse.Namespace) -> None:
    """Write train, val and test."""
    settings = read_settings(arguments.settings, "source", "split")
    source = load_source(settings["source"], arguments.folder.expanduser(), arguments.threads)
    for remark in source.remarks:
        print(f"note: {remark}", file=sys.stderr)
    dataset = split_source(source, arguments.name, **settings["split"])
    for remark in shared_images(dataset.splits):
        print(f"note: {remark}", file=sys.stderr)
    dataset.save(arguments.output, settings)
    names = ", ".join(source.classes[:10]) + ", ..." * (len(source.classes) > 10)
    print(f"{len(source.classes)} classes: {names}")
    for name, split in dataset.splits.items():
        print(f"{name}: {len(split)} images of shape {dataset.image_shape}, {split.sha256[:12]}")
