"""Kill the whole workflow at random moments, recover as the README says, compare the results.

    python tests/kill_workflow.py [--kills 25] [--seed 0] [--longer 1 | --undisturbed PROJECT]

First comes an undisturbed run, unless one is given. Then, in another copy of the workflow,
Snakemake and all its jobs get SIGKILL at a random moment, and nothing is done but to give the
README's recovery command, which is killed in its turn, until the run reaches its end; then the next
copy begins, until all kills are done. Every second kill waits from its moment for the next change
of a folder: a file that begins, gets its name, or is recorded.

After each kill, what has a final name must be complete and equal to what the undisturbed run made:
tensors bit for bit, tables in all columns but the measured ones. At the end of a run that holds for
all files, there are no others, and nothing is left to do. Exit status 1 if anything is otherwise.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import psutil
from PIL import Image
from project import edit, new_project

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


def make_project(folder: Path, longer: int = 1) -> Path:
    """Copy the workflow with one experiment whose trainings save a state several times a second."""
    project = new_project(folder)

    def shape(params: dict) -> None:
        params |= {"replicates": 1, "device": "cpu"}
        for recipe in params["recipes"].values():
            for part in (recipe.get("training", {}), *recipe.get("fits", {}).values()):
                if "epochs" in part:
                    part["epochs"] *= longer

    edit(project, shape)
    for name in ("train", "surface"):
        path = project / "workflow" / "rules" / f"{name}.smk"
        rules = path.read_text(encoding="utf-8")
        assert "--state {params.state}" in rules, path
        short = "--state {params.state} --state-interval 0.2"
        path.write_text(rules.replace("--state {params.state}", short), encoding="utf-8")
    return project


def final_files(project: Path) -> list[Path]:
    """Return the files that look finished, relative to the project; logs are none."""
    names = [
        path.relative_to(project)
        for folder in FINAL_FOLDERS
        for path in (project / folder).rglob("*")
        if path.is_file()
    ]
    return sorted(
        name for name in names if "log" not in name.parts and ".unfinished-" not in str(name)
    )


def contents(path: Path) -> object:
    """Return what must be equal in two runs; raise whatever a file that is cut off ends in."""
    if path.suffix == ".safetensors":
        return state_hash(load_tensors(path)[0])
    if path.suffix in (".parquet", ".csv"):
        table = (pd.read_csv if path.suffix == ".csv" else pd.read_parquet)(path)
        table = table.drop(columns=list(MEASURED_COLUMNS), errors="ignore")
        return table.to_json(double_precision=15)
    if path.suffix == ".png":
        with Image.open(path) as image:
            return image.size, image.tobytes()
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return json.loads(text)
    assert path.suffix in (".md", ".svg", ".html"), (
        f"no file of the workflow ends in {path.suffix!r}"
    )
    assert text.endswith("\n"), "it ends in the middle of a line"
    return text


def check_files(project: Path, reference: Path) -> list[Path]:
    """Check that all files are complete and equal to the undisturbed run's; return them."""
    names = final_files(project)
    for name in names:
        try:
            if name.parts[-2].startswith("unfinished-"):  # the state of a job that goes on
                load_tensors(project / name)
            else:
                assert contents(project / name) == contents(reference / name), "it differs"
        except Exception as error:  # whatever a damaged file ends in
            raise BrokenLawError(f"{name}: {error!r}") from error
    return names


def check_end(project: Path, reference: Path) -> int:
    """Check that a run has ended as the undisturbed one; return the number of its tables."""
    names = check_files(project, reference)
    if names != final_files(reference):
        raise BrokenLawError(f"other files: {set(names) ^ set(final_files(reference))}")
    for folder in FINAL_FOLDERS:
        if left := [*(project / folder).rglob("*unfinished-*")]:
            raise BrokenLawError(f"left behind: {', '.join(map(str, left))}")
    again = Run(project, f"{START} --dry-run")
    if not again.wait(120) or "Nothing to be done" not in again.text:
        raise BrokenLawError(f"something is left to do:\n{again.text[-3000:]}")
    return sum(name.suffix == ".parquet" for name in names)


# --- a run ----------------------------------------------------------------------------------------


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
        """Return whether it ends by itself within some seconds; raise if it fails."""
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

        def times() -> list[int]:
            return [folder.stat().st_mtime_ns for folder in folders if folder.exists()]

        before = times()
        with contextlib.suppress(FileNotFoundError):  # it went between the two questions
            while times() == before:
                if self.wait(0.001):
                    return True
        return False

    def kill(self) -> None:
        """Kill Snakemake and all its jobs at once."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        deadline = time.monotonic() + 10
        while survivors := processes_in(self.project):
            if time.monotonic() > deadline:
                raise BrokenLawError(f"jobs outlived their process group: {survivors}")
            time.sleep(0.01)

    @property
    def text(self) -> str:
        """What the run has printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")


def processes_in(project: Path) -> list[psutil.Process]:
    """Return the living processes whose working directory is the project."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.status() != psutil.STATUS_ZOMBIE and project == Path(process.cwd()):
                found.append(process)
    return found


# --- the program ----------------------------------------------------------------------------------


def run_to_its_end(project: Path) -> None:
    """Run the workflow once, undisturbed."""
    run = Run(project, START)
    try:
        if not run.wait(LONGEST_RUN):
            raise BrokenLawError(f"no end after {LONGEST_RUN} s:\n{run.text[-3000:]}")
    finally:
        run.kill()


def kill_and_recover(
    project: Path, reference: Path, kills: int, latest: float, draw: random.Random
) -> int:
    """Kill a run at most `kills` times until it reaches its end; return how often it was killed."""
    command = START
    for done in range(kills + 1):
        run, moment = Run(project, command), draw.uniform(0, latest)
        try:
            ended = run.wait(moment if done < kills else LONGEST_RUN)
            if not ended and done % 2 and done < kills:
                ended = run.wait_for_change()
        finally:
            run.kill()
        if ended:
            return done
        files = check_files(project, reference)
        print(f"a kill after {moment:.1f} s: {len(files)} files, all whole", flush=True)
        command = RECOVERY
    raise BrokenLawError(f"no end after {LONGEST_RUN} s:\n{run.text[-3000:]}")


def main() -> int:
    """Run everything and print what happened; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=25, help="in all (default: 25)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    first = parser.add_mutually_exclusive_group()
    first.add_argument("--longer", type=int, default=1, help="times as many epochs (default: 1)")
    first.add_argument("--undisturbed", type=Path, help="project of the same run, at its end")
    arguments = parser.parse_args()
    draw, done, tables = random.Random(arguments.seed), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        original = make_project(Path(folder) / "original", arguments.longer)
        undisturbed, project = Path(folder) / "undisturbed", Path(folder) / "killed"
        try:
            if arguments.undisturbed:
                undisturbed = arguments.undisturbed
            else:
                shutil.copytree(original, undisturbed)
                run_to_its_end(undisturbed)
            check_end(undisturbed, undisturbed)
            made = [(undisturbed / name).stat().st_mtime for name in final_files(undisturbed)]
            latest = LATEST_KILL * (max(made) - min(made))
            while done < arguments.kills:
                shutil.copytree(original, project)
                kills = arguments.kills - done
                done += kill_and_recover(project, undisturbed, kills, latest, draw)
                tables += check_end(project, undisturbed)
                shutil.rmtree(project)
        except BrokenLawError as error:
            print(f"FAILED after {done} kills: {error}", flush=True)
            return 1
    print(f"{done} of {arguments.kills} kills recovered, {tables} tables equal")
    return 0


if __name__ == "__main__":
    sys.exit(main())
