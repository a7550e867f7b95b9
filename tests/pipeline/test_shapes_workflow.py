"""Surfaces of many shapes on corner sets of many kinds, in one experiment from data to summary."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from project import edit, new_project, planned, snakemake

from fourfold.files.table import SCHEMAS
from fourfold.files.tensors import read_header
from fourfold.surfaces.surface import Surface

EXPERIMENT = "tiny-shapes"
CORNERS = {
    "curve": ["seed0", "seed1"],
    "chain": ["seed0", "seed1"],
    "triangle": ["seed0", "seed1", "seed2"],
    "simplex": ["seed0", "seed1"],
    "branches": ["forked-0", "forked-1"],
    "line": [],
    "free": [],
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Return a project whose run has ended."""
    project = new_project(tmp_path_factory.mktemp("shapes"))
    edit(project, lambda params: params.update(run=[EXPERIMENT]))
    run = snakemake(project)
    assert run.returncode == 0, run.stdout + run.stderr
    return project


@pytest.fixture(scope="module")
def replicate(project):
    return project / "results" / EXPERIMENT / "0"


def table(replicate, name):
    return pd.read_parquet(replicate / "tables" / f"{name}.parquet")


def surface(replicate, name):
    return Surface.load(replicate / "surfaces" / f"{name}.safetensors")


def test_everything_is_built_once_and_every_table_has_its_columns(project):
    assert planned(project) == {}
    for path in (project / "results").rglob("*.parquet"):
        schema = pq.read_schema(path).remove_metadata()
        assert schema.equals(SCHEMAS[path.stem.partition("-")[0]]), path
        assert len(pd.read_parquet(path)) > 0, path


@pytest.mark.parametrize("name", CORNERS)
def test_the_corners_are_the_networks_that_they_should_be(name, replicate):
    found = surface(replicate, name)
    endpoints = table(replicate, "endpoints").drop_duplicates("checkpoint")
    files = [f"endpoints/{network}.safetensors" for network in CORNERS[name]]
    sha256 = endpoints.set_index("checkpoint")["sha256"]
    if files:
        assert list(found.corner_hashes) == sha256[files].tolist()
    assert found.train_corners == (name == "free")
    grid = table(replicate, f"grid-{name}")
    assert grid[list("uvw")].notna().all().tolist() == [k < found.shape.dims for k in range(3)]
    assert (grid["statistics"] == "own").any() == (name != "free")


def test_a_fork_goes_on_where_its_ancestor_was_and_on_its_own_way(replicate):
    training = table(replicate, "training")
    training = training[training["split"] == "train"].set_index(["item", "epoch"])
    ancestor, forks = training.loc["seed0"], [training.loc[f"forked-{k}"] for k in range(2)]
    for fork in forks:
        assert fork.index.tolist() == [3, 4]  # parted after two of four epochs
        for column in ("learning_rate", "step"):
            assert fork[column].tolist() == ancestor.loc[[3, 4], column].tolist()
        assert fork["images_seen"].tolist() == ancestor["images_seen"].tolist()[:2]
    assert forks[0]["nll"].tolist() != forks[1]["nll"].tolist()
    states = [surface(replicate, "branches").control_points[k] for k in range(2)]
    assert not np.allclose(*states)


def test_what_a_surface_cost_is_what_was_trained_for_it(project, replicate):
    cost = table(replicate, "cost").groupby("item")["images_backward"].sum()
    summary = pd.read_parquet(project / "results" / "summary.parquet")
    of = summary[summary["kind"] == "surface"].set_index(["method", "metric"])["mean"]
    for name, networks in CORNERS.items():
        shared = {"branches": 0.5, "line": 1.0}.get(name, 0.0) * cost["seed0"]
        trained = shared + cost[networks].sum() + cost[name]
        assert of[name, "images_backward"] == trained, name


def test_free_corners_start_from_seeds_and_are_moved(replicate):
    seeds = read_header(replicate / "surfaces" / "free.safetensors")["seeds"]["free"]
    assert seeds == {"corners": [0, 1, 2, 3], "fit": 1000}
    cost = table(replicate, "cost")
    assert len(cost[cost["stage"] == "train_endpoint"]) == 3  # the other sets'
    mean = table(replicate, "training").query("item == 'free' and split == 'train'")["nll"]
    assert mean.iloc[-1] < mean.iloc[0]
