"""Arguments that commands share, torch-free: files, sections of params.yaml, surfaces."""

import argparse
from pathlib import Path
from typing import Any

from fourfold.combination.baselines import Surfaces
from fourfold.errors import InputError
from fourfold.files.reading import (
    parse_object,
    reading,
    require_file,
    shortened,
)
from fourfold.pipeline.schema import check_sections

_OF_SURFACE = {"corners", "kind", "fit"}


def add_paths(parser: argparse.ArgumentParser, nargs: str | None = None, **paths: str) -> None:
    """Add required arguments that name files or folders: argument -> what they are."""
    for name, what in paths.items():
        parser.add_argument(f"--{name}", required=True, type=Path, nargs=nargs, help=what)


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
        help='of each surface, in their order: {name: {"corners": name of its corner set, "kind": '
        'seeds or run, "fit": name of its fit or null}}',
    )


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
        if (
            not isinstance(of, dict)
            or of.keys() != _OF_SURFACE
            or not all(isinstance(v, str) or (k == "fit" and v is None) for k, v in of.items())
        ):
            raise InputError(
                f"{where}: {shortened(name)} is {shortened(of)}; it must be an object with the "
                "keys corners, kind and fit, whose values are names, or null for no fit."
            )
    return surfaces


def _fraction(text: str) -> float:
    if not 0 <= (value := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no fraction, in [0, 1]")
    return value
