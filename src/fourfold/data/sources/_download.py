"""Published archives, downloaded completely or not at all, and a lock on their folder."""

import contextlib
import fcntl
import hashlib
import http.client
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fourfold.errors import InputError
from fourfold.files.atomic import atomic_path

_TIMEOUT = 60  # seconds without an answer


def download(url: str, archive: Path, md5: str) -> None:
    """Download `archive`, which is not there until its MD5 has turned out to be the published one.

    What a killed download of the same kind of file has left in the folder is removed.
    """
    for left in archive.parent.glob(f".unfinished-*{archive.suffix}"):
        with contextlib.suppress(OSError), left.open("rb+") as file:  # a living one has locked it
            _lock(file)
            left.unlink()
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with atomic_path(archive) as temporary, temporary.open("wb") as file:
            with contextlib.suppress(OSError):  # some file systems have no locks
                _lock(file)
            with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
                while piece := response.read(2**20):
                    digest.update(piece)
                    file.write(piece)
            if digest.hexdigest() != md5:
                raise InputError(
                    f"what {url} sent has the MD5 {digest.hexdigest()}, not {md5}: the download "
                    f"is incomplete or another file, and was removed. Try again, or put {archive} "
                    "there by hand."
                )
    except (OSError, http.client.HTTPException) as error:
        raise InputError(
            f"{url} can't be downloaded to {archive} ({error}); try again, or put the archive "
            "there by hand."
        ) from error


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder until the block ends, or its process does; who asks for it meanwhile waits."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # no such folder; some file systems have no locks
            held = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, held)
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _lock(file: BinaryIO) -> None:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
