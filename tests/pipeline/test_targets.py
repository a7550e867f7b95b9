"""Which rules read which value, which files there are, and which code is behind a job."""

import copy
import json
import shutil
from functools import reduce

import pytest
from project import ROOT

from fourfold.errors import InputError
from fourfold.pipeline import code
from fourfold.pipeline.commands._settings import check_described, read_settings
from fourfold.pipeline.params import read_params
from fourfold.pipeline.params_check import check_params
from fourfold.pipeline.reads import READS
from fourfold.pipeline.targets import FIGURES, Targets
from fourfold.surfaces.shapes import make_shape, shape_of

PARAMS = read_params(ROOT / "tests" / "params.tiny.yaml")
EXPERIMENT = "tiny-vgg16"
OF_JOB = {"surface": "bezier", "corners": "trajectory", "run": None}
TRAINING = {"train_endpoint", "train_fork"}
OF_CORNERS = {"import_corners", "select_trajectory_corners", "align_corners", "randomize_corners"}
EVALUATING = {"evaluate_grid", "compare_merges", "select_trajectory_corners", "randomize_corners"}
EVALUATING |= {"measure_plane"}
DESCRIBING = {"compare_ensembles", "compare_merges", "plot_figures", "plot_plane", "summarize"}
DESCRIBING |= {"plot_experiments", "plot_explorer"}
KINDS = ("png", "svg")
# The first key that fits a resolved key says which rules read it.
DECLARED = {
    "network": {*TRAINING, "fit_bezier_surface", "import_corners", "align_corners"} | EVALUATING,
    "augment": {*TRAINING, "fit_bezier_surface"} | EVALUATING,
    "training": {*TRAINING, "select_trajectory_corners"},
    "trainings": set(),  # of other corners
    "fits.standard": {"fit_bezier_surface"},
    "fits": set(),
    "grid.points": {"evaluate_grid"},
    "grid.edge_points": {"evaluate_grid"},
    "grid.random_points": {"evaluate_grid"},
    "grid.search_images": {"evaluate_grid", "measure_plane"},
    "grid.train_images": {"evaluate_grid", "measure_plane"},
    "grid.plane_points": {"measure_plane"},
    "grid.batch_size": {*EVALUATING, "import_corners"},
    "grid.precision": {*EVALUATING, "import_corners"},
    "grid": EVALUATING,
    "ensembles": {"compare_ensembles"},
    "corners.trajectory.choose": DESCRIBING | OF_CORNERS,
    "corners.trajectory.kind": DESCRIBING | OF_CORNERS,
    "corners.independent.kind": DESCRIBING,
    "corners.independent.count": None,  # it decides which files there are, and which shapes
    "surfaces.bezier.degree": DESCRIBING | {"fit_bezier_surface", "build_linear_surface"},
    "surfaces.bezier.shape": None,  # with another one, other settings
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
    # The shapes must stay possible.
    possible = {("bezier", "degree"): [3, 1], ("trajectory", "choose"): [0.25, 0.5, 0.75, 1.0]}
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
        elif path[-2:] in possible:
            other = possible[path[-2:]]
        else:
            other = ["changed", kept]
        place[path[-1]] = other
        found = {rule for rule, read in what_is_read(targets).items() if read != before[rule]}
        place[path[-1]] = kept
        assert found == declared, key


@pytest.mark.parametrize("batchnorm", ["interpolated", "repaired", None])
def test_a_surface_has_its_own_statistics_in_its_evaluation_alone(batchnorm):
    params = copy.deepcopy(PARAMS)
    params["surfaces"]["bezier"]["batchnorm"] = batchnorm
    check_params(params)
    before, after = what_is_read(Targets(PARAMS)), what_is_read(Targets(params))
    changed = {rule for rule in READS if before[rule] != after[rule]}
    assert changed == DESCRIBING | ({"evaluate_grid"} if batchnorm else set())
    grid = after["evaluate_grid"]["grid"]
    assert grid == before["evaluate_grid"]["grid"] | ({"batchnorm": batchnorm} if batchnorm else {})
    read_settings(json.dumps(after["evaluate_grid"]), *READS["evaluate_grid"])
    check_described(after["summarize"]["surfaces"], "--surfaces")
    other = Targets(params).read("evaluate_grid", EXPERIMENT, surface="linear")
    assert other == Targets(PARAMS).read("evaluate_grid", EXPERIMENT, surface="linear")


def test_every_file_is_named_once():
    files = Targets({**PARAMS, "run": list(PARAMS["experiments"])}).all_files()
    assert len(files) == len(set(files))


@pytest.mark.parametrize(
    ("run", "figures"),
    [
        ([], []),
        (["tiny-imagenet-vit-cpu", "cifar10-vgg16-cpu"], ["cpu"]),
        (["cifar100-vit", "cifar10-vit-paper"], ["full", "paper"]),
    ],
)
def test_experiments_of_a_scale_have_a_figure_together(run, figures):
    targets = Targets(read_params(ROOT / "params.yaml") | {"run": ["digits-vit", *run]})
    found = [file for file in targets.all_results() if "figures/experiments-" in file]
    assert found == [f"results/figures/experiments-{of}.{kind}" for of in figures for kind in KINDS]
    assert {name for of in figures for name in targets.of_scale(of)} == set(run)


# What a corner set has a replicate build, before its surfaces; `job` parts are those of networks.
RUNS = {f"seed{k}": ["endpoints", "trajectory"] for k in range(4)}
NETWORKS = {
    "independent": RUNS,
    "pair": {name: RUNS[name] for name in ("seed0", "seed1")},
    "ends": {"seed0": RUNS["seed0"]},
    "forked": {"seed0": RUNS["seed0"], "forked-0": ["endpoints"], "forked-1": ["endpoints"]},
    "mine": {"mine-0": ["endpoints"], "mine-1": ["endpoints"]},
    "free": {},
    "untrained": {},
    "aligned": RUNS,
    "tuned": {
        "half-seed0": ["endpoints", "trajectory"],
        **{f"tuned-{k}": ["endpoints"] for k in range(2)},
    },
}


def targets_of(*surfaces):
    params = copy.deepcopy(PARAMS)
    params["experiments"]["tiny-shapes"]["surfaces"] = list(surfaces)
    check_params(params)
    return Targets(params)


@pytest.mark.parametrize(
    ("surface", "files"),
    [
        ("linear", [f"endpoints/seed{k}" for k in range(4)]),
        ("curve", ["endpoints/seed0", "endpoints/seed1"]),
        ("line", ["corners/ends", "trajectory/seed0"]),
        ("branches", ["endpoints/forked-0", "endpoints/forked-1"]),
        ("imported", ["endpoints/mine-0", "endpoints/mine-1"]),
        ("free", []),
        ("untrained", []),
        ("aligned", ["corners/aligned"]),
        ("tuned", ["endpoints/tuned-0", "endpoints/tuned-1"]),
    ],
)
def test_each_kind_of_corner_set_plans_exactly_its_files(surface, files):
    targets = targets_of(surface)
    of_job = "tiny-shapes", 0
    corners = PARAMS["surfaces"][surface]["corners"]
    found = targets.corner_files(*of_job, surface)
    assert [file.rpartition(".")[0] for file in found] == files
    networks = NETWORKS[corners]
    made = {"ends": ["corners/ends.json"], "aligned": ["corners/aligned.safetensors"]}
    steps = targets.steps(*of_job)
    assert sorted(step for step in steps if not step.startswith("jobs/")) == sorted(
        [f"{kind}/{name}.safetensors" for name, kinds in networks.items() for kind in kinds]
        + made.get(corners, [])
    )
    for part in ("training", "endpoints", "cost"):
        planned = [
            name
            for name in networks
            if f"jobs/{part}-{name}.parquet" in targets.job_parts(*of_job, part)
        ]
        assert planned == [n for n in networks if part != "training" or corners != "mine"]


def test_a_curve_on_two_of_the_corners_plans_its_fit_and_its_grid_and_no_training():
    before, after = targets_of("linear"), targets_of("linear", "curve")
    for replicate in range(2):
        more = set(after.results("tiny-shapes", replicate) + after.steps("tiny-shapes", replicate))
        more -= set(
            before.results("tiny-shapes", replicate) + before.steps("tiny-shapes", replicate)
        )
        assert more == {
            *(f"{kind}/curve.safetensors" for kind in ("surfaces", "logits", "examples")),
            *("tables/grid-curve.parquet", "tables/csv/grid-curve.csv"),
            *(f"jobs/{part}-curve.parquet" for part in ("training", "cost")),
            "jobs/cost-curve-grid.parquet",
        }


@pytest.mark.parametrize(
    ("surfaces", "further"),
    [
        (["linear", "bezier", "trajectory"], set()),
        (["linear", "trajectory", "listed"], {"careful"}),
    ],
)
def test_figures_that_compare_are_there_where_there_is_something_to_compare(surfaces, further):
    targets = targets_of(*surfaces)
    assert set(targets.figures("tiny-shapes")) - {*FIGURES, "plane"} == further
    files = set(targets.results("tiny-shapes", 0))
    assert {f"figures/{name}.svg" for name in {*FIGURES, *further}} <= files


@pytest.mark.parametrize(
    ("surfaces", "is_there"),
    [
        (["linear", "bezier", "trajectory"], False),
        (["bezier", "rival"], True),
        (["curve", "chain", "branches", "line"], False),  # fitted, but of different shapes
    ],
)
def test_convergence_is_one_figure_of_all_replicates_where_two_of_a_shape_are_fitted(
    surfaces, is_there
):
    targets = Targets({**targets_of(*surfaces).params, "run": ["tiny-shapes"]})
    found = {file for file in targets.all_results() if "convergence" in file}
    every = {f"results/tiny-shapes/figures/convergence.{kind}" for kind in KINDS}
    assert found == (every if is_there else set())


@pytest.mark.parametrize(
    ("surfaces", "points", "through", "runs"),
    [
        (["curve", "listed", "linear"], 5, "linear", ["seed0", "seed1", "seed2"]),
        (["linear", "rival"], 5, "rival", ["seed0", "seed1", "seed2"]),
        (["free", "listed"], 5, "listed", ["seed0"]),
        (["triangle"], 0, None, None),
        (["curve", "free"], 5, None, None),
    ],
)
def test_a_plane_goes_through_three_trained_networks_where_there_are_so_many(
    surfaces, points, through, runs
):
    targets = targets_of(*surfaces)
    targets.experiments["tiny-shapes"]["grid"]["plane_points"] = points
    assert targets.plane("tiny-shapes") == through
    files = targets.results("tiny-shapes", 0) + targets.steps("tiny-shapes", 0)
    planned = {file for file in files if "plane" in file}
    every = {*(f"figures/plane.{kind}" for kind in ("png", "svg")), "jobs/cost-plane.parquet"}
    every |= {f"tables/{name}.parquet" for name in ("plane", "plane_path")}
    every |= {f"tables/csv/{name}.csv" for name in ("plane", "plane_path")}
    assert planned == (every if through else set())
    if through:
        expected = [f"trajectory/{run}.safetensors" for run in runs]
        assert targets.plane_runs("tiny-shapes", 0) == expected
        assert set(expected) <= set(files)


def test_what_is_described_makes_the_shape_of_each_surface():
    targets = Targets(PARAMS)
    for experiment in PARAMS["experiments"]:
        for name, described in targets.described(experiment).items():
            shape = shape_of(described)
            assert len(shape.corner_rows) == described["count"]
            read = targets.read("build_linear_surface", experiment, surface=name)["shape"]
            assert make_shape(corners=described["count"], **read) == shape
    assert targets.described("tiny-shapes")["branches"]["at"] == 0.5


def test_replicates_share_no_seed():
    targets = Targets({**PARAMS, "replicates": 3})
    runs = [run for r in range(3) for run in targets.runs(EXPERIMENT, r)]
    seeds = [0, 1, 2, 3, 100, 101, 102, 103, 200, 201, 202, 203]
    assert runs == [f"seed{seed}" for seed in seeds]
    assert targets.fit_seed(2) == 1002


def test_a_job_reads_the_training_that_its_run_or_its_corners_name():
    targets = Targets(PARAMS)
    for of_job, epochs in (
        ({"run": "seed7"}, 4),
        ({"run": "long-seed7"}, 6),
        ({"corners": "tuned"}, 6),
        ({"corners": "independent"}, 4),
    ):
        read = targets.read("train_endpoint", "tiny-rivals", **of_job)
        assert read["training"]["epochs"] == epochs
    assert targets.fork_epoch("tiny-rivals", "tuned") == 2


def test_corners_of_one_run_need_one_run():
    params = copy.deepcopy(PARAMS)
    params["experiments"]["tiny-vit"]["surfaces"] = ["listed"]
    targets = Targets(params)
    assert targets.runs("tiny-vit", 0) == ["seed0"]
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
        ("train_fork", "timm", "networks/_foreign.py", True),
        ("plot_figures", None, "report/figures/_style.py", True),
        ("compare_ensembles", None, "networks/__init__.py", False),
    ],
)
def test_the_code_behind_a_job(command, network, file, is_behind, monkeypatch, tmp_path):
    package = tmp_path / "fourfold"
    shutil.copytree(code.PACKAGE, package)
    monkeypatch.setattr(code, "PACKAGE", package)
    assert (
        edit_matters(package / file, command, {"name": network} if network else None) == is_behind
    )


