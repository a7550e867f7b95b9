"""Evaluate ensembles of corners and of points of the surfaces, from their cached logits alone.

Members are fixed in advance, chosen greedily on val, or (marked `oracle`) chosen on test. Corners
are the networks as trained; they are no candidates for an ensemble of points, which is compared
with the ensemble of as many corners.
"""

import argparse
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from torch import Tensor

from fourfold.combination.ensemble import evaluate_ensemble, greedy_ensemble
from fourfold.evaluation.logits import CORNERS, SurfaceLogits
from fourfold.pipeline.commands._job import Job, add_job_arguments, surface_seeds
from fourfold.pipeline.commands._settings import check_keys
from fourfold.surfaces.points import CORNER_COORDINATES, Point

# As many as there are corners, and no corner among them: chosen before anything was measured.
_FIXED_POINTS = ((0.0, 0.5), (0.5, 0.0), (0.5, 1.0), (1.0, 0.5))


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
    check_keys(
        "ensemble", job.settings["ensemble"], greedy_ensemble, ("logits", "labels", "stop_early")
    )
    surfaces = [SurfaceLogits.load(path) for path in arguments.logits]
    rows: list[dict[str, Any]] = []
    for surface in surfaces:
        rows += _corner_rows(surface)
        rows += _point_rows(surface, **job.settings["ensemble"])
    job.write("ensemble", rows, arguments.output)
    job.write_cost("compare_ensembles", "ensemble", job.build_model())


def _corner_rows(surface: SurfaceLogits) -> Iterator[dict[str, Any]]:
    """Yield the ensembles of corners: all four, and every choice of fewer."""
    if surface.surface == "bezier":  # its corners are those of the linear surface
        return
    name = "corners" if surface.surface == "linear" else f"{surface.surface}-corners"
    for size in range(1, CORNERS + 1):
        selection = "fixed" if size == CORNERS else "subset"
        for members in combinations(range(CORNERS), size):
            yield from _rows(surface, surface.own, CORNER_COORDINATES, members, name, selection)


def _point_rows(surface: SurfaceLogits, max_members: int) -> Iterator[dict[str, Any]]:
    """Yield the ensembles of a surface's points."""
    candidates = surface.candidates

    def greedy(split: str, members: int) -> list[int]:
        logits, labels = surface.logits[split][candidates], surface.labels[split]
        chosen = greedy_ensemble(logits, labels, members, stop_early=False)
        return [candidates[i] for i in chosen]

    on_val = greedy("val", max_members)
    ensembles = [
        ("fixed", [surface.position(*point) for point in _FIXED_POINTS]),
        ("all", candidates),
        *(("validation", on_val[:size]) for size in range(1, len(on_val) + 1)),
        ("oracle", greedy("test", CORNERS)),
    ]
    for selection, members in ensembles:
        yield from _rows(
            surface, surface.logits, surface.points, members, surface.surface, selection
        )


def _rows(
    surface: SurfaceLogits,
    logits: dict[str, Tensor],
    points: tuple[Point, ...] | list[Point],
    members: tuple[int, ...] | list[int],
    ensemble: str,
    selection: str,
) -> Iterator[dict[str, Any]]:
    is_own = logits is surface.own and surface.statistics != "none"
    for split, labels in surface.labels.items():
        yield {
            "ensemble": ensemble,
            "selection": selection,
            "members": ";".join("{:.6g},{:.6g}".format(*points[member]) for member in members),
            "statistics": "own" if is_own else surface.statistics,
            "split": split,
            **evaluate_ensemble(logits[split], members, labels),
        }
