"""Kill the whole workflow at random moments, recover as the README says, compare the results.

    python tests/kill_workflow.py [--kills 25] [--seed 0] [--longer 1]
    python tests/kill_workflow.py --params params.yaml --experiment digits-resnet18

First comes an undisturbed run. Then, in another copy of the workflow, Snakemake and all its jobs
get SIGKILL at a random moment, and nothing is done but to give the README's recovery command, which
is killed in its turn, until the run reaches its end; then the next copy begins, until all kills are
done. Every second kill waits from its moment for the next change of a folder: a file that begins,
gets its name, or is recorded.

After each kill, what has a final name must be complete and equal to what the undisturbed run made:
tensors bit for bit, tables in all columns but the measured ones. At the end of a run that holds for
all files, there are no others, and nothing is left to do. Exit status 1 if anything is otherwise.
"""

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil
import yaml
from PIL import Image
from project import EXPERIMENT, ROOT, edit, new_project

from fourfold.files.table import MEASURED_COLUMNS
from fourfold.files.tensors import load_tensors, state_hash

START = "snakemake --cores 2"
# With --cores N, the command that the README gives for after a kill.
RECOVERY = "snakemake --unlock && snakemake --cores 2"
FINAL_FOLDERS = ("results", "data")
WATCHED_FOLDERS = (*FINAL_FOLDERS, ".snakemake/metadata", ".snakemake/incomplete")
# Kills come this early, as a share of the undisturbed run's time, so that a run meets several.
LATEST_KILL = 0.5
LONGEST_RUN = 1800  # seconds


class BrokenLawError(Exception):
    """A law that a kill has broken."""


# --- a project and its files ----------------------------------------------------------------------


def make_project(folder: Path, params: Path, experiment: str, longer: int = 1) -> Path:
    """Copy the workflow with one experiment whose trainings save a state several times a second."""
    project = new_project(folder)
    shutil.copy(params, project / "params.yaml")

    def shape(values: dict) -> None:
        values |= {"run": [experiment], "replicates": 1, "device": "cpu"}
        for recipe in values["recipes"].values():
            for part in (recipe.get("training", {}), *recipe.get("fits", {}).values()):
                if "epochs" in part:
                    part["epochs"] *= longer

    edit(project, shape)
    for name in ("train", "surface"):
        path = project / "workflow" / "rules" / f"{name}.smk"
        rules = path.read_text(encoding="utf-8")
        assert rules.count("--state {params.state}") == 1, path
        short = "--state {params.state} --state-interval 0.2"
        path.write_text(rules.replace("--state {params.state}", short), encoding="utf-8")
    return project


def final_files(project: Path) -> list[Path]:
    """Return the files that look finished, relative to the project; logs are none."""
    return sorted(
        path.relative_to(project)
        for folder in FINAL_FOLDERS
        for path in (project / folder).rglob("*")
        if path.is_file()
        and "log" not in path.relative_to(project).parts
        and not any(".unfinished-" in part for part in path.relative_to(project).parts)
    )


def check_file(project: Path, name: Path, reference: Path) -> None:
    """Check that a file is complete and equal to the undisturbed run's.

    Raises:
        BrokenLawError: if it is not.
    """
    try:
        if name.parts[-2].startswith("unfinished-"):  # the state of a job that goes on
            load_tensors(project / name)
            return
        if not (reference / name).is_file():
            raise BrokenLawError("the undisturbed run has no such file")
        if _contents(project / name) != _contents(reference / name):
            raise BrokenLawError("it differs from the undisturbed run's")
    except Exception as error:  # whatever a damaged file ends in
        raise BrokenLawError(f"{name}: {error!r}") from error


def _contents(path: Path) -> object:
    """Return what must be equal in two runs; raise whatever a file that is cut off ends in."""
    match path.suffix:
        case ".safetensors":
            return state_hash(load_tensors(path)[0])
        case ".parquet":
            return _unmeasured(pd.read_parquet(path))
        case ".csv":
            return _lines(path)[0], _unmeasured(pd.read_csv(path))
        case ".png":
            with Image.open(path) as image:
                return image.size, image.tobytes()
        case ".json":
            return json.loads(path.read_text(encoding="utf-8"))
        case ".md" | ".svg":
            return _lines(path)
    raise BrokenLawError(f"no file of the workflow ends in {path.suffix!r}")


def _unmeasured(table: pd.DataFrame) -> str:
    return table.drop(columns=list(MEASURED_COLUMNS), errors="ignore").to_json(double_precision=15)


def _lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    if not text.endswith("\n"):
        raise BrokenLawError("it ends in the middle of a line")
    return text.splitlines()


# --- a run and its end ----------------------------------------------------------------------------


