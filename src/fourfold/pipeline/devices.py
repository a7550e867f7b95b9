"""Which device a job runs on: the jobs of one machine are spread over its GPUs."""

import fcntl
import itertools
import os
import re
import subprocess
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from fourfold.errors import InputError

if TYPE_CHECKING:
    import torch

_QUERY = ("nvidia-smi", "--query-gpu=uuid,memory.free", "--format=csv,noheader,nounits")
_QUERY_SECONDS = 30


def choose_device(name: str) -> "torch.device":
    """Return the device for `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:N`.

    A GPU is claimed and made current; of several the one that `claim` chooses, unless N says which.

    Raises:
        InputError: if the name is unknown, or PyTorch doesn't see that GPU.
    """
    import torch

    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", name):
        raise InputError(
            f"device is {name!r}; choose auto, cpu or cuda, or one GPU of several such as cuda:1."
        )
    gpus = () if name == "cpu" else visible_gpus()
    if not gpus and name in ("auto", "cpu"):
        return torch.device("cpu")
    if not gpus:
        raise InputError(
            f"device is {name!r}, but PyTorch sees no GPU here; choose auto or cpu, or look at "
            "CUDA_VISIBLE_DEVICES."
        )
    asked = int(name[len("cuda:") :]) if ":" in name else None
    if asked is not None and asked >= len(gpus):
        raise InputError(
            f"device is {name!r}, but PyTorch sees {len(gpus)} GPUs here, which it numbers from 0; "
            "choose cuda, which takes the least used, or look at CUDA_VISIBLE_DEVICES."
        )
    device = torch.device("cuda", claim(gpus, asked))
    torch.cuda.set_device(device)  # a recorded CUDA graph, for one, is of the current device
    return device


def visible_gpus() -> tuple[str, ...]:
    """Return the UUIDs of the GPUs that PyTorch sees (CUDA_VISIBLE_DEVICES), in its order."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return tuple(str(torch.cuda.get_device_properties(k).uuid) for k in range(count))


def count_gpus() -> int:
    """Return how many GPUs PyTorch will see, without it: importing it takes seconds."""
    there = len(list(Path(os.devnull).parent.glob("nvidia[0-9]*")))
    if (listed := os.environ.get("CUDA_VISIBLE_DEVICES")) is None:
        return there
    # CUDA stops at the first entry that names none.
    named = itertools.takewhile(lambda one: one.strip() not in ("", "-1"), listed.split(","))
    return min(there, len(list(named)))


def lacks_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the processor has no instructions that PyTorch computes in bfloat16 with.

    Without PyTorch, from Linux's list of what an x86 processor has; False where there is none.
    """
    try:
        flags = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(encoding="utf-8"), flags=re.M)
    except OSError:
        return False
    return flags is not None and not {"avx512bw", "avx_ne_convert"} & {*flags[1].split()}


@cache  # one process, one claim
def claim(gpus: tuple[str, ...], asked: int | None = None) -> int:
    """Claim a GPU for as long as this process lives; return its position in `gpus`.

    It is the least used by the running jobs of this user; of equals the one with the most free
    memory, where nvidia-smi tells, else the first. A claim is a locked file: the kernel unlocks it
    when the process ends, whatever ends it.

    Args:
        gpus: UUIDs of those that the job may use. CUDA's numbers are no names: what one process
            calls 0 is 1 to another.
        asked: position of the one to take, however used it is.
    """
    folder = Path(tempfile.gettempdir()) / f"fourfold-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / "lock").open("wb") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)  # one job chooses at a time
        jobs = Counter(path.name.partition(".")[0] for path in folder.glob("*.job") if _held(path))
        if asked is None:
            free = _free_memory() if len(gpus) > 1 else {}
            asked = min(range(len(gpus)), key=lambda k: (jobs[gpus[k]], -free.get(gpus[k], 0)))
        # Never closed; a process that this one starts doesn't inherit it.
        mine, _ = tempfile.mkstemp(".job", f"{gpus[asked]}.", folder)
        fcntl.flock(mine, fcntl.LOCK_EX)
    return asked


def _held(claimed: Path) -> bool:
    """Tell whether the job that made a claim still runs; remove the claim if not."""
    with claimed.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    claimed.unlink()
    return False


def _free_memory() -> dict[str, int]:
    """Return UUID -> free memory, MiB. (Asking PyTorch would take some of it on each GPU.)"""
    try:
        said = subprocess.run(
            _QUERY, capture_output=True, text=True, timeout=_QUERY_SECONDS, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    rows = (line.strip().removeprefix("GPU-").partition(", ") for line in said.splitlines())
    return {uuid: int(free) for uuid, _, free in rows if free.isdigit()}
