"""Laws of merges: averages of weights, greedy soups, best points."""

import pandas as pd
import pytest
import torch
from combination.test_baselines import FITTED, SURFACES
from conftest import CHOSEN, CORNERS, NETWORKS, differing, make_corners, make_network, snapshot

from fourfold.combination.merge import (
    Soup,
    average_states,
    best_point,
    compare_merges,
    greedy_soup,
    load_soups,
    save_soups,
)
from fourfold.errors import InputError
from fourfold.files.tensors import save_tensors
from fourfold.surfaces.points import grid_points
from fourfold.surfaces.shapes import SQUARE
from fourfold.surfaces.surface import Surface

CENTER = SQUARE.center


@pytest.mark.parametrize("name", NETWORKS)
def test_the_average_of_one_network_or_of_equal_ones_is_the_network(name):
    state = make_network(name).state_dict()
    for states in ([state], [state] * 4):
        averaged = average_states(states)
        if name == "float64":
            torch.testing.assert_close(averaged, dict(state), rtol=1e-6, atol=1e-7)
        else:
            assert differing(averaged, state) == []


@pytest.mark.parametrize("name", ["batchnorm", "buffers"])
def test_an_average_is_the_mean_of_every_floating_tensor_and_the_first_of_the_others(name):
    states = make_corners(name)[:3]
    for tensor_name, tensor in average_states(states, buffers=CHOSEN.get(name)).items():
        if tensor.is_floating_point():
            mean = sum(state[tensor_name] for state in states) / 3
            torch.testing.assert_close(tensor, mean)
        else:
            assert torch.equal(tensor, states[0][tensor_name])


@pytest.mark.parametrize("name", ["layernorm", "tied", "resnet18"])
def test_the_average_of_the_corners_is_the_center_of_the_linear_surface(name):
    corners = make_corners(name)
    center = Surface.from_corners(corners, degree=(1, 1)).state_dict(0.5, 0.5)
    torch.testing.assert_close(average_states(corners), center)


def test_averaging_changes_no_network_and_shares_no_memory():
    states = make_corners("tied")
    before = [snapshot(state) for state in states]
    for tensor in average_states(states).values():
        tensor.zero_()
    assert [differing(a, b) for a, b in zip(states, before, strict=True)] == [[], [], [], []]


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        (lambda: average_states([]), "got none"),
        (
            lambda: average_states([make_network(n).state_dict() for n in ("no-norm", "vit")]),
            "network 1 and network 0 are different architectures",
        ),
        (lambda: greedy_soup([], max), "got no accuracies"),
        (lambda: every_row_and_soup(SURFACES, grids=[surface_grid("more", "four")]), "'more'"),
    ],
)
def test_wrong_input_is_named(refused, said):
    with pytest.raises(InputError, match=said):
        refused()


# --- greedy soups and best points -----------------------------------------------------------------


def test_a_greedy_soup_tries_networks_in_order_of_accuracy_and_keeps_what_does_not_hurt():
    tried = {(1, 2): 0.8, (1, 2, 0): 0.79, (1, 2, 3): 0.8}  # an equal accuracy is no fall
    asked = []
    soup = greedy_soup([0.6, 0.75, 0.7, 0.5], lambda s: asked.append(tuple(s)) or tried[tuple(s)])
    assert asked == list(tried)
    assert soup == ([1, 2, 3], 0.8)


def test_a_soup_of_one_network_evaluates_nothing_and_one_without_numbers_comes_last():
    assert greedy_soup([0.4], lambda soup: pytest.fail("evaluated")) == ([0], 0.4)
    assert greedy_soup([float("nan"), 0.4], lambda soup: float("nan")) == ([1], 0.4)


def grid(*rows, **columns):
    table = pd.DataFrame(rows, columns=["split", "u", "v", "accuracy", "nll"])
    return table.assign(**{"n": 10, "sample": "grid", "statistics": "reestimated"} | columns)


def test_the_best_point_has_the_highest_accuracy_then_the_lowest_nll_then_is_the_first():
    table = grid(
        ("val", 0.0, 0.1, 0.8, 0.1),
        ("val", 0.25, 0.75, 0.9, 0.5),
        ("val", 0.1, 0.2, 0.9, 0.3),
        ("val", 0.3, 0.4, 0.9, 0.3),
        ("test", 1.0, 0.5, 0.99, 0.01),
    )
    assert best_point(table, "val") == (0.1, 0.2)
    assert best_point(table, "test") == (1.0, 0.5)


