"""Draw the loss on the plane through three networks, from its tables; no torch is needed."""

import argparse

from fourfold.files.table import read_table
from fourfold.pipeline.commands._settings import add_paths, add_surfaces_argument, read_surfaces
from fourfold.report import figures as plot


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_paths(parser, plane="its table", path="table of what is projected onto it")
    add_paths(parser, output="folder of the figure")
    add_surfaces_argument(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write the figure as PNG and SVG."""
    tables = read_table("plane", arguments.plane), read_table("plane_path", arguments.path)
    figure = plot.plot_plane(*tables, surfaces=read_surfaces(arguments.surfaces))
    plot.save_figure(figure, arguments.output / "plane")
