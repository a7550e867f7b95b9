"""What all jobs of a replicate write about themselves, and how they read surfaces' files."""

import argparse
import importlib.metadata
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import differing, make_network

import fourfold
from fourfold.errors import InputError
from fourfold.files.table import read_metadata, read_table
from fourfold.files.tensors import save_tensors
from fourfold.pipeline.commands._job import Job, read_corners, surface_files
from fourfold.pipeline.commands._network_job import NetworkJob
from fourfold.pipeline.commands._settings import read_surfaces
from fourfold.surfaces.checkpoint import save_checkpoint, save_trajectory

MADE_BY = {"dataset": "digits", "data_sha256": "d" * 64, "device": "cuda", "threads": 4}
# Commands that pass no image through a network.
PLAIN = ("build_linear_surface", "compare_ensembles", "measure_geometry", "measure_differences")


def save(path, **header):
    save_tensors({"x": torch.zeros(1)}, path, header)
    return path


def job(folder, *inputs):
    given = {"experiment": "e", "replicate": 1, "cost": folder / "jobs" / "cost-x.parquet"}
    given["command"] = "measure-geometry"
    return Job(argparse.Namespace(**given), inputs=inputs)


def test_a_network_is_initialized_without_a_look_at_the_gpus_of_others(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    on_cpu = SimpleNamespace(device=torch.device("cpu"), build_model=lambda: torch.rand(3))
    before = torch.get_rng_state()
    first, again, other = (NetworkJob.initial_model(on_cpu, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_job_without_a_network_says_what_its_inputs_agree_in(tmp_path):
    a = save(tmp_path / "a.safetensors", seeds={"a": 1}, **MADE_BY)
    b = save(tmp_path / "b.safetensors", seeds={"b": [2]}, **MADE_BY | {"threads": 1})
    (tmp_path / "corners.json").write_text("{}")
    found = job(tmp_path, a, b, tmp_path / "corners.json").metadata()
    assert found["seeds"] == {"a": 1, "b": [2]}
    assert found["settings"] == {}
    assert {key: found.get(key) for key in MADE_BY} == MADE_BY | {"threads": None}
    assert job(tmp_path).facts == {}
    assert job(tmp_path, a, save(tmp_path / "users.safetensors")).facts == {}


def test_a_source_tree_that_nobody_installed_names_its_version_too(tmp_path, monkeypatch):
    def version(package):
        if package == "fourfold":
            raise importlib.metadata.PackageNotFoundError(package)
        return "1"

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = job(tmp_path).metadata()["versions"]
    assert found["fourfold"] == fourfold.__version__
    assert found["torch"] == "1"


def test_whole_tables_have_a_csv_and_parts_of_gathered_ones_have_none(tmp_path):
    this = job(tmp_path, save(tmp_path / "a.safetensors", **MADE_BY))
    row = {"surface": "s", "a": "P_01", "b": "P_10", "l2": 1.0, "relative_l2": 0.5, "cosine": 0.9}
    this.write("geometry", [row | {"disagreement": None}], tmp_path / "tables" / "geometry.parquet")
    this.write_cost("geometry")
    assert [path.name for path in tmp_path.rglob("*.csv")] == ["geometry.csv"]
    cost = read_table("cost", tmp_path / "jobs" / "cost-x.parquet").iloc[0]
    assert (cost["stage"], cost["item"], cost["device"]) == ("measure_geometry", "geometry", "cpu")
    assert (cost["images_forward"], cost["images_backward"], cost["flop"]) == (0, 0, 0)
    assert cost["wall_s"] >= 0
    assert read_metadata(tmp_path / "jobs" / "cost-x.parquet")["data_sha256"] == "d" * 64


@pytest.mark.parametrize("command", PLAIN)
def test_a_command_that_passes_no_image_knows_no_data_network_or_training(command):
    code = f"import sys, fourfold.pipeline.commands.{command}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    for other in ("networks", "training", "data.dataset", "data.sources", "evaluation.grid"):
        assert f"fourfold.{other}" not in loaded


# --- surfaces and their files ---------------------------------------------------------------------


def test_files_of_surfaces_are_told_by_their_headers_whatever_their_order(tmp_path):
    surfaces = [save(tmp_path / f"{k}.safetensors", name=name) for k, name in enumerate("ab")]
    logits = [save(tmp_path / f"l{k}.safetensors", surface=name) for k, name in enumerate("ba")]
    found = surface_files(surfaces=surfaces, logits=logits)
    assert found == {"a": (surfaces[0], logits[1]), "b": (surfaces[1], logits[0])}
    for wrong in ([logits[0]], [logits[0], logits[0]], [*logits, logits[0]]):
        with pytest.raises(InputError, match=r"--logits names .*\['a', 'b'\]"):
            surface_files(surfaces=surfaces, logits=wrong)
    with pytest.raises(InputError, match="names none"):
        surface_files(logits=[save(tmp_path / "other.safetensors", format="x")])


OF = {"corners": "c", "kind": "seeds", "fit": None, "shape": "square", "degree": [1, 1], "count": 4}


def test_surfaces_are_read_in_their_order():
    chain = {"corners": "d", "kind": "fork", "at": 0.5, "fit": "f", "shape": "chain", "bends": 1}
    text = json.dumps({"z": OF, "a": chain | {"count": 2}})
    assert list(read_surfaces(text).items()) == list(json.loads(text).items())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "--surfaces is damaged"),
        ("[]", "not a JSON object"),
        ("{}", "an object of surfaces"),
        ('{"a": "independent"}', "'a' is 'independent'"),
        (json.dumps({"a": OF | {"size": 3}}), "keys corners, kind, fit, shape, count"),
        (json.dumps({"a": {"corners": "c"}}), r"'a' lacks \['count', 'fit', 'kind', 'shape'\]"),
        (json.dumps({"a": OF | {"corners": None}}), "'a' has None for 'corners', which must be"),
        (json.dumps({"a": OF | {"fit": 3}}), "'a' has 3 for 'fit'"),
        (json.dumps({"a": OF | {"count": 3}}), "4 corners, but there are 3"),
    ],
)
def test_what_describes_no_surfaces_is_refused(text, said):
    with pytest.raises(InputError, match=said):
        read_surfaces(text)


