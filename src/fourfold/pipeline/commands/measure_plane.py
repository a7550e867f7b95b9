"""Evaluate the networks on the plane through three of them, and project others onto it.

These are the edges of fitted surfaces that join two of the three, and what training runs kept.
"""

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fourfold.errors import InputError
from fourfold.evaluation.grid import Images
from fourfold.evaluation.plane import CORNERS, Plane, evaluate_plane, plane
from fourfold.pipeline.commands._job import surface_files
from fourfold.pipeline.commands._network_job import NetworkJob, add_network_job_arguments
from fourfold.pipeline.commands._settings import add_paths
from fourfold.pipeline.progress import Progress
from fourfold.surfaces.checkpoint import load_trajectory
from fourfold.surfaces.layout import StateDict
from fourfold.surfaces.shapes import along
from fourfold.surfaces.surface import Surface

_SHARES = [k / 20 for k in range(21)]  # of an edge, its points that are projected


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_network_job_arguments(parser)
    parser.add_argument(
        "--through", required=True, help="surface whose first three corners span the plane"
    )
    add_paths(parser, nargs="+", surfaces="surfaces, that one among them")
    add_paths(parser, nargs="*", runs="networks that training runs kept")
    add_paths(parser, output="plane table to write", path="plane_path table to write")


def run(arguments: argparse.Namespace) -> None:
    """Write the plane and plane_path tables."""
    files = surface_files(surfaces=arguments.surfaces)
    if arguments.through not in files:
        raise InputError(
            f"--through is {arguments.through!r}; choose one of the surfaces {', '.join(files)}."
        )
    surfaces = (Surface.load(path) for (path,) in files.values())
    job = NetworkJob(arguments, inputs=files[arguments.through])
    through = Surface.load(*files[arguments.through])
    if (count := len(through.corner_hashes)) < CORNERS:
        raise InputError(
            f"--through is {arguments.through!r}, which has {count} corners; a plane needs three."
        )
    spanned = plane(*(through.corner(k) for k in range(CORNERS)))
    grid, splits = job.settings["grid"], job.dataset.splits
    shown = {"train": splits["train"].first(grid["train_images"]), "test": splits["test"]}
    n = grid["search_images"]
    images: dict[str, Images] = {name: (of.images[:n], of.labels[:n]) for name, of in shown.items()}
    model = job.build_model()
    table = evaluate_plane(
        spanned,
        model,
        images,
        grid["plane_points"],
        on_point=Progress(f"{arguments.experiment} plane", unit="point").on_item,
        **job.evaluation(),
    )
    job.count_evaluated(table)
    job.write("plane", table.assign(surface=through.name), arguments.output)
    rows = _path(spanned, through, surfaces, arguments.runs)
    job.write("plane_path", rows, arguments.path)
    job.write_network_cost("plane", model)


def _path(
    spanned: Plane, through: Surface, surfaces: Iterable[Surface], runs: Iterable[Path]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of the plane_path table."""
    for name, (x, y) in zip(through.shape.corner_names, spanned.corners, strict=False):
        row = {"kind": "network", "surface": through.name, "name": name, "order": 0}
        yield row | {"x": x, "y": y, "distance": 0.0}
    networks = through.corner_hashes[:CORNERS]
    for surface in surfaces:
        corners = dict(zip(surface.shape.corner_coordinates, surface.corner_hashes, strict=True))
        for k, edge in enumerate(surface.shape.edges):
            ends = [corners[end] for end in edge if end in corners]
            if not surface.free_rows or not ends or not set(ends) <= set(networks):
                continue
            for order, point in enumerate(along(edge, _SHARES)):
                row = {"kind": "edge", "surface": surface.name, "name": f"edge_{k}"}
                yield row | _at(spanned, order, surface.state_dict(*point))
    for path in runs:
        for epoch, network in load_trajectory(path).items():
            if isinstance(epoch, str):
                continue  # the run's average, which is no station of it
            row = {"kind": "run", "surface": None, "name": path.stem}
            yield row | _at(spanned, epoch, network)


def _at(spanned: Plane, order: int, network: StateDict) -> dict[str, Any]:
    return {"order": order, **spanned.project(network)._asdict()}
