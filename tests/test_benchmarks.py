"""The benchmark programs run; their figures are no test, since they depend on the machine."""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import import_docs_program

ROOT = Path(__file__).parent.parent
BENCHMARKS, DOCS = ROOT / "benchmarks", ROOT / "docs"


def run_quickly(program, *arguments):
    command = [sys.executable, BENCHMARKS / program, "--quick", "--threads", "1", "--device", "cpu"]
    run = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.long
@pytest.mark.parametrize(
    "command",
    [["step.py", "--case", "imagenet"], ["grid.py"], ["data.py"], ["loader.py"], ["ensembles.py"]],
)
def test_a_benchmark_prints_its_ratios(command):
    assert "at most" in run_quickly(*command)


@pytest.mark.long
def test_the_benchmark_of_alignments_prints_time_and_memory_of_each_network():
    printed = run_quickly("alignment.py")
    assert [printed.count(f" {name} ") for name in ("resnet18", "vgg16", "vit")] == [1, 1, 1]
    assert printed.count("met") + printed.count("MET") == 3


@pytest.mark.long
def test_the_benchmark_of_the_explorer_opens_a_page_of_nine_experiments():
    pytest.importorskip("playwright", reason="playwright isn't installed")
    if (browser := shutil.which("chromium")) is None:
        pytest.skip("there is no chromium")
    printed = run_quickly("explorer.py", "--rounds", "1", "--browser", browser)
    assert "9 experiments, 27 surfaces" in printed
    assert "target at most 25: met" in printed


@pytest.mark.long
def test_the_scaling_benchmark_writes_what_its_page_needs(tmp_path):
    run_quickly("memory.py", "--output", str(tmp_path / "scaling.json"))
    measured = json.loads((tmp_path / "scaling.json").read_text())
    kept = json.loads((DOCS / "measured" / "scaling.json").read_text())
    assert measured.keys() == kept.keys()
    assert measured["memory"][0].keys() == kept["memory"][0].keys()
    assert all(value > 0 for row in measured["memory"] for value in row.values())


@pytest.mark.long
def test_an_experiment_at_full_size_makes_a_step_of_its_fit(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    program = importlib.import_module("full_size")
    assert program.run_stage("cifar10-resnet18", "fit", 8, torch.device("cpu")) > 0
    assert program.saved_bytes("cifar10-resnet18") > 1e6


def test_the_page_shows_the_outputs_that_are_kept():
    program = import_docs_program("benchmarks")
    page = program.PAGE.read_text()
    assert program.build_page(page, program.OUTPUTS) == page, "run: python docs/benchmarks.py"
    assert {path.stem for path in program.OUTPUTS.glob("*.txt")} == (
        program.RUNS | program.ON_GPU
    ).keys()
