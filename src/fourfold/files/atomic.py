"""Files that are either complete or not there."""

import contextlib
import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from fourfold.errors import FourfoldError, InputError, WriteError

# So begin names that don't look finished; the workflow removes what kills left under them.
UNFINISHED = ".unfinished-"

_FREE_SPACE = "Free some space there, or write elsewhere, and start again."
_PERMIT = "Make the folder writable, or write elsewhere, and start again."
_RENAME = "Rename or remove what lies in the way, or write elsewhere, and start again."
# What a user can do about an error of the operating system; others are passed on as they are.
_CURES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), _FREE_SPACE),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _PERMIT),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR, errno.EISDIR), _RENAME),
    errno.EFBIG: "Raise the largest size a file may have (`ulimit -f`) and start again.",
}


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path` that becomes `path` when the block succeeds.

    The file is flushed to disk and renamed, so that a process killed at any moment leaves the old
    file or the new one. If the block raises, nothing is left.

    Raises:
        WriteError: if the file can't be written: no space, no permission, something in the way.
    """
    path = Path(path)
    temporary = _beside(path)
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(folder: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder` that becomes `folder` when the block succeeds.

    Raises:
        InputError: if there is something already: a file, or a folder that isn't empty.
        WriteError: as `atomic_path`.
    """
    folder = Path(folder).absolute()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder} is there and isn't empty; remove it, or name a new folder.")
    temporary = _beside(folder)
    with _writing(folder):
        temporary.mkdir(parents=True)
        try:
            yield temporary
            temporary.replace(folder)  # an empty folder gives way
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _beside(path: Path) -> Path:
    return path.parent / f"{UNFINISHED}{uuid.uuid4().hex}{path.suffix}"


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what a user can cure into a `WriteError`."""
    try:
        yield
    except FourfoldError:
        raise
    except Exception as error:
        number = _error_number(error)
        if number not in _CURES:
            raise
        raise WriteError(f"can't write {path}: {os.strerror(number)}. {_CURES[number]}") from error


def _error_number(error: Exception) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    # safetensors raises an error of its own with the number in its text.
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path`, completely or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
