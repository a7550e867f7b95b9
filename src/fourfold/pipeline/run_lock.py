"""A lock on the folder that a run works in, held until the run's process ends, however it ends.

Snakemake's own refuses a second run that writes the same files, but not one that moves them away.
"""

import fcntl
import os
import time
from pathlib import Path

# As long as a run that starts has the lock alone, and much more.
_PATIENCE = 10.0


class RunLock:
    """A lock that runs share, or that one of them has alone."""

    def __init__(self, path: Path) -> None:
        """Name the file; it is made, and stays, where the lock is taken."""
        self._path = path
        self._file: int | None = None

    def take_alone(self) -> bool:
        """Take the lock alone; return whether that was possible, since no other run has it."""
        return self._take(fcntl.LOCK_EX)

    def share(self, patience: float = _PATIENCE) -> bool:
        """Take it as other runs do, or keep it so; return whether no run has it alone.

        Args:
            patience: seconds to wait for a run that has it alone, as each has when it starts.
        """
        end = time.monotonic() + patience
        while not (is_taken := self._take(fcntl.LOCK_SH)) and time.monotonic() < end:
            time.sleep(0.1)
        return is_taken

    def _take(self, kind: int) -> bool:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Never closed; a process that this one starts doesn't inherit it.
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(self._file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True  # a file system without locks: as if nobody else were there
        return True
