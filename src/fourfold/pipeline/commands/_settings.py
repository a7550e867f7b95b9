"""Arguments that commands share, torch-free: files, sections of params.yaml, surfaces."""

import argparse
import os
from pathlib import Path
from typing import Any, get_type_hints

from fourfold.combination.baselines import Described, Surfaces
from fourfold.errors import InputError
from fourfold.files.reading import (
    check_fields,
    parse_object,
    reading,
    require_file,
    shortened,
)
from fourfold.pipeline.schema import check_sections
from fourfold.surfaces.shapes import Shape, make_shape, shape_of

_OF_SURFACE = get_type_hints(Described)
_REQUIRED = [key for key in _OF_SURFACE if key in Described.__required_keys__]
SURFACES_HELP = (
    '{name: {"corners": name of its corner set, "kind": how that came about, "count": its '
    'networks, "fit": name of its fit or null, "shape": its kind, and degree, bends or added}}'
)


def add_paths(parser: argparse.ArgumentParser, nargs: str | None = None, **paths: str) -> None:
    """Add required arguments that name files or folders: argument -> what they are."""
    for name, what in paths.items():
        parser.add_argument(f"--{name}", required=True, type=Path, nargs=nargs, help=what)


def take_arguments_from_files(parser: argparse.ArgumentParser) -> None:
    """Let `@FILE` stand for arguments: those over all experiments can be too many for a shell."""
    parser.fromfile_prefix_chars = "@"
    parser.epilog = "@FILE stands for the arguments in a file, one a line."


def add_data_folder_argument(parser: argparse.ArgumentParser, what: str) -> None:
    """Add `--folder`, where what params.yaml names with relative paths lies."""
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(os.environ.get("FOURFOLD_DATA") or "downloads"),
        help=f"where {what} (default: the environment variable FOURFOLD_DATA, else downloads/)",
    )


def add_settings_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--settings`, the sections of params.yaml that the command reads."""
    parser.add_argument(
        "--settings",
        required=True,
        metavar="JSON",
        help="sections of an experiment in params.yaml as a JSON object, or @FILE that holds it",
    )


def add_kept_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--kept`, the key `summary.kept` of params.yaml."""
    parser.add_argument(
        "--kept",
        required=True,
        type=_fraction,
        help="share of what the corners have above guessing that a low-loss surface keeps",
    )


def add_surfaces_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--surfaces`, how params.yaml defines the surfaces of an experiment."""
    parser.add_argument(
        "--surfaces",
        required=True,
        metavar="JSON",
        help=f"of each surface, in their order: {SURFACES_HELP}",
    )


def add_surfaces_of_each(parser: argparse.ArgumentParser) -> None:
    """Add `--surfaces`, those of several experiments."""
    parser.add_argument(
        "--surfaces",
        required=True,
        metavar="JSON",
        help=f"of each experiment, in their order: {{experiment: {SURFACES_HELP}}}",
    )


def read_surfaces_of_each(text: str) -> dict[str, Surfaces]:
    """Parse `--surfaces` of several experiments."""
    return {
        experiment: check_described(described, f"--surfaces, {experiment},")
        for experiment, described in parse_object(text, "--surfaces").items()
    }


def read_settings(text: str, *parts: str | dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """Parse `--settings` and check that it has exactly these sections, by the schema.

    Args:
        text: of the argument.
        parts: a section, or section -> the keys that are enough, see `READS`.

    Raises:
        InputError: with a line for each key that is unknown, missing, or of an impossible value.
    """
    where = "--settings"
    if text.startswith("@"):
        path = Path(text[1:])
        require_file(path, f"--settings names the file {path}, which doesn't exist.")
        where = f"--settings ({path})"
        with reading(path, "file of settings"):
            text = path.read_text(encoding="utf-8")
    settings = parse_object(text, where)
    sections: dict[str, tuple[str, ...] | None] = {}
    for part in parts:
        sections |= part if isinstance(part, dict) else {part: None}
    check_sections(settings, sections, where)
    return settings


def add_shape_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--shape`, what params.yaml says of the shape of a surface."""
    parser.add_argument(
        "--shape",
        required=True,
        metavar="JSON",
        help='its kind and settings: {"kind": "square", "degree": [2, 2]}',
    )


def read_shape(text: str, corners: int) -> Shape:
    """Parse `--shape`, of a surface with so many corners."""
    stated = parse_object(text, "--shape")
    kinds = {"kind": str} | {key: _OF_SURFACE[key] for key in ("degree", "bends", "added")}
    if unknown := sorted(stated.keys() - kinds.keys()):
        raise InputError(f"--shape has {unknown}; it may have {', '.join(kinds)}.")
    check_fields(stated, {key: kinds[key] for key in ("kind", *stated)}, "--shape")
    return make_shape(stated.pop("kind"), corners, **stated)


def read_surfaces(text: str) -> Surfaces:
    """Parse `--surfaces`."""
    return check_described(parse_object(text, "--surfaces"), "--surfaces")


def check_described(surfaces: Any, where: str) -> Surfaces:
    """Return the surfaces of one experiment if they are described as they must be.

    Raises:
        InputError: if not; `where` begins the message.
    """
    if not isinstance(surfaces, dict) or not surfaces:
        raise InputError(f"{where} is {shortened(surfaces)}; it must be an object of surfaces.")
    for name, of in surfaces.items():
        described = f"{where}: {shortened(name)}"
        if not isinstance(of, dict) or not of.keys() <= _OF_SURFACE.keys():
            raise InputError(
                f"{described} is {shortened(of)}; it must be an object with the keys "
                f"{', '.join(_REQUIRED)}, and those of its shape."
            )
        check_fields(of, {key: _OF_SURFACE[key] for key in (*_REQUIRED, *of)}, described)
        shape_of(of)
    return surfaces


def _fraction(text: str) -> float:
    if not 0 <= (value := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no fraction, in [0, 1]")
    return value
