"""What is written about the code and the machine that made a file."""

import subprocess

import pytest

from fourfold.pipeline import provenance
from fourfold.pipeline.provenance import git_state, hardware

UNKNOWN = {"commit": None, "dirty": None}


def git(folder, *arguments):
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
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return folder


@pytest.mark.parametrize(
    ("written", "is_dirty"),
    [
        (None, False),
        ("src/package/module.py", True),
        ("README.md", True),
        ("src/package/new.py", True),
        ("table.csv", False),  # no code: new, and outside the package
    ],
)
def test_a_commit_is_what_ran_unless_code_or_a_tracked_file_differs(written, is_dirty, package):
    if written:
        (package.parents[1] / written).write_text("changed\n")
    commit = git(package, "rev-parse", "HEAD")
    assert git_state(package) == {"commit": commit, "dirty": is_dirty}


def test_outside_a_work_tree_and_before_the_first_commit_nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state(tmp_path / "gone") == git_state(tmp_path) == UNKNOWN
    git(tmp_path, "init", "-q")
    git_state.cache_clear()
    assert git_state(tmp_path) == UNKNOWN


def test_a_package_installed_in_somebody_elses_work_tree_does_not_take_its_commit(package):
    installed = package.parents[1] / ".venv" / "package"
    installed.mkdir(parents=True)
    (installed / "module.py").write_text("x = 1\n")
    assert git_state(installed) == UNKNOWN


@pytest.mark.parametrize("error", [FileNotFoundError("git"), subprocess.TimeoutExpired("git", 10)])
def test_without_git_or_with_a_slow_one_nothing_is_known(package, monkeypatch, error):
    def fail(*arguments, **keywords):
        raise error

    monkeypatch.setattr(provenance.subprocess, "run", fail)
    assert git_state(package) == UNKNOWN


def test_the_machine_is_described_without_its_name():
    machine = hardware()
    assert machine.keys() == {"processor", "cores", "memory_bytes", "system"}
    assert machine["cores"] >= 1
    assert machine["memory_bytes"] > 2**20
    assert provenance.platform.node() not in machine.values()
