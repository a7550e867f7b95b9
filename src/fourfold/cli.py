"""The command line: one command per rule of the workflow, and tools; each is in `commands`."""

import argparse
import importlib
import sys
from typing import NoReturn

from fourfold import __version__
from fourfold.errors import FourfoldError

# The module is imported only for the command that runs: importing torch takes seconds.
RULES = {
    "prepare-data": "decode a data set and split it into train, val and test",
    "train-endpoint": "train one network, keeping checkpoints along the way",
    "build-linear-surface": "span the bilinear surface by four networks",
    "fit-bezier-surface": "span a Bezier surface by four networks and fit its free control points",
    "select-trajectory-surface": "span the bilinear surface by four checkpoints of one run",
    "evaluate-grid": "evaluate a surface on a grid of points",
    "compare-ensembles": "evaluate ensembles of corners and of points of the surfaces",
    "compare-merges": "evaluate merged networks: soups, centers, best points",
    "measure-geometry": "measure distances between control points, and barriers",
    "measure-differences": "hold each surface against its corners, with intervals",
    "collect-tables": "gather the tables of single jobs, and write every table as CSV",
    "plot-figures": "draw the figures of one replicate",
    "summarize": "write the headline table and figure of all experiments",
    "record-hashes": "record the hashes of finished files",
}
TOOLS = {
    "show": "print what is in a table or a checkpoint, and what made it",
    "verify": "compare the files of results/ with their recorded hashes",
}
COMMANDS = RULES | TOOLS


class _Parser(argparse.ArgumentParser):
    """A parser whose errors look like, and exit like, every other error of the program."""

    def error(self, message: str) -> NoReturn:
        self.exit(1, f"error: {message}\n\n{self.format_usage()}")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status: 0, or 1 after an error with its message printed."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = _Parser(
        prog="fourfold",
        description="Find, measure and use low-loss surfaces between trained neural networks.",
        epilog="`fourfold <command> --help` lists a command's arguments.",
    )
    parser.add_argument("--version", action="version", version=f"fourfold {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    chosen = None
    for name, purpose in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=purpose)
        if arguments[:1] == [name]:
            chosen = importlib.import_module(f"fourfold.commands.{name.replace('-', '_')}")
            command.description = chosen.__doc__
            chosen.add_arguments(command)
    parsed = parser.parse_args(arguments)
    if chosen is None:
        parser.error("give a command first, then its arguments")
    try:
        chosen.run(parsed)
    except (FourfoldError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
