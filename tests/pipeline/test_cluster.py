"""What a cluster is told: the Slurm profile, resources and groups. No Slurm is needed for these."""

import re
import subprocess
import sys

import pandas as pd
import pytest
import yaml
from compare_results import differences
from project import ROOT, edit, new_project, section, snakemake

PROFILE = ROOT / "workflow" / "profiles" / "slurm"


def _entries():
    return yaml.safe_load((PROFILE / "config.yaml").read_text())


def _pairs(key):
    return dict(entry.split("=", 1) for entry in _entries()[key])


@pytest.fixture(scope="module")
def rules():
    """Return every rule of the workflow with the text of its definition."""
    text = "\n".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    blocks = re.split(r"^rule (\w+):$", text, flags=re.M)
    return dict(zip(blocks[1::2], blocks[2::2], strict=True))


def test_every_rule_that_runs_a_command_states_memory_and_time(rules):
    commands = {name: text for name, text in rules.items() if "python -m fourfold" in text}
    assert len(commands) > 10
    for name, text in commands.items():
        for resource in ("mem_mb=", "runtime="):
            assert re.search(rf"^ +{resource}", text, flags=re.M), f"{name}: no {resource}"


def test_the_slurm_profile_names_rules_and_groups_that_exist(rules):
    assert set(_pairs("groups")) - set(rules) == set()


def test_the_slurm_profile_repeats_the_default_one():
    default = yaml.safe_load((ROOT / "profiles" / "default" / "config.yaml").read_text())
    del default["resources"]  # of one machine; on a cluster each job gets a GPU of its own
    assert default.items() <= _entries().items()


def _planned_groups(project, *arguments):
    """Return the log of a dry run with the profile's groups and resources, without its executor."""
    entries = _entries()
    keys = ("groups", "default-resources", "resources", "set-resource-scopes")
    options = [option for key in keys for option in (f"--{key}", *map(str, entries[key]))]
    run = snakemake(project, "--dry-run", *options, *arguments)
    assert run.returncode == 0, run.stderr
    return run.stdout + run.stderr


def _asked(log, resource):
    """Return what the jobs of each rule ask for; of several jobs of a rule, the last."""
    asked, rule = {}, None
    for line in log.splitlines():
        if start := re.match(r"\s*rule (\w+):$", line):
            rule = start.group(1)
        elif found := re.match(rf"\s+resources: .*\b{resource}=(\d+)", line):
            asked[rule] = int(found.group(1))
    return asked


def test_larger_networks_and_longer_trainings_ask_for_more(tmp_path):
    project = new_project(tmp_path)
    small = _planned_groups(project)

    def enlarge(params):
        section(params, "network")["width"] = 256
        section(params, "training")["epochs"] = 1000

    edit(project, enlarge)
    large = _planned_groups(project)
    memory = _asked(small, "mem_mb"), _asked(large, "mem_mb")
    runtime = _asked(small, "runtime"), _asked(large, "runtime")
    for rule in ("train_endpoint", "fit_bezier_surface", "evaluate_grid"):
        assert memory[0][rule] < memory[1][rule]
    assert memory[0]["plot_figures"] == memory[1]["plot_figures"]
    assert runtime[0]["train_endpoint"] < runtime[1]["train_endpoint"]
    assert runtime[0]["evaluate_grid"] == runtime[1]["evaluate_grid"]


def test_a_gpu_is_asked_for_by_jobs_that_run_networks_alone(tmp_path):
    project = new_project(tmp_path)
    edit(project, lambda params: params.update(device="cuda"))
    gpus = _asked(_planned_groups(project), "gpu")
    assert set(gpus.values()) == {1}
    assert "fit_bezier_surface" in gpus
    assert gpus.keys().isdisjoint({"plot_figures", "collect_tables", "prepare_data"})


def test_the_slurm_profile_is_one_that_snakemake_reads(tmp_path):
    pytest.importorskip("snakemake_executor_plugin_slurm")
    project = new_project(tmp_path)
    run = snakemake(project, "--dry-run", "--workflow-profile", "workflow/profiles/slurm")
    assert run.returncode == 0, run.stderr
    log = run.stdout + run.stderr
    assert log.count("Group job surface") == 3
    assert log.count("Group job comparisons") == log.count("Group job summary") == 1


def test_the_script_that_starts_a_slurm_is_a_shell_script_and_explains_itself():
    script = PROFILE / "single-node.sh"
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    text = script.read_text()
    assert "pkill" not in text
    assert "killall" not in text


def _run_comparison(*folders):
    return subprocess.run(
        [sys.executable, ROOT / "tests" / "compare_results.py", *folders],
        capture_output=True,
        text=True,
        check=False,
    )


def test_two_runs_are_compared_but_for_what_is_measured(tmp_path):
    frame = pd.DataFrame({"nll": [0.5, float("nan")], "wall_s": [1.0, 2.0]})
    for name in ("a", "b", "c"):
        (tmp_path / name / "tables").mkdir(parents=True)
        frame.to_parquet(tmp_path / name / "tables" / "cost.parquet")
    frame.assign(wall_s=3.0).to_parquet(tmp_path / "b" / "tables" / "cost.parquet")
    frame.assign(nll=0.25).to_parquet(tmp_path / "c" / "tables" / "cost.parquet")
    assert differences(tmp_path / "a", tmp_path / "b") == {"tables/cost.parquet": None}
    equal = _run_comparison(tmp_path / "a", tmp_path / "b")
    assert equal.returncode == 0
    assert "1 of 1 tables are equal" in equal.stdout
    frame.to_parquet(tmp_path / "c" / "tables" / "more.parquet")
    other = _run_comparison(tmp_path / "a", tmp_path / "c")
    assert other.returncode == 1
    assert "tables/cost.parquet: values of nll" in other.stdout
    assert "more.parquet" in other.stdout
    assert "0 of 2 tables are equal" in other.stdout
