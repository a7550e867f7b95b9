"""Kills, full disks and unwritable folders: a clear end, nothing half-written, and a way on."""

import base64
import contextlib
import fcntl
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from kill_workflow import BrokenLawError, Run, check_files, final_files, make_project, processes_in
from matplotlib.figure import Figure
from project import EXPERIMENT, ROOT, edit, finished_project, planned, snakemake

from fourfold.errors import WriteError
from fourfold.files.atomic import atomic_path, write_text
from fourfold.files.table import SCHEMAS, write_table
from fourfold.files.tensors import save_tensors
from fourfold.report.figures._style import save_figure
from fourfold.training.snapshots import Snapshots

CORNER = f"results/{EXPERIMENT}/0/endpoints/seed0.safetensors"
TRAIN_ONE = f"snakemake --cores 2 -- {CORNER}"
AS_ROOT = os.geteuid() == 0  # who may write everywhere: then a disk is read-only


@pytest.mark.long
def test_a_killed_workflow_recovers_with_the_documented_command(tmp_path_factory):
    program = Path(__file__).parents[1] / "kill_workflow.py"
    undisturbed, _ = finished_project(tmp_path_factory)
    command = [sys.executable, str(program), "--kills", "2", "--undisturbed", str(undisturbed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 kills recovered" in done.stdout
    assert " 0 tables equal" not in done.stdout
    documented = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "snakemake --unlock && snakemake --cores " in documented


# --- files that can't be written ------------------------------------------------------------------


def _write_table(path):
    rows = pd.DataFrame([dict.fromkeys(SCHEMAS["geometry"].names, k) for k in range(20_000)])
    write_table(
        "geometry", rows.astype(dict.fromkeys(["experiment", "surface", "a", "b"], str)), path
    )


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
def limited_file_size(folder):
    """Let no file of this process grow beyond some size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def small_disk(folder, options="size=16k"):
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


def remount(folder, options):
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


@contextlib.contextmanager
def unwritable(folder):
    if AS_ROOT:
        remount(folder, "ro")
        yield
    else:
        folder.chmod(0o555)
        yield
        folder.chmod(0o755)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize(
    ("disk", "fault", "said"),
    [
        (contextlib.nullcontext, limited_file_size, "File too large. Raise"),
        (small_disk, contextlib.nullcontext, "No space left on device. Free some space"),
        (
            small_disk if AS_ROOT else contextlib.nullcontext,
            unwritable,
            ("Read-only file system" if AS_ROOT else "Permission denied") + ". Make the folder",
        ),
    ],
)
def test_what_can_not_be_written_ends_in_one_message(name, disk, fault, said, tmp_path):
    with disk(tmp_path):
        (tmp_path / name).write_text("old")
        with fault(tmp_path), pytest.raises(WriteError) as raised:
            WRITERS[name](tmp_path / name)
        message = str(raised.value)
        assert f"can't write {tmp_path / name}: {said}" in message
        assert "\n" not in message
        assert {path: path.read_text() for path in tmp_path.iterdir()} == {tmp_path / name: "old"}


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
    project = make_project(tmp_path_factory.mktemp("trained"), longer=5)
    assert Run(project, TRAIN_ONE).wait(300)
    return project


@pytest.fixture
def fresh(trained, tmp_path):
    """Return a project as that one was before its run."""
    project = shutil.copytree(trained, tmp_path / "project")
    for made in ("results", "data", ".snakemake"):
        shutil.rmtree(project / made)
    return project


def check_failure(run, *said):
    """Check that a run fails with 1 and says why, without a traceback."""
    with pytest.raises(BrokenLawError, match="ended with 1:"):
        run.wait(300)
    for part in said:
        assert part in run.text
    assert '.py", line' not in run.text


def check_rerun(project, trained):
    """Check that a further run ends as the undisturbed one, without any help."""
    check_files(project, trained)
    assert Run(project, TRAIN_ONE).wait(300)
    assert check_files(project, trained) == final_files(trained)
    assert not list((project / "results").rglob("*unfinished-*"))


@pytest.mark.long
def test_a_job_killed_for_lack_of_memory_is_named_and_continued(fresh, trained):
    """The system kills the process that has most memory; Snakemake lives."""
    run = Run(fresh, TRAIN_ONE)
    results = fresh / "results" / EXPERIMENT / "0"
    state = results / "unfinished-seed0" / "state.safetensors"
    while not state.exists():
        assert not run.wait(0.01)
    for process in processes_in(fresh):
        if "train-endpoint" in process.cmdline()[3:4]:
            process.kill()
    with pytest.raises(BrokenLawError, match="ended with 1:"):
        run.wait(300)
    assert "failed  train_endpoint" in run.text
    assert "lack of memory" in run.text
    assert state.exists()
    assert not (fresh / CORNER).exists()
    check_rerun(fresh, trained)
    log = (results / "log" / "train_endpoint-seed0.log").read_text()
    assert "continuing with step" in log


def check_refusal(run, said):
    assert run.returncode == 1
    assert said in run.stderr
    assert '.py", line' not in run.stdout + run.stderr


@pytest.mark.long
def test_nothing_is_moved_or_removed_from_under_a_run_until_it_is_killed(fresh):
    run, results = Run(fresh, TRAIN_ONE), fresh / "results" / EXPERIMENT / "0"
    try:
        while not (results / "unfinished-seed0" / "state.safetensors").exists():
            assert not run.wait(0.01)
        for process in processes_in(fresh):
            process.suspend()
        (results / ".unfinished-x").touch()
        edit(fresh, lambda params: params.update(run=["tiny-vit"]))
        refused = snakemake(fresh, "--", "prune_results")
        check_refusal(refused, "error: another run is at work in this folder")
        assert (results / ".unfinished-x").exists()
    finally:
        run.kill()
    assert snakemake(fresh, "--", "prune_results").returncode == 0
    assert not results.exists()
    assert [*(fresh / ".pruned").glob(f"*/results/{EXPERIMENT}")]
    assert not [*fresh.rglob(".unfinished-x")]


@pytest.mark.long
def test_no_run_starts_beside_one_that_moves_files(fresh):
    (fresh / ".snakemake").mkdir()
    with (fresh / ".snakemake" / "fourfold.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        check_refusal(snakemake(fresh, "--", "data"), "error: another run with prune_results")
        assert final_files(fresh) == []
        assert planned(fresh), "a dry run takes nothing"
    assert snakemake(fresh, "--", "data").returncode == 0


def test_a_run_on_a_full_disk_says_so_and_a_later_one_goes_on(fresh, trained):
    results = fresh / "results"
    with small_disk(results, "size=100k"):
        said = ("can't write results/", "No space left on device")
        check_failure(Run(fresh, TRAIN_ONE), *said)
        assert not (fresh / CORNER).exists()
        assert not list(fresh.rglob(".unfinished-*"))
        remount(results, "size=64m")
        check_rerun(fresh, trained)


def test_a_full_disk_that_holds_the_records_as_well_is_named_and_a_later_run_goes_on(
    fresh, trained
):
    """There is no room for Snakemake's records, nor for the message in the job's log."""
    disk = fresh.parent / "disk"
    with small_disk(disk, "size=16m"):
        shutil.copytree(fresh, disk, dirs_exist_ok=True)
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        os.truncate(filler, filler.stat().st_size - 40_000)
        check_failure(Run(disk, TRAIN_ONE), "No space left on device")
        filler.unlink()
        check_rerun(disk, trained)


@pytest.mark.parametrize("folder", ["results", "data"])
def test_a_run_that_can_not_write_says_so_and_starts_nothing(folder, fresh):
    (fresh / folder).write_text("a file")
    check_failure(Run(fresh, "snakemake --cores 2 -- data"), f"{folder} is a file")
    (fresh / folder).unlink()
    (fresh / folder).mkdir()
    disk = small_disk(fresh / folder) if AS_ROOT else contextlib.nullcontext()
    with disk, unwritable(fresh / folder):
        said = f"can't write into {folder}: no permission"
        check_failure(Run(fresh, "snakemake --cores 2 -- data"), said)
    assert final_files(fresh) == []
    assert planned(fresh)


def test_a_half_written_record_is_built_again_after_a_kill_and_otherwise_refused(trained, tmp_path):
    project = shutil.copytree(trained, tmp_path / "project")
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
