"""Span the bilinear surface by four checkpoints of one training run: nothing is trained."""

import argparse
from pathlib import Path

from fourfold.combination.selection import select_corners
from fourfold.errors import InputError
from fourfold.evaluation.grid import batchnorm_mode
from fourfold.files.tensors import read_header
from fourfold.pipeline.commands._job import Job, add_job_arguments, corner_seeds
from fourfold.pipeline.commands._settings import check_keys
from fourfold.pipeline.progress import Progress
from fourfold.surfaces.checkpoint import load_checkpoint
from fourfold.surfaces.surface import CORNERS, BezierSurface


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_job_arguments(parser)
    parser.add_argument(
        "--checkpoints", required=True, nargs="+", type=Path, help="checkpoints along one run"
    )
    parser.add_argument("--output", required=True, type=Path, help="surface to write")
    parser.add_argument(
        "--selection", required=True, type=Path, help="table of candidates to write"
    )


def run(arguments: argparse.Namespace) -> None:
    """Write the surface and the table of candidates."""
    job = Job(arguments, "model", "augment", "trajectory", "grid")
    settings = dict(job.settings["trajectory"])
    check_keys("trajectory", settings, _choose_candidates)
    candidates = _choose_candidates(**settings)
    paths = {read_header(path).get("epoch"): path for path in arguments.checkpoints}
    if None in paths:
        raise InputError(f"{paths[None]} states no epoch; give checkpoints of train-endpoint.")
    checkpoints = {epoch: load_checkpoint(paths[epoch]) for epoch in sorted(paths)}
    model, val, evaluation = job.build_model(), job.dataset.splits["val"], job.evaluation()
    evaluated = 0

    def on_network(done: int, networks: int) -> None:
        nonlocal evaluated
        evaluated = done
        progress.on_item(done, networks)

    progress = Progress(f"{arguments.experiment} trajectory", unit="network")
    table = select_corners(
        checkpoints,
        model,
        val.images,
        val.labels,
        candidates=candidates,
        **evaluation,
        on_network=on_network,
    )
    is_reestimated = batchnorm_mode(model, evaluation["batchnorm"]) == "reestimated"
    images = len(val) + is_reestimated * len(evaluation["batchnorm_images"])
    job.cost.evaluated(evaluated * images)
    epochs = [int(table.iloc[0][corner]) for corner in CORNERS]
    corners = [checkpoints[epoch] for epoch in epochs]
    job.seeds = {"trajectory": {"corners": corner_seeds(paths[epoch] for epoch in epochs)}}
    surface = BezierSurface.from_corners(corners, degree=(1, 1), name="trajectory")
    surface.save(arguments.output, job.metadata() | {"epochs": epochs})
    job.write("selection", table, arguments.selection)
    job.write_cost("select_trajectory_surface", "trajectory", model)


def _choose_candidates(*, selection: str, epochs: list[int]) -> list[list[int]] | None:
    """Return the one fixed candidate, or None for all."""
    if selection == "epochs":
        return [epochs]
    if selection == "validation":
        return None
    raise InputError(f"trajectory.selection is {selection!r}; choose epochs or validation.")
