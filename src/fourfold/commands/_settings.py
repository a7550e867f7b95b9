"""Settings of a command: sections of params.yaml as JSON."""

import argparse
import inspect
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from fourfold.errors import InputError
from fourfold.untrusted import check_text_size, parse_json, reading, require_file, shortened


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
        type=float,
        help="share of what the corners have above guessing that a low-loss surface keeps",
    )


def check_kept(kept: float) -> None:
    """Refuse a share that is no fraction.

    Raises:
        InputError: naming the value and what is allowed.
    """
    if not 0 <= kept <= 1:
        raise InputError(f"--kept is {kept}; it is a fraction, in [0, 1].")


def read_settings(text: str, *sections: str) -> dict[str, Any]:
    """Parse `--settings` and check that it has exactly the named sections.

    Raises:
        InputError: if it is no JSON object, or a section is missing or unknown.
    """
    if text.startswith("@"):
        path = Path(text[1:])
        require_file(path, f"--settings names the file {path}, which doesn't exist.")
        with reading(path, "file of settings"):
            check_text_size(path.stat().st_size, 0, str(path))
            return _parse(path.read_text(encoding="utf-8"), sections, f"--settings ({path})")
    return _parse(text, sections, "--settings")


def _parse(text: str, sections: Collection[str], where: str) -> dict[str, Any]:
    try:
        settings = parse_json(text)
    except ValueError as error:
        raise InputError(f"{where} is no JSON: {error}. Got {text[:60]!r}.") from error
    given = set(settings) if isinstance(settings, dict) else set()
    if given != set(sections):
        raise InputError(
            f"{where} must be an object with the sections {', '.join(sections)}; "
            f"got {', '.join(sorted(given))[:200] or type(settings).__name__}."
        )
    for section, values in settings.items():
        if not isinstance(values, dict) and section != "source":  # its reader says more
            raise InputError(f"{section} is {shortened(values)}; it must be an object.")
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
