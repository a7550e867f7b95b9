"""Laws of ensembles."""

import numpy as np
import pandas as pd
import pytest
import torch
from combination.test_baselines import FITTED, SURFACES
from conftest import CORNERS

from fourfold.combination.ensemble import compare_ensembles, evaluate_ensemble, greedy_ensemble
from fourfold.errors import InputError
from fourfold.evaluation.logits import SurfaceLogits
from fourfold.evaluation.metrics import average_predictions, classification_metrics
from fourfold.surfaces.points import grid_points
from fourfold.surfaces.shapes import SQUARE


def members(networks=5, n=40, classes=4, seed=0):
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=draw)
    logits = torch.randn(networks, n, classes, generator=draw)
    logits += 1.5 * torch.nn.functional.one_hot(labels, classes)
    return logits, labels


def nll(logits, chosen, labels):
    return classification_metrics(average_predictions(logits[list(chosen)]), labels)["nll"]


def test_an_ensemble_of_identical_members_is_the_member():
    logits, labels = members(networks=1)
    alone = evaluate_ensemble(logits, [0], labels)
    together = evaluate_ensemble(logits.expand(4, -1, -1), [0, 1, 2, 3], labels)
    assert (alone.pop("forward_passes"), together.pop("forward_passes")) == (1, 4)
    assert together == pytest.approx(alone, rel=1e-5)
    assert together["disagreement"] == 0


def test_an_ensemble_depends_on_its_members_alone_and_not_on_their_order():
    logits, labels = members()
    spoiled = logits.clone()
    spoiled[3] = 1e4
    forward, backward, without_it = (
        evaluate_ensemble(given, chosen, labels)
        for given, chosen in ((logits, [0, 2, 4]), (logits, [4, 2, 0]), (spoiled, [0, 2, 4]))
    )
    assert forward == pytest.approx(backward, rel=1e-5)
    assert forward == without_it


@pytest.mark.parametrize(
    "chosen",
    [
        torch.tensor([0, 2]), np.array([0, 2]), (0, 2), range(0, 3, 2), [0, -3],
        [True, False, True, False, False],
    ],
    ids=repr,
)  # fmt: skip
def test_members_are_indices_or_a_boolean_for_each_network(chosen):
    logits, labels = members()
    assert evaluate_ensemble(logits, chosen, labels) == evaluate_ensemble(logits, [0, 2], labels)


@pytest.mark.parametrize("chosen", [[], [5], [-6], [0.5], [[0, 1]], [True], ["a"], 3], ids=repr)
def test_members_that_are_none_of_the_networks_are_refused(chosen):
    with pytest.raises(InputError, match=r"^members (is|are) "):
        evaluate_ensemble(*members()[:1], chosen, members()[1])


@pytest.mark.parametrize("seed", range(5))
def test_the_nll_of_an_ensemble_is_at_most_the_mean_of_its_members(seed):
    logits, labels = members(seed=seed)
    mean = sum(nll(logits, [i], labels) for i in range(5)) / 5
    assert evaluate_ensemble(logits, range(5), labels)["nll"] <= mean


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("max_members", [1, 3, 5, 9])
def test_each_greedy_choice_is_the_best_one_and_it_stops_when_none_helps(seed, max_members):
    logits, labels = members(seed=seed)
    chosen = greedy_ensemble(logits, labels, max_members, stop_early=False)
    assert len(set(chosen)) == len(chosen) == min(max_members, 5)
    for size in range(len(chosen)):
        left = set(range(5)) - set(chosen[:size])
        found = {i: nll(logits, [*chosen[:size], i], labels) for i in left}
        assert found[chosen[size]] == pytest.approx(min(found.values()))
    stopped = greedy_ensemble(logits, labels, max_members)
    assert stopped == chosen[: len(stopped)]
    for other in set(range(5)) - set(stopped) if len(stopped) < len(chosen) else ():
        assert nll(logits, [*stopped, other], labels) >= nll(logits, stopped, labels) - 1e-9
    assert nll(logits, stopped, labels) <= nll(logits, stopped[:1], labels) + 1e-6


