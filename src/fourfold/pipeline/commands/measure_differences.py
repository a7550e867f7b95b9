"""Hold each surface against its corners: the differences the claims are about, with intervals.

Paired bootstrap over images, from cached logits and examples alone.
"""

import argparse
from pathlib import Path

from fourfold.combination.differences import measure_differences
from fourfold.evaluation.logits import Examples, SurfaceLogits
from fourfold.pipeline.commands._job import Job, add_job_arguments, surface_files
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
    job = Job(arguments, inputs=arguments.logits)
    rows = []
    for logits, examples in surface_files(
        logits=arguments.logits, examples=arguments.examples
    ).values():
        rows += measure_differences(
            SurfaceLogits.load(logits), Examples.load(examples), arguments.kept
        )
    job.write("difference", rows, arguments.output, kept=arguments.kept)
    job.write_cost("measure_differences", "differences")
