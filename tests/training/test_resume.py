"""Killed processes: `kill_and_resume.py` with three kills of a training run and of a fit."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.long
def test_a_killed_run_ends_as_an_undisturbed_one():
    program = Path(__file__).parents[1] / "kill_and_resume.py"
    command = [sys.executable, str(program), "--kills", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if "kills" in line]
    assert len(lines) == 2
    for line in lines:
        assert "equal" in line
        assert "removed" in line
        assert " 0 kills" not in line