def test_two_networks_that_mend_each_other_are_both_chosen_and_a_copy_is_not():
    labels = torch.zeros(8, dtype=torch.int64)
    left, right = torch.zeros(8, 2), torch.zeros(8, 2)
    left[:4, 0], left[4:, 0] = 4.1, -2.0
    right[4:, 0], right[:4, 0] = 4.0, -2.0
    both = torch.stack([left, right, left])
    assert greedy_ensemble(both, labels, 3) == [0, 1]
    assert greedy_ensemble(both, labels, 3, stop_early=False) == [0, 1, 2]


def test_a_confident_mistake_of_every_network_does_not_empty_the_ensemble():
    """exp(-200) is 0 in single precision; the nll is 200 and not infinite."""
    logits = torch.zeros(2, 4, 2)
    logits[:, :, 0] = 5.0
    logits[0, 0], logits[1, 0] = torch.tensor([0.0, 200.0]), torch.tensor([0.0, 150.0])
    labels = torch.zeros(4, dtype=torch.int64)
    assert greedy_ensemble(logits, labels, 1) == [1]
    assert greedy_ensemble(logits.half(), labels, 1) == [1]


def test_a_network_without_numbers_is_never_chosen():
    logits, labels = members()
    logits[0, 3] = float("nan")
    logits[2, 1, 0] = float("inf")
    assert sorted(greedy_ensemble(logits, labels, 5, stop_early=False)) == [1, 3, 4]


@pytest.mark.parametrize(
    ("logits", "max_members", "said"),
    [
        (members()[0][:0], 3, "there are no networks"),
        (members()[0], -1, "max_members is -1; it must be a whole number, at least 1"),
        (members()[0], 2.5, "max_members is 2.5"),
        (members()[0][0], 3, r"the shape \(40, 4\); give \(networks, n, classes\)"),
        (members()[0] / 0, 3, "each of the 5 networks has a NaN or an infinity"),
        (members()[0][:, 1:], 3, "39 images but 40 labels"),
        (members()[0][..., 1:], 3, "the largest label is 3"),
    ],
)
def test_wrong_input_is_named(logits, max_members, said):
    with pytest.raises(InputError, match=said):
        greedy_ensemble(logits, members()[1], max_members)


# --- of all surfaces of an experiment -------------------------------------------------------------

POINTS = grid_points(5)
SPLITS = {"val": torch.arange(30) % 10, "test": torch.arange(40) % 10}


def surface_logits(name, corners, statistics="reestimated"):
    """Return logits of 25 points; every corner is far better than any other point."""
    draws = {key: torch.Generator().manual_seed(len(key)) for key in (name, corners)}
    logits = {k: torch.randn(25, len(v), 10, generator=draws[name]) for k, v in SPLITS.items()}
    own = {k: torch.randn(4, len(v), 10, generator=draws[corners]) for k, v in SPLITS.items()}
    for split, labels in SPLITS.items():
        for corner in map(POINTS.index, CORNERS):
            logits[split][corner] += 9 * torch.nn.functional.one_hot(labels, 10)
    half = [{split: values.half() for split, values in part.items()} for part in (logits, own)]
    return SurfaceLogits(name, SQUARE, statistics, POINTS, *half, SPLITS)


def compared(surfaces, statistics="reestimated", **logits):
    found = {name: surface_logits(name, of["corners"], statistics) for name, of in surfaces.items()}
    return pd.DataFrame(compare_ensembles(found | logits, surfaces, 5))


def of_each(table):
    """Return (ensemble, corners) -> its rows as they are, but for these two."""
    groups = table.groupby(["ensemble", "corners"], sort=False)
    return {key: rows.iloc[:, 2:].to_dict("records") for key, rows in groups}


def points_of(members):
    return [tuple(map(float, member.split(","))) for member in members.split(";")]


