"""Record size and SHA-256 of finished files, for `fourfold verify`."""

import argparse
from pathlib import Path

from fourfold.pipeline.hashes import NAME, record_hashes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--files", required=True, nargs="+", type=Path, help="to be recorded")
    parser.add_argument(
        "--folder", required=True, type=Path, help=f"that holds them all and gets {NAME}"
    )


def run(arguments: argparse.Namespace) -> None:
    """Write the record."""
    record_hashes(arguments.files, arguments.folder)
