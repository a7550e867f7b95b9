"""Kills, full disks and unwritable folders: a clear end, nothing half-written, and a way on.

`kill_workflow.py` does the first part with three kills of the whole workflow.
"""

import base64
import contextlib
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from kill_workflow import BrokenLawError, Run, check_file, final_files, make_project
from matplotlib.figure import Figure
from project import EXPERIMENT, ROOT, planned, snakemake

from fourfold.errors import WriteError
from fourfold.files.atomic import atomic_path, write_text
from fourfold.files.table import SCHEMAS, write_table
from fourfold.files.tensors import save_tensors
from fourfold.report.figures._style import save_figure
from fourfold.training.snapshots import Snapshots

CORNER = f"results/{EXPERIMENT}/0/endpoints/seed0.safetensors"
TRAIN_ONE = f"snakemake --cores 2 -- {CORNER}"


def test_a_killed_workflow_recovers_with_the_documented_command():
    program = Path(__file__).parents[1] / "kill_workflow.py"
    command = [sys.executable, str(program), "--kills", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 of 3 kills recovered" in done.stdout
    assert " 0 tables equal" not in done.stdout


def test_the_readme_names_the_recovery_command_that_is_tested():
    documented = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "snakemake --unlock && snakemake --cores " in documented


# --- files that can't be written ------------------------------------------------------------------


def _write_table(path):
    rows = [dict.fromkeys(SCHEMAS["geometry"].names, k) for k in range(20_000)]
    text = ["experiment", "surface", "a", "b"]
    write_table("geometry", pd.DataFrame(rows).astype(dict.fromkeys(text, str)), path)


def _write_figure(path):
    figure = Figure()
    figure.subplots().plot(torch.randn(1000).numpy())
    save_figure(figure, path.with_suffix(""))


def _write_csv(path):
    with atomic_path(path) as temporary:
        pd.DataFrame({"a": range(50_000)}).to_csv(temporary)


WRITERS = {
    "a.safetensors": lambda path: save_tensors({"a": torch.zeros(100_000)}, path, {}),
    "a.parquet": _write_table,
    "a.png": _write_figure,
    "a.csv": _write_csv,
    "a.md": lambda path: write_text(path, "a" * 500_000),
}


@contextlib.contextmanager
def limited_file_size(size):
    """Let no file of this process grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def small_disk(folder, options):
    """Mount a file system of its own on a folder; skip the test where that isn't allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small disk needs an administrator")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _remount(folder, options):
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def check_refusal(name, folder, said):
    """Check that writing over an old file ends in one message, and leaves the old one alone."""
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(WriteError) as raised:
        WRITERS[name](folder / name)
    message = str(raised.value)
    for part in (f"can't write {folder / name}", said):
        assert part in message
    assert "\n" not in message
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_over_the_size_limit_ends_in_one_message(name, tmp_path):
    (tmp_path / name).write_text("old")
    with limited_file_size(5_000):
        check_refusal(name, tmp_path, "File too large. Raise")


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_ends_in_one_message(name, tmp_path):
    with small_disk(tmp_path / "disk", "size=16k"):
        (tmp_path / "disk" / name).write_text("old")
        check_refusal(name, tmp_path / "disk", "No space left on device. Free some space")


@pytest.mark.parametrize("name", WRITERS)
def test_an_unwritable_folder_ends_in_one_message(name, tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir()
    if os.geteuid():
        (folder / name).write_text("old")
        folder.chmod(0o555)
        check_refusal(name, folder, "Permission denied. Make the folder writable")
        folder.chmod(0o755)
    else:  # who may write everywhere: a disk that is read-only
        with small_disk(folder, "size=16k"):
            (folder / name).write_text("old")
            _remount(folder, "ro")
            check_refusal(name, folder, "Read-only file system. Make the folder writable")


@pytest.mark.parametrize("below", ["a.md", "more/a.md"])
def test_a_file_where_a_folder_is_needed_ends_in_one_message(below, tmp_path):
    (tmp_path / "results").write_text("a file")
    path = tmp_path / "results" / below
    with pytest.raises(WriteError, match="what lies in the way") as raised:
        write_text(path, "new")
    assert str(path) in str(raised.value)
    assert (tmp_path / "results").read_text() == "a file"


def test_an_error_that_has_nothing_to_do_with_the_file_stays_as_it_is(tmp_path):
    with pytest.raises(ConnectionResetError), atomic_path(tmp_path / "a.zip"):
        raise ConnectionResetError(104, "Connection reset by peer")
    assert list(tmp_path.iterdir()) == []


def test_a_kill_while_a_finished_state_is_removed_leaves_none_to_continue(tmp_path, monkeypatch):
    """A state without the checkpoints beside it would end each later run in an error."""
    snapshots = Snapshots(tmp_path / "state", {})
    snapshots.save({"step": 1})
    (tmp_path / "state" / "seed0-epoch1.safetensors").write_text("a checkpoint")

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        snapshots.remove()
    assert Snapshots(tmp_path / "state", {}).load() is None


# --- the workflow ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a project in which one network has been trained without disturbance."""
    project = make_project(
        tmp_path_factory.mktemp("trained"), ROOT / "tests" / "params.tiny.yaml", EXPERIMENT, 5
    )
    assert Run(project, TRAIN_ONE).wait(300)
    return project


@pytest.fixture
def fresh(trained, tmp_path):
    """Return a project as that one was before its run."""
    project = tmp_path / "project"
    shutil.copytree(
        trained, project, ignore=shutil.ignore_patterns("results", "data", ".snakemake")
    )
    return project


def run_fails(project, command, *said):
    """Run a command that must fail with 1; return what it printed."""
    run = Run(project, command)
    with pytest.raises(BrokenLawError, match="ended with 1:"):
        run.wait(300)
    for part in said:
        assert part in run.text
    assert '.py", line' not in run.text  # of a traceback
    assert not list(project.rglob(".unfinished-*"))
    return run.text


def check_rerun(project, trained):
    """Check that a further run ends as the undisturbed one, without any help."""
    for name in final_files(project):
        check_file(project, name, trained)
    assert Run(project, TRAIN_ONE).wait(300)
    assert final_files(project) == final_files(trained)
    for name in final_files(project):
        check_file(project, name, trained)
    assert not list((project / "results").rglob("*unfinished-*"))


def test_a_job_killed_for_lack_of_memory_is_named_and_continued(fresh, trained):
    """The system kills the process that has most memory; Snakemake lives."""
    run = Run(fresh, TRAIN_ONE)
    state = fresh / "results" / EXPERIMENT / "0" / "unfinished-seed0" / "state.safetensors"
    while not state.exists():
        assert not run.wait(0.01)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if "train-endpoint" in process.cmdline()[3:4] and Path(process.cwd()) == fresh:
                process.kill()
    with pytest.raises(BrokenLawError, match="ended with 1:"):
        run.wait(300)
    for part in ("Error in rule train_endpoint", "lack of memory"):
        assert part in run.text
    assert state.exists()
    assert not (fresh / CORNER).exists()
    check_rerun(fresh, trained)
    log = (fresh / "results" / EXPERIMENT / "0" / "log" / "train_endpoint-seed0.log").read_text()
    assert "continuing with step" in log


def test_a_run_on_a_full_disk_says_so_and_a_later_one_goes_on(fresh, trained):
    results = fresh / "results"
    with small_disk(results, "size=100k"):
        run_fails(fresh, TRAIN_ONE, "error: can't write results/", "No space left on device")
        assert not (fresh / CORNER).exists()
        _remount(results, "size=64m")
        check_rerun(fresh, trained)


def test_a_full_disk_that_holds_the_records_as_well_is_named_and_a_later_run_goes_on(
    fresh, trained
):
    """There is no room for Snakemake's records, nor for the message in the job's log."""
    disk = fresh.parent / "disk"
    with small_disk(disk, "size=16m"):
        shutil.copytree(fresh, disk, dirs_exist_ok=True)
        with (disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(bytes(4096))
        with (disk / "filler").open("r+b") as filler:
            filler.truncate((disk / "filler").stat().st_size - 40_000)
        run_fails(disk, TRAIN_ONE, "No space left on device")
        (disk / "filler").unlink()
        check_rerun(disk, trained)


@pytest.mark.parametrize("folder", ["results", "data"])
def test_a_run_that_can_not_write_says_so_and_starts_nothing(folder, fresh):
    (fresh / folder).write_text("a file")
    run = snakemake(fresh, "--", "data")
    assert run.returncode == 1
    assert f"{folder} is a file" in run.stdout + run.stderr
    (fresh / folder).unlink()
    if os.geteuid():
        (fresh / folder).mkdir(mode=0o555)
        run_fails(fresh, "snakemake --cores 2 -- data", f"can't write into {folder}: no permission")
        (fresh / folder).chmod(0o755)
    else:
        with small_disk(fresh / folder, "ro"):
            run_fails(
                fresh, "snakemake --cores 2 -- data", f"can't write into {folder}: no permission"
            )
    assert final_files(fresh) == []
    assert planned(fresh)


def test_a_half_written_record_is_built_again_after_a_kill_and_otherwise_refused(trained, tmp_path):
    project = tmp_path / "project"
    shutil.copytree(trained, project)
    name = base64.urlsafe_b64encode(CORNER.encode()).decode()
    record = project / ".snakemake" / "metadata" / name
    record.write_text(record.read_text()[:100])
    refused = snakemake(project, "--dry-run")
    assert refused.returncode == 1
    assert CORNER in refused.stdout + refused.stderr
    marker = project / ".snakemake" / "incomplete" / name
    for written in ("", '{"external_jobid": null}'):  # a kill may come between
        marker.write_text(written)
        assert snakemake(project, "--unlock").returncode == 0
        plan = snakemake(project, "--dry-run", "--quiet", "rules", "--", CORNER)
        assert plan.returncode == 0, plan.stderr
        assert "train_endpoint" in plan.stdout + plan.stderr
