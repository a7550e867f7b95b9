"""What produced a file: the commit of the code, and the machine."""

import functools
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

_GIT_SECONDS = 10


@functools.lru_cache
def git_state(folder: Path = Path(__file__).parent) -> dict[str, Any]:
    """Return the commit of the work tree that holds `folder`, and whether it says what ran.

    Returns:
        `commit` (hash) and `dirty` (whether a tracked file differs from it, or the folder has a new
        one); both None outside a work tree, without git, or if git takes too long.
    """
    tracked = _git(folder, "ls-files", ".")  # none of a package installed into somebody's work tree
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    here = _git(folder, "status", "--porcelain", ".")
    if not tracked or commit is None or changes is None or here is None:
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(changes or here)}


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
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
