"""The benchmark programs run; their figures are no test, since they depend on the machine."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.parametrize("program", ["step.py", "grid.py", "data.py"])
def test_a_benchmark_prints_its_ratios(program):
    command = [sys.executable, BENCHMARKS / program, "--quick", "--threads", "1", "--device", "cpu"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    assert "at most" in run.stdout
