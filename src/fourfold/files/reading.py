"""Reading files that anybody may have written: whatever is in them, one `InputError` at most."""

import contextlib
import hashlib
import json
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

from fourfold.errors import FourfoldError, InputError, printable

_REASON_LENGTH = 300  # characters of another library's message, which may quote half of the file

# What libraries raise for damaged files, and a look-up of what is not there. A TypeError or an
# AttributeError is a mistake of ours, and must be seen as one: check types with `check_fields`.
_DAMAGE: tuple[type[Exception], ...] = (EOFError, KeyError, OSError, RecursionError, ValueError)

shortened = reprlib.repr  # of a value from a file, for a message


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


def file_sha256(path: Path, kind: str) -> str:
    """Return the SHA-256 of a file's bytes; `kind` says in errors what it is."""
    with reading(path, kind), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_reachable(path: Path) -> None:
    """Raise the OSError that keeps a path from being looked at, such as a missing permission.

    From Python 3.14 on `Path.is_file` and the like return False then, as if there were nothing.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, ValueError):  # a zero byte
        path.stat()


def reason(error: Exception) -> str:
    """Return the type of an error and the first line of its message, shortened."""
    text = str(error).partition("\n")[0].rstrip(" .:;")[:_REASON_LENGTH]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def parse_object(text: str | bytes, where: str) -> dict[str, Any]:
    """Parse a JSON object; `where` begins the message if it is none."""
    try:
        value = json.loads(text)
    except (RecursionError, ValueError) as error:
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
    if origin is UnionType:
        return any(has_type(value, part) for part in parts)
    if isinstance(value, bool):  # Python counts it among the integers
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def check_fields(given: Mapping[str, Any], kinds: Mapping[str, Any], where: str) -> None:
    """Refuse a JSON object that lacks one of the keys, or has a value of another type under it."""
    if missing := sorted(kinds.keys() - given.keys()):
        raise InputError(f"{where} lacks {missing}; get the file again, or build it again.")
    for key, kind in kinds.items():
        if not has_type(given[key], kind):
            name = kind.__name__ if isinstance(kind, type) and not get_args(kind) else kind
            raise InputError(
                f"{where} has {shortened(given[key])} for {key!r}, which must be {name}; get the "
                "file again, or build it again."
            )
