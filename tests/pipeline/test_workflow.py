"""The workflow as a user runs it: one small experiment from data to headline table."""

import base64
import contextlib
import io
import json
import re
import shutil
from functools import reduce
from operator import getitem

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from compare_results import differences
from conftest import CORNERS
from PIL import Image
from project import (
    EXPERIMENT,
    ROOT,
    edit,
    finished_project,
    new_project,
    planned,
    run_commands,
    section,
    snakemake,
)

import fourfold as ff
from fourfold.data.dataset import Dataset
from fourfold.errors import InputError
from fourfold.evaluation.logits import SurfaceLogits, to_half
from fourfold.files.table import SCHEMAS, read_metadata
from fourfold.files.tensors import read_header
from fourfold.networks import build_model
from fourfold.pipeline.cli import main
from fourfold.pipeline.params import read_params
from fourfold.pipeline.reads import READS
from fourfold.pipeline.targets import Targets
from fourfold.pipeline.yaml_file import check_yaml
from fourfold.surfaces.surface import BezierSurface

SUMMARY = "results/summary.parquet"
EXPLORER = "results/explorer.html"


def _tables(project):
    return sorted((project / "results").rglob("*.parquet"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return a project whose run has ended."""
    project, said = finished_project(tmp_path_factory)
    assert "| surface " in said, "a finished run prints the headline table"
    return project


@pytest.fixture
def project(finished, tmp_path):
    """Return a copy of the finished project, to be changed."""
    copy = tmp_path / "project"
    shutil.copytree(finished, copy)
    return copy


def test_a_second_run_has_nothing_to_do(finished):
    assert planned(finished) == {}


def test_threads_are_those_of_params_whatever_cores_there_are(project):
    """They decide how sums are rounded; Snakemake's own are never more than its cores."""
    edit(project, lambda params: params["recipes"]["sgd"].update(threads=2))
    assert planned(project) == {}
    linear = f"results/{EXPERIMENT}/0/tables/grid-linear.parquet"
    asked = ["--cores", "1", "--dry-run", "--printshellcmds", "--force", linear]
    assert "evaluate-grid" in (said := snakemake(project, *asked).stdout)
    assert "--threads 2 " in said


def test_a_run_of_other_files_prints_no_headline(project):
    linear = f"results/{EXPERIMENT}/0/surfaces/linear.safetensors"
    run = snakemake(project, "--force", "--", linear)
    assert run.returncode == 0, run.stderr
    assert "| surface " not in run.stdout


def test_a_data_folder_among_the_workflows_own_is_refused(project):
    for folder in ("data", "results/photos"):
        run = snakemake(project, "--dry-run", "--config", f"data_folder={folder}")
        assert run.returncode == 1
        assert f"the data folder is {folder}, but the workflow keeps its own files" in run.stderr


def test_a_project_of_the_installed_package_has_the_same_rules(finished, tmp_path):
    project = tmp_path / "project"
    assert main(["init", str(project)]) == 0
    for name in ("data", "results", ".snakemake/metadata"):
        shutil.copytree(finished / name, project / name)
    shutil.copy(finished / "params.yaml", project)
    assert planned(project) == {}  # for another code, command or parameter, jobs would run again


def test_every_table_has_its_columns_and_types(finished):
    found = set()
    for path in _tables(finished):
        name = path.stem.partition("-")[0]
        schema = pq.read_schema(path)
        assert schema.remove_metadata().equals(SCHEMAS[name]), path
        assert json.loads(schema.metadata[b"fourfold"])["table"] == name
        assert len(pd.read_parquet(path)) > 0, path
        found.add(name)
    assert found == set(SCHEMAS) - {"plane", "plane_path"}  # of another experiment


def test_two_runs_give_equal_tables(finished, tmp_path):
    again = new_project(tmp_path)
    run_commands(again)
    found = differences(finished / "results", again / "results")
    assert len(found) == len(_tables(finished))
    assert {name: what for name, what in found.items() if what is not None} == {}


def test_the_corners_of_the_surfaces_are_the_trained_networks(finished):
    replicate = finished / "results" / EXPERIMENT / "0"
    endpoints = pd.read_parquet(replicate / "tables" / "endpoints.parquet")
    final = endpoints[endpoints["checkpoint"].str.startswith("endpoints/")]
    of_seed = final.drop_duplicates("seed").set_index("seed")["sha256"]
    for name in ("linear", "bezier"):
        surface = BezierSurface.load(replicate / "surfaces" / f"{name}.safetensors")
        assert list(surface.corner_hashes) == of_seed.sort_index().tolist()


def _rows(finished, name):
    """Return a table of the finished run's replicate."""
    return pd.read_parquet(finished / "results" / EXPERIMENT / "0" / "tables" / f"{name}.parquet")


def test_corners_as_trained_are_the_endpoints(finished):
    """Both come from one network; batches of another size may move one image."""
    endpoints = _rows(finished, "endpoints")
    endpoints = endpoints[endpoints["checkpoint"].str.startswith("endpoints/")]
    for surface in ("linear", "bezier"):
        grid = _rows(finished, f"grid-{surface}")
        own = grid[grid["statistics"] == "own"].set_index(["split", "u", "v"])
        for split in ("val", "test"):
            trained = endpoints[endpoints["split"] == split].sort_values("seed")
            assert len(trained) == 4
            for row, corner in zip(trained.itertuples(), CORNERS, strict=True):
                found = own.loc[(split, *corner)]
                assert abs(found["accuracy"] - row.accuracy) <= 1 / row.n + 1e-9
                assert found["nll"] == pytest.approx(row.nll, rel=1e-3)
                assert found["n"] == row.n
        again = grid[(grid["statistics"] == "reestimated") & (grid["sample"] == "grid")]
        both = own.merge(again, on=["split", "u", "v"], suffixes=("", "_again"))
        assert len(both) == 4 * 3
        assert (both["nll"] != both["nll_again"]).all()


def test_tables_of_one_network_have_the_same_numbers(finished):
    """Merges are rows of the grid, and what an ensemble of one network is."""
    merge, ensemble = _rows(finished, "merge"), _rows(finished, "ensemble")
    compared = 0
    for row in merge.itertuples():
        if row.merge == "greedy-soup":
            continue
        grid = _rows(finished, f"grid-{row.surface}")
        same = grid[
            (grid["u"] == row.u) & (grid["v"] == row.v) & (grid["split"] == row.split)
            & (grid["sample"] == "grid") & (grid["statistics"] == row.statistics)
        ]  # fmt: skip
        assert len(same) == 1
        is_corner = (row.u, row.v) in CORNERS
        assert is_corner == (row.merge == "best-corner") == (row.statistics == "own")
        names = {"linear": "corners", "trajectory": "trajectory-corners"}
        name = names[row.surface] if is_corner else row.surface
        alone = ensemble[
            (ensemble["ensemble"] == name) & (ensemble["forward_passes"] == 1)
            & (ensemble["members"] == f"{row.u:.6g},{row.v:.6g}") & (ensemble["split"] == row.split)
        ]  # fmt: skip
        if is_corner:
            assert len(alone) == 1
            compared += 1
        for other in (same, alone):
            assert other["accuracy"].tolist() == [row.accuracy] * len(other)
            for metric in ("nll", "ece", "brier"):
                value = getattr(row, metric)
                assert other[metric].tolist() == pytest.approx([value] * len(other), rel=1e-5)
    assert compared == 2 * 2  # best corner of both corner sets, on val and test


def test_differences_are_of_the_networks_that_the_other_tables_show(finished):
    difference, merge = _rows(finished, "difference"), _rows(finished, "merge")
    ensemble, barrier = _rows(finished, "ensemble"), _rows(finished, "barrier")
    assert set(difference["surface"]) == {"linear", "bezier", "trajectory"}
    corner_set = {"linear": "linear", "bezier": "linear", "trajectory": "trajectory"}
    for row in difference[difference["metric"] == "accuracy"].itertuples():
        if row.comparison == "low-loss":
            of = barrier.query(f"surface == '{row.surface}' and split == '{row.split}'")
            assert row.value == pytest.approx(1 - of.set_index("metric").loc["error", "max"])
            continue
        if row.comparison == "merge":
            test = merge[merge["split"] == "test"].set_index(["surface", "merge"])["accuracy"]
            value = test[row.surface, "best-point"]
            reference = test[corner_set[row.surface], "best-corner"]
        else:
            test = ensemble[(ensemble["split"] == "test") & (ensemble["forward_passes"] == 4)]
            test = test.set_index(["ensemble", "selection"])["accuracy"]
            value = test[row.surface, "validation"]
            names = {"linear": "corners", "trajectory": "trajectory-corners"}
            reference = test[names[corner_set[row.surface]], "fixed"]
        assert row.value == pytest.approx(value, abs=1e-12)
        assert row.reference == pytest.approx(reference, abs=1e-12)


def test_what_a_surface_cost_counts_the_pick_of_a_point_on_val(finished):
    summary = pd.read_parquet(finished / "results" / "summary.parquet")
    of = summary[summary["kind"] == "surface"].set_index(["method", "metric"])["mean"]
    cost = _rows(finished, "cost").set_index("stage")["images_forward"]
    for surface in ("linear", "bezier", "trajectory"):
        # 3 x 3 points, four of them corners; each takes 50 images of val and 100 for BatchNorm.
        picked = (9 - 4) * (50 + 100)
        if surface == "trajectory":
            picked += cost["select_trajectory_corners"]
        forward, backward = (of[surface, f"images_{way}"] for way in ("forward", "backward"))
        assert forward == backward + picked


def test_every_job_states_its_cost(finished):
    cost = _rows(finished, "cost")
    elsewhere = {"train_fork", "import_corners", "plot_figures", "summarize"}
    elsewhere |= {"measure_plane", "plot_plane", "align_corners", "randomize_corners"}
    elsewhere |= {"plot_experiments", "plot_explorer"}
    assert set(cost["stage"]) == READS.keys() - elsewhere
    assert (cost["wall_s"] > 0).all()
    trained = cost["images_backward"] > 0
    assert set(cost.loc[trained, "stage"]) == {"train_endpoint", "fit_bezier_surface"}
    assert (cost.loc[cost["images_forward"] > 0, "flop"] > 0).all()


COMPARISONS = {"compare_ensembles", "collect_tables", "plot_figures", "summarize", "all"}
COMPARISONS |= {"plot_explorer"}
OF_GRIDS = {"evaluate_grid", "compare_merges", "measure_geometry", "measure_differences"}


@pytest.mark.parametrize(
    ("change", "reruns", "grids"),
    [
        (lambda p: section(p, "ensembles").update(max_members=5), COMPARISONS, 0),
        (lambda p: section(p, "grid").update(points=5), COMPARISONS | OF_GRIDS, 3),
        (
            lambda p: section(p, "fit").update(epochs=3),
            COMPARISONS | OF_GRIDS | {"fit_bezier_surface"},
            1,
        ),
        (
            lambda p: p["summary"].update(kept=0.8),
            COMPARISONS - {"compare_ensembles", "plot_explorer"} | {"measure_differences"},
            0,
        ),
        (lambda p: p.update(device="auto"), set(), 0),
    ],
)
def test_a_changed_parameter_reruns_what_depends_on_it(change, reruns, grids, project):
    edit(project, change)
    jobs = planned(project)
    assert set(jobs) - {"total"} == reruns
    assert jobs.get("evaluate_grid", 0) == grids


def test_a_changed_module_reruns_what_uses_it_and_a_touched_one_nothing(project):
    module = project / "src" / "fourfold" / "combination" / "ensemble.py"
    module.touch()
    assert planned(project) == {}
    module.write_text(module.read_text() + "\n# edited\n")
    assert set(planned(project)) - {"total"} == COMPARISONS | {"measure_differences"}
    other = project / "src" / "fourfold" / "networks" / "vit.py"
    shutil.copy(ROOT / "src" / "fourfold" / "combination" / "ensemble.py", module)
    other.write_text(other.read_text() + "\n# edited\n")
    assert planned(project) == {}, "a network that the experiment doesn't use changes nothing"


@pytest.mark.long
def test_another_fit_on_the_same_corners_trains_no_network_and_goes_without_a_trace(project):
    """One more surface in params.yaml, and its name in the experiment."""

    def add(params):
        params["surfaces"]["second"] = params["surfaces"]["bezier"] | {"degree": [2, 1]}
        params["experiments"][EXPERIMENT]["surfaces"].append("second")

    before = (project / "params.yaml").read_text()
    edit(project, add)
    jobs = planned(project)
    assert {"train_endpoint", "prepare_data", "build_linear_surface"}.isdisjoint(jobs)
    assert jobs["fit_bezier_surface"] == jobs["evaluate_grid"] == 1
    convergence = project / "results" / EXPERIMENT / "figures" / "convergence.png"
    assert not convergence.exists() and jobs["plot_convergence"] == 1
    run = snakemake(project, "--", SUMMARY, str(convergence.relative_to(project)))
    assert run.returncode == 0, run.stdout + run.stderr
    assert convergence.is_file()
    summary = pd.read_parquet(project / SUMMARY)
    of = summary[summary["kind"] == "surface"].set_index(["method", "metric"])["mean"]
    backward = [of[name, "images_backward"] for name in ("linear", "bezier", "second")]
    assert backward[0] < backward[1] == backward[2]
    (project / "params.yaml").write_text(before)
    assert {"train_endpoint", "fit_bezier_surface", "evaluate_grid"}.isdisjoint(planned(project))
    assert snakemake(project, "--", "prune_results", SUMMARY).returncode == 0
    results = project / "results" / EXPERIMENT
    assert not [path for path in results.rglob("*second*") if path.parent.name != "log"]
    assert not convergence.exists()


LONGEST = 2**17 - 1  # bytes of an argument, such as the command of `bash -c`, that Linux takes


def test_no_command_is_too_long_for_linux_with_every_experiment_and_five_replicates(tmp_path):
    """Longest are those over one experiment's surfaces; those over all don't grow with them."""
    project, lengths = new_project(tmp_path), []
    shutil.copy(ROOT / "params.yaml", project)
    of = Targets(read_params(project / "params.yaml"))
    by_surfaces = sorted(of.experiments, key=lambda name: len(of.surfaces(name)))
    for run, replicates in ((by_surfaces[:1], 1), (by_surfaces[-1:], 5)):
        edit(project, lambda params, run=run, n=replicates: params.update(run=run, replicates=n))
        said = snakemake(project, "--dry-run", "--printshellcmds", "--", SUMMARY, EXPLORER).stdout
        commands = re.findall(r"^Shell command: python -m fourfold (\S+) (.*)$", said, flags=re.M)
        lengths.append({name: len(line.encode()) for name, line in commands})
        assert max(len(line.encode()) for _, line in commands) < LONGEST / 4
    few, many = lengths
    assert few["collect-tables"] < many["collect-tables"]
    for over_all in ("summarize", "plot-explorer"):
        assert few[over_all] == many[over_all]


def test_a_lost_table_is_built_again_and_equal(project):
    path = project / "results" / EXPERIMENT / "0" / "tables" / "grid-bezier.parquet"
    before = pd.read_parquet(path)
    path.unlink()
    assert snakemake(project, "--", str(path.relative_to(project))).returncode == 0
    pd.testing.assert_frame_equal(before, pd.read_parquet(path), check_exact=True)


# --- refusals -------------------------------------------------------------------------------------

TRAP = """__use_yte__: true\n__variables__:\n  a: "?__import__('os').mkdir('sprung')"\n"""


def test_what_no_run_could_use_ends_in_one_message_before_anything_runs(tmp_path):
    project = new_project(tmp_path)
    file, run_key = project / "params.yaml", f"run:\n- {EXPERIMENT}\n"
    good = file.read_text()
    for text, lines in {
        good.replace(run_key, "run: [digits-vgg]\n"): ["error: run names 'digits-vgg'"],
        good.replace(run_key, "run: x\n"): ["error: params.yaml can't be used", "run: 'x' is not"],
        TRAP + good: ["error: params.yaml, line 1: __use_yte__ would let the file run Python"],
        good + "replicates: 2\n": ["error: params.yaml, line "],
        None: [f"error: no params.yaml in {project}"],
    }.items():
        assert text != good
        file.write_text(text) if text else file.unlink()
        run = snakemake(project)
        assert run.returncode == 1
        start = ("Using workflow specific profile", "Config file params.yaml is extended")
        said = [x for x in (run.stdout + run.stderr).splitlines() if x and not x.startswith(start)]
        assert len(said) == len(lines), said
        for line, part in zip(said, lines, strict=True):
            assert line.startswith(part)
        assert not [name for name in ("results", "data", "sprung") if (project / name).exists()]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' stands twice here, first in line 1"),
        ("a:\n  b: {c: 1, 'c': 2}", "line 2: the key 'c' stands twice"),
        ("a: &a {b: 1}\nc:\n  <<: *a\n  <<: *a", "line 4: the key '<<' stands twice"),
        ('{"a": 1,\n\t"a": 2}', "line 2: the key 'a' stands twice"),
        ("a:\n  1: x", "line 2: a key is read as int"),
        ("no: x", "line 1: a key is read as bool"),
        ("? [a, b]\n: x", "line 1: a key is read as seq"),
        ("a: 1\nseed: 010", "line 2: '010' is read to the base 8 or 60"),
        ("a: 1:30", "line 1: '1:30' is read to the base 8 or 60"),
        ("a: b: c", "line 1: mapping values are not allowed here"),
        ("a: 1\nb: &b [*b]", "line 2: a value contains itself"),
        ("a: 1\nb: größe".encode("latin-1"), "line 2: byte 0xf6 is no UTF-8"),
        ("a: 1".encode("utf-16"), "line 1: byte 0xff is no UTF-8"),
        ("a: 1".encode("utf-16-le"), "is no readable YAML"),
        ("", "has no keys at its top level"),
        ("- a", "has no keys at its top level"),
        ("a: 2026-99-99", "line 1: '2026-99-99' is read as a date, unless in quotes"),
        ("a:\n- {version: 2024-01-01}", "line 2: '2024-01-01' is read as a date, unless in quotes"),
        ("a: !!int x", "is no readable YAML"),
    ],
)
def test_what_misleads_a_reader_of_yaml_is_refused_with_its_line(content, said, tmp_path):
    path = tmp_path / "p.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as refused:
        check_yaml(path)
    assert str(refused.value).startswith(str(path))
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a {b: 1, c: 2}\nd: {<<: *a, b: 3}\ne: {<<: [*a, *a]}\nf: *a",
        "\ufeffa: größe\r\nb: {a: 1}\r\n",
        '{"a": 1e-3,\n\t"b": 0}',
        "a: 0\nb: 0.5\nc: 1_000\nd: '010'\ng: '2024-01-01'\ne: 0x10\nf: no\n'1': x",
    ],
)
def test_merges_byte_order_marks_and_json_are_read(text, tmp_path):
    (tmp_path / "p.yaml").write_text(text, encoding="utf-8")
    check_yaml(tmp_path / "p.yaml")


