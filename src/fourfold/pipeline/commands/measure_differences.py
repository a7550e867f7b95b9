"""Hold each surface against its corners: the differences the claims are about, with intervals.

Paired bootstrap over images, from cached logits and examples alone.
"""

import argparse
from pathlib import Path

from fourfold.combination.differences import measure_differences
from fourfold.errors import InputError
from fourfold.evaluation.logits import Examples, SurfaceLogits
from fourfold.pipeline.commands._job import Job, add_job_arguments, surface_seeds
from fourfold.pipeline.commands._settings import add_kept_argument, check_kept


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_job_arguments(parser)
    parser.add_argument("--logits", required=True, nargs="+", type=Path, help="logits of surfaces")
    parser.add_argument("--examples", required=True, nargs="+", type=Path, help="their examples")
    add_kept_argument(parser)
    parser.add_argument("--output", required=True, type=Path, help="difference table to write")


def run(arguments: argparse.Namespace) -> None:
    """Write the difference table."""
    check_kept(arguments.kept)
    job = Job(arguments, "model")
    job.seeds = surface_seeds(arguments.logits)
    rows = []
    for logits_path, examples_path in zip(arguments.logits, arguments.examples, strict=True):
        logits, examples = SurfaceLogits.load(logits_path), Examples.load(examples_path)
        if logits.surface != examples.surface:
            raise InputError(
                f"{logits_path} is of the surface {logits.surface!r}, {examples_path} of "
                f"{examples.surface!r}; give both in the same order."
            )
        rows += measure_differences(logits, examples, arguments.kept)
    job.write("difference", rows, arguments.output, kept=arguments.kept)
    job.write_cost("measure_differences", "differences", job.build_model())
