"""Draw the linear and the Bezier surface of experiments side by side; no torch is needed."""

import argparse

from fourfold.errors import InputError
from fourfold.files.reading import parse_object, shortened
from fourfold.files.table import read_table
from fourfold.pipeline.commands._settings import (
    add_paths,
    add_surfaces_of_each,
    read_surfaces_of_each,
)
from fourfold.report import figures as plot


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_paths(parser, nargs="+", grid="tables `grid` of the experiments' surfaces")
    add_surfaces_of_each(parser)
    parser.add_argument(
        "--cells",
        required=True,
        metavar="JSON",
        help="rows of the figure: {data set: {network: experiment}}, each with the same networks",
    )
    add_paths(parser, output="figure to write, without .png or .svg")


def run(arguments: argparse.Namespace) -> None:
    """Write the figure as PNG and SVG."""
    surfaces, cells = read_surfaces_of_each(arguments.surfaces), _read_cells(arguments.cells)
    figure = plot.plot_experiments(read_table("grid", *arguments.grid), surfaces, cells)
    plot.save_figure(figure, arguments.output)


def _read_cells(text: str) -> dict[str, dict[str, str]]:
    cells = parse_object(text, "--cells")
    rows = list(cells.values())
    if not rows or not all(isinstance(row, dict) and row and [*row] == [*rows[0]] for row in rows):
        raise InputError(
            f"--cells is {shortened(text)}; it must be {{data set: {{network: experiment}}}}, with "
            "at least one data set, and the same networks for each."
        )
    return cells
