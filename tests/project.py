"""A copy of the workflow with small experiments, run as a user runs it."""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from filelock import FileLock

from fourfold.pipeline.cli import main

ROOT = Path(__file__).parent.parent
EXPERIMENT = "tiny-resnet18"


def new_project(folder):
    """Copy the workflow as a clone would have it, with the small experiments as params.yaml."""
    for name in ("workflow", "src", "profiles"):
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    shutil.copy(ROOT / "Snakefile", folder)
    shutil.copy(ROOT / "tests" / "params.tiny.yaml", folder / "params.yaml")
    edit(folder, lambda params: params.update(run=[EXPERIMENT]))
    return folder


def edit(project, change):
    """Change params.yaml; the order of its keys and its comments may change with it."""
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text())
    change(params)
    path.write_text(yaml.safe_dump(params))


def snakemake(project, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", *arguments],
        cwd=project,
        env={**os.environ, "COLUMNS": "200", "PYTHONPATH": str(project / "src")},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def finished_project(tmp_path_factory):
    """Return a project whose run has ended, to be read or copied: one for all test processes."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    project, said = base / "finished-project", base / "finished-project.txt"
    with FileLock(f"{project}.lock"):
        if not said.exists():
            shutil.rmtree(project, ignore_errors=True)
            project.mkdir()
            run = snakemake(new_project(project))
            assert run.returncode == 0, run.stdout + run.stderr
            said.write_text(run.stdout)
    return project, said.read_text()


def planned(project):
    """Return the rules that a run would execute now, with their number of jobs."""
    run = snakemake(project, "--dry-run", "--quiet", "rules")
    assert run.returncode == 0, run.stderr
    text = run.stdout + run.stderr
    if "Nothing to be done" in text:
        return {}
    stats = text[text.index("Job stats:") :]
    return {rule: int(n) for rule, n in re.findall(r"^(\w+) +(\d+)$", stats, flags=re.M)}


def section(params, name):
    """Return what the small experiment has as `network`, `fit`, or a section of its recipe."""
    experiment = params["experiments"][EXPERIMENT]
    if name == "network":
        return params["networks"][experiment["network"]]
    recipe = params["recipes"][experiment["recipe"]]
    return recipe["fits"]["standard"] if name == "fit" else recipe[name]


def run_commands(project):
    """Run what a run would execute, command by command in this process: torch starts once."""
    run = snakemake(project, "--dry-run", "--printshellcmds")
    assert run.returncode == 0, run.stdout + run.stderr
    commands = re.findall(
        r"^Shell command: python -m fourfold (.*) > \S+ 2>&1$", run.stdout, flags=re.M
    )
    assert len(commands) == planned(project)["total"] - 1, "`all` has none, the others one"
    with contextlib.chdir(project):
        for command in commands:
            arguments = shlex.split(command)
            for path in arguments[arguments.index("--output") :] if "--output" in arguments else []:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            assert main(arguments) == 0, command
