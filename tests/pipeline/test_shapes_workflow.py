"""Surfaces of many shapes on corner sets of many kinds, from data to summary."""

import contextlib
import shutil
from functools import reduce
from operator import getitem

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from project import edit, new_project, run_commands

from fourfold.evaluation.logits import SurfaceLogits
from fourfold.files.table import SCHEMAS
from fourfold.files.tensors import read_header
from fourfold.pipeline.cli import main
from fourfold.pipeline.params import read_params
from fourfold.pipeline.targets import Targets
from fourfold.pipeline.work import predicted_passes
from fourfold.surfaces.checkpoint import load_trajectory, save_trajectory
from fourfold.surfaces.surface import Surface

EXPERIMENT, RIVALS = "tiny-shapes", "tiny-rivals"
CORNERS = {
    "curve": ["seed0", "seed1"],
    "chain": ["seed0", "seed1"],
    "triangle": ["seed0", "seed1", "seed2"],
    "simplex": ["seed0", "seed1"],
    "branches": ["forked-0", "forked-1"],
    "line": [],
    "free": [],
    "star": ["seed0", "seed1"],
    "cube": [],
    "set": ["seed0", "seed1", "seed2"],
    "alone": ["seed0"],
}
SETS = ("set", "alone")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Return a project whose run has ended."""
    project = new_project(tmp_path_factory.mktemp("shapes"))
    edit(project, lambda params: params.update(run=[EXPERIMENT, RIVALS]))
    run_commands(project)
    return project


@pytest.fixture(scope="module")
def replicate(project):
    return project / "results" / EXPERIMENT / "0"


def table(replicate, name):
    return pd.read_parquet(replicate / "tables" / f"{name}.parquet")


def surface(replicate, name):
    return Surface.load(replicate / "surfaces" / f"{name}.safetensors")


@pytest.fixture(scope="module")
def rivals(project):
    return project / "results" / RIVALS / "0"


def test_everything_is_built_and_every_table_has_its_columns(project):
    targets = Targets(read_params(project / "params.yaml"))
    assert [file for file in targets.all_files() if not (project / file).is_file()] == []
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


def test_runs_and_edges_end_at_the_networks_that_span_the_plane(replicate):
    path = table(replicate, "plane_path")
    places = path[path["kind"] == "network"].set_index("name")[["x", "y"]].to_numpy()
    plane = table(replicate, "plane")
    assert plane.groupby(["sample", "statistics"]).size().tolist() == [2 * 3, 2 * 3, 2 * 25]
    at_corners = plane[plane["statistics"] == "own"].drop_duplicates(["x", "y"])
    np.testing.assert_array_equal(at_corners[["x", "y"]], places)
    last = path[path["kind"] == "run"].groupby("name").tail(1)
    assert last["name"].tolist() == ["seed0", "seed1", "seed2"]
    np.testing.assert_allclose(last[["x", "y"]], places, atol=1e-5)
    np.testing.assert_allclose(last["distance"], 0, atol=1e-5)
    edges = path[path["kind"] == "edge"].groupby(["surface", "name"])
    joined = {"chain": [(0, 1)], "curve": [(0, 1)], "triangle": [(0, 1), (0, 2), (1, 2)]}
    joined |= {"simplex": [(0, 1), (0, None), (1, None)], "star": [(None, 0), (None, 1)]}
    assert len(edges) == sum(map(len, joined.values()))
    for (name, edge), rows in edges:
        ends = joined[name][int(edge.removeprefix("edge_"))]
        for end, row in zip(ends, rows.iloc[[0, -1]].itertuples(), strict=True):
            if end is not None:
                assert (row.x, row.y, row.distance) == pytest.approx((*places[end], 0), abs=1e-5)


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
        if name in SETS:
            assert name not in of
            continue
        shared = {"branches": 0.5, "line": 1.0}.get(name, 0.0) * cost["seed0"]
        trained = shared + cost[networks].sum() + cost[name]
        assert of[name, "images_backward"] == trained, name


def job_behind(cost):
    """Return the wildcards of the job that wrote a row of the cost table."""
    if cost.stage in ("evaluate_grid", "fit_bezier_surface"):
        return {"surface": cost.item}
    of_run = {"train_endpoint": {"run": cost.item}, "measure_plane": {}}
    return of_run.get(cost.stage, {"corners": cost.item.rpartition("-")[0]})


def test_every_job_passed_the_images_that_were_foretold(project):
    targets, found = Targets(read_params(project / "params.yaml")), set()
    for name in (EXPERIMENT, RIVALS):
        replicate = project / "results" / name / "0"
        for row in table(replicate, "cost").itertuples():
            of, again = {"experiment": name, **job_behind(row)}, None
            if row.stage == "evaluate_grid":
                test = table(replicate, f"grid-{row.item}").query("split == 'test'")
                again = int((test["sample"].isin(["edge", "random"]) & (test["n"] == 60)).sum())
                assert again <= 2 * 6
            foretold = predicted_passes(row.stage, of, targets, again=again)
            if foretold:
                assert foretold == row.images_forward + 2 * row.images_backward, row
                assert foretold <= predicted_passes(row.stage, of, targets), row
                found.add(row.stage)
    trainings = {"train_endpoint", "train_fork", "fit_bezier_surface"}
    assert found == trainings | {"evaluate_grid", "measure_plane"}


def test_a_star_has_a_center_of_its_own_that_the_fit_moved(replicate):
    star = surface(replicate, "star")
    assert star.control_point_names == ("corner_0", "corner_1", "center")
    assert not np.allclose(star.point(0), star.control_points[:2].mean(dim=0))
    grid = table(replicate, "grid-star").query("sample == 'grid' and statistics != 'own'")
    assert sorted(set(grid["u"])) == [i / 16 for i in (0, 1, 2, 3, 4, 9, 10, 11, 12)]


def test_sets_are_evaluated_at_their_networks_and_their_mean_and_used_as_baselines(replicate):
    for name in SETS:
        count = len(CORNERS[name])
        grid = table(replicate, f"grid-{name}")
        assert set(grid["sample"]) == {"grid"}
        assert set(grid["u"]) == {0, *((k + 0.5) / count for k in range(count))}
        merges = table(replicate, "merge").query("surface == @name")
        assert set(merges["merge"]) == {"best-corner", "uniform-soup", "greedy-soup"}
        ensembles = table(replicate, "ensemble")
        assert name not in set(ensembles["ensemble"])
        of_set = ensembles[ensembles["corners"] == {"set": "three"}.get(name, name)]
        whole = of_set[of_set["selection"] == "fixed"]
        assert set(whole["forward_passes"]) == {count}
        assert name not in set(table(replicate, "difference")["surface"])
    barrier = table(replicate, "barrier").query("surface == 'alone'")
    assert (barrier["barrier"] == 0).all() and len(barrier) == 6


def test_free_corners_start_from_seeds_and_are_moved(replicate):
    seeds = read_header(replicate / "surfaces" / "free.safetensors")["seeds"]["free"]
    assert seeds == {"corners": [0, 1, 2, 3], "fit": 1000}
    cost = table(replicate, "cost")
    assert len(cost[cost["stage"] == "train_endpoint"]) == 3  # the other sets'
    mean = table(replicate, "training").query("item == 'free' and split == 'train'")["nll"]
    assert mean.iloc[-1] < mean.iloc[0]


# --- corner sets made from others -----------------------------------------------------------------


def test_aligned_corners_are_other_networks_that_compute_the_same(rivals):
    names = ("linear", "aligned")
    points, logits = (
        [load(rivals / folder / f"{name}.safetensors") for name in names]
        for folder, load in (("surfaces", Surface.load), ("logits", SurfaceLogits.load))
    )
    assert points[0].corner_hashes != points[1].corner_hashes
    for split in ("val", "test"):
        old, new = (of.own[split].float() for of in logits)
        np.testing.assert_allclose(new, old, atol=0.02 * float(old.abs().max()))
    made_by = read_header(rivals / "corners" / "aligned.safetensors")
    assert made_by["method"] == "activations"  # auto, and nothing to rotate


def test_random_corners_have_the_mean_and_the_distances_of_those_they_stand_for(rivals):
    made = surface(rivals, "random")
    run = list(load_trajectory(rivals / "trajectory" / "seed0.safetensors").values())
    real = Surface.from_corners(run, degree=(1, 1)).control_points.double()
    random = made.control_points.double()
    np.testing.assert_allclose(random.mean(dim=0), real.mean(dim=0), atol=1e-6)
    distances = (torch.cdist(of, of)[np.triu_indices(4, 1)] for of in (random, real))
    torch.testing.assert_close(*distances, rtol=1e-4, atol=0)
    assert not np.allclose(random, real, atol=1e-3)


def test_a_network_is_tuned_from_one_that_another_training_left(rivals):
    training = table(rivals, "training").query("split == 'train'").set_index("item")
    assert training.loc["half-seed0", "epoch"].tolist() == [1, 2]
    assert training.loc["tuned-1", "epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    # From its start, with a rate of its own.
    assert training.loc["tuned-1", "learning_rate"].max() == pytest.approx(0.05, rel=0.05)
    assert set(training.loc["half-seed0", "images_seen"] % 32) == {0}


def test_untrained_corners_are_not_moved(rivals):
    assert not surface(rivals, "untrained").train_corners
    cost = table(rivals, "cost").query("stage == 'train_endpoint'")
    assert set(cost["item"]) == {"half-seed0", *(f"seed{k}" for k in range(4))}
    accuracy = table(rivals, "grid-untrained").query("statistics == 'own'")["accuracy"]
    assert accuracy.max() < 0.5


# --- sharing --------------------------------------------------------------------------------------


def export(project, experiment, name, folder, change=None):
    """Export a surface, with some values of params.yaml changed since the run."""
    shutil.copy(project / "params.yaml", folder)
    for keys, values in (change or {}).items():
        edit(folder, lambda p, k=keys, v=values: reduce(getitem, k.split("."), p).update(v))
    of = [experiment, "--surface", name, "--file", str(folder / "params.yaml")]
    with contextlib.chdir(project):
        return main(["export", *of, "--output", str(folder / "zoo")])


OF_SHARED = {"aligned": RIVALS, "random": RIVALS, "tuned": RIVALS}
OF_SHARED |= {"line": EXPERIMENT, "branches": EXPERIMENT}


@pytest.mark.parametrize("name", OF_SHARED)
def test_a_surface_is_exported_whatever_made_its_corners(name, project, tmp_path):
    assert export(project, OF_SHARED[name], name, tmp_path) == 0


@pytest.mark.parametrize(
    ("name", "key", "values", "said"),
    [
        ("aligned", "corners.aligned", {"method": "weights", "rotations": False, "reference": 0},
         "corners/aligned.safetensors was made with another corners.aligned than"),
        ("random", "corners.listed", {"choose": [1.0, 0.75, 0.5, 0.25]},
         "selection-listed.parquet was made with another corners.listed than"),
        ("random", "seeds", {"fit": 5000}, "random.safetensors was made with another seeds.fit"),
        ("line", "corners.ends", {"choose": [0.25, 1.0]}, "made with another corners.ends than"),
        ("branches", "corners.forked", {"at": 0.75},
         "endpoints/forked-0.safetensors was made with another corners.forked.at than"),
        ("tuned", "recipes.sgd.trainings.half", {"weight_decay": 0.1},
         "trajectory/half-seed0.safetensors was made with another training than"),
    ],
)  # fmt: skip
def test_a_surface_is_not_exported_with_what_its_corners_were_not_made_with(
    name, key, values, said, project, tmp_path, capsys
):
    assert export(project, OF_SHARED[name], name, tmp_path, {key: values}) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "zoo").exists()


def test_a_fork_is_not_exported_beside_another_ancestor(project, tmp_path, capsys):
    copy = tmp_path / "project"
    shutil.copytree(project, copy)
    path = copy / "results" / EXPERIMENT / "0" / "trajectory" / "seed0.safetensors"
    networks = {k: {n: 2 * x for n, x in of.items()} for k, of in load_trajectory(path).items()}
    save_trajectory(networks, path, {"settings": read_header(path)["settings"]})
    assert export(copy, EXPERIMENT, "branches", tmp_path) == 1
    assert "forked-0.safetensors was made with another ancestor than" in capsys.readouterr().err
