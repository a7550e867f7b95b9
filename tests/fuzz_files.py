"""Read thousands of damaged and hostile files of each kind, and measure what becomes of them.

    python tests/fuzz_files.py [--count 2000] [--seed 0] [--kinds surface table] [--keep FOLDER]

Every kind has a process of its own, which makes a valid file and changes it: bits, bytes and pieces
of it; fields of its header, which stays valid JSON; dtypes, shapes and values of its tensors, with
the right hashes. The kind `attacks` is what a stranger may think of, one file each (attacks.py).
The laws: a reader returns a value that can be used, or raises one `FourfoldError` of one line with
the file's name; within 1 s and with at most 100 MB of memory, but for Parquet, which Arrow reads.
Exit status 1 if a law is broken; --keep keeps the files that broke it.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from attacks import ATTACKS, attack
from untrusted_files import KINDS, PARQUET, Kind, mutate, outcome

MOST_SECONDS, MOST_BYTES = 1.0, 100_000_000
_HANG = 60  # seconds after which a process is killed


def _memory(field: str) -> int:
    """Return `VmRSS` (now) or `VmHWM` (most, since the last reset) of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def _measure(kind: Kind, path: Path) -> tuple[str, float, int]:
    """Read a file; return the outcome, seconds, and how much memory was needed at most."""
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM to VmRSS
    before, start = _memory("VmRSS"), time.perf_counter()
    signal.alarm(_HANG)  # nothing handles it: the process dies, even in the midst of C code
    found = outcome(kind, path)
    signal.alarm(0)
    return found, time.perf_counter() - start, _memory("VmHWM") - before


def _files(name: str, count: int, seed: int, folder: Path) -> Iterator[tuple[Kind, Path]]:
    """Yield one file after another."""
    if name == "attacks":
        for number, one in enumerate(ATTACKS):
            yield attack(folder / str(number), one)
        return
    kind, draw, path = KINDS[name], random.Random(f"{name} {seed}"), folder / KINDS[name].name
    kind.make(path)
    original = path.read_bytes()
    for _ in range(count):
        path.write_bytes(mutate(kind, draw, original))
        yield kind, path


def _warm_up(folder: Path) -> None:
    """Read a valid file of each kind: imports, and memory that libraries keep."""
    for name, kind in KINDS.items():
        (folder / name).mkdir()
        kind.make(folder / name / kind.name)
        found = outcome(kind, folder / name / kind.name)
        assert found == "read", f"{name}: {found}"


def fuzz(name: str, count: int, seed: int, keep: Path, most_seconds: float) -> bool:
    """Read `count` files of one kind, print a line, and return whether all laws held."""
    broken, counts, slowest, largest = [], {"read": 0, "refused": 0}, 0.0, 0
    most_bytes = MOST_BYTES
    if name in KINDS and KINDS[name].mutators is PARQUET:
        most_seconds, most_bytes = float("inf"), float("inf")
    keep.mkdir(parents=True, exist_ok=True)
    current = keep / f"{name}-current"  # what is left of it if the process dies
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "valid").mkdir()
        _warm_up(Path(folder) / "valid")
        for number, (kind, path) in enumerate(_files(name, count, seed, Path(folder))):
            shutil.copyfile(path, current)
            found, seconds, memory = _measure(kind, path)
            for _ in range(2):  # a busy machine may have been the reason
                if seconds > most_seconds or memory > most_bytes:
                    _, again, memory_again = _measure(kind, path)
                    seconds, memory = min(seconds, again), min(memory, memory_again)
            if found in counts:
                counts[found] += 1
            is_let_through = name == "attacks" and found == "read"
            if (
                found not in counts
                or is_let_through
                or seconds > most_seconds
                or memory > most_bytes
            ):
                what = list(ATTACKS)[number] if name == "attacks" else str(number)
                broken.append(f"{what}: {found}, {1000 * seconds:.0f} ms, {memory / 1e6:.0f} MB")
                shutil.copyfile(path, keep / f"{name}-{number}-{kind.name}")
            slowest, largest = max(slowest, seconds), max(largest, memory)
    current.unlink()
    print(
        f"{name}: {sum(counts.values()) + len(broken)} files, {counts['read']} read, "
        f"{counts['refused']} refused, slowest {1000 * slowest:.0f} ms, most memory "
        f"{largest / 1e6:.1f} MB, {len(broken)} broken laws",
        flush=True,
    )
    for line in broken[:20]:
        print(f"  {line}", flush=True)
    return not broken


def main() -> int:
    """Start a process for each kind; return the exit status."""
    kinds = [*KINDS, "attacks"]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=2000, help="files of each kind (default 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the changes (default: 0)")
    parser.add_argument("--seconds", type=float, default=MOST_SECONDS, help="(default: 1)")
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds, metavar="KIND",
                        help=f"of {', '.join(kinds)} (default: all)")  # fmt: skip
    parser.add_argument("--keep", type=Path, help="folder for the files that break a law")
    parser.add_argument("--here", action="store_true", help="in this process, for a debugger")
    arguments = parser.parse_args()
    keep = arguments.keep or Path(tempfile.mkdtemp(prefix="fuzz-"))
    torch.set_num_threads(1)
    failed = []
    for name in arguments.kinds:
        if arguments.here:
            is_broken = not fuzz(name, arguments.count, arguments.seed, keep, arguments.seconds)
        else:
            command = [sys.executable, __file__, "--here", "--kinds", name, "--keep", str(keep)]
            command += ["--count", str(arguments.count), "--seed", str(arguments.seed)]
            command += ["--seconds", str(arguments.seconds)]
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
            is_broken = done.returncode != 0
            if is_broken and (keep / f"{name}-current").exists():
                print(f"{name}: the process ended with {done.returncode}: {done.stderr[-2000:]}")
        if is_broken:
            failed.append(name)
    if not arguments.here:
        total = arguments.count * len(set(arguments.kinds) & set(KINDS))
        verdict = f"laws broken for {', '.join(failed)}; see {keep}" if failed else "all laws held"
        made = f"{total} changed files of {len(arguments.kinds)} kinds, seed {arguments.seed}"
        print(f"{made}: {verdict}")
        if not failed and arguments.keep is None:
            shutil.rmtree(keep)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
