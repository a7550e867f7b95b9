"""Which rules read which value, which files there are, and which code is behind a job."""

import copy
import shutil
from functools import reduce

import pytest
from project import ROOT

from fourfold.pipeline import code
from fourfold.pipeline.params import read_params
from fourfold.pipeline.reads import READS
from fourfold.pipeline.targets import Targets

PARAMS = read_params(ROOT / "tests" / "params.tiny.yaml")
EXPERIMENT = "tiny-vgg16"
OF_JOB = {"surface": "bezier", "corners": "trajectory"}
EVALUATING = {"evaluate_grid", "compare_merges", "select_trajectory_corners"}
DESCRIBING = {"compare_ensembles", "compare_merges", "plot_figures", "summarize"}
# The first key that fits a resolved key says which rules read it.
DECLARED = {
    "network": {"train_endpoint", "fit_bezier_surface"} | EVALUATING,
    "augment": {"train_endpoint", "fit_bezier_surface"} | EVALUATING,
    "training": {"train_endpoint", "select_trajectory_corners"},
    "fits.standard": {"fit_bezier_surface"},
    "grid.points": {"evaluate_grid"},
    "grid.edge_points": {"evaluate_grid"},
    "grid.random_points": {"evaluate_grid"},
    "grid.search_images": {"evaluate_grid"},
    "grid.train_images": {"evaluate_grid"},
    "grid": EVALUATING,
    "ensembles": {"compare_ensembles"},
    "corners.trajectory.choose": {"select_trajectory_corners"},
    "corners.trajectory.kind": DESCRIBING | {"select_trajectory_corners"},
    "corners.independent.kind": DESCRIBING,
    "corners.independent.count": set(),  # it decides which files there are
    "surfaces.bezier.degree": {"fit_bezier_surface", "build_linear_surface"},
    "surfaces.bezier.fit": DESCRIBING | {"fit_bezier_surface"},
    "surfaces.bezier.corners": DESCRIBING,
    "surfaces": None,  # of other surfaces
    "dataset": set(),  # it decides which files are read
    "threads": set(),
    "expected_accuracy": set(),
}


def leaves(values, start=()):
    if not isinstance(values, dict):
        yield start
        return
    for key, inner in values.items():
        yield from leaves(inner, (*start, key))


def what_is_read(targets):
    return {rule: targets.read(rule, EXPERIMENT, **OF_JOB) for rule in READS}


def test_for_every_value_the_rules_that_read_it_are_the_declared_ones():
    targets = Targets(PARAMS)
    before = copy.deepcopy(what_is_read(targets))
    resolved = targets.experiments[EXPERIMENT]
    for path in list(leaves(resolved)):
        key = ".".join(path)
        declared = next(
            rules for start, rules in DECLARED.items() if f"{key}.".startswith(f"{start}.")
        )
        if declared is None:
            continue
        place = reduce(dict.__getitem__, path[:-1], resolved)
        kept = place[path[-1]]
        if path[-1] in ("fit", "corners"):  # a name: it must be one that there is
            other = {"fit": "other", "corners": "trajectory"}[path[-1]]
            resolved["fits"].setdefault("other", {"epochs": -1})
        else:
            other = ["changed", kept]
        place[path[-1]] = other
        found = {rule for rule, read in what_is_read(targets).items() if read != before[rule]}
        place[path[-1]] = kept
        assert found == declared, key


def test_every_file_is_named_once():
    files = Targets(PARAMS).all_files()
    assert len(files) == len(set(files))


def test_replicates_share_no_seed():
    targets = Targets({**PARAMS, "replicates": 3})
    seeds = [seed for r in range(3) for seed in targets.seeds(EXPERIMENT, r)]
    assert seeds == [0, 1, 2, 3, 100, 101, 102, 103, 200, 201, 202, 203]
    assert targets.fit_seed(2) == 1002


def test_corners_of_one_run_need_one_run():
    params = copy.deepcopy(PARAMS)
    params["experiments"]["tiny-vit"]["surfaces"] = ["listed"]
    targets = Targets(params)
    assert targets.seeds("tiny-vit", 0) == [0]
    assert targets.corner_files("tiny-vit", 0, "listed") == [
        "corners/listed.json",
        "trajectory/seed0.safetensors",
    ]


@pytest.mark.parametrize(
    ("command", "network", "file", "is_behind"),
    [
        ("fit_bezier_surface", "vit", "training/fit.py", True),
        ("fit_bezier_surface", "vit", "networks/vit.py", True),
        ("fit_bezier_surface", "vgg16", "networks/vit.py", False),
        ("fit_bezier_surface", "vit", "combination/merge.py", False),
        ("fit_bezier_surface", "vit", "pipeline/params.py", False),
        ("train_endpoint", "vit", "training/fit.py", False),
        ("plot_figures", None, "report/figures/_style.py", True),
        ("compare_ensembles", None, "networks/__init__.py", False),
    ],
)
def test_the_code_behind_a_job(command, network, file, is_behind, monkeypatch, tmp_path):
    package = tmp_path / "fourfold"
    shutil.copytree(code.PACKAGE, package)
    monkeypatch.setattr(code, "PACKAGE", package)
    hashes = []
    for text in ("", "\n# edited\n"):
        (package / file).write_text((package / file).read_text() + text)
        code.code_hash.cache_clear()
        code._imported.cache_clear()
        hashes.append(code.code_hash(command, network))
    assert (hashes[0] != hashes[1]) == is_behind