class Run:
    """One command in a project, in a process group of its own."""

    def __init__(self, project: Path, command: str) -> None:
        """Start it."""
        self.project, self._log = project, project / "run.log"
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                shell=True,
                cwd=project,
                env={**os.environ, "PATH": path, "COLUMNS": "200"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self, seconds: float) -> bool:
        """Return whether it ends by itself within some seconds.

        Raises:
            BrokenLawError: if it fails.
        """
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        if status:
            raise BrokenLawError(f"a run ended with {status}:\n{self.text[-3000:]}")
        return True

    def wait_for_change(self) -> bool:
        """Wait for the next change of a folder; return whether the run ended before."""
        folders = [self.project / name for name in WATCHED_FOLDERS]
        folders += [path for folder in folders for path in folder.rglob("*/")]
        before = _times(folders)
        while _times(folders) == before:
            if self.wait(0.001):
                return True
        return False

    def kill(self) -> list[str]:
        """Kill Snakemake and all its jobs at once; return the commands that were running."""
        running = []
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGSTOP)  # this moment counts
            running = _commands(psutil.Process(self._process.pid))
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        deadline = time.monotonic() + 10
        while survivors := list(_processes_in(self.project)):
            if time.monotonic() > deadline:
                raise BrokenLawError(f"jobs outlived their process group: {survivors}")
            time.sleep(0.01)
        return running

    @property
    def text(self) -> str:
        """What the run has printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def summary(self) -> str:
        """Say in some words what the run has printed."""
        said = ["unlocked"] if "Unlocked working directory" in self.text else []
        if jobs := re.search(r"^total +(\d+)$", self.text, flags=re.M):
            said.append(f"{jobs[1]} jobs to do")
        return ", ".join(said) or "nothing yet"


def _times(folders: list[Path]) -> list[int]:
    times = []
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):
            times.append(folder.stat().st_mtime_ns)
    return times


def _commands(leader: psutil.Process) -> list[str]:
    found: Counter[str] = Counter()
    with contextlib.suppress(psutil.Error):
        for process in leader.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                if words[1:3] == ["-m", "fourfold"]:
                    found[words[3]] += 1
                elif "--unlock" in words[1:]:
                    found["unlock"] += 1
    return [name if n == 1 else f"{n} x {name}" for name, n in sorted(found.items())]


def _processes_in(project: Path) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.status() != psutil.STATUS_ZOMBIE and project == Path(process.cwd()):
                yield process


def check_end(project: Path, reference: Path) -> int:
    """Check a run that has ended; return the number of its tables.

    Raises:
        BrokenLawError: if it differs from the undisturbed run, or has left something.
    """
    names = final_files(project)
    if missing := sorted(set(final_files(reference)) - set(names)):
        raise BrokenLawError(f"missing at the end: {', '.join(map(str, missing))}")
    for name in names:
        check_file(project, name, reference)
    for folder in FINAL_FOLDERS:
        if left := [*(project / folder).rglob("*unfinished-*")]:
            raise BrokenLawError(f"left behind: {', '.join(map(str, left))}")
    again = Run(project, f"{START} --dry-run")
    if not again.wait(120) or "Nothing to be done" not in again.text:
        raise BrokenLawError(f"something is left to do:\n{again.text[-3000:]}")
    return sum(name.suffix == ".parquet" for name in names)


# --- the program ----------------------------------------------------------------------------------


class Kills:
    """All kills, counted and told."""

    def __init__(self, number: int, seed: int, undisturbed: Path, seconds: float) -> None:
        """Take how many, the seed of their moments, and the undisturbed run with its time."""
        self.number, self.done, self.runs, self.tables = number, 0, 0, 0
        self._draw, self._undisturbed, self._seconds = random.Random(seed), undisturbed, seconds

    def run(self, project: Path) -> None:
        """Kill and recover one project's run until it reaches its end; check everything."""
        command, told = START, None
        while True:
            run = Run(project, command)
            try:
                moment = self._draw.uniform(0, LATEST_KILL * self._seconds)
                ended = run.wait(moment if self.done < self.number else LONGEST_RUN)
                if not ended and self.done < self.number and self.done % 2:
                    ended = run.wait_for_change()
                if not ended and self.done == self.number:
                    raise BrokenLawError(f"no end after {LONGEST_RUN} s:\n{run.text[-3000:]}")
            finally:
                running = run.kill()
                if told is not None:
                    print(f"{told}; recovery: {run.summary()}", flush=True)
            if ended:
                break
            names = final_files(project)
            for name in names:
                check_file(project, name, self._undisturbed)
            self.done += 1
            told = (
                f"kill {self.done:2} after {moment:4.1f} s: {', '.join(running) or 'no job'} "
                f"running, {len(names)} files, all whole"
            )
            command = RECOVERY
        self.tables += check_end(project, self._undisturbed)
        self.runs += 1


def main() -> int:
    """Run everything and print what happened; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=25, help="in all (default: 25)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--params", type=Path, default=ROOT / "tests" / "params.tiny.yaml")
    parser.add_argument("--experiment", default=EXPERIMENT, help=f"(default: {EXPERIMENT})")
    parser.add_argument(
        "--longer", type=int, default=1, help="multiply all epochs by this (default: 1)"
    )
    arguments = parser.parse_args()
    if arguments.experiment not in yaml.safe_load(arguments.params.read_text())["experiments"]:
        parser.error(f"{arguments.params} has no experiment {arguments.experiment}")
    with tempfile.TemporaryDirectory() as folder:
        original, undisturbed = Path(folder) / "original", Path(folder) / "undisturbed"
        make_project(original, arguments.params, arguments.experiment, arguments.longer)
        shutil.copytree(original, undisturbed)
        begin = time.monotonic()
        run = Run(undisturbed, START)
        kills = None
        try:
            if not run.wait(LONGEST_RUN):
                raise BrokenLawError(f"no end after {LONGEST_RUN} s:\n{run.text[-3000:]}")
            seconds = time.monotonic() - begin
            tables = check_end(undisturbed, undisturbed)
            print(f"undisturbed run: {seconds:.0f} s, {tables} tables", flush=True)
            kills = Kills(arguments.kills, arguments.seed, undisturbed, seconds)
            while kills.done < kills.number:
                project = Path(folder) / f"killed-{kills.runs}"
                shutil.copytree(original, project)
                kills.run(project)
                shutil.rmtree(project)
        except BrokenLawError as error:
            run.kill()
            print(f"FAILED after {kills.done if kills else 0} kills: {error}", flush=True)
            return 1
    print(
        f"{kills.done} of {kills.number} kills recovered in {kills.runs} runs, "
        f"{kills.tables} tables equal"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
