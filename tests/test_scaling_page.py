"""docs/scaling.md: its tables are what the program makes, and its formulas hold."""

import json
from pathlib import Path

import pytest
import torch
from conftest import import_docs_program, make_images, make_network

from fourfold.files.table import read_table
from fourfold.pipeline.params import read_params
from fourfold.surfaces.surface import BezierSurface
from fourfold.training.fit import SurfaceStep

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def program():
    """The module docs/scaling.py."""
    return import_docs_program("scaling")


@pytest.fixture(scope="module")
def params():
    return read_params(DOCS.parent / "params.yaml")


def test_the_page_is_what_the_program_makes_of_it(program, params):
    page = (DOCS / "scaling.md").read_text()
    measured = json.loads((DOCS / "measured" / "scaling.json").read_text())
    assert program.build_page(page, params, measured) == page, "run: python docs/scaling.py"


def points_evaluated_again(grid, params):
    """Return for each surface how many searched points were evaluated on all images after that."""
    if params["search_images"] is None:
        return [0] * grid["surface"].nunique()
    test = grid[(grid["split"] == "test") & grid["sample"].isin(("edge", "random"))]
    whole = grid[grid["split"] == "test"]["n"].max()
    counts = test[test["n"] == whole].groupby("surface").size()
    return [int(counts.get(surface, 0)) for surface in grid["surface"].unique()]


def test_the_formulas_give_the_flop_that_published_runs_counted(program, params):
    published = program.published_folders(DOCS / "results")
    compared = 0
    for name, experiment, network, sizes in program.networks(params):
        if name in published:
            folder = published[name]
            cost = read_table("cost", folder / "cost.parquet")
            counted = cost.groupby("stage")["flop"].sum()
            grid = read_table("grid", *sorted(folder.glob("grid-*.parquet")))
            again = points_evaluated_again(grid, experiment["grid"])
            exact = program.stage_flop(experiment, network, sizes, again)
            for stage, flop in exact.items():
                assert flop == pytest.approx(counted[stage], rel=1e-9), (name, stage)
                assert program.stage_flop(experiment, network, sizes)[stage] >= flop
                compared += 1
    assert compared == 3 * len(published) > 0


def test_a_further_surface_costs_its_grid_and_its_fit_and_no_training(program, params):
    _, before, network, sizes = next(program.networks(params))
    surfaces, bezier = before["surfaces"], before["surfaces"]["bezier"]
    after = before | {"surfaces": surfaces | {"rival": bezier | {"degree": [3, 3]}}}
    flop = [program.stage_flop(experiment, network, sizes) for experiment in (before, after)]
    assert flop[1]["train_endpoint"] == flop[0]["train_endpoint"]
    assert flop[1]["fit_bezier_surface"] == 2 * flop[0]["fit_bezier_surface"]
    assert 3 * flop[1]["evaluate_grid"] == pytest.approx(4 * flop[0]["evaluate_grid"])
    assert program.fit_vectors(after) > program.fit_vectors(before)


def test_corners_from_one_run_cost_one_training_and_no_fit(program, params):
    _, four, network, sizes = next(program.networks(params))
    one = four | {
        part: {"trajectory": four[part]["trajectory"]} for part in ("corners", "surfaces")
    }
    flop = [program.stage_flop(experiment, network, sizes) for experiment in (four, one)]
    assert flop[0]["train_endpoint"] == 4 * flop[1]["train_endpoint"]
    assert flop[1]["fit_bezier_surface"] == program.fit_vectors(one) == 0


@pytest.mark.parametrize("points", [1, 4])
@pytest.mark.parametrize("degree", [(2, 2), (3, 2)])
@pytest.mark.parametrize(("optimizer", "moments"), [("sgd", 1), ("adamw", 2)])
def test_a_fit_keeps_as_many_numbers_as_the_formula_says(
    program, points, degree, optimizer, moments
):
    corners = [make_network("batchnorm", seed).state_dict() for seed in range(4)]
    surface = BezierSurface.from_corners(corners, degree)
    device = torch.device("cpu")
    step = SurfaceStep(
        surface, make_network("batchnorm"), points, device=device, optimizer=optimizer
    )
    images, labels = make_images(8)
    u, v = torch.rand(2, points, dtype=torch.float64)
    step(u, v, images.float(), labels, 0.01)
    kept = [surface.control_points, step._theta, step._gradient, *step._descent.states]
    model = 1
    control_points = (degree[0] + 1) * (degree[1] + 1)
    assert sum(tensor.numel() for tensor in kept) == surface.dimension * (
        program.fit_numbers(control_points, points, moments) - model
    )
    # The copy's parameters and gradients are views of these.
    storages = {tensor.untyped_storage().data_ptr() for tensor in kept}
    for parameter in step._bound.module.parameters():
        assert parameter.untyped_storage().data_ptr() in storages
        assert parameter.grad.untyped_storage().data_ptr() in storages


def test_a_page_without_a_marker_is_refused(program, params):
    with pytest.raises(SystemExit, match="lacks the markers <!-- machine: begin -->"):
        program.replace_block("text", "machine", "block")