@pytest.mark.parametrize(
    ("point", "columns"),
    [
        *((corner, {"statistics": s}) for corner in CORNERS for s in ("reestimated", "own")),
        ((0.5, 0.0), {"sample": "edge"}),
        ((0.3, 0.4), {"sample": "random"}),
    ],
)
def test_no_corner_and_no_point_beside_the_grid_is_the_best_one_however_good_it_is(point, columns):
    """Edges and random points are searched for the worst; corners are what merges compare with."""
    table = pd.concat(
        [grid(("val", *point, 0.99, 0.0), **columns), grid(("val", *CENTER, 0.5, 2.0))]
    )
    assert best_point(table, "val") == CENTER


# --- of all surfaces of an experiment -------------------------------------------------------------


def evaluated(accuracy, split):
    values = {"nll": 1 - accuracy, "accuracy": accuracy, "ece": 0.1, "brier": 0.2}
    return {"split": split, "n": 10, "statistics": "reestimated"} | values


def surface_grid(name, corners):
    """Return a grid of nine points, the better the later, and of corners as trained, the worse.

    On test it's the other way around.
    """
    rows = []
    for split in ("train", "val", "test"):
        points = grid_points(3)
        for k, (u, v) in enumerate(points[::-1] if split == "test" else points):
            at = {"surface": name, "u": u, "v": v, "sample": "grid"}
            rows.append(at | evaluated((len(name) + k) / 100, split))
            if (u, v) in CORNERS:
                trained = evaluated((len(corners) - k) / 100 + 0.5, split)
                rows.append(at | trained | {"statistics": "own"})
    return pd.DataFrame(rows)


def evaluation(weight, accuracy, splits):
    table = pd.DataFrame([evaluated(accuracy, split) for split in splits])
    return table, {split: torch.full((10, 2), weight).half() for split in splits}


def soup(mean, splits):
    """Evaluate a network of one weight: the mean of 0, 1, 2 and 3 is the best one."""
    weight = float(mean["w"])
    return evaluation(weight, 0.9 - abs(weight - 1.5) / 10, splits)


def worse(mean, splits):
    return evaluation(float(mean["w"]), 0.2, splits)


def every_row_and_soup(surfaces, evaluate=soup, grids=()):
    grids = [*(surface_grid(name, of["corners"]) for name, of in surfaces.items()), *grids]
    corners = [{"w": torch.tensor([float(k)])} for k in range(4)]
    return compare_merges(pd.concat(grids), surfaces, lambda _: corners, evaluate)


def compared(surfaces, evaluate=soup):
    return pd.DataFrame(every_row_and_soup(surfaces, evaluate)[0])


def test_all_is_picked_on_val_but_the_oracle():
    points = grid_points(3)
    table = compared(SURFACES).query("split == 'test' and surface == 'plain'").set_index("merge")
    expected = {"best-corner": ("val", 0), "best-point": ("val", 7), "oracle": ("test", 1)}
    for merge, (split, place) in expected.items():
        assert tuple(table.loc[merge, ["u", "v"]]) == points[place]
        assert table.loc[merge, "selected_on"] == split


def ordered(table):
    return table.sort_values(["merge", "surface", "split"], ignore_index=True)


def test_corners_have_their_baselines_once_however_many_surfaces_lie_on_them():
    before, after = compared(SURFACES), compared(SURFACES | FITTED)
    sizes = after.groupby(["corners", "merge"]).size()  # each on val and on test
    assert (sizes["run"] == 2).all()
    for merge, size in sizes["four"].items():
        assert size == (2 if merge in ("best-corner", "uniform-soup", "greedy-soup") else 6)
    of_fits = after["surface"].isin(FITTED)
    assert set(after.loc[of_fits, "merge"]) == {"center", "best-point", "oracle"}
    pd.testing.assert_frame_equal(ordered(after[~of_fits]), ordered(before))
    assert set(after["split"]) == {"val", "test"}


def test_nothing_depends_on_the_names_and_the_order_of_surfaces():
    names = {"plain": "curve", "along": "plain"}  # as long: the grids are of their lengths
    renamed = compared({new: SURFACES[old] for old, new in names.items()})
    expected = compared(SURFACES).assign(surface=lambda table: table["surface"].replace(names))
    pd.testing.assert_frame_equal(renamed, expected)
    reverse = compared(dict(reversed((SURFACES | FITTED).items())))
    pd.testing.assert_frame_equal(ordered(reverse), ordered(compared(SURFACES | FITTED)))


