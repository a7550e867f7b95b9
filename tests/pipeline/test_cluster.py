"""What a cluster is told: the Slurm profile, resources and groups. No Slurm is needed for these."""

import re
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from project import ROOT, edit, new_project, section, snakemake

from fourfold.pipeline.cli import RULES
from fourfold.pipeline.params import read_params
from fourfold.pipeline.targets import Targets

PROFILE = ROOT / "workflow" / "profiles" / "slurm"


def _entries():
    return yaml.safe_load((PROFILE / "config.yaml").read_text())


def test_the_slurm_profile_repeats_the_default_one():
    default = yaml.safe_load((ROOT / "profiles" / "default" / "config.yaml").read_text())
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


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return new_project(tmp_path_factory.mktemp("cluster"))


def test_every_job_asks_for_memory_and_time_and_larger_ones_for_more(project):
    small = _planned_groups(project)

    def enlarge(params):
        section(params, "network")["width"] = 256
        section(params, "fits")["unused"] = {"fit": "standard", "epochs": 10**6}

    before = (project / "params.yaml").read_text()
    edit(project, enlarge)
    large = _planned_groups(project)
    (project / "params.yaml").write_text(before)
    memory, runtime = ((_asked(small, of), _asked(large, of)) for of in ("mem_mb", "runtime"))
    rules = {command.replace("-", "_") for command in RULES} - {"train_fork", "import_corners"}
    rules -= {"measure_plane", "plot_plane", "align_corners", "randomize_corners"}
    rules -= {"plot_experiments"}
    assert rules <= memory[0].keys() & runtime[0].keys()
    for rule in ("train_endpoint", "fit_bezier_surface", "evaluate_grid"):
        assert memory[0][rule] < memory[1][rule]
        assert runtime[0][rule] < runtime[1][rule] < 10**6
    assert memory[0]["plot_figures"] == memory[1]["plot_figures"]
    for rule in ("plot_figures", "compare_merges"):  # that run no network, or few
        assert runtime[0][rule] == runtime[1][rule]


@pytest.mark.parametrize(
    ("experiment", "device", "rule", "of", "seconds"),
    [
        ("digits-resnet18", "cpu", "train_endpoint", {"run": "seed0"}, 16),
        ("digits-vit", "cpu", "train_endpoint", {"run": "seed0"}, 65),
        ("digits-resnet18", "cpu", "evaluate_grid", {"surface": "bezier"}, 43),
        ("cifar10-resnet18-cpu", "cpu", "train_endpoint", {"run": "seed0"}, 580),
        ("cifar10-resnet18-cpu", "cpu", "fit_bezier_surface", {"surface": "bezier"}, 650),
        ("cifar10-resnet18-cpu", "cpu", "evaluate_grid", {"surface": "bezier"}, 650),
        ("cifar10-resnet18-cpu", "cuda", "train_endpoint", {"run": "seed0"}, 75),
        ("cifar10-vit-cpu", "cuda", "train_endpoint", {"run": "seed0"}, 102),
        ("cifar10-resnet18", "cuda", "train_endpoint", {"run": "seed0"}, 37),
        ("cifar10-resnet18", "cuda", "evaluate_grid", {"surface": "bezier"}, 60),
    ],
)
def test_the_time_limit_is_several_times_what_was_measured(experiment, device, rule, of, seconds):
    targets = Targets(read_params(ROOT / "params.yaml"))
    local = SimpleNamespace(resource_settings=SimpleNamespace(nodes=1))
    rules = {"workflow": local, "TARGETS": targets, "gpus": lambda of: int(device == "cuda")}
    rules["experiment_threads"] = lambda of: targets.experiments[experiment]["threads"]
    exec((ROOT / "workflow" / "rules" / "resources.smk").read_text(), rules)
    limit = rules["network_runtime"](rule)({"experiment": experiment, **of}, 1)
    assert 5 * seconds <= 60 * limit
    assert limit <= rules["network_runtime"](rule)({"experiment": experiment, **of}, 2) / 2


def test_a_gpu_is_asked_for_by_jobs_that_run_networks_alone(project):
    gpus = _asked(_planned_groups(project, "--config", "device=cuda"), "gpu")
    assert set(gpus.values()) == {1}
    assert "fit_bezier_surface" in gpus
    assert gpus.keys().isdisjoint({"plot_figures", "collect_tables", "prepare_data"})


def test_the_slurm_profile_is_one_that_snakemake_reads(project):
    run = snakemake(project, "--dry-run", "--workflow-profile", "workflow/profiles/slurm")
    assert run.returncode == 0, run.stderr
    log = run.stdout + run.stderr
    # Nothing connects the explorer with the table over all.
    groups = {"surface": 3, "comparisons": 1, "summary": 2}
    assert {name: log.count(f"Group job {name}") for name in groups} == groups


def test_the_script_that_starts_a_slurm_is_a_shell_script():
    assert subprocess.run(["bash", "-n", PROFILE / "single-node.sh"], check=False).returncode == 0


def test_two_runs_are_compared_but_for_what_is_measured(tmp_path):
    frame = pd.DataFrame({"nll": [0.5, float("nan")], "wall_s": [1.0, 2.0]})
    for folder, of in {"a": {}, "b": {"wall_s": 3.0}, "c": {"nll": 0.25}}.items():
        (tmp_path / folder).mkdir()
        frame.assign(**of).to_parquet(tmp_path / folder / "cost.parquet")
    frame.to_parquet(tmp_path / "c" / "more.parquet")
    for other, status, said in [
        ("b", 0, ["1 of 1 tables are equal"]),
        ("c", 1, ["cost.parquet: values of nll", "more.parquet: there is no", "0 of 2 tables are"]),
    ]:
        program = [sys.executable, ROOT / "tests" / "compare_results.py"]
        run = subprocess.run(
            [*program, tmp_path / "a", tmp_path / other],
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == status
        assert [part for part in said if part not in run.stdout] == []
