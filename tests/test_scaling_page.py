"""docs/scaling.md: its tables are what the program makes, and its formulas hold."""

import copy
from pathlib import Path

import pytest
import torch
from conftest import import_docs_program, make_images, make_network

from fourfold.errors import InputError
from fourfold.pipeline.targets import Targets
from fourfold.surfaces.surface import BezierSurface
from fourfold.training.fit import SurfaceStep

ROOT = Path(__file__).parent.parent

scaling = import_docs_program("scaling")


@pytest.fixture(scope="module")
def targets():
    return scaling.read_targets(ROOT)


def test_the_page_is_what_the_program_makes_of_it(targets):
    page = scaling.PAGE.read_text(encoding="utf-8")
    assert scaling.build_page(page, targets) == page, "run: python docs/scaling.py"
    with pytest.raises(InputError, match="lacks the markers <!-- memory: begin -->"):
        scaling.build_page("text", targets)


def points_evaluated_again(grid, search_images):
    """Return surface -> how many searched points were evaluated on all images after that."""
    test = grid[grid["split"] == "test"]
    again = test["sample"].isin(("edge", "random")) & (test["n"] == test["n"].max())
    counts = again.groupby(test["surface"], sort=False).sum()
    return {name: 0 if search_images is None else int(count) for name, count in counts.items()}


def test_the_formulas_give_the_flop_that_published_runs_counted(targets):
    published = scaling.read_published(ROOT / "docs" / "results")
    # Copies of many surfaces have no grids, which tell how many points were evaluated again.
    with_grids = {name: of for name, of in published.items() if "grid" in of.tables}
    assert with_grids
    for name, of in with_grids.items():
        then = scaling.as_published(targets, name, of)
        case = scaling.case_of(then, name)
        first = {table: rows[rows["replicate"] == 0] for table, rows in of.tables.items()}
        counted = first["cost"].groupby("stage")["flop"].sum()
        search_images = then.experiments[name]["grid"]["search_images"]
        exact = scaling.stage_flop(case, points_evaluated_again(first["grid"], search_images))
        assert exact == pytest.approx({stage: counted.get(stage, 0) for stage in exact}, rel=1e-9)
        assert all(flop >= exact[stage] for stage, flop in scaling.stage_flop(case).items())


def test_a_further_surface_costs_its_grid_and_its_fit_and_a_run_alone_one_training(targets):
    params, name = copy.deepcopy(targets.params), "digits-vit"
    params["surfaces"]["rival"] = params["surfaces"]["bezier"] | {"degree": [3, 3]}

    def flop(*surfaces):
        params["experiments"][name]["surfaces"] = list(surfaces)
        return list(scaling.stage_flop(scaling.case_of(Targets(params), name)).values())

    training, forks, fit, grids = flop("linear", "bezier", "trajectory")
    further = [training, forks, 2 * fit, pytest.approx(4 / 3 * grids)]
    assert flop("linear", "bezier", "trajectory", "rival") == further
    assert flop("trajectory") == [training / 4, 0, 0, pytest.approx(grids / 3)]


@pytest.mark.parametrize("points", [1, 4])
@pytest.mark.parametrize("degree", [(2, 2), (3, 2)])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_fit_keeps_as_many_numbers_as_the_formula_says(points, degree, optimizer):
    corners = [make_network("batchnorm", seed).state_dict() for seed in range(4)]
    surface, model = BezierSurface.from_corners(corners, degree), make_network("batchnorm")
    step = SurfaceStep(surface, model, points, device=torch.device("cpu"), optimizer=optimizer)
    images, labels = make_images(8)
    at = torch.rand(points, 2, dtype=torch.float64)
    step(at, images.float(), labels, 0.01)
    kept = [surface.control_points, step._theta, step._gradient, *step._descent.states]
    given = 1  # model
    numbers = scaling.fit_numbers((degree[0] + 1) * (degree[1] + 1), points, optimizer) - given
    assert sum(tensor.numel() for tensor in kept) == surface.dimension * numbers
    # The copy's parameters and gradients are views of these.
    storages = {tensor.untyped_storage().data_ptr() for tensor in kept}
    for parameter in step._bound.module.parameters():
        assert parameter.untyped_storage().data_ptr() in storages
        assert parameter.grad.untyped_storage().data_ptr() in storages
