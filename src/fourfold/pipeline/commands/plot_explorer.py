"""Write the explorer, one page that shows all experiments and needs no network to be read."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fourfold.evaluation.logits import SurfaceLogits
from fourfold.files.atomic import write_text
from fourfold.files.reading import check_fields
from fourfold.files.table import read_table
from fourfold.files.tensors import read_header
from fourfold.pipeline.commands._settings import (
    add_paths,
    add_surfaces_of_each,
    read_surfaces_of_each,
    take_arguments_from_files,
)
from fourfold.report.explorer import Cached, render_explorer

_TABLES = ("grid", "barrier", "merge", "ensemble", "rival")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    take_arguments_from_files(parser)
    add_paths(parser, nargs="+", **{name: f"{name} tables to read" for name in _TABLES})
    parser.add_argument(
        "--logits",
        type=Path,
        nargs="+",
        default=[],
        help="logits of the surfaces, for ensembles by click; without them there are none",
    )
    add_surfaces_of_each(parser)
    add_paths(parser, output="page to write")


def run(arguments: argparse.Namespace) -> None:
    """Write the page."""
    surfaces = read_surfaces_of_each(arguments.surfaces)
    tables = {name: read_table(name, *getattr(arguments, name)) for name in _TABLES}
    cached = dict(_of_surface(path) for path in arguments.logits)
    write_text(arguments.output, render_explorer(tables, surfaces, cached))


def _of_surface(path: Path) -> tuple[tuple[str, int, str], Callable[[], Cached]]:
    """Return whose logits a file holds, and what loads those on test."""
    header = read_header(path)
    check_fields(header, {"experiment": str, "replicate": int, "surface": str}, f"{path}")
    return (header["experiment"], header["replicate"], header["surface"]), partial(_load, path)


def _load(path: Path) -> Cached:
    return Cached.of(SurfaceLogits.load(path))
