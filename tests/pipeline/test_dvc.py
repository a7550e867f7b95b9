"""DVC and Snakemake together: clones, changed parameters, and files without their records."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from project import EXPERIMENT, ROOT, edit, finished_project, planned, section, snakemake

RESULTS = Path("results") / EXPERIMENT / "0"
IDENTITY = ["-c", "user.name=a", "-c", "user.email=a@example.org"]


def run(folder, *command):
    """Run a command in a project, with the programs of this Python's environment; return output."""
    programs = Path(sys.executable).parent
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def commit(folder, message):
    run(folder, "git", "add", "-A")
    run(folder, "git", *IDENTITY, "commit", "-q", "-m", message)


def contents(folder):
    """Return every result and its bytes; logs and Snakemake's own files are none."""
    return {
        path.relative_to(folder): path.read_bytes()
        for name in ("results", "data")
        for path in (folder / name).rglob("*")
        if path.is_file() and "log" not in path.relative_to(folder).parts
    }


def is_finished(folder):
    """Return whether DVC finds the files as committed, and Snakemake nothing to do."""
    return "up to date" in run(folder, "dvc", "status") and planned(folder) == {}


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A repository whose results are built, committed, and pushed to the remote it comes with."""
    base = tmp_path_factory.mktemp("dvc")
    project = shutil.copytree(finished_project(tmp_path_factory)[0], base / "project")
    for name in (".dvc", ".dvcignore", ".gitignore", "dvc.yaml"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, project / name)
    for private in ("tmp", "cache", "config.local"):
        shutil.rmtree(project / ".dvc" / private, ignore_errors=True)
    run(project, "git", "init", "-q", "-b", "main")
    commit(project, "workflow")
    run(project, "dvc", "repro")
    commit(project, "results")
    run(project, "dvc", "push")
    assert (base / "fourfold-store").is_dir()
    return project


def new_clone(origin, folder):
    """Clone into another folder, from which the remote lies elsewhere."""
    run(folder, "git", "clone", "-q", str(origin), "clone")
    store = str(origin.parent / "fourfold-store")
    run(folder / "clone", "dvc", "remote", "modify", "--local", "store", "url", store)
    return folder / "clone"


@pytest.fixture
def clone(origin, tmp_path):
    """A colleague's clone that has pulled the results."""
    made = new_clone(origin, tmp_path)
    run(made, "dvc", "pull")
    return made


def test_a_clone_that_pulled_has_nothing_to_do(origin, clone):
    assert is_finished(clone)
    assert contents(clone) == contents(origin)
    assert "accuracy_mean" in run(clone, "dvc", "metrics", "show", "--json")


@pytest.mark.long
def test_a_changed_parameter_rebuilds_in_a_clone_what_it_would_at_home(origin, clone):
    before = contents(clone)
    edit(clone, lambda p: section(p, "ensembles").update(max_members=5))
    jobs = planned(clone)
    assert "compare_ensembles" in jobs
    assert not {"fit_bezier_surface", "evaluate_grid", "prepare_data"} & set(jobs)
    run(clone, "dvc", "repro")
    after = contents(clone)
    assert after.keys() == before.keys()
    changed = {path for path in after if after[path] != before[path]}
    assert RESULTS / "tables" / "ensemble.parquet" in changed
    kept = ("endpoints", "trajectory", "surfaces", "logits", "examples", "data")
    assert not [path for path in changed if set(path.parts) & set(kept)]
    assert is_finished(clone)
    # And back, with files that DVC has, without running anything.
    commit(clone, "more members")
    run(clone, "git", "checkout", "-q", "HEAD~1")
    run(clone, "dvc", "checkout")
    assert contents(clone) == before
    assert is_finished(clone)
    run(clone, "git", "checkout", "-q", "main")
    run(clone, "dvc", "checkout")
    assert contents(clone) == after
    assert is_finished(clone)


@pytest.mark.parametrize("is_partial", [True, False])
def test_results_without_their_records_are_refused_with_the_cure(is_partial, origin, tmp_path):
    made = new_clone(origin, tmp_path)
    run(made, "dvc", "pull", *(["data"] if is_partial else []))
    shutil.rmtree(made / ".snakemake", ignore_errors=True)
    cure = ["`rm -r data/digits`"] if is_partial else ["`rm -r data/digits ", f" {RESULTS}`"]
    for arguments in (["--dry-run"], []):
        refused = snakemake(made, *arguments)
        assert refused.returncode == 1
        for part in ("without readable records", "`dvc checkout`", *cure):
            assert part in refused.stdout + refused.stderr
    run(made, "dvc", "pull" if is_partial else "checkout")
    assert planned(made) == {}


def test_what_params_no_longer_ask_for_is_moved_away_and_can_be_taken_back(clone):
    before = contents(clone)
    stale = RESULTS / "endpoints" / "seed99.safetensors"
    gone = [Path("results/gone/0/t.parquet"), Path("data/gone/train.safetensors")]
    for path in (stale, *gone):
        (clone / path).parent.mkdir(parents=True, exist_ok=True)
        (clone / path).write_bytes(b"stale")
    assert snakemake(clone, "--", "prune_results").returncode == 0
    assert contents(clone) == before
    assert is_finished(clone)
    (kept,) = (clone / ".pruned").iterdir()  # nobody may have another copy
    assert contents(kept) == dict.fromkeys((stale, *gone), b"stale")
    shutil.rmtree(clone / ".pruned")
    edit(clone, lambda p: p.update(run=["tiny-vit"]))
    assert snakemake(clone, "--", "prune_results").returncode == 0
    assert not (clone / RESULTS).exists()
    edit(clone, lambda p: p.update(run=[EXPERIMENT]))
    (kept,) = (clone / ".pruned").iterdir()
    shutil.copytree(kept, clone, dirs_exist_ok=True)
    assert contents(clone) == before
    assert planned(clone) == {}


# --- a remote on S3 -------------------------------------------------------------------------------


@pytest.fixture
def s3_server(monkeypatch):
    """A server that speaks S3, on this machine, with an empty bucket; yields its address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    for name, value in {
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3", endpoint_url=address).create_bucket(Bucket="results")
    yield address
    server.stop()


def test_results_travel_through_s3(origin, tmp_path, s3_server):
    sender = tmp_path / "sender"
    shutil.copytree(origin, sender, symlinks=True)
    run(sender, "dvc", "remote", "add", "-d", "bucket", "s3://results/fourfold")
    run(sender, "dvc", "remote", "modify", "bucket", "endpointurl", s3_server)
    commit(sender, "a remote on S3")
    run(sender, "dvc", "push")
    run(tmp_path, "git", "clone", "-q", str(sender), "clone")
    run(tmp_path / "clone", "dvc", "pull", "-r", "bucket")
    assert contents(tmp_path / "clone") == contents(origin)
    assert is_finished(tmp_path / "clone")
    assert "nobody" not in (sender / ".dvc" / "config").read_text()  # nor any other credential