# --- data, failures, and what is recorded ---------------------------------------------------------


def test_where_the_files_lie_reaches_the_job_and_reruns_nothing(tmp_path):
    project = new_project(tmp_path / "project")
    source = {"name": "parquet", "train": "a.parquet", "test": None}
    edit(project, lambda p: p["datasets"]["digits"].update(source=source))
    here, there = tmp_path / "here", tmp_path / "{there}'s $HOME"
    for folder in (here, there):
        folder.mkdir()
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "PNG")
    columns = {"image": [file.getvalue()] * 400, "label": [k % 10 for k in range(400)]}
    pq.write_table(pa.table(columns), here / "a.parquet")
    run = snakemake(project, "--config", f"data_folder={there}", "--", "data")
    assert run.returncode == 1
    assert str(there / "a.parquet") in run.stdout + run.stderr
    run = snakemake(project, "--config", f"data_folder={here}", "--", "data")
    assert run.returncode == 0, run.stderr
    run = snakemake(project, "--config", f"data_folder={there}", "--", "data")
    assert "Nothing to be done" in run.stdout + run.stderr
    record = (project / "data" / "digits" / "train.safetensors").read_bytes()
    assert str(tmp_path).encode() not in record


def test_a_training_that_diverges_stops_with_its_message_and_leaves_no_network(project):
    edit(project, lambda p: section(p, "training")["optimizer"].update(lr=1.0e9))
    run = snakemake(project, f"results/{EXPERIMENT}/0/endpoints/seed0.safetensors")
    assert run.returncode == 1
    said = run.stdout + run.stderr
    failures = [line for line in said.splitlines() if "failed  train_endpoint" in line]
    assert len(failures) == said.count("diverged") == 1
    assert not re.search("Select jobs|Error in rule|CalledProcessError|jobid|resources:", said)
    replicate = project / "results" / EXPERIMENT / "0"
    assert not (replicate / "endpoints" / "seed0.safetensors").exists()
    assert not list((replicate / "trajectory").glob("seed0.*"))
    assert not list((project / "results").rglob(".unfinished-*"))


