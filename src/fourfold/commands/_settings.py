"""Settings of a command: sections of params.yaml as JSON."""

import argparse
import inspect
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from fourfold.errors import InputError


def add_settings_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--settings`, the sections of params.yaml that the command reads."""
    parser.add_argument(
        "--settings",
        required=True,
        metavar="JSON",
        help="sections of an experiment in params.yaml as a JSON object, or @FILE that holds it",
    )


def read_settings(text: str, *sections: str) -> dict[str, Any]:
    """Parse `--settings` and check that it has exactly the named sections.

    Raises:
        InputError: if it is no JSON object, or a section is missing or unknown.
    """
    if text.startswith("@"):
        path = Path(text[1:])
        if not path.is_file():
            raise InputError(f"--settings names the file {path}, which doesn't exist.")
        text = path.read_text(encoding="utf-8")
    try:
        settings = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"--settings is no JSON: {error}. Got {text[:60]!r}.") from error
    given = set(settings) if isinstance(settings, dict) else set()
    if given != set(sections):
        raise InputError(
            f"--settings must be an object with the sections {', '.join(sections)}; "
            f"got {', '.join(sorted(given)) or type(settings).__name__}."
        )
    return settings


def check_keys(
    section: str,
    given: Mapping[str, Any],
    function: Callable[..., Any],
    supplied: Collection[str] = (),
) -> None:
    """Refuse settings that the function does not take, or that the command supplies itself.

    Raises:
        InputError: naming the key and the keys that are allowed.
    """
    allowed = sorted(set(inspect.signature(function).parameters) - set(supplied))
    for key in given:
        if key not in allowed:
            raise InputError(
                f"{section}.{key} is no setting; {section} takes {', '.join(allowed)}."
            )