@pytest.mark.parametrize("is_installed", [False, True])
@pytest.mark.parametrize(
    ("builder", "file", "is_behind"),
    [
        ("mine:build", "mine.py", True),
        ("mine:build", "layers.py", True),
        ("zoo.small:build", "zoo/small.py", True),
        ("zoo.small:build", "zoo/parts.py", True),
        ("zoo:build", "zoo/__init__.py", True),
        ("zoo.parts:build", "zoo/__init__.py", True),
        ("mine:build", "zoo/small.py", False),
        ("mine:build", "report.html", False),
        ("zoo.small:build", "zoo/style.css", False),
        ("json:loads", "mine.py", False),
    ],
)
def test_the_users_modules_behind_a_network(
    builder, file, is_behind, is_installed, monkeypatch, tmp_path
):
    """Where snakemake is started, or on the path as `pip install -e` puts them there."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere" if is_installed else tmp_path)
    if is_installed:
        monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "zoo").mkdir()
    for name, text in {
        "mine.py": "import torch\nfrom layers import Layer",
        "layers.py": "",
        "zoo/__init__.py": "",
        "zoo/small.py": "from .parts import Part\nfrom . import parts",
        "zoo/parts.py": "",
        "zoo/style.css": "",
        "report.html": "",
    }.items():
        (tmp_path / name).write_text(text)
    network = {"name": "python", "builder": builder}
    assert edit_matters(tmp_path / file, "fit_bezier_surface", network) == is_behind
    assert not edit_matters(tmp_path / file, "compare_ensembles", network)


@pytest.mark.parametrize("builder", ["nowhere:build", "json.nowhere:build"])
def test_a_module_that_is_not_there_is_refused(builder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=builder.partition(":")[0]):
        code.code_hash("train_endpoint", {"name": "python", "builder": builder})


def edit_matters(path, command, network):
    """Return whether an edit of a file changes the hash of the code behind a command."""
    hashes = []
    for text in ("", "\n# edited\n"):
        path.write_text(path.read_text() + text)
        code._code_hash.cache_clear()
        code._imported.cache_clear()
        hashes.append(code.code_hash(command, network))
    return hashes[0] != hashes[1]