def test_every_file_says_what_made_it(finished):
    """Settings, seeds, data, versions, device and commit, in every table and tensor file."""
    facts = {"settings", "seeds", "dataset", "data_sha256", "device", "threads"}
    facts |= {"versions", "git", "hardware"}
    replicate = finished / "results" / EXPERIMENT / "0"
    tables, tensors = [*replicate.rglob("*.parquet")], [*replicate.rglob("*.safetensors")]
    assert tables
    assert tensors
    for path in tables:
        assert facts <= read_metadata(path).keys(), path
    for path in tensors:
        assert facts <= read_header(path).keys(), path
    bezier = {"corners": [0, 1, 2, 3], "fit": 1000}
    assert read_metadata(replicate / "tables" / "grid-bezier.parquet")["seeds"]["bezier"] == bezier
    seeds = read_metadata(replicate / "tables" / "merge.parquet")["seeds"]
    assert seeds.keys() == {"linear", "bezier", "trajectory"}
    assert read_metadata(replicate / "tables" / "training.parquet")["seeds"] == {
        **{f"seed{k}": k for k in range(4)},
        "bezier": bezier,
    }
    assert read_metadata(replicate / "tables" / "difference.parquet")["kept"] == 0.9
    of_summary = read_metadata(finished / "results" / "summary.parquet")["experiments"]
    assert of_summary[EXPERIMENT]["seeds"]["bezier"] == bezier


