"""The lock of a run: shared or alone, and gone with the process that holds it."""

import fcntl
import subprocess
import sys
import threading

import pytest

from fourfold.pipeline.run_lock import RunLock

HOLD = """
import subprocess, sys, time
from pathlib import Path
from fourfold.pipeline.run_lock import RunLock
assert RunLock(Path(sys.argv[1])).share()
subprocess.Popen(["sleep", "5"])
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / ".snakemake" / "fourfold.lock"


def test_runs_share_a_folder_and_none_has_it_alone_beside_them(path):
    lock = RunLock(path)
    assert lock.take_alone()
    assert lock.share(0), "it goes on with others"
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
        assert not lock.take_alone()
        assert lock.share(0)
    assert lock.take_alone()
    assert not RunLock(path).share(0)


def test_a_run_waits_for_another_one_that_has_the_folder_alone_for_a_moment(path):
    other = RunLock(path)
    assert other.take_alone()
    timer = threading.Timer(0.3, other.share)
    timer.start()
    assert RunLock(path).share()
    timer.join()


def test_a_killed_run_holds_nothing_even_if_its_jobs_live_on(path):
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline() == "held\n"
        assert not RunLock(path).take_alone()
        run.kill()
        run.wait()
        assert RunLock(path).take_alone()
