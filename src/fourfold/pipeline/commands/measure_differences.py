"""Hold each surface against its corners: the differences the claims are about, with intervals.

Paired bootstrap over images, from cached logits and examples alone.
"""

import argparse

from fourfold.combination.differences import measure_differences
from fourfold.evaluation.logits import Examples, SurfaceLogits
from fourfold.pipeline.commands._job import Job, add_job_arguments, surface_files
from fourfold.pipeline.commands._settings import add_kept_argument, add_paths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_job_arguments(parser)
    add_paths(parser, nargs="+", logits="logits of surfaces", examples="their examples")
    add_kept_argument(parser)
    add_paths(parser, output="difference table to write")


def run(arguments: argparse.Namespace) -> None:
    """Write the difference table."""
    job, kept = Job(arguments, inputs=arguments.logits), arguments.kept
    files = surface_files(logits=arguments.logits, examples=arguments.examples)
    rows = [
        row
        for logits, examples in files.values()
        for row in measure_differences(SurfaceLogits.load(logits), Examples.load(examples), kept)
    ]
    job.write("difference", rows, arguments.output, kept=kept)
    job.write_cost("differences")
