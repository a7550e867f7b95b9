"""What produced a file: the commit of the code, and the machine."""

import functools
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

_GIT_SECONDS = 10


@functools.lru_cache
def git_state(folder: Path | None = None) -> dict[str, Any]:
    """Return the commit of the work tree that holds `folder`, and whether it says what ran.

    Args:
        folder: by default that of this package.

    Returns:
        `commit` (hash) and `dirty` (whether a tracked file differs from it, or the package has a
        new one); both None outside a work tree, without git, or if git takes too long.
    """
    folder = folder or Path(__file__).parent
    if not _git(folder, "ls-files", "."):
        # Installed into an environment that lies inside somebody else's work tree, or into none.
        return {"commit": None, "dirty": None}
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    new_modules = _git(folder, "status", "--porcelain", ".")
    if commit is None or changes is None or new_modules is None:
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(changes or new_modules)}


@functools.lru_cache
def hardware() -> dict[str, Any]:
    """Return processor, cores, memory (bytes) and operating system."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.system(),
    }


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            # No lock on the index: many jobs ask at once, and somebody may be committing.
            ["git", "--no-optional-locks", *arguments],
            cwd=folder,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
