"""What is written about the code and the machine that made a file."""

import json
import subprocess

import pytest

from fourfold.pipeline import provenance
from fourfold.pipeline.provenance import git_state, hardware

UNKNOWN = {"commit": None, "dirty": None}


def _git(folder, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", folder, *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(autouse=True)
def no_memory():
    """A job asks once; a test asks before and after a change."""
    git_state.cache_clear()


@pytest.fixture
def package(tmp_path):
    """A package in a work tree with one commit and a folder that git ignores."""
    folder = tmp_path / "src" / "package"
    folder.mkdir(parents=True)
    (folder / "module.py").write_text("x = 1\n")
    (tmp_path / "README.md").write_text("text\n")
    (tmp_path / ".gitignore").write_text("/.venv/\n")
    _git(tmp_path, "init", "-q")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-q", "-m", "first")
    return folder


def test_a_clean_work_tree_has_its_commit(package):
    assert git_state(package) == {"commit": _git(package, "rev-parse", "HEAD"), "dirty": False}


@pytest.mark.parametrize("changed", ["src/package/module.py", "README.md"])
def test_a_changed_tracked_file_makes_it_dirty(package, changed):
    (package.parents[1] / changed).write_text("changed\n")
    assert git_state(package)["dirty"] is True


def test_a_new_module_of_the_package_makes_it_dirty(package):
    (package / "new.py").write_text("x = 2\n")
    assert git_state(package)["dirty"] is True


def test_new_files_outside_the_package_do_not_make_it_dirty(package):
    results = package.parents[1] / "results"
    results.mkdir()
    (results / "table.csv").write_text("1\n")
    assert git_state(package)["dirty"] is False


def test_outside_a_work_tree_nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state(tmp_path) == UNKNOWN


def test_a_work_tree_without_a_commit_has_none(tmp_path):
    _git(tmp_path, "init", "-q")
    assert git_state(tmp_path) == UNKNOWN


def test_a_package_installed_in_somebody_elses_work_tree_does_not_take_its_commit(package):
    installed = package.parents[1] / ".venv" / "package"
    installed.mkdir(parents=True)
    (installed / "module.py").write_text("x = 1\n")
    assert git_state(installed) == UNKNOWN


def test_a_folder_that_is_not_there_is_no_error(tmp_path):
    assert git_state(tmp_path / "gone") == UNKNOWN


@pytest.mark.parametrize(
    "error", [FileNotFoundError("git"), subprocess.TimeoutExpired("git", provenance._GIT_SECONDS)]
)
def test_without_git_or_with_a_slow_one_nothing_is_known(package, monkeypatch, error):
    def fail(*arguments, **keywords):
        raise error

    monkeypatch.setattr(provenance.subprocess, "run", fail)
    assert git_state(package) == UNKNOWN


def test_a_job_asks_git_once(package, monkeypatch):
    first = git_state(package)
    monkeypatch.setattr(provenance.subprocess, "run", None)
    assert git_state(package) == first


def test_the_machine_is_described_without_its_name():
    machine = hardware()
    assert set(machine) == {"processor", "cores", "memory_bytes", "system"}
    assert machine["cores"] >= 1
    assert machine["memory_bytes"] > 2**20
    assert provenance.platform.node() not in json.dumps(machine)
