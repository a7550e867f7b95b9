"""Reading files that anybody may have written: whatever is in them, one `InputError` at most.

A reader opens its file inside `reading`, takes JSON through `parse_json` or `parse_object`, and
checks what it takes from a header with `check_fields`. What a message quotes of a file is made
printable by `FourfoldError` itself.
"""

import contextlib
import json
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from fourfold.errors import FourfoldError, InputError, printable

MAX_TEXT_BYTES = 3_000_000  # of a file of JSON; ours are far below 1 MB
_REASON_LENGTH = 300  # characters of another library's message, which may quote half of the file

# What libraries raise for damaged files, and a look-up of what is not there. A TypeError or an
# AttributeError is a mistake of ours, and must be seen as one: check types with `check_fields`.
_DAMAGE: tuple[type[Exception], ...] = (EOFError, KeyError, OSError, RecursionError, ValueError)


@contextlib.contextmanager
def reading(
    path: str | Path, what: str, *others: type[Exception], cure: str = ""
) -> Iterator[None]:
    """Turn what a damaged file ends in into one `InputError` that begins with its path.

    Args:
        path: of the file.
        what: it should be, for the message.
        others: exceptions of the library that parses it, beside Python's for damaged files.
        cure: what to do, for the message.
    """
    try:
        yield
    except FourfoldError as error:
        if printable(str(path)) in str(error):
            raise
        raise InputError(f"{path}: {error}") from error
    except _DAMAGE + others as error:
        cure = cure or "get it again, or build it again"
        raise InputError(f"{path} is no readable {what}: {reason(error)}; {cure}.") from error


def require_file(path: str | Path, otherwise: str = "") -> None:
    """Refuse a path that is no regular file: missing, a folder, a pipe, an impossible name."""
    try:
        is_file = Path(path).is_file()
    except (OSError, ValueError):  # a name too long, or with a zero byte
        is_file = False
    if not is_file:
        raise InputError(otherwise or f"no file at {path}.")


def check_text_size(text_bytes: int, file_bytes: int, where: str) -> None:
    """Refuse a file of text that is larger than any of ours."""
    if text_bytes > MAX_TEXT_BYTES:
        raise InputError(f"{where} has {text_bytes:,} bytes; at most {MAX_TEXT_BYTES:,} are read.")


def reason(error: Exception) -> str:
    """Return the type of an error and the first line of its message, shortened."""
    text = str(error).partition("\n")[0].rstrip(" .:;")[:_REASON_LENGTH]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: if it is no JSON, or nested deeper than Python's recursion goes.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parse_object(text: str | bytes, where: str) -> dict[str, Any]:
    """Parse a JSON object; `where` begins the message if it is none."""
    try:
        value = parse_json(text)
    except ValueError as error:
        raise InputError(f"{where} is damaged: {reason(error)}.") from error
    if not isinstance(value, dict):
        raise InputError(f"{where} is {type(value).__name__}, not a JSON object.")
    return value


def has_type(value: Any, kind: Any) -> bool:
    """Return whether a JSON value is of a type such as `list[str]` or `dict[str, int]`."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is list:
        return isinstance(value, list) and all(has_type(item, parts[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(has_type(v, parts[1]) for v in value.values())
    if isinstance(value, bool):  # Python counts it among the integers
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def check_fields(given: Mapping[str, Any], kinds: Mapping[str, Any], where: str) -> None:
    """Refuse a JSON object that lacks a key, or has a value of another type under it.

    Args:
        given: the object.
        kinds: key -> type, see `has_type`.
        where: begins the message.
    """
    if missing := sorted(kinds.keys() - given.keys()):
        raise InputError(f"{where} lacks {missing}; get the file again, or build it again.")
    for key, kind in kinds.items():
        if not has_type(given[key], kind):
            name = kind.__name__ if isinstance(kind, type) and not get_args(kind) else kind
            raise InputError(
                f"{where} has {shortened(given[key])} for {key!r}, which must be {name}; get the "
                "file again, or build it again."
            )


def shortened(value: Any) -> str:
    """Return the representation of a value from a file, of a length fit for a message."""
    return reprlib.repr(value)
