"""The command line: one command per rule of the workflow, and tools; each is in `commands`."""

import argparse
import errno
import importlib
import io
import os
import re
import sys
from typing import NoReturn

from fourfold import __version__
from fourfold.errors import FourfoldError

# The module is imported only for the command that runs: importing torch takes seconds.
RULES = {
    "prepare-data": "decode a data set and split it into train, val and test",
    "train-endpoint": "train one network, keeping checkpoints along the way",
    "train-fork": "train a network on from one that another run has kept",
    "import-corners": "take over a network that was trained elsewhere",
    "select-trajectory-corners": "choose some of the networks that one run kept",
    "align-corners": "move networks' hidden units so that they lie close to one another",
    "randomize-corners": "turn the differences between networks into random directions",
    "build-linear-surface": "span a surface by its corners",
    "fit-bezier-surface": "span a surface by its corners and fit its free control points",
    "evaluate-grid": "evaluate a surface on a grid of points",
    "compare-ensembles": "evaluate ensembles, rivals at equal cost, and picks on val",
    "compare-merges": "evaluate merged networks: soups, centers, best points",
    "measure-geometry": "measure distances between control points, barriers and certificates",
    "measure-plane": "evaluate the networks on the plane through three of them",
    "measure-differences": "hold each surface against its corners, with intervals",
    "collect-tables": "gather the tables of single jobs",
    "plot-figures": "draw the figures of one replicate, or over several",
    "plot-plane": "draw the loss on the plane through three networks",
    "plot-experiments": "draw the linear and the Bezier surface of experiments side by side",
    "summarize": "write the headline table and figure of all experiments",
    "plot-explorer": "write the page in which all experiments are explored",
}
TOOLS = {
    "init": "start a project: a folder with params.yaml and the rest, for snakemake and dvc",
    "show": "print what is in a table or a checkpoint, and what made it",
    "params": "print every value of an experiment, and which part of params.yaml states it",
    "export": "write a surface into a folder to share, with a card, in the layout of model hubs",
}
COMMANDS = RULES | TOOLS


# RuntimeErrors of torch when an allocation fails: on a CPU, on a GPU, in one of its libraries.
_ALLOCATION = re.compile(
    r"out of memory|(can't|cannot) allocate memory|not enough memory|ALLOC_FAILED|"
    r"Storage size calculation overflowed",
    re.IGNORECASE,
)


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
            chosen = importlib.import_module(f"fourfold.pipeline.commands.{name.replace('-', '_')}")
            command.description = chosen.__doc__
            chosen.add_arguments(command)
    parsed = parser.parse_args(arguments)
    if chosen is None:
        parser.error("give a command first, then its arguments")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may lack letters of names
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        chosen.run(parsed)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has read what it wanted; at its end, Python would write on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if _is_out_of_memory(error):
            print(f"error: {_out_of_memory(error)}", file=sys.stderr)
        elif isinstance(error, (FourfoldError, OSError)):
            print(f"error: {error}", file=sys.stderr)
        else:
            raise
        return 1
    return 0


def _is_out_of_memory(error: Exception) -> bool:
    """Tell without torch, which not every command imports."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and bool(_ALLOCATION.search(str(error)))


def _out_of_memory(error: Exception) -> str:
    """Say what to lower; the error's first line says how much was wanted, and where."""
    said = str(error).partition("\n")[0].strip(" .") or type(error).__name__
    return (
        f"out of memory ({said}). Lower batch_size (of training or a fit), grid.batch_size or a "
        "fit's points_per_step, take precision: bfloat16 or a smaller model, or run fewer jobs at "
        "a time (--cores 1, --resources gpu=1); docs/scaling.md says what a job needs."
    )