def test_corners_have_their_ensembles_once_however_many_surfaces_lie_on_them():
    before, after = of_each(compared(SURFACES)), of_each(compared(SURFACES | FITTED))
    corners = ("corners", "four")
    assert list(before) == [corners, ("plain", "four"), ("run-corners", "run"), ("along", "run")]
    assert after.keys() - before.keys() == {(name, "four") for name in FITTED}
    assert {key: after[key] for key in before} == before
    assert after["one_fit", "four"] != after["plain", "four"]
    # Nor does it matter whether a surface on them is unfitted.
    assert of_each(compared(FITTED))[corners] == before[corners]


def test_nothing_depends_on_the_names_of_surfaces():
    names = {"plain": "bezier", "along": "linear"}
    logits = {new: surface_logits(old, SURFACES[old]["corners"]) for old, new in names.items()}
    renamed = compared({new: SURFACES[old] for old, new in names.items()}, **logits)
    expected = compared(SURFACES)
    expected["ensemble"] = expected["ensemble"].replace(names)
    pd.testing.assert_frame_equal(renamed, expected)


def test_members_are_as_many_on_both_sides_and_each_number_is_there():
    table = compared(SURFACES)
    sizes = table["members"].map(points_of).map(len)
    assert sizes.tolist() == table["forward_passes"].tolist()
    test = table[table["split"] == "test"]
    found = test.groupby(["ensemble", "selection"])["forward_passes"].apply(sorted)
    sizes = {"fixed": [4], "oracle": [4], "all": [21], "validation": [1, 2, 3, 4, 5]}
    assert found["corners"].to_dict() == {"fixed": [4], "subset": [1] * 4 + [2] * 6 + [3] * 4}
    assert found["plain"].to_dict() == sizes  # of 25 points four are corners


@pytest.mark.parametrize(
    ("selection", "split", "size"), [("validation", "val", 5), ("oracle", "test", 4)]
)
def test_only_the_oracle_is_chosen_on_test(selection, split, size):
    surface, rows = surface_logits("plain", "four"), compared(SURFACES)
    rows = rows[(rows["ensemble"] == "plain") & (rows["selection"] == selection)]
    others = surface.logits[split][surface.candidates]
    chosen = greedy_ensemble(others, SPLITS[split], size, stop_early=False)
    expected = [POINTS[surface.candidates[i]] for i in chosen]
    assert points_of(rows["members"].iloc[-1]) == expected


def test_a_surface_without_a_working_point_is_named():
    broken = surface_logits("plain", "four")
    broken.logits["val"][broken.candidates] = float("nan")
    with pytest.raises(InputError, match=r"surface 'plain', val: each of the 21 .* experiment"):
        compared(SURFACES, plain=broken)


@pytest.mark.parametrize(("statistics", "own"), [("reestimated", "own"), ("none", "none")])
def test_corners_are_the_networks_as_trained_and_no_members_of_ensembles_of_points(statistics, own):
    table = compared(SURFACES, statistics)
    is_corners = table["ensemble"].str.contains("corners")
    assert set(table.loc[is_corners, "statistics"]) == {own}
    assert set(table.loc[~is_corners, "statistics"]) == {statistics}
    for is_of_corners, found in zip(is_corners, table["members"].map(points_of), strict=True):
        assert set(found) <= set(CORNERS) if is_of_corners else set(found).isdisjoint(CORNERS)
    best = classification_metrics(
        average_predictions(surface_logits("plain", "four").own["test"]), SPLITS["test"]
    )
    all_four = table.query("ensemble == 'corners' and selection == 'fixed' and split == 'test'")
    assert all_four["nll"].item() == pytest.approx(best["nll"])


def test_logits_of_other_surfaces_are_refused():
    with pytest.raises(InputError, match=r"'plain', 'along', 'more'.*has \['plain', 'along'\]"):
        compared(SURFACES, more=surface_logits("more", "four"))