def test_a_uniform_soup_is_the_center_of_an_unfitted_surface():
    table = compared(SURFACES).drop(columns="selected_on")
    uniform, center = (table[table["merge"] == m] for m in ("uniform-soup", "center"))
    assert set(zip(uniform["u"], uniform["v"], strict=True)) == {CENTER}
    pd.testing.assert_frame_equal(
        ordered(uniform).drop(columns="merge"), ordered(center).drop(columns="merge")
    )


BLENDED = {"blended": SURFACES["plain"] | {"batchnorm": "interpolated"}}


@pytest.mark.parametrize("surfaces", [FITTED, BLENDED])
def test_where_no_center_is_that_network_a_uniform_soup_is_the_evaluated_mean_of_the_corners(
    surfaces,
):
    """Points with statistics of their surface's own are no networks as others are evaluated."""
    uniform = compared(surfaces).query("merge == 'uniform-soup'")
    assert uniform["split"].tolist() == ["val", "test"]
    assert set(uniform["surface"]) == {next(iter(surfaces))}
    assert uniform[["u", "v"]].isna().all(axis=None)
    assert uniform["accuracy"].tolist() == [0.9, 0.9]


@pytest.mark.parametrize("surfaces", [SURFACES, FITTED])
def test_the_best_corner_is_the_best_one_as_trained(surfaces):
    best = compared(surfaces).query("merge == 'best-corner' and corners == 'four'")
    assert set(zip(best["u"], best["v"], strict=True)) == {(0.0, 0.0)}  # re-estimated: (1, 1)
    assert set(best["statistics"]) == {"own"}
    assert best["accuracy"].tolist() == pytest.approx([0.54, 0.46])  # val, test


def test_a_greedy_soup_is_evaluated_on_test_once_it_is_chosen():
    asked = []

    def remember(network, splits):
        asked.append((float(network["w"]), list(splits)))
        return soup(network, splits)

    table = compared({"plain": SURFACES["plain"]}, evaluate=remember)
    # Corners as trained are best first; each further one makes the soup better.
    assert asked == [(0.5, ["val"]), (1.0, ["val"]), (1.5, ["val"]), (1.5, ["val", "test"])]
    assert table.loc[table["merge"] == "greedy-soup", "accuracy"].tolist() == [0.9, 0.9]


def test_a_greedy_soup_of_one_corner_is_that_corner_as_trained():
    rows = compared(SURFACES, evaluate=worse).query("surface == 'plain'").set_index("merge")
    shown = rows[["split", "statistics", "accuracy", "nll"]]
    soups, corners = (
        shown.loc[name].to_numpy().tolist() for name in ("greedy-soup", "best-corner")
    )
    assert soups == corners


def test_the_greedy_soup_of_each_corner_set_comes_with_its_members_and_logits(tmp_path):
    _, soups = every_row_and_soup(SURFACES)
    assert list(soups) == ["four", "run"]
    assert soups["four"].members == [0, 1, 2, 3]
    assert all(set(of.unique().tolist()) == {1.5} for of in soups["four"].logits.values())
    _, alone = every_row_and_soup(SURFACES, worse)
    assert alone == {"four": Soup([0], {}), "run": Soup([0], {})}
    for found in (soups, alone):
        save_soups(found, tmp_path / "soups.safetensors", {})
        again = load_soups(tmp_path / "soups.safetensors")
        assert [*again] == [*found]
        for corners, of in found.items():
            assert again[corners].members == of.members
            assert differing(again[corners].logits, of.logits) == []


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"format": "another", "members": {}}, "its format is 'another', expected"),
        ({"format": "fourfold-soups-1"}, "lacks ['members']"),
        ({"format": "fourfold-soups-1", "members": {"four": [0]}}, "no readable soups"),
    ],
)
def test_a_file_that_holds_no_soups_is_refused_by_its_name(tmp_path, header, said):
    save_tensors({"others/val": torch.zeros(1)}, tmp_path / "x.safetensors", header)
    with pytest.raises(InputError) as refused:
        load_soups(tmp_path / "x.safetensors")
    assert "x.safetensors" in str(refused.value) and said in str(refused.value)
