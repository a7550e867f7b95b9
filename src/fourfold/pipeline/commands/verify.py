"""Compare the files of results/ with the hashes that were recorded when they were finished."""

import argparse
from collections import Counter
from pathlib import Path

from fourfold.errors import InputError
from fourfold.pipeline.hashes import NAME, compare_hashes, unrecorded_files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("results"), help="default: results"
    )


def run(arguments: argparse.Namespace) -> None:
    """Print each file that differs, is missing, or was never recorded; an error if there is one."""
    folder = arguments.folder
    if not folder.is_dir():
        raise InputError(f"no folder at {folder}; name one with results.")
    records = sorted(folder.rglob(NAME))
    if not records:
        raise InputError(
            f"{folder} has no {NAME}, so that nothing can be verified; finish a run with "
            "`snakemake --cores N`, which records the hashes of what it builds."
        )
    found = [finding for record in records for finding in compare_hashes(record)]
    found += [("not recorded", path) for path in unrecorded_files(folder)]
    for state, path in found:
        if state != "equal":
            print(f"{state}: {path}")
    count = Counter(state for state, _ in found)
    if bad := ", ".join(f"{count[state]} {state}" for state in count if state != "equal"):
        raise InputError(
            f"of {len(found)} files below {folder}, {bad}. Remove them, and `snakemake --cores N` "
            "builds those anew that belong to the experiments in params.yaml."
        )
    print(f"{len(found)} files are as they were recorded.")
