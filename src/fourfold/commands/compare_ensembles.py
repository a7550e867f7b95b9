"""Evaluate ensembles of corners and of points of the surfaces, from their cached logits alone.

Members are fixed in advance, chosen greedily on val, or (marked `oracle`) chosen on test.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fourfold.commands._job import Job, add_job_arguments, surface_seeds
from fourfold.commands._settings import check_keys
from fourfold.ensemble import evaluate_ensemble, greedy_ensemble
from fourfold.logits import SurfaceLogits
from fourfold.metrics import best_network

# Five networks that no corner is: chosen before anything was measured.
_FIXED_POINTS = ((0.5, 0.5), (0.0, 0.5), (0.5, 0.0), (0.5, 1.0), (1.0, 0.5))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_job_arguments(parser)
    parser.add_argument(
        "--logits", required=True, nargs="+", type=Path, help="logits of the surfaces"
    )
    parser.add_argument("--output", required=True, type=Path, help="ensemble table to write")


def run(arguments: argparse.Namespace) -> None:
    """Write the ensemble table."""
    job = Job(arguments, "model", "ensemble")
    job.seeds = surface_seeds(arguments.logits)
    check_keys("ensemble", job.settings["ensemble"], greedy_ensemble, ("logits", "labels"))
    surfaces = [SurfaceLogits.load(path) for path in arguments.logits]
    rows = [row for surface in surfaces for row in _rows(surface, **job.settings["ensemble"])]
    job.write("ensemble", rows, arguments.output)
    job.write_cost("compare_ensembles", "ensemble", job.build_model())


def _rows(surface: SurfaceLogits, max_members: int) -> Iterator[dict[str, Any]]:
    for ensemble, selection, members in _ensembles(surface, max_members):
        points = ";".join("{:.6g},{:.6g}".format(*surface.points[member]) for member in members)
        for split, labels in surface.labels.items():
            yield {
                "ensemble": ensemble,
                "selection": selection,
                "members": points,
                "split": split,
                **evaluate_ensemble(surface.logits[split], members, labels),
            }


def _ensembles(surface: SurfaceLogits, max_members: int) -> Iterator[tuple[str, str, list[int]]]:
    """Yield name, selection and members of each ensemble of one surface's networks."""
    val, test = surface.logits["val"], surface.logits["test"]
    corners = surface.corners
    if surface.surface == "linear":  # its corners are the four independently trained networks
        best = best_network(val[corners], surface.labels["val"])
        yield "best-corner", "validation", [corners[best]]
        yield "corners", "fixed", corners
    elif surface.surface == "trajectory":
        yield "trajectory-corners", "fixed", corners
    name = surface.surface
    yield name, "fixed", [surface.position(*point) for point in _FIXED_POINTS]
    yield name, "all", list(range(len(surface.points)))
    yield name, "validation", greedy_ensemble(val, surface.labels["val"], max_members)
    yield name, "oracle", greedy_ensemble(test, surface.labels["test"], max_members)