def test_an_interrupted_job_is_built_again_and_not_refused(project):
    """What a killed Snakemake leaves: a file, and a mark that its job was not finished."""
    file = f"results/{EXPERIMENT}/0/tables/merge.parquet"
    name = base64.urlsafe_b64encode(file.encode()).decode()
    (project / ".snakemake" / "metadata" / name).unlink()
    refused = snakemake(project, "--dry-run")
    assert refused.returncode == 1
    assert file in refused.stdout + refused.stderr
    (project / ".snakemake" / "incomplete" / name).write_text('{"external_jobid": null}')
    assert "compare_merges" in planned(project)


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """Return a folder to share of the main surface."""
    folder = tmp_path_factory.mktemp("zoo") / "bezier"
    with contextlib.chdir(finished):
        assert main(["export", EXPERIMENT, "--output", str(folder), "--license", "mit"]) == 0
    return folder


def test_a_shared_surface_predicts_what_the_tables_say(finished, exported):
    replicate, test = (
        finished / "results" / EXPERIMENT / "0",
        Dataset.load(finished / "data/digits"),
    )
    images, labels = test.splits["test"].images, test.splits["test"].labels
    cached = SurfaceLogits.load(replicate / "logits" / "bezier.safetensors")
    for point, stated in zip(cached.points, cached.logits["test"], strict=True):
        if point in CORNERS:
            continue
        network = ff.load_network(exported, *point)
        torch.testing.assert_close(network(images).detach(), stated.float(), atol=1e-3, rtol=1e-3)
    center = _rows(finished, "merge").query("merge == 'center' and surface == 'bezier'")
    logits = ff.load_network(exported, 0.5, 0.5)(images).detach()
    nll = torch.nn.functional.cross_entropy(to_half(logits).float(), labels).item()
    assert nll == pytest.approx(center.query("split == 'test'")["nll"].item(), abs=1e-4)
    settings = section(yaml.safe_load((finished / "params.yaml").read_text()), "network")
    for seed, corner in enumerate(CORNERS):
        model = build_model(**settings, channels=1, image_size=8, classes=10)
        model.load_state_dict(ff.load_checkpoint(replicate / f"endpoints/seed{seed}.safetensors"))
        stated = ff.predict(model, images, preprocess=test.normalize)
        found = ff.load_network(exported, *corner)(images).detach()
        torch.testing.assert_close(found, stated, atol=1e-5, rtol=1e-5)


