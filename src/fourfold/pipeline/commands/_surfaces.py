"""The argument that describes the surfaces of an experiment, as params.yaml defines them."""

import argparse
from typing import Any

from fourfold.combination.baselines import Surfaces
from fourfold.errors import InputError
from fourfold.files.reading import parse_object, shortened

_KEYS = {"corners", "kind", "fit"}


def add_surfaces_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--surfaces`."""
    parser.add_argument(
        "--surfaces",
        required=True,
        metavar="JSON",
        help='of each surface, in their order: {name: {"corners": name of its corner set, "kind": '
        'seeds or run, "fit": name of its fit or null}}',
    )


def read_surfaces(text: str) -> Surfaces:
    """Parse `--surfaces`.

    Raises:
        InputError: if it is no such object.
    """
    return check_described(parse_object(text, "--surfaces"), "--surfaces")


def check_described(surfaces: Any, where: str) -> Surfaces:
    """Return surfaces of one experiment if they are described as they must be.

    Raises:
        InputError: if not; `where` begins the message.
    """
    if not isinstance(surfaces, dict) or not surfaces:
        raise InputError(f"{where} is {shortened(surfaces)}; it must be an object of surfaces.")
    for name, surface in surfaces.items():
        if not isinstance(surface, dict) or surface.keys() != _KEYS:
            raise InputError(
                f"{where}: {shortened(name)} is {shortened(surface)}; it must be an object with "
                "the keys corners, kind and fit."
            )
        for key, value in surface.items():
            if not isinstance(value, str) and not (key == "fit" and value is None):
                raise InputError(
                    f"{where}: {key} of {shortened(name)} is {shortened(value)}; it must be a name."
                )
    return surfaces
