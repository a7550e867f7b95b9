"""Reading files that anybody may have written: whatever is in them, one `InputError` at most.

A reader opens its file inside `reading`, takes JSON through `parse_json` or `parse_object`, and
checks what it takes from a header with `check_fields`.
"""

import contextlib
import json
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from fourfold.errors import FourfoldError, InputError

# Text in JSON or a pickle can take 30 times its size in memory. Ours is far below 1 MB; that of a
# larger file may be a 16th of it, so that a network of any size can be described.
MAX_TEXT_BYTES, TEXT_SHARE = 3_000_000, 16
MAX_DEPTH = 50  # of nested JSON; beyond a thousand, Python's own recursion ends
_REASON_LENGTH = 300  # characters of another library's message, which may quote half of the file

# What values of the wrong type, size or range end in, here and in the libraries that are called.
_DAMAGE = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError),
    *(TypeError, ValueError),
)


@contextlib.contextmanager
def reading(
    path: str | Path, what: str, *others: type[Exception], cure: str = ""
) -> Iterator[None]:
    """Turn whatever a damaged file ends in into one `InputError` that begins with its path.

    Args:
        path: of the file.
        what: it should be, for the message.
        others: exceptions of the library that parses it, beside Python's.
        cure: what to do, for the message.
    """
    try:
        yield
    except FourfoldError as error:
        if str(path) in str(error):
            raise
        raise InputError(f"{path}: {error}") from error
    except (*_DAMAGE, *others) as error:
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
    """Refuse a header that is larger than any description of the rest of the file could be."""
    limit = max(MAX_TEXT_BYTES, file_bytes // TEXT_SHARE)
    if text_bytes > limit:
        raise InputError(
            f"{where} has {text_bytes:,} bytes; at most {limit:,} are read of a file of this size."
        )


def reason(error: Exception) -> str:
    """Return the type of an error and the first line of its message, shortened."""
    text = str(error).partition("\n")[0].rstrip(" .:;")[:_REASON_LENGTH]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def parse_json(text: str | bytes) -> Any:
    """Parse JSON that is nested at most `MAX_DEPTH` deep.

    Raises:
        ValueError: if it is no JSON, or nested deeper.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from None
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            if isinstance(parent, (dict, list))
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not level:
            return value
    raise ValueError(f"nested deeper than {MAX_DEPTH} levels")


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


def printable(text: str) -> str:
    """Return text from a file as any terminal takes it: control characters as their escapes."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