def test_the_card_has_the_numbers_and_what_made_them(finished, exported):
    _, front, text = (exported / "README.md").read_text().split("---\n", 2)
    front, rival = yaml.safe_load(front), _rows(finished, "rival").query("split == 'test'")
    (results,) = front["model-index"][0]["results"]
    found = {one["name"]: one["value"] for one in results["metrics"]}
    center = rival.set_index("method").loc["bezier/center"]
    assert found["accuracy, center"] == pytest.approx(center["accuracy"], abs=1e-6)
    for end in ("low", "high"):
        assert f"{100 * center[f'accuracy_{end}']:.2f}" in text
    made = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    header = read_header(finished / "results" / EXPERIMENT / "0" / "surfaces/bezier.safetensors")
    assert made["fit"] == header["settings"]["fit"]
    assert made["seeds"] == {"corners": [0, 1, 2, 3], "fit": 1000}
    assert made["training"]["optimizer"] == {"name": "sgd", "lr": 0.1, "momentum": 0.9}
    assert front["license"] == "mit"
    assert "The corners were trained independently." in text
    bounds = _rows(finished, "certificate").query("surface == 'bezier' and split == 'val'")
    for metric, scale, digits in (("nll", 1, 3), ("error", 100, 1)):
        (*_, bound) = bounds.query("metric == @metric")["value"]
        assert f"has a val {metric} above {scale * bound:.{digits}f}" in text
    assert "say each, not both together" in text, "each bound alone holds with 95 %"
    assert str(finished) not in "".join(
        path.read_bytes().decode(errors="replace") for path in exported.iterdir()
    )