# --- corners --------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path):
    """Return the file of a run's networks, and the networks."""
    networks = {epoch: make_network("no-norm", epoch).state_dict() for epoch in (1, 2, 3, 4, 5)}
    save_trajectory(networks, tmp_path / "run.safetensors", {"seed": 7})
    return tmp_path / "run.safetensors", networks


CHOICE = {"corners": "c", "kind": "run", "chosen_on": "val"}


def test_chosen_corners_are_the_runs_networks_in_the_order_of_the_choice(run, tmp_path):
    path, networks = run
    (tmp_path / "c.json").write_text(json.dumps(CHOICE | {"epochs": [5, 2, 1, 3]}))
    corners, seeds = read_corners([tmp_path / "c.json", path])
    assert seeds == [7] * 4
    for state, epoch in zip(corners, (5, 2, 1, 3), strict=True):
        assert differing(state, networks[epoch]) == []


def test_independent_corners_are_the_checkpoints_in_order(tmp_path):
    states = [make_network("batchnorm", seed).state_dict() for seed in range(4)]
    paths = [tmp_path / f"{seed}.safetensors" for seed in range(4)]
    for seed, (state, path) in enumerate(zip(states, paths, strict=True)):
        save_checkpoint(state, path, {"seed": seed})
    corners, seeds = read_corners(paths)
    assert seeds == [0, 1, 2, 3]
    assert [differing(a, b) for a, b in zip(corners, states, strict=True)] == [[]] * 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no file at"),
        ("[1]", "not a JSON object"),
        ('{"epochs": [1]}', "lacks"),
        (json.dumps(CHOICE | {"epochs": [1, 2, 3, 9]}), r"\[9\], which .*doesn't hold"),
    ],
)
def test_a_list_that_names_no_networks_is_refused(text, said, run, tmp_path):
    if text is not None:
        (tmp_path / "c.json").write_text(text)
    with pytest.raises(InputError, match=said):
        read_corners([tmp_path / "c.json", run[0]])
