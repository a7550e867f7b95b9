"""Hashes of files, recorded when they are finished, and compared later."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from fourfold.errors import InputError
from fourfold.files.atomic import write_text
from fourfold.files.reading import (
    check_fields,
    check_text_size,
    parse_object,
    reading,
    require_file,
    shortened,
)

NAME = "hashes.json"
_FORMAT = "fourfold-hashes-1"
# What is in a results folder and no result: logs, reports, states of unfinished jobs.
_NO_RESULTS = ("log", "report.html", "unfinished-*", ".unfinished-*", NAME)


def record_hashes(files: Iterable[str | Path], folder: str | Path) -> Path:
    """Write size and SHA-256 of files below `folder` to `hashes.json` in it; return its path.

    Raises:
        InputError: if a file is missing or not below the folder.
    """
    folder = Path(folder)
    recorded = {}
    for path in sorted(map(Path, files)):
        if not path.is_relative_to(folder):
            raise InputError(f"{path} is not below {folder}; hashes are recorded beside files.")
        if not path.is_file():
            raise InputError(f"no file at {path}; its hash can't be recorded.")
        name = path.relative_to(folder).as_posix()
        recorded[name] = {"bytes": path.stat().st_size, "sha256": file_hash(path)}
    text = json.dumps({"format": _FORMAT, "files": recorded}, indent=1, sort_keys=True)
    write_text(folder / NAME, text + "\n")
    return folder / NAME


def compare_hashes(record: str | Path) -> Iterator[tuple[str, Path]]:
    """Yield each file that a `hashes.json` speaks of, with what became of it.

    Yields:
        (`equal`, `differs` or `missing`, path).

    Raises:
        InputError: if the record is damaged, or names a file outside its folder.
    """
    folder = Path(record).parent
    for name, recorded in _read(Path(record)).items():
        path = folder / name
        if not _is_file(path):
            yield "missing", path
        elif path.stat().st_size != recorded["bytes"] or file_hash(path) != recorded["sha256"]:
            yield "differs", path
        else:
            yield "equal", path


def unrecorded_files(folder: str | Path) -> list[Path]:
    """Return the results below a folder that no `hashes.json` in it speaks of."""
    folder = Path(folder)
    known = {record.parent / name for record in folder.rglob(NAME) for name in _read(record)}
    return [path for path in sorted(_results(folder)) if path not in known]


def file_hash(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a record can give a name that no file system takes
        return False


def _results(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if any(path.match(pattern) for pattern in _NO_RESULTS):
            continue
        if path.is_dir():
            yield from _results(path)
        else:
            yield path


def _read(record: Path) -> dict[str, dict[str, Any]]:
    require_file(record)
    with reading(record, "record of hashes"):
        check_text_size(record.stat().st_size, 0, str(record))
        stored = parse_object(record.read_text(encoding="utf-8"), str(record))
        check_fields(stored, {"format": str, "files": dict[str, dict]}, f"{record} is damaged: it")
        if stored["format"] != _FORMAT:
            raise InputError(
                f"{record} is no record of hashes: its format is {shortened(stored['format'])}."
            )
        for name, entry in stored["files"].items():
            check_fields(entry, {"bytes": int, "sha256": str}, f"{record} is damaged: {name!r:.80}")
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\0" in name:
                raise InputError(f"{record} names {name!r:.80}, which is outside its folder.")
        return stored["files"]