@pytest.mark.parametrize(
    ("arguments", "change", "said"),
    [
        (["tiny-vit"], None, "tiny-vit, replicate 0, is not finished: results/tiny-vit/0/"),
        ([EXPERIMENT, "--replicate", "1"], None, "replicate 1, is not finished"),
        (["digits"], None, "names 'digits', which `experiments` doesn't define"),
        ([EXPERIMENT, "--surface", "cubic"], None, "choose one of linear, bezier, trajectory"),
        ([EXPERIMENT, "--license", "My own"], None, "license is 'My own'"),
        ([EXPERIMENT, "--file", "p.yaml"], None, "no file at p.yaml"),
        (
            [EXPERIMENT],
            lambda params: params["recipes"]["sgd"]["augment"].update(shift=2),
            "was made with another augment than params.yaml states",
        ),
        *(
            (
                [EXPERIMENT, "--surface", "bezier"],
                lambda params, keys=keys, change=change: reduce(getitem, keys, params).update(
                    change
                ),
                f"was made with another {said} than params.yaml states; run",
            )
            for keys, change, said in (
                (["recipes", "sgd", "training"], {"epochs": 8}, "training"),
                (["surfaces", "bezier"], {"degree": [3, 3]}, "shape"),
                (["surfaces", "bezier"], {"corners": "trajectory"}, "surfaces.bezier.corners"),
                (["summary"], {"kept": 0.5}, "summary.kept"),
                (["seeds"], {"fit": 5000}, "seeds.fit"),
                (["datasets", "digits", "split"], {"train_images": 150}, "split"),
            )
        ),
        (
            [EXPERIMENT],
            lambda params: params["experiments"][EXPERIMENT].update(surfaces=["linear"]),
            "has no main surface, a fitted square on independent networks",
        ),
    ],
)
def test_what_can_not_be_exported_is_one_message(
    arguments, change, said, finished, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(finished)
    if change is not None:
        shutil.copy("params.yaml", tmp_path)
        edit(tmp_path, change)
        arguments = [*arguments, "--file", str(tmp_path / "params.yaml")]
    assert main(["export", *arguments, "--output", str(tmp_path / "zoo")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "zoo").exists()
